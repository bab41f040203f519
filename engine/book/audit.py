"""Compares a book with a snapshot from elsewhere, for venues whose stream cannot show every loss.

The snapshot is about a moment that the stream has passed when the answer arrives, so an audit remembers the
book's best levels from the request on, update by update, and looks for that moment.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import NamedTuple

from engine.book.events import DepthSnapshot, Levels
from engine.book.order_book import OrderBook

_MOST_REMEMBERED = 10_000


class AuditOutcome(Enum):
    """What came of a comparison."""

    EQUAL = "equal"
    DIFFERENT = "different"
    NOT_COMPARABLE = "not_comparable"


_Side = list[tuple[Decimal, Decimal]]
Place = tuple[str, Decimal]
"""A price of a side, ``bids`` or ``asks``."""


class _State(NamedTuple):
    at: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class Audit:
    """One comparison: the states of a book since the snapshot was asked for.

    By id where the venue has ids: only the state at the snapshot's very id is compared. By the venue's times
    where it has none: a state holds from its own time to the next one's, ``tolerance_ns`` more on both ends,
    and any state that holds at the snapshot's time may equal it. ``any_moment``: the snapshot has neither, and
    any state remembered may equal it. ``batched``: the stream tells of several changes at once, and the snapshot may be
    of between two of them. So each price is looked at by itself: where it did not change around that time, the snapshot
    must say the same of it. ``differing`` are those of which it does not; a level that came and went within one batch
    may be among them, but hardly twice.
    """

    def __init__(
        self, by_id: bool, levels: int, tolerance_ns: int, any_moment: bool = False, batched: bool = False
    ) -> None:
        self.batched = batched
        self.differing: frozenset[Place] = frozenset()
        self._by_id = by_id
        self._any_moment = any_moment
        self._levels = levels
        self._tolerance = 0 if by_id else tolerance_ns
        self._states: deque[_State] = deque(maxlen=_MOST_REMEMBERED)

    def remember(self, book: OrderBook, update_id: int, time_ns: int) -> None:
        """The book's state after an update."""
        self._states.append(_State(update_id if self._by_id else time_ns, *book.depth_strings(self._levels)))

    def compare(self, snapshot: DepthSnapshot) -> tuple[AuditOutcome, str]:
        """The outcome, and for people why."""
        at = snapshot.update_id if self._by_id else snapshot.time_ns
        what = "id" if self._by_id else "time"
        if at == 0 and not self._any_moment:
            return AuditOutcome.NOT_COMPARABLE, f"the snapshot has no {what}"
        candidates = list(self._states) if self._any_moment else self._candidates(at)
        try:
            wanted = self._best(snapshot.bids, reverse=True), self._best(snapshot.asks, reverse=False)
        except (InvalidOperation, ValueError, IndexError):
            return AuditOutcome.NOT_COMPARABLE, "the snapshot cannot be read"
        if any((_numbers(state.bids), _numbers(state.asks)) == wanted for state in candidates):
            return AuditOutcome.EQUAL, ""
        if self._any_moment:
            return AuditOutcome.DIFFERENT, f"the book was the snapshot at none of {len(candidates)} moments around it"
        if not candidates:
            return AuditOutcome.NOT_COMPARABLE, f"the book did not stand at {what} {at}"
        if not self._by_id and self._states[-1].at <= at + self._tolerance:
            return AuditOutcome.NOT_COMPARABLE, f"the stream has not passed {what} {at}"
        if self.batched:
            self.differing = self._differing(candidates, *wanted)
            if not self.differing:
                return AuditOutcome.EQUAL, ""
        return AuditOutcome.DIFFERENT, f"at {what} {at} the book is not the snapshot's"

    def _differing(self, states: list[_State], bids: _Side, asks: _Side) -> frozenset[Place]:
        """Prices at which all of the states have one size, and the snapshot another."""
        found: set[Place] = set()
        for name, wanted, sign in (("bids", bids, -1), ("asks", asks, 1)):
            seen = [dict(_numbers(getattr(state, name))) for state in states]
            told = dict(wanted)
            # Beyond the last level of a list that is full, nothing is known.
            ends = [sign * max(sign * price for price in side) for side in (told, *seen) if len(side) == self._levels]
            end = min((sign * price for price in ends), default=None)
            for price in {price for side in (told, *seen) for price in side}:
                sizes = {side.get(price, Decimal(0)) for side in seen}
                known = end is None or sign * price <= end
                if known and len(sizes) == 1 and told.get(price, Decimal(0)) not in sizes:
                    found.add((name, price))
        return frozenset(found)

    def _candidates(self, at: int) -> list[_State]:
        if self._by_id:
            return [state for state in self._states if state.at == at]
        ends = [state.at for state in self._states][1:]
        found = []
        for number, state in enumerate(self._states):
            ended = number < len(ends) and ends[number] < at - self._tolerance
            if state.at <= at + self._tolerance and not ended:
                found.append(state)
        return found

    def _best(self, levels: Levels, *, reverse: bool) -> _Side:
        return sorted(_numbers(levels), reverse=reverse)[: self._levels]


def _numbers(levels: Levels) -> _Side:
    numbers = [(Decimal(level[0]), Decimal(level[1])) for level in levels]
    if not all(price.is_finite() and size.is_finite() for price, size in numbers):
        raise ValueError("not a number")
    return numbers
