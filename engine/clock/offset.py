"""How far another host's wall clock is from here, by asking it for the time.

Four stamps of one question: asked and heard by this host's monotonic clock, received and answered by the other's wall
clock. The other's clock was read somewhere between the two stamps of this host, so its best guess is the middle, wrong
by half of the time that question and answer were on their way at most, whichever of the two took longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

KEPT: Final = 16
DRIFT_PPM: Final = 100
"""By how much two clocks may run apart: the error of a sample grows by as much of its age."""


@dataclass(frozen=True, slots=True)
class TimeExchange:
    """One question and its answer, in ns."""

    asked_mono_ns: int
    received_ns: int
    answered_ns: int
    heard_mono_ns: int

    @property
    def round_trip_ns(self) -> int:
        """The time on the way, there and back. Negative when a clock was set in between."""
        return self.heard_mono_ns - self.asked_mono_ns - (self.answered_ns - self.received_ns)

    @property
    def offset_ns(self) -> int:
        """The other's wall clock less this host's monotonic clock, give or take :attr:`error_ns`."""
        return (self.received_ns - self.asked_mono_ns + self.answered_ns - self.heard_mono_ns) // 2

    @property
    def error_ns(self) -> int:
        return self.round_trip_ns // 2 + 1


class ClockOffset:
    """What the exchanges with one host say together: the one with the smallest error counts.

    An exchange that contradicts the one that counts shows that the other's clock was set: all before it are forgotten.
    """

    def __init__(self) -> None:
        self._kept: deque[TimeExchange] = deque(maxlen=KEPT)
        self._best: TimeExchange | None = None

    @property
    def known(self) -> bool:
        """Whether there is an exchange to go by."""
        return self._best is not None

    def add(self, exchange: TimeExchange) -> None:
        """Take in one exchange."""
        now_ns = exchange.heard_mono_ns
        if exchange.round_trip_ns < 0:
            self._kept.clear()
            self._best = None
            return
        if self._best is not None:
            apart_ns = abs(exchange.offset_ns - self._best.offset_ns)
            if apart_ns > exchange.error_ns + _error_of(self._best, now_ns):
                self._kept.clear()
        self._kept.append(exchange)
        self._best = min(self._kept, key=lambda kept: _error_of(kept, now_ns))

    def lead_ns(self, wall_ns: int, mono_ns: int) -> int:
        """How far the other's wall clock is ahead of this host's, both of whose clocks read so now; 0 if unknown."""
        return 0 if self._best is None else self._best.offset_ns + mono_ns - wall_ns

    def error_ns(self, mono_ns: int) -> int:
        """How far :meth:`lead_ns` may be off; 0 if unknown."""
        return 0 if self._best is None else _error_of(self._best, mono_ns)


def _error_of(exchange: TimeExchange, now_ns: int) -> int:
    age_ns = max(0, now_ns - exchange.heard_mono_ns)
    return exchange.error_ns + age_ns * DRIFT_PPM // 1_000_000
