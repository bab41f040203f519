from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connectors.errors import TransportError
from engine.connectors.time_sync import UNSYNCED_ERROR_NS, TimeSynchronizer

MS = 1_000_000


class Venue:
    """A venue whose clock is ahead by a fixed span, reached with given delays each way (ms)."""

    def __init__(self, clock: Any, lead_ms: float, delays: list[tuple[float, float]]) -> None:
        self.clock = clock
        self.lead_ms = lead_ms
        self.delays = delays
        self.asked = 0

    @property
    def now_ns(self) -> int:
        return int(self.clock.wall_ns + self.lead_ms * MS)

    async def ask(self) -> int:
        there, back = self.delays[min(self.asked, len(self.delays) - 1)]
        self.asked += 1
        self.clock.pass_ms(there)
        said = self.now_ns // MS
        await asyncio.sleep(0)
        self.clock.pass_ms(back)
        return said


def test_before_the_first_sample_it_is_the_local_clock_with_a_large_error(clock: Any) -> None:
    time = TimeSynchronizer(clock, Venue(clock, 500, [(1, 1)]).ask)
    assert not time.is_synced
    assert time.now_ns() == clock.wall_ns
    assert time.error_ns == UNSYNCED_ERROR_NS


@settings(max_examples=60, deadline=None)
@given(
    lead_ms=st.floats(-1e6, 1e6),
    delays=st.lists(st.tuples(st.floats(0.1, 500), st.floats(0.1, 500)), min_size=1, max_size=10),
)
def test_the_true_time_lies_within_the_error(
    make_clock: Any, lead_ms: float, delays: list[tuple[float, float]]
) -> None:
    clock = make_clock()
    venue = Venue(clock, lead_ms, delays)
    time = TimeSynchronizer(clock, venue.ask)
    for _ in delays:
        asyncio.run(time.sample())
    assert abs(time.now_ns() - venue.now_ns) <= time.error_ns + 1000


def test_the_shortest_round_trip_counts(clock: Any, run: Any) -> None:
    venue = Venue(clock, 1000, [(200, 2), (1, 1), (2, 300)])
    time = TimeSynchronizer(clock, venue.ask)
    run(time.ensure())
    assert venue.asked == 3
    assert abs(time.now_ns() - venue.now_ns) < 2 * MS
    assert time.error_ns < 2 * MS


def test_a_step_of_the_wall_clock_changes_nothing(clock: Any, run: Any) -> None:
    venue = Venue(clock, 0, [(1, 1)])
    time = TimeSynchronizer(clock, venue.ask)
    run(time.ensure())
    before = time.now_ns()
    clock.wall_ns += 3_600_000 * MS
    assert time.now_ns() == before
    assert time.lead_ns < -3_599_000 * MS


def test_a_sample_is_worth_less_as_it_ages(clock: Any, run: Any) -> None:
    time = TimeSynchronizer(clock, Venue(clock, 0, [(1, 1)]).ask)
    run(time.ensure())
    fresh = time.error_ns
    clock.pass_ms(60_000)
    assert time.error_ns == pytest.approx(fresh + 6 * MS, abs=1000)


def test_callers_at_once_share_the_asking(clock: Any, run: Any) -> None:
    venue = Venue(clock, 0, [(1, 1)])
    time = TimeSynchronizer(clock, venue.ask)

    async def many() -> None:
        await asyncio.gather(*(time.ensure(samples=1) for _ in range(10)))
        assert venue.asked == 1
        await asyncio.gather(*(time.resync() for _ in range(10)))

    run(many())
    assert venue.asked == 2


def test_resync_forgets_what_was_wrong(clock: Any, run: Any) -> None:
    venue = Venue(clock, 0, [(1, 1)])
    time = TimeSynchronizer(clock, venue.ask)
    run(time.ensure())
    venue.lead_ms = 60_000
    run(time.resync())
    assert abs(time.now_ns() - venue.now_ns) < 2 * MS


def test_keeping_time_survives_failures_and_counts_them(clock: Any, run: Any) -> None:
    failed = asyncio.Event()

    async def ask() -> int:
        failed.set()
        raise TransportError("no venue", sent=False)

    time = TimeSynchronizer(clock, ask)

    async def keep() -> None:
        task = asyncio.create_task(time.keep(0.001))
        while time.failures < 3:
            failed.clear()
            await failed.wait()
        task.cancel()
        await asyncio.wait([task])

    run(keep())
    assert time.failures >= 3


def test_forgotten_samples_do_not_bring_the_wall_clock_back(clock: Any, run: Any) -> None:
    """A host whose clock is an hour off is at the venue's time, or near it, from the first sample on."""
    venue = Venue(clock, -3_600_000, [(1, 1)])
    time = TimeSynchronizer(clock, venue.ask)
    run(time.ensure())
    time.forget()
    assert not time.is_synced
    assert time.error_ns == UNSYNCED_ERROR_NS
    clock.pass_ms(500)
    assert abs(time.now_ns() - venue.now_ns) < 2 * MS
    assert abs(time.at(clock.monotonic_ns()) - venue.now_ns) < 2 * MS
