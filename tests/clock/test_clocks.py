import time

import pytest

from engine.clock import VirtualClock, WallClock


def test_wall_clock_reads_the_hosts_clocks():
    clock = WallClock()
    assert abs(clock.time_ns() - time.time_ns()) < 1_000_000_000
    before = time.monotonic_ns()
    assert before <= clock.monotonic_ns() <= time.monotonic_ns()


def test_virtual_clock_moves_only_when_told():
    clock = VirtualClock(1_000)
    assert (clock.time_ns(), clock.monotonic_ns()) == (1_000, 0)
    clock.advance(5)
    clock.advance_to(1_010)
    assert (clock.time_ns(), clock.monotonic_ns()) == (1_010, 10)


def test_virtual_time_never_goes_back():
    clock = VirtualClock(1_000)
    with pytest.raises(ValueError, match="already 1000"):
        clock.advance_to(999)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_a_step_of_the_wall_clock_leaves_the_monotonic_one_alone():
    clock = VirtualClock(1_000)
    clock.advance(10)
    clock.step_wall(-500)
    assert (clock.time_ns(), clock.monotonic_ns()) == (510, 10)
