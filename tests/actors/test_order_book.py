"""The order-book actor, fed with events of the test's making: no socket is opened."""

import asyncio
from contextlib import suppress
from decimal import Decimal

import pytest

from engine.actors import order_book as module
from engine.actors.order_book import OrderBookActor
from engine.book import BookReader, FollowedBook, OrderBook
from engine.book.events import DepthDiff, DepthSnapshot
from engine.book.rules import ContiguousRule, RangeRule
from engine.bus import Down, Gap
from engine.clock import VirtualClock
from engine.connectors.base import ConnectionPlan, HttpRequest, MarketDataProtocol, PublicTrade, Send, VenueNotice
from engine.connectors.errors import MalformedFrame, MalformedReply, TransportError
from engine.errors import BusError
from engine.messages import ActorStats, ActorStopping, GetBook, NetworkStatus, Side

NAME = "order_book.box.0"
PAIR = "BTC-USDT"
OTHER = "ETH-USDT"
MS = 1_000_000


class Socket:
    """What would hold the connection. The test opens it, closes it, and hands frames on."""

    made: list = []  # noqa: RUF012 - of one test

    def __init__(self, plan, handler, *, after_read, silence_s=0.0, keepalive=None, on_failed=None, **more):
        self.plan, self.handler, self.after_read, self.on_failed = plan, handler, after_read, on_failed
        self.silence_s, self.keepalive = silence_s, keepalive
        self.is_open = self.started = self.closed = False
        self.connects = 0
        self.sent, self.restarts = [], []
        self.made.append(self)

    def start(self):
        self.started = True

    def open(self):
        self.is_open = True
        self.connects += 1
        self.handler.on_open()

    def cut(self, reason="cut"):
        self.is_open = False
        self.handler.on_close(reason)

    def frame(self, data=b"frame", at=0, more_to_come=False):
        is_data = self.handler.on_frame(data, at)
        if not more_to_come:
            self.after_read()
        return is_data

    def send(self, text):
        self.sent.append(text)

    def restart(self, reason):
        self.restarts.append(reason)

    async def close(self):
        self.closed = True
        if self.is_open:
            self.cut("closed by us")


class Protocol(MarketDataProtocol):
    """A venue whose frames mean what the test put into ``events``."""

    audited = False
    rule = RangeRule

    def __init__(self):
        self.events = ()
        self.update_id = 0

    def connections(self, pairs):
        return [ConnectionPlan(url=f"wss://{pair}", pairs=(pair,)) for pair in pairs]

    def feed(self, data):
        if isinstance(self.events, Exception):
            raise self.events
        return self.events

    def sequence_rule(self, pair=""):
        return self.rule()

    pushes = False

    def snapshot_request(self, pair):
        return None if self.pushes else HttpRequest(path=f"/{pair}")

    def resubscribe(self, pair):
        return (f"un {pair}", f"sub {pair}") if self.pushes else ()

    def audit_request(self, pair):
        return HttpRequest(path=f"/audit/{pair}") if self.audited else None

    def is_pong(self, data):
        return data == b"pong"

    def parse_snapshot(self, pair, body):
        if body == b"nonsense":
            raise MalformedReply("nonsense")
        return DepthSnapshot(pair, int(body), [("100.00", "1")], [("101.00", "2")])

    def pairs_of(self, url):
        raise AssertionError("nothing is recorded here")

    def parse_recorded(self, url, body):
        raise AssertionError("nothing is recorded here")


class Client:
    """REST: rules, and snapshots at the id that the protocol stands at, or what ``answers`` says first."""

    def __init__(self, world, protocol, pairs):
        self.protocol = protocol
        self.rules = {pair: world.rule for pair in pairs}
        self.rules = {
            pair: type(world.rule)(**{**{f: getattr(rule, f) for f in rule.__struct_fields__}, "pair": pair})
            for pair, rule in self.rules.items()
        }
        self.down = []
        self.answers = []
        self.fetched = []
        self.closed = 0

    async def start(self):
        if self.down:
            raise self.down.pop()

    async def trading_rules(self, pairs):
        return {pair: rule for pair, rule in self.rules.items() if pair in pairs}

    async def fetch(self, request):
        self.fetched.append(request.path)
        answer = self.answers.pop(0) if self.answers else str(self.protocol.update_id).encode()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self):
        self.closed += 1


class Waits:
    """A back-off that is told of, and takes no time."""

    def __init__(self):
        self.given = 0
        self.resets = 0

    def next(self):
        self.given += 1
        return 0.0

    def reset(self):
        self.resets += 1


@pytest.fixture
def book_world(run, fakes, monkeypatch):
    """``book_world(body)``: ``await body(world, desk)``; ``desk`` has the actor's protocol, client and sockets."""

    def go(body, **options):
        pairs = options.get("pairs", (PAIR,))

        async def main(world):
            class Desk:
                protocol = Protocol()
                client = None
                clock = None

                async def start(self, clock=None):
                    monkeypatch.setattr(Socket, "made", [])
                    connector = fakes.connector(client=self.client, market_data=self.protocol, pairs=pairs)
                    monkeypatch.setattr(module, "connector_of", lambda params: connector)
                    self.running = await world.start(
                        OrderBookActor,
                        NAME,
                        connector="box",
                        params={"pairs": list(pairs), "depth": 10},
                        clock=clock,
                    )
                    self.actor = self.running.actor
                    for pair in pairs:
                        self.actor._backoff[pair] = Waits()
                    return self.actor

                async def synced(self, pair=PAIR, clock=None):
                    """Bring the actor up with its book in sync at update 1."""
                    await self.start(clock)
                    await world.until(lambda: Socket.made)
                    self.sockets = {socket.handler._plan.pairs[0]: socket for socket in Socket.made}
                    self.socket = self.sockets[pair]
                    self.protocol.update_id = 1
                    self.socket.open()
                    await world.until(lambda: self.state(pair) == "synced")
                    return self.actor

                def state(self, pair=PAIR):
                    books = self.actor.feed.books
                    return books[pair].state.name.lower() if pair in books else ""

                def diff(self, first, last=None, bids=(), asks=(), pair=PAIR, more_to_come=False):
                    self.protocol.events = (DepthDiff(pair, first, last or first, None, bids, asks, 0),)
                    self.sockets[pair].frame(at=world.clock.monotonic_ns(), more_to_come=more_to_come)

                def reader(self, pair=PAIR):
                    return BookReader(str(world.folder / "shm" / f"box.{pair}.book"), stale_after_ns=10**12)

            desk = Desk()
            desk.client = Client(world, desk.protocol, options.get("listed", pairs))
            monkeypatch.setattr(module, "ReconnectingWebSocket", Socket)
            await body(world, desk)

        return run(main)

    return go


async def listen(world, stream, keys=None):
    heard = []
    bus = await world.bus(f"strategy.{stream}")
    bus.subscribe(NAME, stream, lambda message, number: heard.append(message), keys=keys)
    await world.until(lambda: bus.peer_incarnation(NAME) is not None)
    return heard


def test_of_one_read_each_pair_is_told_once_this_host_first(book_world):
    other = "ETH-USDT"

    async def body(world, desk):
        actor = await desk.synced()
        desk.sockets[other].open()
        await world.until(lambda: desk.state(other) == "synced")
        told = []
        bus = await world.bus("strategy.reader")
        for stream in ("book", "levels"):
            bus.subscribe(NAME, stream, lambda message, number: told.append(message))
        await world.until(lambda: actor.books.readers and actor.levels.readers)
        told.clear()
        for update in (2, 3, 4):
            desk.diff(update, bids=[("100.50", str(update))], more_to_come=True)
        assert desk.reader().read_best(world.clock.monotonic_ns()).bid_size == 4
        desk.diff(2, bids=[("100.25", "7")], pair=other)
        await world.until(lambda: len(told) >= 4)
        seen = [(type(message).__name__, message.pair, message.update_id) for message in told]
        assert seen == [(kind, *row) for kind in ("BookUpdated", "BookLevels") for row in ((PAIR, 4), (other, 2))]
        desk.socket.after_read()
        desk.diff(5, bids=[("100.50", "5")])
        await world.until(lambda: len(told) > 4)
        assert (told[4].pair, told[4].update_id) == (PAIR, 5)

    book_world(body, pairs=(PAIR, other))


def test_an_error_while_readers_are_told_ends_the_actor(book_world, monkeypatch):
    async def body(world, desk):
        actor = await desk.synced()
        await listen(world, "book")
        await world.until(lambda: actor.books.readers)

        def fail(*arguments, **more):
            raise RuntimeError("on purpose")

        monkeypatch.setattr(actor.books, "publish", fail)
        desk.diff(2, bids=[("100.50", "3")])
        assert "on purpose" in str(actor.context.failed.result())

    book_world(body)


def test_levels_for_other_hosts_are_cells_and_strings_where_sizes_do_not_fit(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        heard = await listen(world, "levels", keys=[PAIR])
        await world.until(lambda: actor.levels.readers)
        desk.diff(2, bids=[("100.50", "3")])
        desk.diff(3, bids=[("100.25", "0.00000000001"), ("100.10", "173176223451234567.8")])
        await world.until(lambda: [message for message in heard if message.update_id == 3])
        narrow = next(message for message in heard if message.update_id == 2)
        book = OrderBook(PAIR, narrow.price_exponent, narrow.size_exponent)
        book.load_cells(narrow.bid_cells, narrow.ask_cells)
        assert book.depth() == (
            [(Decimal("100.5"), Decimal(3)), (Decimal(100), Decimal(1))],
            [(Decimal(101), Decimal(2))],
        )
        assert (narrow.bids, narrow.asks) == ([], [])
        wide = next(message for message in heard if message.update_id == 3)
        assert (wide.bid_cells, wide.ask_cells) == (b"", b"")
        assert [(Decimal(price), Decimal(size)) for price, size in wide.bids] == [
            (Decimal("100.5"), Decimal(3)),
            (Decimal("100.25"), Decimal("0.00000000001")),
            (Decimal("100.1"), Decimal("173176223451234567.8")),
            (Decimal(100), Decimal(1)),
        ]

    book_world(body)


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


def test_listeners_are_woken_up_by_pair(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.sockets[OTHER].open()
        await world.until(lambda: desk.state(OTHER) == "synced")
        heard = await listen(world, "book", keys=[PAIR])
        await world.until(lambda: desk.actor.books.readers)
        before = world.clock.monotonic_ns()
        desk.diff(2, pair=OTHER)
        desk.diff(2)
        await world.until(lambda: heard)
        (news,) = heard
        assert (news.connector, news.pair, news.update_id, news.state) == ("box", PAIR, 2, "synced")
        assert news.received_mono_ns >= before

    book_world(body, pairs=(PAIR, OTHER))


def test_an_old_diff_wakes_nobody(book_world):
    async def body(world, desk):
        await desk.synced()
        heard = await listen(world, "book")
        await world.until(lambda: desk.actor.books.readers)
        stands = desk.actor.books.last
        desk.diff(1)
        assert desk.actor.books.last == stands
        assert heard == []

    book_world(body)


def test_diffs_that_came_before_the_snapshot_are_put_on_it(book_world):
    async def body(world, desk):
        await desk.start()
        await world.until(lambda: Socket.made)
        desk.sockets = {PAIR: Socket.made[0]}
        desk.protocol.update_id = 5
        Socket.made[0].open()
        desk.diff(4, 5, bids=[("1.00", "1")])
        desk.diff(6, bids=[("100.75", "1")])
        await world.until(lambda: desk.state() == "synced")
        assert desk.actor.feed.books[PAIR].update_id == 6
        assert desk.actor.feed.books[PAIR].book.best_bid()[0] == Decimal("100.75")

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


def test_a_gap_takes_the_book_back_until_a_new_snapshot(book_world):
    async def body(world, desk):
        await desk.synced()
        heard = await listen(world, "book")
        await world.until(lambda: desk.actor.books.readers)
        reader = desk.reader()
        desk.protocol.update_id = 10
        desk.diff(9)
        assert desk.state() == "buffering"
        assert reader.read_best().status.name != "FRESH"
        await world.until(lambda: desk.state() == "synced")
        assert reader.read_best().update_id == 10
        await world.until(lambda: len(heard) == 2)
        assert [news.state for news in heard] == ["buffering", "synced"]
        desk.actor.collect()
        assert desk.actor.metrics.counters["gaps/BTC-USDT"] == 1
        assert desk.actor.metrics.counters["problems/gap"] == 1
        reader.close()

    book_world(body)


def test_snapshots_are_asked_for_ever_more_seldom(book_world):
    async def body(world, desk):
        await desk.synced()
        waits = desk.actor._backoff[PAIR]
        assert (waits.resets, waits.given) == (1, 0)
        for failures in range(1, 4):
            desk.protocol.update_id = failures * 10
            desk.diff(failures * 10 - 1)
            await world.until(lambda: desk.state() == "synced")
            assert (waits.resets, waits.given) == (1, failures)
        assert len(desk.client.fetched) == 4

    book_world(body)


def test_of_a_connection_that_flaps_the_last_opening_alone_asks_for_a_snapshot(book_world):
    async def body(world, desk):
        await desk.synced()
        asked = len(desk.client.fetched)
        for _ in range(5):
            desk.socket.cut()
            desk.socket.open()
        await world.until(lambda: desk.state() == "synced")
        assert len(desk.client.fetched) == asked + 1

    book_world(body)


def test_after_a_calm_time_a_snapshot_is_asked_for_at_once(book_world):
    async def body(world, desk):
        clock = VirtualClock(10**18)
        await desk.synced(clock=clock)
        waits = desk.actor._backoff[PAIR]
        clock.advance(module.SNAPSHOT_CALM_NS + 1)
        desk.protocol.update_id = 10
        desk.diff(9)
        await world.until(lambda: desk.state() == "synced")
        assert (waits.resets, waits.given) == (2, 0)

    book_world(body)


@pytest.mark.parametrize("answer", [TransportError("cut", sent=True), b"nonsense"])
def test_a_snapshot_that_does_not_come_is_asked_for_again(book_world, answer):
    async def body(world, desk):
        desk.client.answers = [answer, answer]
        await desk.synced()
        assert len(desk.client.fetched) == 3
        assert desk.actor._backoff[PAIR].given == 2
        assert desk.actor.metrics.counters["problems/snapshot_failed"] == 2

    book_world(body)


def test_the_answer_to_a_connection_that_is_gone_is_not_taken(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.socket.cut()
        assert desk.state() == "unsynced"
        desk.protocol.update_id = 50
        desk.socket.open()
        desk.socket.cut()
        desk.socket.open()
        await world.until(lambda: desk.state() == "synced")
        assert desk.actor.feed.books[PAIR].update_id == 50

    book_world(body)


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


def test_trades_are_passed_on_to_those_who_listen(book_world):
    async def body(world, desk):
        await desk.synced()
        desk.protocol.events = (PublicTrade(PAIR, "1", "100.10", "0.5", Side.SELL, 5),)
        desk.socket.frame()
        assert desk.actor.trades.last == 0
        heard = await listen(world, "trade")
        await world.until(lambda: desk.actor.trades.readers)
        desk.socket.frame(at=7)
        await world.until(lambda: heard)
        (trade,) = heard
        assert (trade.trade_id, trade.price, trade.size, trade.side) == ("1", Decimal("100.10"), Decimal("0.5"), "sell")
        assert (trade.connector, trade.pair, trade.time_ns, trade.received_mono_ns) == ("box", PAIR, 5, 7)
        assert desk.actor.metrics.counters["trades/BTC-USDT"] == 2

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


def pushing(desk):
    """From here on the desk's venue sends its snapshots in the stream."""
    desk.protocol.pushes = True
    desk.protocol.rule = ContiguousRule


def push(desk, update_id, pair=PAIR):
    desk.protocol.events = (DepthSnapshot(pair, update_id, [("100.00", "1")], [("101.00", "2")]),)
    desk.sockets[pair].frame()


async def connected(world, desk):
    """The actor with its sockets open and no book in sync yet."""
    await desk.start()
    await world.until(lambda: Socket.made)
    desk.sockets = {socket.handler._plan.pairs[0]: socket for socket in Socket.made}
    for socket in Socket.made:
        socket.open()


def test_a_snapshot_that_the_stream_brings_is_asked_for_on_the_pairs_own_connection(book_world):
    async def body(world, desk):
        pushing(desk)
        await connected(world, desk)
        for pair in (PAIR, OTHER):
            push(desk, 1, pair)
        assert (desk.state(), desk.state(OTHER)) == ("synced", "synced")
        desk.diff(3)
        await world.until(lambda: desk.sockets[PAIR].sent)
        assert (desk.state(), desk.state(OTHER)) == ("buffering", "synced")
        assert desk.sockets[PAIR].sent == [f"un {PAIR}", f"sub {PAIR}"]
        assert desk.sockets[OTHER].sent == []
        push(desk, 7)
        assert desk.state() == "synced"
        desk.actor.collect()
        counters = desk.actor.metrics.counters
        assert (counters[f"gaps/{PAIR}"], counters[f"resyncs/{PAIR}"], counters[f"resubscribed/{PAIR}"]) == (1, 1, 1)
        assert (counters[f"gaps/{OTHER}"], counters[f"resyncs/{OTHER}"]) == (0, 0)
        assert desk.client.fetched == []

    book_world(body, pairs=(PAIR, OTHER))


def test_a_snapshot_that_does_not_come_in_the_stream_is_asked_for_until_it_does(book_world, monkeypatch):
    monkeypatch.setattr(module, "PUSHED_WITHIN_S", 0.002)

    async def body(world, desk):
        pushing(desk)
        await connected(world, desk)
        await world.until(lambda: len(desk.sockets[PAIR].sent) >= 6)
        assert desk.actor._backoff[PAIR].given >= 2
        push(desk, 1)
        sent = len(desk.sockets[PAIR].sent)
        desk.diff(2)
        await world.until(lambda: not [task for task in desk.actor.context._tasks if "snapshot" in task.get_name()])
        assert len(desk.sockets[PAIR].sent) == sent

    book_world(body)


@pytest.mark.parametrize("differs", [False, True])
def test_books_are_audited_and_one_that_differs_is_built_anew_alone(book_world, monkeypatch, differs):
    monkeypatch.setattr(module, "AUDIT_SETTLE_S", 0.0)
    monkeypatch.setattr(Protocol, "audited", True)
    monkeypatch.setattr(Protocol, "audit_every_s", 0.01, raising=False)

    async def body(world, desk):
        desk.client.answers = []
        await desk.synced()
        desk.sockets[OTHER].open()
        await world.until(lambda: desk.state(OTHER) == "synced")
        if differs:
            desk.diff(2, bids=[("100.50", "3")])
            desk.diff(2, pair=OTHER)
            desk.protocol.update_id = 2  # at which the venue's book has no such level

        def counted(name, pair=PAIR):
            desk.actor.collect()
            return desk.actor.metrics.counters[f"{name}/{pair}"]

        await world.until(lambda: counted("audit_mismatches") if differs else counted("audits"))
        before = counted("audits", OTHER)
        await world.until(lambda: counted("audits", OTHER) > before)
        await world.until(lambda: desk.state() == "synced")
        assert (counted("audit_mismatches"), counted("resyncs")) == (differs, differs)
        assert (counted("audit_mismatches", OTHER), counted("resyncs", OTHER)) == (0, 0)
        assert desk.actor.feed.books[PAIR].book.best_bid()[0] == Decimal(100)

    logs = book_world(body, pairs=(PAIR, OTHER))
    told = [line for line in logs if line["event"] == "market data problem" and line["kind"] == "audit"]
    assert [line["pair"] for line in told] == ([PAIR] if differs else [])


def test_an_audit_without_an_answer_says_so_and_changes_nothing(book_world, monkeypatch):
    monkeypatch.setattr(Protocol, "audited", True)

    async def body(world, desk):
        await desk.synced()
        desk.client.answers = [TransportError("down", sent=False)]
        await desk.actor._audit(PAIR)
        desk.actor.collect()
        assert desk.actor.metrics.counters["audits/BTC-USDT"] == 0
        assert desk.actor.metrics.counters["problems/audit_skipped"] >= 1
        assert desk.state() == "synced"

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


class Follower:
    """Somebody who needs every change of a book: a pure core, and the bus around it."""

    def __init__(self, bus, pair=PAIR):
        self.bus = bus
        self.pair = pair
        self.followed = FollowedBook(pair)
        self.asked = 0
        self.gaps = 0
        self.tasks = set()
        bus.subscribe(NAME, "depth", self._changed, keys=[pair], on_state=self._state)

    def _changed(self, message, number):
        if self.followed.on_changed(message):
            self._ask()

    def _state(self, state):
        self.gaps += isinstance(state, Gap)
        if self.followed.on_lost() and not isinstance(state, Down):
            self._ask()

    def _ask(self):
        self.asked += 1
        task = asyncio.create_task(self._fetch())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _fetch(self):
        with suppress(BusError):
            reply = await self.bus.request(NAME, GetBook(pair=self.pair), timeout=5.0)
            if self.followed.on_snapshot(reply):
                self._ask()

    def has(self, actor):
        sync = actor.feed.books[self.pair]
        return (
            self.followed.is_synced
            and self.followed.update_id == sync.update_id
            and self.followed.book.depth() == sync.book.depth()
        )


def test_every_change_of_a_book_can_be_followed_from_the_start_and_by_who_comes_late(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        desk.sockets[OTHER].open()
        await world.until(lambda: desk.state(OTHER) == "synced")
        early = Follower(await world.bus("strategy.early"))
        await world.until(lambda: early.has(actor))
        skipped = 0
        for update in range(2, 50):
            desk.diff(update + skipped, bids=[(f"99.{update + 10}", str(update % 5))])
            desk.diff(update, asks=[("102.00", str(update))], pair=OTHER)
            if update == 20:
                late = Follower(await world.bus("strategy.late"))
            if update == 30:
                skipped = 60
                desk.protocol.update_id = 90
                desk.diff(90)  # a gap: out of sync, and whole again
                await world.until(lambda: desk.state() == "synced")
        await world.until(lambda: early.has(actor) and late.has(actor))
        assert early.followed.book.bid_count > 5
        assert (early.followed.lost, late.followed.lost, early.gaps, late.gaps) == (0, 0, 0, 0)
        answer = await early.bus.request(NAME, GetBook(pair="NO-PAIR"))
        assert not answer.ok
        assert "NO-PAIR" in answer.error

    book_world(body, pairs=(PAIR, OTHER))


def test_who_is_too_slow_for_every_change_is_told_and_begins_from_a_snapshot(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        actor.changes.queue = 20
        slow, quick = [Follower(await world.bus(f"strategy.{name}")) for name in ("slow", "quick")]
        await world.until(lambda: slow.has(actor) and quick.has(actor))
        world.network.stall("strategy.slow")
        for update in range(2, 3000):
            desk.diff(update, bids=[(f"99.{update % 90 + 10}", str(update % 7))])
            if not update % 10:
                await asyncio.sleep(0)
        await world.until(lambda: quick.has(actor))
        assert quick.gaps == 0
        world.network.resume("strategy.slow")
        await world.until(lambda: slow.has(actor))
        assert slow.gaps + slow.followed.lost >= 1

    book_world(body)


def test_nothing_is_kept_track_of_while_nobody_follows(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        desk.diff(2, bids=[("99.00", "1")])
        assert actor.changes.last == 0
        follower = Follower(await world.bus("strategy.once"))
        await world.until(lambda: follower.has(actor))
        desk.diff(3, bids=[("98.00", "1")])
        assert (actor.changes.last, actor._followed) == (1, {PAIR})
        await world.until(lambda: follower.has(actor))
        await follower.bus.close()
        await world.until(lambda: not actor.changes.readers)
        desk.diff(4, bids=[("97.00", "1")])
        assert (actor.changes.last, actor._followed) == (1, set())

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
