"""When to ask the venue again, per order: at once, then ever more seldom."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import assert_never

from engine.orders.order import Need, TrackedOrder

_SECOND = 1_000_000_000
_SPARE = 256
"""How many entries of its agenda may be outdated, beside as many as there are orders, before it is made anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How patient an account is; all in nanoseconds.

    ``send_within``: from a command to the signing of its request at the latest. ``answer_within``: how long after that
    an unanswered request is asked about. ``cancel_within``: how long a cancel may go unconfirmed. ``fills_within``: how
    long the fills may be behind the filled size. ``retry_first``, ``retry_most``: the back-off between questions.
    """

    send_within: int = 2 * _SECOND
    answer_within: int = 10 * _SECOND
    cancel_within: int = 5 * _SECOND
    fills_within: int = _SECOND // 2
    retry_first: int = _SECOND
    retry_most: int = 30 * _SECOND


class Watch:
    """The orders that need a question, and when."""

    def __init__(self, timing: Timing, horizon_ns: int) -> None:
        self._timing = timing
        self.horizon_ns = horizon_ns
        self._orders: dict[str, TrackedOrder] = {}
        self._at: dict[str, int] = {}
        self._agenda: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, client_order_id: str) -> bool:
        return client_order_id in self._at

    @property
    def planned(self) -> int:
        """How many instants it keeps, outdated ones among them."""
        return len(self._agenda)

    def at(self, client_order_id: str) -> int:
        """When a watched order is asked about next. Raises KeyError for one that is not watched."""
        return self._at[client_order_id]

    def update(self, tracked: TrackedOrder, now_ns: int) -> None:
        """Take up, keep or drop an order after it changed; a new need starts a new back-off."""
        need = tracked.present_need()
        if need is tracked.need and (need is None or tracked.id in self._at):
            return
        tracked.need = need
        tracked.attempts = 0
        if need is None:
            self._orders.pop(tracked.id, None)
            self._at.pop(tracked.id, None)
            return
        self._orders[tracked.id] = tracked
        self._put(tracked.id, self._first(tracked, need, now_ns))

    def hurry(self, tracked: TrackedOrder, now_ns: int) -> None:
        """Ask about a watched order now."""
        if tracked.id in self._at:
            self._put(tracked.id, min(now_ns, self._at[tracked.id]))

    def press(self, now_ns: int) -> None:
        """Ask now about every order that was asked about in vain: the venue can be reached again."""
        for tracked in [self._orders[key] for key, at in self._at.items() if at > now_ns]:
            if tracked.attempts:
                tracked.attempts = 0
                self._put(tracked.id, now_ns)

    def ask_all(self, now_ns: int) -> None:
        """Ask now about every order that would be asked about later: the clock by which that was planned was wrong."""
        for key, at in list(self._at.items()):
            if at > now_ns:
                self._put(key, now_ns)

    def due(self, now_ns: int) -> list[TrackedOrder]:
        """The orders to ask about now; each is put off by its back-off."""
        soonest = self.next_due()
        if soonest is None or soonest > now_ns:
            return []
        ready = [self._orders[key] for key, at in self._at.items() if at <= now_ns]
        for tracked in ready:
            self._put(tracked.id, self._again(tracked, now_ns))
        return ready

    def next_due(self) -> int | None:
        """When the next question is due, None if none is."""
        agenda = self._agenda
        while agenda:
            at, key = agenda[0]
            if self._at.get(key) == at:
                return at
            heappop(agenda)
        return None

    def _put(self, key: str, at: int) -> None:
        """Set an order's instant. What the agenda had of it before is outdated, and passed over when it comes up."""
        self._at[key] = at
        heappush(self._agenda, (at, key))
        if len(self._agenda) > 2 * len(self._at) + _SPARE:
            self._agenda = [(at, key) for key, at in self._at.items()]
            heapify(self._agenda)

    def _first(self, tracked: TrackedOrder, need: Need, now_ns: int) -> int:
        match need:
            case Need.ANSWER:
                return tracked.send_by_ns + self._timing.answer_within
            case Need.CANCEL:
                return now_ns + self._timing.cancel_within
            case Need.FILLS:
                return now_ns + self._timing.fills_within
            case Need.FATE | Need.REMOVAL:
                return now_ns
            case _:
                assert_never(need)

    def _again(self, tracked: TrackedOrder, now_ns: int) -> int:
        delay = min(self._timing.retry_first << min(tracked.attempts, 30), self._timing.retry_most)
        tracked.attempts += 1
        decided = tracked.last_acceptance_ns(self.horizon_ns) + 1
        if tracked.need in (Need.FATE, Need.ANSWER) and now_ns < decided:
            return min(now_ns + delay, decided)
        return now_ns + delay
