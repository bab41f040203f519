"""How a venue numbers what it says of a book, and so how a lost message shows.

Six general rules; a venue's protocol names one, with parameters, or brings its own::

    RangeRule         ranges of ids, each beginning where the last one ended     Binance spot, KuCoin
    PreviousIdRule    each message names the id before it                        Binance USD-M, OKX, HTX mbp
    ContiguousRule    one number a message, without holes                        Bybit; one number a connection:
                                                                                 :class:`ConnectionNumbers`
    ReplacingRule     nothing but whole books                                    HTX depth.step0, Hyperliquid
    ChecksumRule      no numbers, a checksum of the book                         Kraken
    UnnumberedRule    neither                                                    Coinbase Exchange level2
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Protocol

from engine.book.checksums import Checksum
from engine.book.events import DepthDiff


class Verdict(Enum):
    """What to do with a diff, given where the book stands."""

    APPLY = "apply"
    DROP = "drop"
    """It is in the book already."""
    GAP = "gap"
    """Something between the book and this diff is missing."""


class SequenceRule(Protocol):
    """One venue's numbering, for one book (a checksum keeps state).

    ``replacing``: snapshots come in the stream itself, unasked; each replaces the book and holds everything
    that came before it. A rule without it takes a snapshot only after one was asked for. ``numbered``: ids
    are the venue's; otherwise the book counts its messages. ``checksum``: sums up the book as the venue does.
    """

    @property
    def replacing(self) -> bool: ...

    @property
    def numbered(self) -> bool: ...

    @property
    def checksum(self) -> Checksum | None: ...

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
    KuCoin's ``sequenceStart`` and ``sequenceEnd`` are the same ("Level-2 Market Data" calibration).
    """

    __slots__ = ()
    replacing: ClassVar[bool] = False
    numbered: ClassVar[bool] = True
    checksum: ClassVar[Checksum | None] = None

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        return self.following(snapshot_id, diff)

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        if diff.last_id <= update_id:
            return Verdict.DROP
        if diff.first_id <= update_id + 1:
            return Verdict.APPLY
        return Verdict.GAP


class PreviousIdRule:
    """Each diff names the last id of the one before it, so that ids need not be contiguous.

    Binance USD-M (``pu``; "How to manage a local order book correctly" of its documentation), HTX
    (``prevSeqNum``), OKX (``prevSeqId``). A diff whose previous id is the book's is applied, wherever its own
    id lies: OKX repeats the id to say that nothing changed. On a snapshot of another source the first diff
    may begin before it.

    ``resets``: ids may begin anew in the middle of a stream (OKX, after maintenance), so a smaller id does not
    make a diff old: what does not connect is a gap, but for one that leads to where the book stands, which is the
    last one once more. ``timed``: diffs without a previous id are applied as they
    come (OKX before 2023), and only the checksum can show a loss.
    """

    __slots__ = ("checksum", "replacing", "resets", "timed")
    numbered: ClassVar[bool] = True

    def __init__(
        self,
        *,
        replacing: bool = False,
        resets: bool = False,
        timed: bool = False,
        checksum: Checksum | None = None,
    ) -> None:
        self.replacing = replacing
        self.resets = resets
        self.timed = timed
        self.checksum = checksum

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        if self.resets or diff.previous_id is None:
            return self.following(snapshot_id, diff)
        if diff.last_id <= snapshot_id:
            return Verdict.DROP
        return Verdict.APPLY if diff.previous_id <= snapshot_id else Verdict.GAP

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        previous_id = diff.previous_id
        if previous_id == update_id:
            return Verdict.APPLY
        if previous_id is None:
            return Verdict.APPLY if self.timed else Verdict.GAP
        if diff.last_id == update_id or (not self.resets and diff.last_id < update_id):
            return Verdict.DROP
        return Verdict.GAP


class ContiguousRule:
    """Each message of a pair has one number, and the next message the next number.

    Bybit's ``u`` ("Orderbook" of its v5 documentation), where a snapshot in the stream, at any time and with
    any number, replaces the book.
    """

    __slots__ = ("replacing",)
    numbered: ClassVar[bool] = True
    checksum: ClassVar[Checksum | None] = None

    def __init__(self, *, replacing: bool = True) -> None:
        self.replacing = replacing

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        return self.following(snapshot_id, diff)

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        if diff.last_id <= update_id:
            return Verdict.DROP
        return Verdict.APPLY if diff.last_id == update_id + 1 else Verdict.GAP


class UnnumberedRule:
    """Diffs without numbers on a snapshot in the stream (Coinbase Exchange ``level2``).

    All is applied as it comes. A lost message shows only where it leaves the book crossed: audit such books
    (:meth:`engine.book.BookSync.on_audit`).
    """

    __slots__ = ("checksum",)
    replacing: ClassVar[bool] = True
    numbered: ClassVar[bool] = False

    def __init__(self) -> None:
        self.checksum: Checksum | None = None

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        return Verdict.APPLY

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        return Verdict.APPLY


class ChecksumRule(UnnumberedRule):
    """Diffs without numbers, each with a checksum of the book's best levels (Kraken).

    A lost message shows in the next checksum whose levels it touched.
    """

    __slots__ = ()

    def __init__(self, checksum: Checksum) -> None:
        self.checksum = checksum


class ReplacingRule:
    """Nothing but whole books, each replacing the last (HTX ``depth.step0``, Hyperliquid ``l2Book``).

    Nothing can be missing from a book; a lost message makes it old until the next one. Diffs do not belong.
    """

    __slots__ = ()
    replacing: ClassVar[bool] = True
    numbered: ClassVar[bool] = True
    checksum: ClassVar[Checksum | None] = None

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        return Verdict.GAP

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        return Verdict.GAP


class ConnectionNumbers:
    """The numbers of one connection's messages, of all its pairs and channels together, without holes.

    Coinbase Advanced Trade (``sequence_num``). A hole says that something is lost, not of which pair: every
    book of the connection needs a new snapshot. The first number seen is taken for the first one sent, unless
    ``begins_at`` says which that is.
    """

    __slots__ = ("_next",)

    def __init__(self, begins_at: int | None = None) -> None:
        self._next = begins_at

    def on_number(self, number: int) -> Verdict:
        """DROP: seen before. GAP: something is missing before it; counting goes on from here."""
        expected = self._next
        if expected is not None and number < expected:
            return Verdict.DROP
        self._next = number + 1
        return Verdict.APPLY if expected in (None, number) else Verdict.GAP
