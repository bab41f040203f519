"""How a venue numbers what it says of a book, and so how a lost message shows."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from engine.book.events import DepthDiff


class Verdict(Enum):
    """What to do with a diff, given where the book stands."""

    APPLY = "apply"
    DROP = "drop"
    """It is in the book already."""
    GAP = "gap"
    """Something between the book and this diff is missing."""


class SequenceRule(Protocol):
    """One venue's numbering.

    ``replacing``: snapshots come in the stream itself, unasked, and each replaces the book; a rule without it
    takes a snapshot only after one was asked for.
    """

    replacing: bool

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        """Judges a diff against the snapshot it would be the first to follow. GAP: the snapshot is too old
        for it.
        """
        ...

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        """Judges a diff against a book that stands at the last id of the diff before."""
        ...


class RangeRule:
    """Each diff covers a range of ids, and the next range begins where the last one ended.

    The rule of Binance's spot streams ("How to manage a local order book correctly", web-socket-streams.md):
    a diff that ends at or before the book's id is old, one that holds the next id is applied, one that begins
    behind it leaves a gap. A diff carries the levels as of its last id, so one that begins early is as good.
    """

    __slots__ = ()
    replacing = False

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        return self.following(snapshot_id, diff)

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        if diff.last_id <= update_id:
            return Verdict.DROP
        if diff.first_id <= update_id + 1:
            return Verdict.APPLY
        return Verdict.GAP
