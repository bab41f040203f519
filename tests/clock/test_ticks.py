import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import NextTick, TickSchedule

intervals = st.integers(10_000_000, 60_000_000_000)
walls = st.integers(0, 4_000_000_000_000_000_000)


def test_first_tick_is_the_next_multiple_still_ahead():
    schedule = TickSchedule(10)
    assert schedule.next(25, None) == NextTick(n=3, time_ns=30, skipped=0)
    assert schedule.next(30, None) == NextTick(n=4, time_ns=40, skipped=0)


def test_ticks_follow_one_another():
    assert TickSchedule(10).next(31, 3) == NextTick(n=4, time_ns=40, skipped=0)


def test_of_missed_ticks_only_the_newest_is_sent():
    tick = TickSchedule(10).next(75, 3)
    assert tick == NextTick(n=7, time_ns=70, skipped=3)
    assert tick.wait_ns(75) == 0


def test_it_waits_while_wall_time_is_behind_the_last_tick():
    tick = TickSchedule(10).next(12, 3)
    assert tick == NextTick(n=4, time_ns=40, skipped=0)
    assert tick.wait_ns(12) == 28


def test_an_interval_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        TickSchedule(0)


@given(intervals, walls, st.none() | st.integers(0, 10**12))
def test_number_rises_and_equals_time_over_interval(interval, wall, last):
    tick = TickSchedule(interval).next(wall, last)
    assert tick.time_ns == tick.n * interval
    assert last is None or tick.n > last
    assert tick.skipped == (0 if last is None else tick.n - last - 1) or tick.n == (last or 0) + 1


@given(intervals, walls, st.none() | st.integers(0, 10**12))
def test_a_tick_that_is_due_is_the_newest_one(interval, wall, last):
    tick = TickSchedule(interval).next(wall, last)
    if tick.wait_ns(wall) == 0:
        assert tick.n == wall // interval
    else:
        assert tick.time_ns == wall + tick.wait_ns(wall)


@given(intervals, walls, st.lists(st.integers(-(10**11), 10**11), max_size=30))
def test_numbers_never_repeat_or_go_back_however_wall_time_steps(interval, wall, steps):
    schedule, last, sent = TickSchedule(interval), None, []
    for step in steps:
        wall = max(0, wall + step)
        tick = schedule.next(wall, last)
        if last is None or tick.wait_ns(wall) == 0:
            last = tick.n
            sent.append(tick.n)
    assert sent == sorted(set(sent))
