"""Where time is read: the host's clocks, or a virtual one that moves only when told."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both readings of time, in nanoseconds."""

    def time_ns(self) -> int:
        """Wall time since the Unix epoch. It may step, forwards or back."""

    def monotonic_ns(self) -> int:
        """Time that never steps, comparable between the processes of one host and nowhere else."""


class WallClock:
    """The host's clocks."""

    __slots__ = ()

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class VirtualClock:
    """Time that stands still until it is advanced, for backtests and simulation.

    ``start_ns`` is the wall time at which it begins; its monotonic reading begins at 0.
    """

    __slots__ = ("_monotonic_ns", "_wall_ns")

    def __init__(self, start_ns: int) -> None:
        self._wall_ns = start_ns
        self._monotonic_ns = 0

    def time_ns(self) -> int:
        return self._wall_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, ns: int) -> None:
        """Let ``ns`` nanoseconds pass. Raises ValueError for a negative span."""
        if ns < 0:
            raise ValueError(f"time cannot go back by {-ns} ns; to step the wall clock alone use step_wall")
        self._wall_ns += ns
        self._monotonic_ns += ns

    def advance_to(self, ns: int) -> None:
        """Let time pass until the wall clock reads ``ns``. Raises ValueError when that is in the past."""
        if ns < self._wall_ns:
            raise ValueError(f"cannot advance to {ns}: it is already {self._wall_ns}")
        self.advance(ns - self._wall_ns)

    def step_wall(self, ns: int) -> None:
        """Step the wall clock alone by ``ns`` (negative: back), as a time daemon does; no time passes."""
        self._wall_ns += ns
