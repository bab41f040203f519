"""The mirror's sense of time: what counts as late of another host, whose clock is not compared with this one's.

And what it asks the other host for: nothing that nobody here reads.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.actors.mirror import WINDOW_NS, MirrorActor, Transit
from engine.bus import Overload
from engine.messages import Side, Trade

MS = 1_000_000
MIRROR = {
    "connector": "box",
    "order_book": "order_book.box.0",
    "pairs": ["BTC-USDT"],
    "at": "home",
    "depth": 10,
    "stale_after_ns": 500 * MS,
}
clocks = st.integers(-(10**18), 10**18)


@given(clocks, st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_lateness_is_told_from_the_fastest_whatever_the_clocks_say(ahead: int, delays_ms: list[int]) -> None:
    transit = Transit()
    fastest = min(delays_ms)
    transit.lateness(ahead, fastest * MS)
    for number, delay in enumerate(delays_ms, start=1):
        sent = number * 100 * MS
        assert transit.lateness(sent + ahead, sent + delay * MS) == (delay - fastest) * MS


@given(clocks, st.integers(1_000, 30_000))
def test_what_waited_for_the_end_of_a_cut_is_late_by_as_long_as_it_waited(ahead: int, cut_ms: int) -> None:
    transit = Transit()
    for sent in range(0, 5_000, 100):
        assert transit.lateness(sent * MS + ahead, (sent + 2) * MS) == 0
    healed = 5_000 + cut_ms
    for sent in range(5_000, healed, 100):
        assert transit.lateness(sent * MS + ahead, (healed + 2) * MS) == (healed - sent) * MS
    assert transit.lateness(healed * MS + ahead, (healed + 2) * MS) == 0


def test_clocks_that_drift_apart_are_followed() -> None:
    """By 100 µs a second, for an hour: against a fastest of the first second all would be late by then."""
    transit, lateness = Transit(), []
    for second in range(3600):
        sent = second * 1000 * MS
        lateness.append(transit.lateness(sent, sent + second * 100_000))
    assert max(lateness) <= 2 * WINDOW_NS // 10_000


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
