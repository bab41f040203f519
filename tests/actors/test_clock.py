"""The clock: ticks at multiples of the interval, numbers that follow wall time and never go back."""

import asyncio

import pytest

from engine.actors import clock as clock_module
from engine.actors.clock import ClockActor
from engine.clock import NextTick, VirtualClock, WallClock
from engine.messages import Tick

MS = 1_000_000
START = 1_700_000_000_000 * MS


class Sleeper:
    """``asyncio.sleep`` on virtual time: every sleep moves the clock by as much, or by what the test says."""

    def __init__(self, clock):
        self.clock = clock
        self.slept = []
        self.most = 40
        self.steps = {}
        self.over = asyncio.Event()

    async def __call__(self, seconds):
        ns = round(seconds * 1e9)
        step, extra = self.steps.pop(len(self.slept), (0, 0))
        self.slept.append(ns)
        if len(self.slept) > self.most:
            self.over.set()
            await asyncio.Event().wait()
        self.clock.advance(ns + extra)
        self.clock.step_wall(step)


def beat(run, monkeypatch, *, interval_ms=100, most=20, steps=None, start=START):
    """The ticks of ``most`` sleeps on virtual time, and the sleeps. ``steps``: by sleep, (wall step, oversleeping)."""
    ticks = []
    found = []

    async def body(world):
        clock = VirtualClock(start)
        sleeper = Sleeper(clock)
        sleeper.most, sleeper.steps = most, dict(steps or {})

        class Asyncio:
            sleep = staticmethod(sleeper)

        monkeypatch.setattr(clock_module, "asyncio", Asyncio)
        running = await world.start(ClockActor, "clock", params={"interval_ns": interval_ms * MS}, wait=False)
        running.actor.clock = clock
        publish = running.actor.stream.publish

        def record(message, key=None):
            ticks.append((message, clock.time_ns(), key))
            return publish(message, key=key)

        running.actor.stream.publish = record
        await sleeper.over.wait()
        found.append((sleeper.slept, dict(running.actor.metrics.counters)))

    run(body)
    return ticks, *found[0]


def test_ticks_come_at_multiples_of_the_interval(run, monkeypatch):
    ticks, _, counters = beat(run, monkeypatch, start=START + 30 * MS)
    assert [tick.n for tick, _, _ in ticks] == list(
        range(START // (100 * MS) + 1, START // (100 * MS) + 1 + len(ticks))
    )
    for tick, at, key in ticks:
        assert (tick.time_ns, tick.interval_ns, key) == (tick.n * 100 * MS, 100 * MS, "tick")
        assert at == tick.time_ns
    assert counters == {"ticks": len(ticks)}
    assert len(ticks) >= 19


def test_the_first_tick_is_one_that_is_still_ahead(run, monkeypatch):
    ticks, slept, _ = beat(run, monkeypatch, start=START)
    assert ticks[0][0].time_ns == START + 100 * MS
    assert slept[0] == 100 * MS


def test_a_clock_that_overslept_gives_the_newest_tick_and_counts_the_others(run, monkeypatch):
    ticks, _, counters = beat(run, monkeypatch, steps={3: (0, 350 * MS)})
    numbers = [tick.n - START // (100 * MS) for tick, _, _ in ticks]
    assert numbers[:6] == [1, 2, 3, 7, 8, 9]
    assert counters["ticks_skipped"] == 3


def test_numbers_never_go_back_and_the_clock_waits_when_wall_time_does(run, monkeypatch):
    ticks, slept, _ = beat(run, monkeypatch, most=40, steps={3: (-1000 * MS, 0)})
    numbers = [tick.n - START // (100 * MS) for tick, _, _ in ticks]
    assert numbers == sorted(set(numbers))
    assert all(at >= tick.time_ns for tick, at, _ in ticks)
    assert numbers[2:5] == [3, 4, 5]
    assert sum(slept[3:15]) >= 1000 * MS


def test_a_wall_clock_that_steps_back_and_forth_does_not_keep_the_clock_waiting(run, monkeypatch):
    hour = 3600 * 1000 * MS
    ticks, slept, _ = beat(run, monkeypatch, steps={3: (-hour, 0), 5: (hour, 0)})
    assert max(slept) <= 100 * MS
    assert len(ticks) > 10


def test_a_wall_clock_that_steps_ahead_takes_the_numbers_along(run, monkeypatch):
    hour = 3600 * 1000 * MS
    ticks, _, _ = beat(run, monkeypatch, steps={3: (hour, 0)})
    assert ticks[3][0].n - ticks[2][0].n > 3600 * 9
    assert [tick.n for tick, _, _ in ticks[4:7]] == [ticks[3][0].n + more for more in (1, 2, 3)]


def test_a_restarted_clock_goes_on_with_the_numbers_of_wall_time(run):
    async def body(world):
        ticks = []
        listener = await world.bus("listener")
        listener.subscribe("clock", "tick", lambda tick, number: ticks.append(tick))
        params = {"interval_ns": 10 * MS}
        first = await world.start(ClockActor, "clock", params=params)
        await world.until(lambda: len(ticks) >= 5)
        await first.kill()
        before = len(ticks)
        await world.start(ClockActor, "clock", params=params)
        await world.until(lambda: len(ticks) >= before + 5)
        numbers = [tick.n for tick in ticks]
        assert numbers == sorted(set(numbers))
        assert abs(numbers[-1] - WallClock().time_ns() // (10 * MS)) <= 20
        for tick in ticks:
            assert tick.time_ns == tick.n * 10 * MS

    run(body)


def test_a_listener_that_was_held_up_gets_the_newest_tick_alone(run):
    async def body(world):
        ticks = []
        listener = await world.bus("listener")
        listener.subscribe("clock", "tick", lambda tick, number: ticks.append(tick))
        clock = await world.start(ClockActor, "clock", params={"interval_ns": 100_000 * MS})
        await world.until(lambda: clock.actor.stream.readers)
        world.network.stall("listener")
        for n in range(1, 5_001):
            clock.actor._send(NextTick(n, n, 0))
        world.network.resume("listener")
        await world.until(lambda: ticks and ticks[-1].n == 5_000)
        assert len(ticks) < 4_999

    run(body)


def test_a_listener_that_comes_late_hears_the_next_tick(run):
    async def body(world):
        clock = await world.start(ClockActor, "clock", params={"interval_ns": 10 * MS})
        await world.until(lambda: clock.actor.metrics.counters.get("ticks", 0) >= 3)
        ticks = []
        listener = await world.bus("listener")
        listener.subscribe("clock", "tick", lambda tick, number: ticks.append((tick, WallClock().time_ns())))
        await world.until(lambda: ticks)
        tick, at = ticks[0]
        assert isinstance(tick, Tick)
        assert tick.n >= clock.actor.metrics.counters["ticks"]
        assert at - tick.time_ns < 5_000 * MS

    run(body)


@pytest.mark.parametrize("interval", [0, -1])
def test_an_interval_must_be_positive(run, interval):
    async def body(world):
        with pytest.raises(ValueError, match="positive"):
            await world.start(ClockActor, "clock", params={"interval_ns": interval})

    run(body)
