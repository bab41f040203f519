"""The order-book actor, fed with events of the test's making: no socket is opened."""

from decimal import Decimal

import pytest

from engine.actors import order_book as module
from engine.book import BookReader
from engine.clock import VirtualClock
from engine.connectors.base import Send, VenueNotice
from engine.connectors.errors import MalformedFrame, TransportError
from engine.messages import ActorStats, ActorStopping, NetworkStatus
from tests.actors.book_desk import MS, OTHER, PAIR, Protocol, Socket, Waits, listen


def test_a_book_in_sync_is_in_shared_memory(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        reader = desk.reader()
        best = reader.read_best()
        assert (best.bid, best.ask, best.update_id) == (Decimal(100), Decimal(101), 1)
        desk.diff(2, bids=[("100.50", "3")])
        best = reader.read_best()
        assert (best.bid, best.bid_size, best.update_id) == (Decimal("100.50"), Decimal(3), 2)
        assert best.status.name == "FRESH"
        actor.collect()
        assert actor.metrics.gauges["best/BTC-USDT"] == ["100.50", "3.0000", "101.00", "2.0000"]
        assert actor.metrics.gauges["book_state/BTC-USDT"] == "synced"
        assert (actor.metrics.gauges["bids/BTC-USDT"], actor.metrics.gauges["asks/BTC-USDT"]) == (2, 1)
        assert actor.metrics.counters["updates/BTC-USDT"] == 1
        assert actor.metrics.network is NetworkStatus.CONNECTED
        reader.close()

    book_world(body)


def test_a_venue_that_is_out_of_reach_is_tried_again(book_world, monkeypatch):
    monkeypatch.setattr(module, "Backoff", Waits)

    async def body(world, desk):
        desk.client.down = [TransportError("no route", sent=False)] * 2
        await desk.synced()

    logs = book_world(body)
    assert [line["event"] for line in logs].count("the venue is out of reach") == 2


def test_a_pair_that_the_venue_does_not_list_is_named_and_the_others_are_followed(book_world):
    async def body(world, desk):
        await desk.synced()
        assert list(desk.actor.feed.books) == [PAIR]

    logs = book_world(body, pairs=(PAIR, OTHER), listed=(PAIR,))
    (told,) = [line for line in logs if line["event"] == "the venue does not list these pairs"]
    assert told["pairs"] == [OTHER]


def test_a_closed_connection_takes_its_books_back_and_is_told(book_world):
    async def body(world, desk):
        await desk.synced()
        heard = await listen(world, "book")
        await world.until(lambda: desk.actor.books.readers)
        reader = desk.reader()
        desk.socket.cut("the venue closed the connection")
        await world.until(lambda: heard)
        assert heard[0].state == "unsynced"
        assert reader.read_best().status.name != "FRESH"
        desk.actor.collect()
        assert desk.actor.metrics.network is NetworkStatus.DOWN
        reader.close()

    logs = book_world(body)
    (told,) = [line for line in logs if line["event"] == "market stream closed"]
    assert told["reason"] == "the venue closed the connection"


def test_time_out_of_sync_is_added_up(book_world):
    async def body(world, desk):
        clock = VirtualClock(10**18)
        desk.client.answers = [TransportError("down", sent=False)]
        await desk.start(clock)
        await world.until(lambda: Socket.made)
        desk.sockets = {PAIR: Socket.made[0]}

        def stale():
            return desk.actor.metrics.counters.get("stale_ns/BTC-USDT", 0)

        clock.advance(100 * MS)
        desk.actor.collect()
        assert stale() == 100 * MS
        clock.advance(50 * MS)
        desk.actor.collect()
        assert stale() == 150 * MS
        clock.advance(25 * MS)
        desk.protocol.update_id = 1
        Socket.made[0].open()
        await world.until(lambda: desk.state() == "synced")
        assert stale() == 175 * MS
        clock.advance(1000 * MS)
        desk.actor.collect()
        assert stale() == 175 * MS
        Socket.made[0].cut()
        clock.advance(10 * MS)
        desk.actor.collect()
        assert stale() == 185 * MS

    book_world(body)


def test_a_frame_that_cannot_be_read_is_counted_and_harms_nothing(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.protocol.events = MalformedFrame("what?", b"frame")
        desk.socket.frame()
        desk.diff(2)
        assert desk.actor.feed.books[PAIR].update_id == 2
        desk.actor.collect()
        assert (desk.actor.metrics.counters["unparsed"], desk.actor.metrics.counters["frames"]) == (1, 2)

    logs = book_world(body)
    assert [line["kind"] for line in logs if line["event"] == "market data problem"] == ["unparsed"]


def test_what_a_venue_wants_of_a_connection_is_done_on_that_connection(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.protocol.events = (Send("pong"), VenueNotice("bye", "leaving soon", reconnect=True))
        desk.socket.frame()
        desk.protocol.events = (VenueNotice("hm", "just so you know"),)
        desk.socket.frame()
        assert (desk.socket.sent, len(desk.socket.restarts)) == (["pong"], 1)
        assert (desk.sockets[OTHER].sent, desk.sockets[OTHER].restarts) == ([], [])
        assert desk.actor.metrics.counters["problems/notice"] == 2

    book_world(body, pairs=(PAIR, OTHER))


def test_a_text_that_cannot_be_sent_costs_the_connection_alone(book_world):
    async def body(world, desk):
        await desk.synced()

        def refuse(text):
            raise TransportError("the venue does not read what is sent", sent=False)

        desk.socket.send = refuse
        desk.protocol.events = (Send("pong"),)
        desk.socket.frame()
        assert desk.socket.restarts == ["the venue does not read what is sent"]
        assert not desk.running.ended

    book_world(body)


def test_a_mistake_of_ours_ends_the_actor(book_world):
    async def body(world, desk):
        supervisor = await world.supervisor()
        await desk.synced()
        desk.protocol.events = RuntimeError("our mistake")
        desk.socket.frame()
        assert await desk.running.code() == 1
        assert "our mistake" in supervisor.of(ActorStopping)[0].error

    book_world(body)


@pytest.mark.parametrize("how", ["stop", "dead man"])
def test_the_end_closes_silently_and_removes_its_books(book_world, how):
    async def body(world, desk):
        await desk.synced()
        path = world.folder / "shm" / "box.BTC-USDT.book"
        assert path.exists()
        if how == "stop":
            assert await desk.running.stop() == 0
        else:
            desk.running.host.supervisor_died()
            assert await desk.running.code() == 0
        assert not path.exists()
        assert (desk.socket.closed, desk.client.closed) == (True, 1)

    logs = book_world(body)
    assert "market stream closed" not in [line["event"] for line in logs]


def test_it_can_be_stopped_before_it_reached_its_venue(book_world):
    async def body(world, desk):
        desk.client.down = [TransportError("no route", sent=False)] * 10_000
        await desk.start()
        assert await desk.running.stop() == 0
        assert Socket.made == []

    book_world(body)


def test_connections_that_fail_are_counted(book_world):
    async def body(world, desk):
        supervisor = await world.supervisor()
        await desk.synced()
        desk.socket.on_failed("refused", 0.1)
        await world.until(lambda: any(s.counters.get("connect_failures") for s in supervisor.of(ActorStats)))

    logs = book_world(body)
    (told,) = [line for line in logs if line["event"] == "market stream not connected"]
    assert (told["error"], told["url"]) == ("refused", f"wss://{PAIR}")


def test_a_book_has_a_heartbeat_while_nothing_happens(book_world, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.005)

    async def body(world, desk):
        await desk.synced()
        reader = BookReader(str(world.folder / "shm" / f"box.{PAIR}.book"), stale_after_ns=200 * MS)
        start = world.clock.monotonic_ns()
        await world.until(lambda: world.clock.monotonic_ns() - start > 250 * MS)
        assert reader.read_best().status.name == "FRESH"
        reader.close()

    book_world(body)


def test_a_rescale_is_counted_published_and_told_once(book_world):
    async def body(world, desk):
        await desk.synced()
        heard = await listen(world, "book")
        await world.until(lambda: desk.actor.books.readers)
        desk.diff(2, bids=[("100.005", "3")])
        desk.diff(3, bids=[("100.005", "2")])
        await world.until(lambda: (len(heard) == 1 and heard[0].update_id == 3) or len(heard) == 2)
        desk.actor.collect()
        assert desk.actor.metrics.counters["rescales/BTC-USDT"] == 1
        assert desk.actor.metrics.counters["problems/rescaled"] == 1

    logs = book_world(body)
    (told,) = [line for line in logs if line["event"] == "market data problem"]
    assert (told["kind"], told["pair"], told["log_level"]) == ("rescaled", PAIR, "info")
    assert "1e-3" in told["detail"]


def test_a_value_that_cannot_be_held_names_pair_value_and_rule(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.client.answers = [TransportError("down", sent=False)] * 1000
        desk.diff(2, bids=[("100.00", "1234567890123456789012345678901234567.1")])
        assert desk.state() == "buffering"

    logs = book_world(body)
    told = next(line for line in logs if line["event"] == "market data problem")
    assert (told["kind"], told["pair"]) == ("bad_value", PAIR)
    assert "1234567890123456789012345678901234567.1" in told["detail"]
    assert (told["price_increment"], told["size_increment"]) == ("0.01", "0.0001")


def test_a_pong_is_no_data(book_world, monkeypatch):
    monkeypatch.setattr(Protocol, "keepalive", (1.0, "ping"))

    async def body(world, desk):
        await desk.synced()
        assert desk.socket.keepalive == (1.0, "ping")
        assert desk.socket.frame(b"pong") is False
        assert desk.socket.frame(b"frame") is True

    book_world(body)


def test_a_token_of_which_there_are_a_quadrillion_at_8_decimals_is_held_to_the_last_digit(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.diff(2, bids=[("100.00", "999999999999999.12345678")])
        desk.diff(3, bids=[("100.01", "0.00000001")])
        assert desk.state() == "synced"
        depth = desk.reader().depth(2)
        assert depth.status.name == "FRESH"
        assert depth.bids == [
            (Decimal("100.01"), Decimal("0.00000001")),
            (Decimal("100.00"), Decimal("999999999999999.12345678")),
        ]

    book_world(body)
