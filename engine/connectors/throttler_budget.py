"""What a venue's request limits leave. Pure: times come in, grants and refusals come out.

A limit is counted twice. In the venue's own windows, by its clock, where the venue's reports count as well: that is
what the venue will judge by. And in the interval that ends now, by the host's clock, so that a wrong idea of where the
venue's windows begin cannot let two windows' requests out at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from engine.connectors.throttler_cells import BUCKETS, NO_ROOM_IN_WINDOW, LimitCells
from engine.connectors.throttler_memory import key_of

ADDRESS = "address"
ACCOUNT = "account"

_EDGE_NS = 250_000_000
"""A request sent so early in a window may have been counted in the one before it, so its report says nothing."""


class Priority(enum.IntEnum):
    """Who goes first: a lower number."""

    CANCEL = 0
    QUERY = 1
    PLACE = 2
    POLL = 3


_KEPT_FROM = {Priority.CANCEL: 0.0, Priority.QUERY: 0.25, Priority.PLACE: 0.5, Priority.POLL: 1.0}
"""How much of a limit's reserve each leaves to those before it."""


class RateLimit(msgspec.Struct, frozen=True):
    """At most ``limit`` units in each ``interval_ns`` of the venue's wall clock, for an ADDRESS or an ACCOUNT.

    ``reserve``: the share that polling leaves untouched; placing leaves half of it, and only cancels may use it all.
    ``linked``: what one request that costs anything here costs at other limits as well, however much it costs here.
    """

    limit: int
    interval_ns: int
    scope: str = ADDRESS
    reserve: float = 0.2
    linked: tuple[tuple[str, int], ...] = ()

    def allowed(self, priority: Priority) -> int:
        """How many units of the limit a request of this priority may bring it to."""
        return min(max(1, int(self.limit * (1 - self.reserve * _KEPT_FROM[priority]))), 0xFFFFFFFF)


class Grant(msgspec.Struct, frozen=True, gc=False):
    """A request may be sent: what it was counted as, and when by the venue's clock."""

    venue_ns: int
    charges: tuple[tuple[str, int, int, int], ...]
    """Limit, cost, the window's number and the bucket."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A request may not be sent for ``wait_ns``, because of ``limit`` ("": of everything).

    ``never``: it alone is more than the limit, so that no waiting helps.
    """

    limit: str
    wait_ns: int
    text: str
    never: bool = False


class _Pool:
    __slots__ = ("allowed", "bucket_ns", "entry", "limit", "name", "window_ns")

    def __init__(self, name: str, limit: RateLimit, entry: int) -> None:
        self.name = name
        self.entry = entry
        self.limit = limit
        self.window_ns = limit.interval_ns
        self.bucket_ns = -(-limit.interval_ns // (BUCKETS - 1))
        self.allowed = [limit.allowed(priority) for priority in Priority]


_Costs = tuple[tuple[str, int], ...]


class Budget:
    """Counts requests in ``cells`` against limits by name.

    ``scopes``: who an ADDRESS and an ACCOUNT are, for the limits that count by these; processes that share the memory
    and name the same share the limit. Limits of no known name are none. Times: ``venue_ns`` of the venue's wall clock,
    ``mono_ns`` of the host's monotonic clock.
    """

    def __init__(self, limits: Mapping[str, RateLimit], cells: LimitCells, scopes: Mapping[str, str]) -> None:
        self._cells = cells
        self._scopes = dict(scopes)
        self._pools: dict[str, _Pool] = {}
        self._all = cells.claim(key_of("silence", self._scope(ADDRESS)))
        self._charged: dict[_Costs, tuple[tuple[_Pool, int], ...]] = {}
        self.set_limits(limits)

    def set_limits(self, limits: Mapping[str, RateLimit]) -> None:
        """Take over the limits that the venue publishes; what was used so far stays counted."""
        for name, limit in limits.items():
            key = key_of(name, str(limit.interval_ns), self._scope(limit.scope))
            self._pools[name] = _Pool(name, limit, self._cells.claim(key))
        self._charged.clear()

    def charge(self, costs: _Costs, priority: Priority, venue_ns: int, mono_ns: int) -> Grant | Refusal:
        """Count a request that is about to be sent, at all of its limits or at none."""
        cells = self._cells
        silent_ns = cells.silent_until(self._all) - mono_ns
        if silent_ns > 0:
            return Refusal("", silent_ns, _silence(silent_ns))
        pools = self._charged.get(costs) or self._charged_pools(costs)
        charges: list[tuple[str, int, int, int]] = []
        for pool, cost in pools:
            silent_ns = cells.silent_until(pool.entry) - mono_ns
            bucket = mono_ns // pool.bucket_ns
            allowed = pool.allowed[priority]
            window = (
                NO_ROOM_IN_WINDOW
                if silent_ns > 0
                else cells.charge(pool.entry, cost, allowed, venue_ns // pool.window_ns, bucket)
            )
            if window < 0:
                self._refund(charges)
                if silent_ns > 0:
                    return Refusal(pool.name, silent_ns, _silence(silent_ns))
                return self._refusal(pool, cost, allowed, venue_ns, mono_ns)
            charges.append((pool.name, cost, window, bucket))
        return Grant(venue_ns, tuple(charges))

    def limits_of(self, costs: _Costs) -> frozenset[str]:
        """The names of all limits that such a request counts against."""
        pools = self._charged.get(costs) or self._charged_pools(costs)
        return frozenset(pool.name for pool, _ in pools)

    def refund(self, grant: Grant, limits: Iterable[str] | None = None) -> None:
        """The request was not sent; or the venue does not count it against these limits."""
        wanted = None if limits is None else frozenset(limits)
        self._refund(charge for charge in grant.charges if wanted is None or charge[0] in wanted)

    def report(self, grant: Grant, counts: Mapping[str, int], venue_ns: int) -> None:
        """The venue's own counts, in its reply to this request. They count where they are higher than ours."""
        for name, used in counts.items():
            pool = self._pools.get(name)
            if pool is None:
                continue
            window, since_ns = divmod(grant.venue_ns, pool.window_ns)
            if window == venue_ns // pool.window_ns and since_ns >= min(_EDGE_NS, pool.window_ns // 20):
                self._cells.report(pool.entry, window & 0xFFFFFFFF, min(max(used, 0), 0xFFFFFFFF))

    def silence(self, until_mono_ns: int, limits: Iterable[str] = ()) -> None:
        """The venue asked for silence: refuse everything until then, or what counts against these limits."""
        entries = [self._pools[name].entry for name in limits if name in self._pools]
        for entry in entries or [self._all]:
            self._cells.silence(entry, until_mono_ns)

    def used(self, venue_ns: int) -> dict[str, int]:
        """What is used of each limit in the venue's present window."""
        return {
            name: self._cells.used(pool.entry, venue_ns // pool.window_ns) for name, pool in sorted(self._pools.items())
        }

    # ------------------------------------------------------------------------------------------------------------

    def _scope(self, scope: str) -> str:
        return f"{scope}={self._scopes.get(scope, '')}"

    def _charged_pools(self, costs: _Costs) -> tuple[tuple[_Pool, int], ...]:
        """The limits that such a request counts against, linked ones included."""
        total: dict[str, int] = {}
        for name, cost in costs:
            if cost <= 0 or name not in self._pools:
                continue
            total[name] = total.get(name, 0) + cost
            for linked, weight in self._pools[name].limit.linked:
                total[linked] = total.get(linked, 0) + weight
        found = tuple((self._pools[name], cost) for name, cost in total.items() if name in self._pools)
        self._charged[costs] = found
        return found

    def _refund(self, charges: Iterable[tuple[str, int, int, int]]) -> None:
        for name, cost, window, bucket in charges:
            self._cells.refund(self._pools[name].entry, cost, window, bucket)

    def _refusal(self, pool: _Pool, cost: int, allowed: int, venue_ns: int, mono_ns: int) -> Refusal:
        """When there will be room, by what is known now."""
        text = f"limit {pool.name} of {pool.limit.limit} is used up"
        if cost > allowed:
            return Refusal(pool.name, pool.window_ns, f"{text}: one request of {cost} is more than all", never=True)
        window = venue_ns // pool.window_ns
        bucket = mono_ns // pool.bucket_ns
        wait_ns = 0
        if self._cells.used(pool.entry, window) + cost > allowed:
            wait_ns = (window + 1) * pool.window_ns - venue_ns
        free_from = self._cells.room_from(pool.entry, bucket, allowed - cost)
        if free_from > bucket:
            wait_ns = max(wait_ns, free_from * pool.bucket_ns - mono_ns)
        return Refusal(pool.name, wait_ns, text)


def _silence(left_ns: int) -> str:
    return f"the venue asked for silence, {left_ns / 1e9:.1f} s are left"
