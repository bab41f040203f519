"""When to tick: at multiples of the interval in wall time, with numbers that never go back."""

from __future__ import annotations

from typing import NamedTuple


class NextTick(NamedTuple):
    """The tick to send next, due when wall time reaches ``time_ns``; ``skipped`` were missed before it."""

    n: int
    time_ns: int
    skipped: int

    def wait_ns(self, wall_ns: int) -> int:
        """How long from ``wall_ns`` until it is due; 0 when it already is."""
        return max(0, self.time_ns - wall_ns)


class TickSchedule:
    """Decides the next tick from wall time and the last number sent; keeps no state of its own.

    A tick's number is wall time divided by the interval, so a restarted clock carries on by itself.
    """

    __slots__ = ("interval_ns",)

    def __init__(self, interval_ns: int) -> None:
        """``interval_ns`` must be positive (ValueError)."""
        if interval_ns <= 0:
            raise ValueError(f"the tick interval must be positive, not {interval_ns} ns")
        self.interval_ns = interval_ns

    def next(self, wall_ns: int, last_n: int | None) -> NextTick:
        """The next tick at wall time ``wall_ns`` when ``last_n`` was the last one sent.

        Without ``last_n`` it is the next multiple of the interval still ahead: a predecessor may have sent
        the present one. Of several missed ticks only the newest is given. While wall time, having stepped
        back, is not past the last tick, the next is the one after it.
        """
        present = wall_ns // self.interval_ns
        if last_n is None:
            return self._tick(present + 1, 0)
        if present > last_n:
            return self._tick(present, present - last_n - 1)
        return self._tick(last_n + 1, 0)

    def _tick(self, n: int, skipped: int) -> NextTick:
        return NextTick(n, n * self.interval_ns, skipped)
