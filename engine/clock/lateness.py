"""How late comes what another host stamped, by that host's monotonic clock, which says nothing here by itself.

Of all that has come the fastest says how the two clocks stand to each other, give or take the shortest way; what takes
longer than that is late.
"""

from __future__ import annotations

from engine.clock.offset import DRIFT_PPM


class Lateness:
    """Of what comes from one host, by the fastest ever. Times in ns, each of its own host's monotonic clock.

    The clocks run apart, by ``drift_ppm`` at most, so what the fastest says is held to less and less as it grows old.
    """

    __slots__ = ("_arrived_ns", "_drift_ppm", "fastest_ns")

    def __init__(self, drift_ppm: int = DRIFT_PPM) -> None:
        self._drift_ppm = drift_ppm
        self.fastest_ns: int | None = None
        """What the fastest took, by the two clocks: this host's less the other's, and the way here."""
        self._arrived_ns = 0

    def forget(self) -> None:
        """One of the clocks stood still for a while: what was known holds no more."""
        self.fastest_ns = None

    def of(self, sent_ns: int, arrived_ns: int) -> int:
        """By how much this was slower than the fastest; 0 for the first, and for what is the fastest yet."""
        taken_ns = arrived_ns - sent_ns
        if self.fastest_ns is not None:
            drift_ns = -(-max(0, arrived_ns - self._arrived_ns) * self._drift_ppm // 1_000_000)
            late_ns = taken_ns - self.fastest_ns - drift_ns
            if late_ns > 0:
                return late_ns
        self.fastest_ns, self._arrived_ns = taken_ns, arrived_ns
        return 0


class RecentLateness:
    """The same by the fastest of the last one to two windows alone, a time that needs no allowance for drift.

    For a steady stream, whose way may become longer for good, or whose origin's clock may have stood still.
    """

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._began_ns: int | None = None
        self._now, self._before = Lateness(0), Lateness(0)

    def of(self, sent_ns: int, arrived_ns: int) -> int:
        """By how much this was slower than the fastest."""
        if self._began_ns is None or arrived_ns - self._began_ns > self._window_ns:
            self._began_ns = arrived_ns
            self._now, self._before = Lateness(0), self._now
        late_ns = self._now.of(sent_ns, arrived_ns)
        return late_ns if self._before.fastest_ns is None else max(late_ns, self._before.of(sent_ns, arrived_ns))

    @property
    def offset_ns(self) -> int:
        """This host's clock less the other's, and the shortest way here; 0 before anything came."""
        known = [each.fastest_ns for each in (self._now, self._before) if each.fastest_ns is not None]
        return min(known, default=0)
