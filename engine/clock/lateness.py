"""How late comes what another host stamped, by that host's monotonic clock, which says nothing here by itself.

Of all that has come the fastest says how the two clocks stand to each other, give or take the shortest way; what takes
longer than that is late. The clocks run apart, so what the fastest says is held to less and less as it grows old.
"""

from __future__ import annotations

from engine.clock.offset import DRIFT_PPM


class Lateness:
    """Of what comes from one host. Times in ns, each of its own host's monotonic clock."""

    __slots__ = ("_arrived_ns", "_fastest_ns")

    def __init__(self) -> None:
        self._fastest_ns: int | None = None
        self._arrived_ns = 0

    def forget(self) -> None:
        """One of the clocks stood still for a while: what was known holds no more."""
        self._fastest_ns = None

    def of(self, sent_ns: int, arrived_ns: int) -> int:
        """By how much this was slower than the fastest; 0 for the first, and for what is the fastest yet."""
        taken_ns = arrived_ns - sent_ns
        if self._fastest_ns is not None:
            drift_ns = max(0, arrived_ns - self._arrived_ns) * DRIFT_PPM // 1_000_000
            late_ns = taken_ns - self._fastest_ns - drift_ns
            if late_ns > 0:
                return late_ns
        self._fastest_ns, self._arrived_ns = taken_ns, arrived_ns
        return 0
