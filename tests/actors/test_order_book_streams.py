"""Who reads an order-book actor: wake-ups, levels for other hosts, trades, and every change of a book."""

import asyncio
from contextlib import suppress
from decimal import Decimal

from engine.actors import order_book as module
from engine.book import FollowedBook, OrderBook, ReadStatus
from engine.book.events import DepthDiff
from engine.bus import Down, Gap
from engine.connectors.base import PublicTrade
from engine.errors import BusError
from engine.messages import BEATS, BooksBeat, GetBook, Side, StopActor
from tests.actors.book_desk import NAME, OTHER, PAIR, listen


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


def test_of_a_long_read_readers_are_told_of_the_first_books_before_the_others(book_world):
    pairs = tuple(f"C{n:02}-USDT" for n in range(16))

    async def body(world, desk):
        actor = await desk.synced(pairs[0])
        for pair in pairs[1:]:
            desk.sockets[pair].open()
        await world.until(lambda: all(desk.state(pair) == "synced" for pair in pairs))
        stream, socket = desk.sockets[pairs[0]].handler, desk.sockets[pairs[0]]

        def burst(update):
            """All pairs in one read; after how many of them the reader rests each time."""
            rests, handed = [], 0
            for pair in pairs:
                desk.protocol.events = (DepthDiff(pair, update, update, None, [("100.50", str(update))], [], 0),)
                stream.on_frame(b"frame", 0)
                handed += 1
                if socket.rests:
                    rests.append(handed)
                    socket.after_read()
                    assert not actor.untold
                    socket.rests = False
                    handed = 0
            socket.after_read()
            return rests

        assert burst(2) == []
        told = await listen(world, "levels")
        await world.until(lambda: actor.levels.readers)
        assert burst(3) == [4, 8]
        assert burst(4) == [4, 8]
        await world.until(lambda: [message.update_id for message in told].count(4) == len(pairs))

    book_world(body, pairs=pairs)


def test_trades_wait_while_there_are_books_of_their_read_to_come(book_world):
    async def body(world, desk):
        desk.protocol.trade_mark = b"@trade"
        actor = await desk.synced()
        trades = await listen(world, "trade")
        await world.until(lambda: actor.trades.readers)
        mark = b'{"stream":"btcusdt@trade","data":1}'
        desk.protocol.events = {mark: (trade(1),)}
        desk.socket.handler.on_frame(mark, 0)
        desk.socket.rests = True
        desk.socket.after_read()
        await asyncio.sleep(0)
        assert "trades/BTC-USDT" not in actor.metrics.counters
        desk.socket.rests = False
        desk.socket.after_read()
        await asyncio.sleep(0)
        assert actor.metrics.counters["trades/BTC-USDT"] == 1
        await world.until(lambda: trades)

    book_world(body)


def trade(number):
    return PublicTrade(PAIR, str(number), "100.50", "1", Side.BUY, 0)


def test_a_books_readers_do_not_wait_for_the_trades_that_came_before_it_in_the_read(book_world):
    async def body(world, desk):
        desk.protocol.trade_mark = b"@trade"
        actor = await desk.synced()
        books, trades = await listen(world, "book"), await listen(world, "trade")
        await world.until(lambda: actor.books.readers and actor.trades.readers)
        first, second = (b'{"stream":"btcusdt@trade","data":%d}' % number for number in (1, 2))
        desk.protocol.events = {
            first: (trade(1),),
            second: (trade(2),),
            b"depth": (DepthDiff(PAIR, 2, 2, None, [("100.50", "3")], [], 0),),
        }
        for frame in (first, b"depth", second):
            desk.socket.frame(frame, at=world.clock.monotonic_ns(), more_to_come=True)
        assert desk.reader().read_best(world.clock.monotonic_ns()).bid_size == 3
        assert actor.feed.counters.frames == 1
        desk.socket.after_read()
        assert (actor.books.position.number, actor.trades.position.number) == (1, 0)
        await world.until(lambda: len(trades) == 2)
        assert [message.trade_id for message in trades] == ["1", "2"]
        await world.until(lambda: books)

    book_world(body)


def test_trades_that_nobody_reads_are_counted_at_the_next_beat_or_when_many_wait(book_world, monkeypatch):
    monkeypatch.setattr(module, "UNREAD_TRADES", 3)

    async def body(world, desk):
        desk.protocol.trade_mark = b"@trade"
        monkeypatch.setattr(module, "HEARTBEAT_S", 60.0)
        actor = await desk.synced()
        desk.protocol.events = (trade(1),)
        for number in range(1, 4):
            desk.socket.frame(b"@trade")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert actor.metrics.counters.get(f"trades/{PAIR}", 0) == (3 if number == 3 else 0)
        desk.socket.frame(b"@trade")
        actor.beat(world.clock.monotonic_ns(), 1)
        assert actor.metrics.counters[f"trades/{PAIR}"] == 4
        desk.socket.frame(b"@trade")
        await actor.stop(StopActor(grace_ns=1))
        assert actor.metrics.counters[f"trades/{PAIR}"] == 5

    book_world(body)


def test_an_error_of_a_trade_that_waited_ends_the_actor(book_world, monkeypatch):
    async def body(world, desk):
        desk.protocol.trade_mark = b"@trade"
        actor = await desk.synced()
        await listen(world, "trade")
        await world.until(lambda: actor.trades.readers)
        monkeypatch.setattr(actor.trades, "publish", lambda *arguments, **more: 1 / 0)
        desk.protocol.events = (trade(1),)
        desk.socket.frame(b"@trade")
        await world.until(actor.context.failed.done)
        assert isinstance(actor.context.failed.result(), ZeroDivisionError)

    book_world(body)


def test_when_nothing_changes_for_a_while_the_way_to_the_readers_is_walked(book_world):
    async def body(world, desk):
        desk.keep_warm_s = 0.05
        actor = await desk.synced()
        other = []
        bus = await world.bus("reader.of.one.pair")
        bus.subscribe(NAME, "book", lambda message, number: other.append(message), keys=[PAIR])
        heard = await listen(world, "book", keys=[PAIR, BEATS])
        levels = await listen(world, "levels", keys=[PAIR, BEATS])
        await world.until(lambda: actor.books.readers == 2 and actor.levels.readers)
        desk.diff(2, bids=[("100.50", "3")])
        await world.until(lambda: len(heard) >= 3)
        assert [type(message) for message in heard[-2:]] == [BooksBeat, BooksBeat]
        assert heard[-1].mono_ns > heard[-2].mono_ns
        await world.until(lambda: heard[-1] in levels)
        assert [message.update_id for message in other] == [2]

    book_world(body)


def test_what_is_told_in_time_needs_no_walk(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        heard = await listen(world, "book", keys=[PAIR, BEATS])
        await world.until(lambda: actor.books.readers)
        for update in (2, 3):
            desk.diff(update, bids=[("100.50", str(update))])
            actor.walk()
        actor.walk()
        await world.until(lambda: any(isinstance(message, BooksBeat) for message in heard))
        told = [type(message) for message in heard]
        assert (told.count(BooksBeat), told[-1]) == (1, BooksBeat)

    book_world(body)


def test_a_walk_leaves_every_book_as_it_is_and_tells_nobody_of_one(book_world):
    async def body(world, desk):
        actor = await desk.synced()
        readers = {PAIR: desk.reader(), OTHER: desk.reader(OTHER)}
        heard = await listen(world, "book")
        levels = await listen(world, "levels")
        await world.until(lambda: actor.books.readers and actor.levels.readers)
        desk.diff(2, bids=[("100.50", "3")])
        await world.until(lambda: heard and levels)
        now_ns = world.clock.monotonic_ns()
        seen = {pair: reader.read_best(now_ns) for pair, reader in readers.items()}
        assert [seen[PAIR].status, seen[OTHER].status] == [ReadStatus.FRESH, ReadStatus.UNSYNCED]
        told = [len(heard), len(levels)]
        for _ in range(5):
            actor.walk()
        await world.until(lambda: len(heard) - told[0] == len(levels) - told[1] == 4)
        assert {type(message) for message in heard[told[0] :] + levels[told[1] :]} == {BooksBeat}
        assert {pair: reader.read_best(now_ns) for pair, reader in readers.items()} == seen

    book_world(body, pairs=(PAIR, OTHER))


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
