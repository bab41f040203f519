"""What an order-book actor asks its venue for: books to begin from, and books to compare its own with."""

from decimal import Decimal

import pytest

from engine.actors import book_snapshots as module
from engine.book.events import DepthSnapshot
from engine.book.rules import ContiguousRule
from engine.clock import VirtualClock
from engine.connectors.errors import TransportError
from tests.actors.book_desk import OTHER, PAIR, Protocol, Socket, listen


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
        waits = desk.actor.snapshots.backoff[PAIR]
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
        waits = desk.actor.snapshots.backoff[PAIR]
        clock.advance(module.CALM_NS + 1)
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
        assert desk.actor.snapshots.backoff[PAIR].given == 2
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


def pushing(desk):
    """From here on the desk's venue sends its snapshots in the stream."""
    desk.protocol.pushes = True
    desk.protocol.rule = ContiguousRule


def push(desk, update_id, pair=PAIR):
    desk.protocol.events = (DepthSnapshot(pair, update_id, [("100.00", "1")], [("101.00", "2")]),)
    desk.sockets[pair].frame()


async def opened(desk):
    """The actor with its sockets open and no book in sync yet."""
    await desk.connected()
    for socket in desk.sockets.values():
        socket.open()


def test_a_snapshot_that_the_stream_brings_is_asked_for_on_the_pairs_own_connection(book_world):
    async def body(world, desk):
        pushing(desk)
        await opened(desk)
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
        await opened(desk)
        await world.until(lambda: len(desk.sockets[PAIR].sent) >= 6)
        assert desk.actor.snapshots.backoff[PAIR].given >= 2
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
        await desk.actor.snapshots._audit(PAIR)
        desk.actor.collect()
        assert desk.actor.metrics.counters["audits/BTC-USDT"] == 0
        assert desk.actor.metrics.counters["problems/audit_skipped"] >= 1
        assert desk.state() == "synced"

    book_world(body)
