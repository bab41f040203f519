"""The mirror: which of its books are fresh, and what it asks the other host for."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from engine.actors.mirror import MirrorActor
from engine.book import BookReader, OrderBook, ReadStatus
from engine.book.paths import book_path
from engine.bus import Overload
from engine.clock import VirtualClock
from engine.messages import BEATS, BookLevels, BooksBeat, BookUpdated, Side, StopActor, Trade

MS = 1_000_000
MIRROR = {
    "connector": "box",
    "order_book": "order_book.box.0",
    "pairs": ["BTC-USDT"],
    "at": "home",
    "depth": 10,
    "stale_after_ns": 500 * MS,
}


async def mirrored(world):
    """The ``levels`` stream of an origin, and the mirror that reads it."""
    _, levels = await world.publisher("order_book.box.0", "levels", overload=Overload.MERGE)
    await world.supervisor()
    mirror = await world.start(MirrorActor, "mirror.box.home", params={"mirror": MIRROR})
    await world.until(lambda: levels.readers == 1)
    return levels, mirror


def test_trades_cross_to_this_host_only_while_somebody_reads_them_here(run) -> None:
    async def body(world) -> None:
        origin, trades = await world.publisher("order_book.box.0", "trade", overload=Overload.SKIP)
        levels = origin.open_stream("levels", overload=Overload.MERGE)
        await world.supervisor()
        await world.start(MirrorActor, "mirror.box.home", params={"mirror": MIRROR})
        await world.until(lambda: levels.readers == 1)
        assert trades.readers == 0

        came: asyncio.Queue[Trade] = asyncio.Queue()
        strategy = await world.bus("strategy.s")
        reading = strategy.subscribe("mirror.box.home", "trade", lambda trade, number: came.put_nowait(trade))
        await world.until(lambda: trades.readers == 1)
        trade = Trade(
            connector="box",
            pair="BTC-USDT",
            trade_id="1",
            price=Decimal(1),
            size=Decimal(2),
            side=Side.BUY,
            time_ns=3,
            received_mono_ns=4,
        )
        trades.publish(trade, key=trade.pair)
        assert (await came.get()).trade_id == "1"

        reading.close()
        await world.until(lambda: trades.readers == 0)

    run(body)


@pytest.mark.parametrize("size", ["1.5", "173176223451234567.8"], ids=["cells", "a wide book's strings"])
def test_levels_from_another_host_are_read_here_as_they_are_there(run, size: str) -> None:
    origin = OrderBook("BTC-USDT", -2, -11)
    origin.apply_snapshot([("100.50", size), ("100.25", "0.00000000001")], [("101.00", "0.125")])

    async def body(world) -> None:
        levels, _ = await mirrored(world)
        now = world.clock.monotonic_ns()
        bids, asks = origin.depth_strings() if origin.is_wide else ([], [])
        bid_cells, ask_cells = (b"", b"") if origin.is_wide else origin.cells()
        message = BookLevels(
            connector="box",
            pair="BTC-USDT",
            update_id=7,
            time_ns=8,
            received_mono_ns=now,
            mono_ns=now,
            state="synced",
            price_exponent=origin.price_exponent,
            size_exponent=origin.size_exponent,
            bid_cells=bid_cells,
            ask_cells=ask_cells,
            bids=bids,
            asks=asks,
        )
        levels.publish(message, key="BTC-USDT")
        levels.publish(BooksBeat(mono_ns=now), key="")
        reader = BookReader(book_path(world.folder / "shm", "box", "BTC-USDT", "home"))
        await world.until(lambda: reader.read_best().update_id == 7)
        assert [list(side) for side in (reader.depth().bids, reader.depth().asks)] == list(origin.depth())
        reader.close()

    run(body)


def test_the_origins_beats_reach_this_hosts_readers_who_ask_for_them(run) -> None:
    async def body(world) -> None:
        levels, mirror = await mirrored(world)
        strategy = await world.bus("strategy.s")
        heard: list[BooksBeat] = []
        strategy.subscribe("mirror.box.home", "book", lambda beat, number: heard.append(beat), keys={"BTC-USDT", BEATS})
        await world.until(lambda: mirror.actor.books.readers == 1)
        levels.publish(BooksBeat(mono_ns=5), key=BEATS)
        await world.until(lambda: heard)
        assert heard == [BooksBeat(mono_ns=5)]

    run(body)


def test_levels_that_come_while_it_stops_are_left_alone(run) -> None:
    async def body(world) -> None:
        levels, mirror = await mirrored(world)
        levels.publish(levels_of("BTC-USDT", "100", 1, world.clock.monotonic_ns()), key="BTC-USDT")
        await world.until(lambda: mirror.actor.writers)
        levels.publish(levels_of("BTC-USDT", "200", 2, world.clock.monotonic_ns()), key="BTC-USDT")
        await mirror.actor.stop(StopActor(grace_ns=1))
        await world.until(lambda: levels.readers == 0)
        assert mirror.actor.bus.stats()["handler_errors"] == 0

    run(body)


def levels_of(pair: str, price: str, update_id: int, now_ns: int) -> BookLevels:
    book = OrderBook(pair, -2, -4)
    book.apply_snapshot([(price, "1")], [(str(Decimal(price) + 1), "1")])
    bid_cells, ask_cells = book.cells()
    return BookLevels(
        connector="box",
        pair=pair,
        update_id=update_id,
        time_ns=0,
        received_mono_ns=now_ns,
        mono_ns=now_ns,
        state="synced",
        price_exponent=-2,
        size_exponent=-4,
        bid_cells=bid_cells,
        ask_cells=ask_cells,
    )


@pytest.mark.parametrize("restarted", [True, False], ids=["by another origin", "after a cut"])
def test_a_beat_after_the_origin_was_out_of_reach_says_nothing_of_a_book_that_has_not_come_again(
    run, restarted: bool
) -> None:
    """What was missed is not known: a pair may be out of step there, or not be kept any more."""
    settings = {**MIRROR, "pairs": ["BTC-USDT", "ETH-USDT"]}

    async def body(world) -> None:
        clock = VirtualClock(10**18)
        origin, levels = await world.publisher("order_book.box.0", "levels", overload=Overload.MERGE)
        await world.supervisor()
        await world.start(MirrorActor, "mirror.box.home", params={"mirror": settings}, clock=clock)
        await world.until(lambda: levels.readers == 1)
        readers = {}
        for pair in settings["pairs"]:
            levels.publish(levels_of(pair, "100", 1, 0), key=pair)
            readers[pair] = BookReader(book_path(world.folder / "shm", "box", pair, "home"))
            await world.until(lambda pair=pair: readers[pair].read_best().update_id == 1)

        clock.advance(10_000 * MS)
        world.network.kill("order_book.box.0")
        await world.until(lambda: levels.readers == 0)
        again = await world.bus("order_book.box.0", origin.incarnation + restarted)
        levels = again.open_stream("levels", overload=Overload.MERGE)
        await world.until(lambda: levels.readers == 1)
        now_ns = clock.monotonic_ns()
        levels.publish(BooksBeat(mono_ns=now_ns), key="")
        levels.publish(levels_of("ETH-USDT", "200", 2, now_ns), key="ETH-USDT")
        await world.until(lambda: readers["ETH-USDT"].read_best().update_id == 2)
        assert readers["ETH-USDT"].read_best(now_ns).status is ReadStatus.FRESH
        assert readers["BTC-USDT"].read_best(now_ns).status is ReadStatus.STALE

        clock.advance(1_000 * MS)
        now_ns = clock.monotonic_ns()
        levels.publish(levels_of("BTC-USDT", "300", 3, now_ns), key="BTC-USDT")
        levels.publish(BooksBeat(mono_ns=now_ns), key="")
        await world.until(lambda: readers["ETH-USDT"].read_best(now_ns).status is ReadStatus.FRESH)
        assert readers["BTC-USDT"].read_best(now_ns).update_id == 3
        for reader in readers.values():
            reader.close()

    run(body)


def test_levels_that_come_again_and_beats_wake_no_strategy_up_and_change_no_book(run) -> None:
    async def body(world) -> None:
        levels, mirror = await mirrored(world)
        strategy = await world.bus("strategy.s")
        heard: list[object] = []
        strategy.subscribe("mirror.box.home", "book", lambda message, number: heard.append(message))
        await world.until(lambda: mirror.actor.books.readers == 1)
        reader = BookReader(book_path(world.folder / "shm", "box", "BTC-USDT", "home"), stale_after_ns=10**12)
        now_ns = world.clock.monotonic_ns()
        first = levels_of("BTC-USDT", "100", 1, now_ns)
        lost = msgspec.structs.replace(levels_of("BTC-USDT", "200", 2, now_ns + 1), state="unsynced")
        for known, status in ((first, ReadStatus.FRESH), (lost, ReadStatus.UNSYNCED)):
            for number in range(3):
                levels.publish(known, key=known.pair)
                levels.publish(BooksBeat(mono_ns=now_ns + number), key=BEATS)
                await world.until(lambda number=number: heard and heard[-1] == BooksBeat(mono_ns=now_ns + number))
                best = reader.read_best(now_ns)
                assert (best.status, best.update_id) == (status, 1)
                heard.append(None)
        assert [message.state for message in heard if isinstance(message, BookUpdated)] == ["synced", "unsynced"]
        reader.close()

    run(body)


def test_a_book_that_was_stale_and_is_not_any_more_is_told_of_though_it_has_not_changed(run) -> None:
    async def body(world) -> None:
        clock = VirtualClock(10**18)
        _, levels = await world.publisher("order_book.box.0", "levels", overload=Overload.MERGE)
        await world.supervisor()
        mirror = await world.start(MirrorActor, "mirror.box.home", params={"mirror": MIRROR}, clock=clock)
        strategy = await world.bus("strategy.s")
        heard: list[object] = []
        strategy.subscribe("mirror.box.home", "book", lambda message, number: heard.append(message))
        await world.until(lambda: levels.readers == mirror.actor.books.readers == 1)
        levels.publish(levels_of("BTC-USDT", "100", 1, clock.monotonic_ns()), key="BTC-USDT")
        for wait_ms, told in ((0, 1), (400, 1), (600, 2), (100, 2)):
            clock.advance(wait_ms * MS)
            beat = BooksBeat(mono_ns=clock.monotonic_ns())
            levels.publish(beat, key=BEATS)
            await world.until(lambda beat=beat: heard and heard[-1] == beat)
            assert sum(isinstance(message, BookUpdated) for message in heard) == told

    run(body)
