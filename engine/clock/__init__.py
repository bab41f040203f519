"""Time: what the engine reads it from, and when the clock actor ticks."""

from engine.clock.clocks import Clock, VirtualClock, WallClock
from engine.clock.lateness import Lateness, RecentLateness
from engine.clock.offset import ClockOffset, TimeExchange
from engine.clock.ticks import NextTick, TickSchedule

__all__ = [
    "Clock",
    "ClockOffset",
    "Lateness",
    "NextTick",
    "RecentLateness",
    "TickSchedule",
    "TimeExchange",
    "VirtualClock",
    "WallClock",
]
