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


class _State(NamedTuple):
    at: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class Audit:
    """One comparison: the states of a book since the snapshot was asked for.

    By id where the venue has ids: only the state at the snapshot's very id is compared. By the venue's times
    where it has none: a state holds from its own time to the next one's, ``tolerance_ns`` more on both ends,
    and any state that holds at the snapshot's time may equal it. ``any_moment``: the snapshot has neither, and
    any state remembered may equal it.
    """

    def __init__(self, by_id: bool, levels: int, tolerance_ns: int, any_moment: bool = False) -> None:
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
        return AuditOutcome.DIFFERENT, f"at {what} {at} the book is not the snapshot's"

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
