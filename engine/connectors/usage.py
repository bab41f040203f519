"""What a venue's request limits leave, as it counts them itself.

A first guard, not a scheduler: it refuses what would break a limit instead of queueing it, keeps a reserve
for cancels, and stays silent for as long as the venue said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from engine.connectors.errors import RateLimited

RESERVE = 0.1
"""The share of a limit that only cancels may use."""
_EVERYTHING = ""


class UsageLimit(msgspec.Struct, frozen=True):
    """At most ``limit`` units in each ``interval_ns`` of the venue's wall clock."""

    limit: int
    interval_ns: int


class _Window:
    __slots__ = ("in_flight", "index", "limit", "used")

    def __init__(self, limit: UsageLimit) -> None:
        self.limit = limit
        self.index = 0
        self.used = 0
        self.in_flight = 0

    def roll(self, now_ns: int) -> None:
        index = now_ns // self.limit.interval_ns
        if index != self.index:
            self.index = index
            self.used = 0


class UsageBudget:
    """Counts requests against the venue's windows. Times are the venue's wall clock's, in nanoseconds."""

    def __init__(self, limits: Mapping[str, UsageLimit]) -> None:
        self._windows = {name: _Window(limit) for name, limit in limits.items()}
        self._silent_until_ns: dict[str, int] = {}

    def set_limits(self, limits: Mapping[str, UsageLimit]) -> None:
        """Take over the limits that the venue publishes; what was used so far stays counted."""
        for name, limit in limits.items():
            window = self._windows.get(name)
            if window is None:
                self._windows[name] = _Window(limit)
            else:
                window.limit = limit

    def admit(self, costs: Mapping[str, int], now_ns: int, *, urgent: bool = False) -> None:
        """Count a request that is about to be sent; RateLimited (``local``) if it must not be.

        ``urgent`` requests may use the reserve, and nothing else: after the venue said stop, nothing is sent.
        """
        for name in (_EVERYTHING, *costs):
            wait = (self._silent_until_ns.get(name, 0) - now_ns) / 1e9
            if wait > 0:
                raise RateLimited("local", f"the venue asked for silence, {wait:.1f} s are left", wait, local=True)
        for name, cost in costs.items():
            self._check(name, cost, now_ns, urgent)
        for name, cost in costs.items():
            window = self._windows.get(name)
            if window is not None:
                window.in_flight += cost

    def settle(self, costs: Mapping[str, int], now_ns: int, reported: Mapping[str, int] | None = None) -> None:
        """A request came to its end. ``reported``: the venue's own count after it, where it told one."""
        for name, cost in costs.items():
            window = self._windows.get(name)
            if window is not None:
                window.roll(now_ns)
                window.in_flight -= cost
                window.used += cost
        for name, used in (reported or {}).items():
            window = self._windows.get(name)
            if window is not None:
                window.used = used

    def silence(self, seconds: float, now_ns: int, limits: Iterable[str] = ()) -> None:
        """The venue asked for silence: refuse everything until then, or what counts against these limits."""
        until_ns = now_ns + int(seconds * 1e9)
        for name in tuple(limits) or (_EVERYTHING,):
            self._silent_until_ns[name] = max(self._silent_until_ns.get(name, 0), until_ns)

    def used(self, now_ns: int) -> dict[str, int]:
        """What is used of each limit in its present window."""
        for window in self._windows.values():
            window.roll(now_ns)
        return {name: window.used + window.in_flight for name, window in self._windows.items()}

    def _check(self, name: str, cost: int, now_ns: int, urgent: bool) -> None:
        window = self._windows.get(name)
        if window is None:
            return
        window.roll(now_ns)
        allowed = window.limit.limit if urgent else int(window.limit.limit * (1 - RESERVE))
        if window.used + window.in_flight + cost > allowed:
            wait = ((window.index + 1) * window.limit.interval_ns - now_ns) / 1e9
            raise RateLimited("local", f"limit {name} of {window.limit.limit} is used up", wait, local=True)
