"""Requests let out as a venue's limits allow, the most pressing first.

Whoever wants to send asks for a :class:`~engine.connectors.throttler_budget.Grant`. Where the limits leave no room it
waits, up to an instant of its own, or is refused at once if room will come too late. What waits is let out at the
instant at which room comes, in order of priority; nothing that is less pressing passes it at a limit that it waits
for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.connectors.errors import RateLimited, TransportError
from engine.connectors.throttler_budget import ACCOUNT, ADDRESS, Budget, Grant, Priority, RateLimit, Refusal
from engine.connectors.throttler_memory import open_memory
from engine.errors import VenueError

if TYPE_CHECKING:
    from engine.connectors.base import Clock

__all__ = ["ACCOUNT", "ADDRESS", "Grant", "Priority", "RateLimit", "Throttler"]

_Costs = tuple[tuple[str, int], ...]
MOST_SILENCE_S = 3 * 86_400.0
"""The longest ban that a venue documents; what it says beyond that is a mistake, and would last over restarts."""
_TRIES = 3
_LEAST_WAIT_NS = 1_000_000


class Throttler:
    """One process's way through a venue's limits.

    ``shared``: a file in which all processes of the host count together, those of one ``address`` and those of one
    ``account`` (an API key, say) each at its own limits; without it, this process counts alone. ``venue_now_ns``: the
    venue's wall clock, in whose windows it counts.
    """

    def __init__(
        self,
        limits: Mapping[str, RateLimit],
        *,
        clock: Clock,
        venue_now_ns: Callable[[], int],
        address: str = "",
        account: str = "",
        shared: str | Path | None = None,
    ) -> None:
        self._clock = clock
        self._venue_now_ns = venue_now_ns
        self._budget = Budget(limits, open_memory(shared), {ADDRESS: address, ACCOUNT: account})
        self._limits = dict(limits)
        self._lanes: dict[tuple[Priority, _Costs], _Lane] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.waiting = 0
        self.waited = 0
        self.refused = 0

    def set_limits(self, limits: Mapping[str, RateLimit]) -> None:
        """Take over the limits that the venue publishes. Of a known one only the number changes, not whose it is."""
        for name, limit in limits.items():
            known = self._limits.get(name)
            if known is not None and known.interval_ns == limit.interval_ns:
                limit = RateLimit(limit.limit, known.interval_ns, known.scope, known.reserve, known.linked)
            self._limits[name] = limit
        self._budget.set_limits(self._limits)
        self._let_out()

    def try_acquire(self, costs: Mapping[str, int], priority: Priority = Priority.POLL) -> Grant:
        """Count a request that is sent now; RateLimited (``local``) if it must not be."""
        outcome = self._charge(tuple(costs.items()), priority)
        if isinstance(outcome, Grant):
            return outcome
        raise self._refuse(outcome)

    def grant(self, costs: tuple[tuple[str, int], ...], priority: Priority = Priority.POLL) -> Grant | None:
        """Count a request that is sent now; None if it would have to wait."""
        outcome = self._charge(costs, priority)
        return outcome if isinstance(outcome, Grant) else None

    async def acquire(
        self, costs: Mapping[str, int], priority: Priority = Priority.POLL, until_mono_ns: int | None = None
    ) -> Grant:
        """The same, after waiting for room as long as it comes by ``until_mono_ns``; without that, never waits."""
        wanted = tuple(costs.items())
        outcome = self._charge(wanted, priority)
        if isinstance(outcome, Grant):
            return outcome
        if until_mono_ns is None or not self._comes_by(outcome, until_mono_ns):
            raise self._refuse(outcome)
        return await self._wait(wanted, priority, outcome, until_mono_ns)

    def refund(self, grant: Grant, limits: Iterable[str] | None = None) -> None:
        """The request was not sent after all; or the venue does not count it against these limits."""
        self._budget.refund(grant, limits)
        if self.waiting:
            self._arm(0)

    def report(self, grant: Grant, counts: Mapping[str, int]) -> None:
        """What the venue counts itself, in its reply to the request of this grant."""
        self._budget.report(grant, counts, self._venue_now_ns())

    def silence(self, seconds: float, limits: Iterable[str] = ()) -> None:
        """The venue asked for silence: nothing is sent until then, or nothing that counts against these limits.

        At most :data:`MOST_SILENCE_S`: then it may say so again.
        """
        seconds = min(max(seconds, 0.0), MOST_SILENCE_S)
        self._budget.silence(self._clock.monotonic_ns() + int(seconds * 1e9), limits)

    def used(self) -> dict[str, int]:
        """What is used of each limit in the venue's present window, by all who share it."""
        return self._budget.used(self._venue_now_ns())

    def close(self) -> None:
        """What still waits is told that it was not sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for lane in self._lanes.values():
            for waiter in lane.waiters:
                waiter.fail(TransportError("the client was closed", sent=False))
            lane.waiters.clear()

    # -------------------------------------------------------------------------------------------------- counting

    def _charge(self, costs: _Costs, priority: Priority) -> Grant | Refusal:
        behind = self._behind(costs, priority) if self.waiting else None
        if behind is not None:
            return behind
        return self._count(costs, priority)

    def _count(self, costs: _Costs, priority: Priority) -> Grant | Refusal:
        tries = 0
        while True:
            outcome = self._budget.charge(costs, priority, self._venue_now_ns(), self._clock.monotonic_ns())
            if isinstance(outcome, Grant) or outcome.wait_ns > 0:
                return outcome
            # No room and no waiting: another process counted and took back in between.
            tries += 1
            if tries == _TRIES:
                return Refusal(outcome.limit, _LEAST_WAIT_NS, outcome.text)

    def _behind(self, costs: _Costs, priority: Priority) -> Refusal | None:
        """Whether others wait for the same, who came earlier or press more."""
        names = self._budget.limits_of(costs)
        for lane in self._lanes.values():
            if lane.waiters and lane.priority <= priority and (not lane.blocked_by or lane.blocked_by in names):
                wait_ns = max(_LEAST_WAIT_NS, lane.room_mono_ns - self._clock.monotonic_ns())
                return Refusal(lane.blocked_by, wait_ns, f"others wait for limit {lane.blocked_by or 'of all'}")
        return None

    def _refuse(self, refusal: Refusal) -> RateLimited:
        self.refused += 1
        return RateLimited("local", refusal.text, refusal.wait_ns / 1e9, local=True)

    def _comes_by(self, refusal: Refusal, until_mono_ns: int) -> bool:
        return not refusal.never and self._clock.monotonic_ns() + refusal.wait_ns <= until_mono_ns

    # --------------------------------------------------------------------------------------------------- waiting

    async def _wait(self, costs: _Costs, priority: Priority, refusal: Refusal, until_mono_ns: int) -> Grant:
        lane = self._lanes.setdefault((priority, costs), _Lane(costs, priority))
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), until_mono_ns)
        if not lane.waiters:
            lane.learn(refusal, self._clock.monotonic_ns())
        lane.waiters.append(waiter)
        self.waiting += 1
        self.waited += 1
        self._arm(refusal.wait_ns)
        left_s = (until_mono_ns - self._clock.monotonic_ns()) / 1e9
        too_late = loop.call_later(left_s, self._too_late, waiter, lane)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            waiter.withdraw(self._budget)
            raise
        finally:
            too_late.cancel()
            self.waiting -= 1
            lane.forget_done()

    def _too_late(self, waiter: _Waiter, lane: _Lane) -> None:
        wait_ns = max(0, lane.room_mono_ns - self._clock.monotonic_ns())
        waiter.fail(self._refuse(Refusal(lane.blocked_by, wait_ns, f"limit {lane.blocked_by} left no room in time")))

    def _arm(self, wait_ns: int) -> None:
        """Look again then, or earlier if that is already planned."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(wait_ns, _LEAST_WAIT_NS) / 1e9
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = loop.call_at(at, self._let_out), at

    def _let_out(self) -> None:
        """Let out what there is room for, in order, and plan the next look."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        blocked: set[str] = set()
        next_ns: int | None = None
        for key in sorted(self._lanes):
            lane = self._lanes[key]
            held = "" in blocked or not blocked.isdisjoint(self._budget.limits_of(lane.costs))
            refusal = None if held else self._serve(lane)
            if refusal is not None:
                blocked.add(refusal.limit)
                next_ns = refusal.wait_ns if next_ns is None else min(next_ns, refusal.wait_ns)
            if not lane.waiters:
                del self._lanes[key]
        if next_ns is not None:
            self._arm(next_ns)

    def _serve(self, lane: _Lane) -> Refusal | None:
        """Grants to a lane's waiters in turn, until one cannot be: why not."""
        while lane.waiters:
            waiter = lane.waiters[0]
            if waiter.future.done():
                lane.forget_done()
                continue
            outcome = self._count(lane.costs, lane.priority)
            if isinstance(outcome, Grant):
                waiter.grant(outcome)
            elif self._comes_by(outcome, waiter.until_mono_ns):
                lane.learn(outcome, self._clock.monotonic_ns())
                return outcome
            else:
                waiter.fail(self._refuse(outcome))
            lane.waiters.popleft()
        return None


class _Waiter:
    __slots__ = ("future", "until_mono_ns")

    def __init__(self, future: asyncio.Future[Grant], until_mono_ns: int) -> None:
        self.future = future
        self.until_mono_ns = until_mono_ns

    def grant(self, grant: Grant) -> None:
        self.future.set_result(grant)

    def fail(self, error: VenueError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def withdraw(self, budget: Budget) -> None:
        """Whoever waited was cancelled; a grant that it no longer hears of is given back."""
        if self.future.done() and not self.future.cancelled() and self.future.exception() is None:
            budget.refund(self.future.result())


class _Lane:
    """Waiting requests of one kind, in the order in which they came."""

    __slots__ = ("blocked_by", "costs", "priority", "room_mono_ns", "waiters")

    def __init__(self, costs: _Costs, priority: Priority) -> None:
        self.costs = costs
        self.priority = priority
        self.waiters: deque[_Waiter] = deque()
        self.blocked_by = ""
        self.room_mono_ns = 0

    def learn(self, refusal: Refusal, mono_ns: int) -> None:
        """Why the first one waits, and until when at least."""
        self.blocked_by = refusal.limit
        self.room_mono_ns = mono_ns + refusal.wait_ns

    def forget_done(self) -> None:
        """Drop those at the head that no longer wait."""
        while self.waiters and self.waiters[0].future.done():
            self.waiters.popleft()
