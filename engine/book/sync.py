"""Keeps a book in step with its venue: a pure state machine fed with what the feed decodes.

The shell around it connects, fetches snapshots and publishes; this says when. Every method that takes an
event answers with a :class:`SyncResult`: publish the book if ``applied``, get a snapshot if ``need_snapshot``
(it is asked for once, until it arrives or :meth:`BookSync.on_snapshot_failed` is told).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from engine.book.audit import Audit, AuditOutcome, Place
from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.book.order_book import OrderBook
from engine.book.rules import RangeRule, SequenceRule, Verdict
from engine.book.standing import Standing, UnreadQuote
from engine.book.states import SyncState
from engine.errors import BookError


class SyncReason(StrEnum):
    """Why an event had the result it had."""

    NONE = ""
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    NOT_CONNECTED = "not_connected"
    BUFFERED = "buffered"
    BUFFER_OVERFLOW = "buffer_overflow"
    OLD_DIFF = "old_diff"
    GAP = "gap"
    CROSSED = "crossed"
    BAD_VALUE = "bad_value"
    CHECKSUM = "checksum"
    OLD_RUN = "old_run"
    AUDIT = "audit"
    AUDIT_SKIPPED = "audit_skipped"
    QUOTE = "quote"
    RESCALED = "rescaled"
    SNAPSHOT_TOO_OLD = "snapshot_too_old"
    SNAPSHOT_UNEXPECTED = "snapshot_unexpected"
    SNAPSHOT_FAILED = "snapshot_failed"


class QuoteMismatch(msgspec.Struct, frozen=True):
    """The venue's best quote and the book's at one update id: (bid, bid size, ask, ask size) as decimal
    strings.

    A side that the book does not have is ``("", "0")``.
    """

    update_id: int
    venue: tuple[str, str, str, str]
    book: tuple[str, str, str, str]


class SyncResult(msgspec.Struct, frozen=True):
    """What an event did. ``detail`` is for people; ``mismatches`` are quotes that differed from the book."""

    applied: bool = False
    need_snapshot: bool = False
    reason: SyncReason = SyncReason.NONE
    detail: str = ""
    mismatches: tuple[QuoteMismatch, ...] = ()


_NOTHING = SyncResult()
_APPLIED = SyncResult(applied=True)
_BUFFERED = SyncResult(reason=SyncReason.BUFFERED)
_OVERFLOW = SyncResult(reason=SyncReason.BUFFER_OVERFLOW)
_OLD_DIFF = SyncResult(reason=SyncReason.OLD_DIFF)
_NOT_CONNECTED = SyncResult(reason=SyncReason.NOT_CONNECTED)
_CONNECTED = SyncResult(need_snapshot=True, reason=SyncReason.CONNECTED)
_DISCONNECTED = SyncResult(reason=SyncReason.DISCONNECTED)
_UNEXPECTED = SyncResult(reason=SyncReason.SNAPSHOT_UNEXPECTED)
_FAILED = SyncResult(need_snapshot=True, reason=SyncReason.SNAPSHOT_FAILED)


class BookSync(Standing):
    """One pair's book and its place in the venue's sequence.

    ``state`` says what the book is worth, ``update_id`` where it stands (the last one, while out of sync),
    ``time_ns`` the venue's time of that update (0 if it does not say).
    ``max_buffer`` bounds the diffs kept while a snapshot is awaited, ``max_quotes`` the quotes that wait for
    the book to reach their id. A book that drops ``max_old_diffs`` diffs or ``max_old_quotes`` quotes in a
    row as old is given up: the id that it stands at must have been wrong. So is one that differs from
    ``max_mismatches`` best quotes running, each at its very id: its levels are wrong under right ids. 0: it is not,
    where nobody vouches for the quotes' ids.

    ``epoch`` grows with each connection: give it back to :meth:`on_snapshot` so that a late answer from
    before a reconnection is not taken for a new one.
    """

    __slots__ = (
        "_ahead_of",
        "_ahead_since_ns",
        "_audit",
        "_awaiting",
        "_buffer",
        "_checksum",
        "_depth",
        "_max_buffer",
        "_max_mismatches",
        "_max_old_diffs",
        "_max_old_quotes",
        "_mismatched",
        "_suspects",
        "epoch",
        "rule",
    )

    def __init__(
        self,
        book: OrderBook,
        rule: SequenceRule,
        *,
        max_buffer: int = 10_000,
        max_quotes: int = 1_000,
        max_old_diffs: int = 50,
        max_old_quotes: int = 1_000,
        max_mismatches: int = 0,
    ) -> None:
        self.book = book
        self.rule = rule
        self.state = SyncState.UNSYNCED
        self.update_id = 0
        self.time_ns = 0
        self.epoch = 0
        self._ranged = type(rule) is RangeRule
        self._awaiting = False
        self._follows_snapshot = False
        self._buffer: deque[DepthDiff] = deque()
        self._quotes: deque[BestQuote | UnreadQuote] = deque()  # ascending by update id
        self._max_buffer = max_buffer
        self._max_quotes = max_quotes
        self._max_old_diffs = max_old_diffs
        self._max_old_quotes = max_old_quotes
        self._max_mismatches = max_mismatches
        self._old_diffs = 0
        self._old_quotes = 0
        self._checksum = rule.checksum
        self._depth = 0
        self._audit: Audit | None = None
        self._suspects: frozenset[Place] = frozenset()
        self._mismatched = 0
        self._ahead_of: int | None = None
        self._ahead_since_ns = 0
        self._checks = self._needs_checks()

    @property
    def awaiting_snapshot(self) -> bool:
        """Whether a snapshot was asked for and has not arrived."""
        return self._awaiting

    @property
    def buffered(self) -> int:
        """How many diffs wait for a snapshot."""
        return len(self._buffer)

    @property
    def is_suspected(self) -> bool:
        """Whether the last audit found a difference that another one is to confirm."""
        return bool(self._suspects)

    def on_connected(self) -> SyncResult:
        """The subscription to the pair's diffs is up: buffers them, and asks for a snapshot."""
        self.on_disconnected()
        self.epoch += 1
        self.state = SyncState.BUFFERING
        self._awaiting = True
        return _CONNECTED

    def on_disconnected(self) -> SyncResult:
        """The stream is gone, and what was under way with it."""
        if self.state is SyncState.SYNCED:
            self.counters.resyncs += 1
        self.state = SyncState.UNSYNCED
        self._awaiting = False
        self._buffer.clear()
        self._quotes.clear()
        return _DISCONNECTED

    def on_diff(self, diff: DepthDiff) -> SyncResult:
        if self.state is SyncState.SYNCED:
            result = self._follow(diff)
            # One that quotes were compared at is on the book already, and compiled code has it no more.
            if result.need_snapshot and not self.rule.replacing and result.reason is not SyncReason.QUOTE:
                self._buffer.append(diff)
            return result
        if self.state is SyncState.UNSYNCED:
            self.counters.dropped += 1
            return _NOT_CONNECTED
        if self.rule.replacing:
            self.counters.dropped += 1  # the snapshot in the stream will hold it
            return _BUFFERED
        self._buffer.append(diff)
        if len(self._buffer) > self._max_buffer:
            self._buffer.popleft()
            self.counters.overflows += 1
            return _OVERFLOW
        return _BUFFERED

    def on_advanced(self) -> SyncResult:
        """A diff that continued the book was put on it by compiled code (:class:`~engine.book.standing.Standing`)."""
        return self._advance(self.update_id)

    def on_snapshot(self, snapshot: DepthSnapshot, epoch: int | None = None) -> SyncResult:
        """Takes a snapshot that was asked for (or any, where the rule says that they replace the book).

        ``epoch``: the value of :attr:`epoch` when it was asked for; a snapshot of another is dropped.
        """
        expected = self._awaiting or self.rule.replacing
        if self.state is SyncState.UNSYNCED or not expected or epoch not in (None, self.epoch):
            self.counters.dropped += 1
            return _UNEXPECTED
        if self.rule.replacing:
            self.counters.dropped += len(self._buffer)
            self._buffer.clear()
            return self._rebuild(snapshot)
        self._drop_contained(snapshot.update_id)
        self._drop_strays(snapshot.update_id)
        if self._buffer and self.rule.first(snapshot.update_id, self._buffer[0]) is Verdict.GAP:
            return SyncResult(
                need_snapshot=True,
                reason=SyncReason.SNAPSHOT_TOO_OLD,
                detail=f"snapshot {snapshot.update_id}, first buffered diff {self._buffer[0].first_id}",
            )
        return self._rebuild(snapshot)

    def on_snapshot_failed(self) -> SyncResult:
        """The snapshot asked for will not come: asks anew. How long to wait before fetching is the shell's
        choice.
        """
        return _FAILED if self._awaiting else _NOTHING

    def on_quote(self, quote: BestQuote) -> SyncResult:
        """Compares the venue's best quote with the book at that very id, now or when the book gets there."""
        update_id = quote.update_id
        if self.state is SyncState.SYNCED and update_id <= self.update_id:
            return self._with_mismatch(_NOTHING, quote) if update_id == self.update_id else self._old_quote()
        if self.state is SyncState.UNSYNCED:
            return _NOT_CONNECTED
        quotes = self._quotes
        if not quotes or quotes[-1].update_id < update_id:
            quotes.append(quote)
        else:
            by_id = {waiting.update_id: waiting for waiting in (*quotes, quote)}
            self._quotes = quotes = deque(by_id[key] for key in sorted(by_id))
        if len(quotes) > self._max_quotes:
            quotes.popleft()
        return _NOTHING

    def on_time(self, now_ns: int, overdue_ns: int) -> SyncResult:
        """Told now and then what time it is: gives the book up where the venue's quotes have been ahead of it for
        ``overdue_ns``, and the diff that leads there has not come. It sees a loss that no later diff shows.
        """
        if not self._quotes or self.state is not SyncState.SYNCED:
            self._ahead_of = None
            return _NOTHING
        if self._ahead_of != self.update_id:
            self._ahead_of, self._ahead_since_ns = self.update_id, now_ns
        if now_ns - self._ahead_since_ns < overdue_ns:
            return _NOTHING
        self.counters.gaps += 1
        quoted = self._quotes[-1].update_id
        return self._give_up(SyncReason.GAP, f"book at {self.update_id}, best quotes up to {quoted}, and no diff came")

    def on_loss(self, detail: str) -> SyncResult:
        """Something was lost on the book's connection, of this pair or of another: the book is given up."""
        if self.state is not SyncState.SYNCED:
            return _NOTHING
        self.counters.gaps += 1
        return self._give_up(SyncReason.GAP, detail)

    def begin_audit(
        self, *, levels: int = 10, tolerance_ns: int = 0, any_moment: bool = False, batched: bool = False
    ) -> None:
        """A snapshot is about to be asked for, to compare ``levels`` levels of each side with the book.

        For books whose rule cannot see every loss. From here on the book's best levels are remembered, since
        the answer will be about a moment that the stream has passed. ``tolerance_ns``: how far the times of
        stream and snapshot may differ; only where the rule has no numbers. ``any_moment``: the snapshot tells
        neither number nor time, and whatever the book was until :meth:`on_audit` may equal it. ``batched``: messages
        of the stream hold several changes each; a difference counts once a second audit finds it at the same price.
        """
        self._audit = Audit(self.rule.numbered, levels, tolerance_ns, any_moment, batched)
        self._checks = True
        if self.state is SyncState.SYNCED:
            self._audit.remember(self.book, self.update_id, self.time_ns)

    def on_audit(self, snapshot: DepthSnapshot | None) -> SyncResult:
        """The snapshot that :meth:`begin_audit` was for; None if it did not come.

        A book that differs is given up. Where book and snapshot cannot be compared (the book did not stand at
        the snapshot's id or time, or was out of sync), ``detail`` says so and nothing is counted.
        """
        audit, self._audit = self._audit, None
        self._checks = self._needs_checks()
        if audit is None or snapshot is None or self.state is not SyncState.SYNCED:
            return SyncResult(
                reason=SyncReason.AUDIT_SKIPPED, detail="not comparable: no audit, no snapshot or no book in sync"
            )
        outcome, detail = audit.compare(snapshot)
        if outcome is AuditOutcome.NOT_COMPARABLE:
            return SyncResult(reason=SyncReason.AUDIT_SKIPPED, detail=f"not comparable: {detail}")
        if audit.batched:
            suspects, self._suspects = self._suspects, audit.differing
            if audit.differing and not audit.differing & suspects:
                return SyncResult(reason=SyncReason.AUDIT_SKIPPED, detail=f"to be confirmed: {detail}")
        self.counters.audits += 1
        if outcome is AuditOutcome.EQUAL:
            return SyncResult(reason=SyncReason.AUDIT)
        self.counters.audit_mismatches += 1
        return self._give_up(SyncReason.AUDIT, detail)

    # -------------------------------------------------------------------------------------------------- steps

    def _follow(self, diff: DepthDiff) -> SyncResult:
        """Puts a diff on a book in sync."""
        rule = self.rule
        judge = rule.first if self._follows_snapshot else rule.following
        verdict = judge(self.update_id, diff)
        if verdict is Verdict.DROP:
            return self._old_diff(diff)
        if verdict is Verdict.GAP:
            self.counters.gaps += 1
            return self._give_up(SyncReason.GAP, f"book at {self.update_id}, next diff {_ids(diff)}")
        try:
            self.book.apply_diff(diff.bids, diff.asks)
        except BookError as error:
            self.counters.bad_values += 1
            return self._give_up(SyncReason.BAD_VALUE, str(error))
        self._follows_snapshot = False
        self._old_diffs = self._old_quotes = 0
        self.counters.updates += 1
        self.time_ns = diff.time_ns
        if self._checks:
            return self._check_and_advance(diff)
        return self._advance(diff.last_id if rule.numbered else self.update_id + 1)

    def _check_and_advance(self, diff: DepthDiff) -> SyncResult:
        """What only some venues' books need: the depth's cap, the checksum, and the memory of an audit."""
        if self._depth:
            self.book.truncate(self._depth)
        checksum = self._checksum
        if checksum is not None:
            checksum.update(diff.bids, diff.asks, self.book)
            if diff.checksum is not None and not self._sums_up_to(diff.checksum):
                return self._give_up(SyncReason.CHECKSUM, f"after {_ids(diff)} the venue says {diff.checksum}")
        result = self._advance(diff.last_id if self.rule.numbered else self.update_id + 1)
        if self._audit is not None and result.applied:
            self._audit.remember(self.book, self.update_id, self.time_ns)
        return result

    def _rebuild(self, snapshot: DepthSnapshot) -> SyncResult:
        """Loads a snapshot and puts the buffered diffs on it."""
        pending, self._buffer = self._buffer, deque()
        self._awaiting = False
        self._follows_snapshot = True
        self._old_diffs = self._old_quotes = 0
        self._audit = None
        self._suspects = frozenset()
        self._mismatched = 0
        self._depth = snapshot.depth
        self._checks = self._needs_checks()
        self.state = SyncState.SYNCED
        rescales = self.counters.rescales
        try:
            self.book.apply_snapshot(snapshot.bids, snapshot.asks)
        except BookError as error:
            self.counters.bad_values += 1
            return self._give_up(SyncReason.BAD_VALUE, str(error), pending)
        self.counters.snapshots += 1
        self.time_ns = snapshot.time_ns
        self.counters.updates += self.rule.replacing
        if self._checksum is not None:
            self._checksum.load(snapshot.bids, snapshot.asks)
            if snapshot.checksum is not None and not self._sums_up_to(snapshot.checksum):
                return self._give_up(SyncReason.CHECKSUM, f"of a snapshot the venue says {snapshot.checksum}", pending)
        result = self._advance(snapshot.update_id if self.rule.numbered else self.update_id + 1)
        mismatches = result.mismatches
        while pending and not result.need_snapshot:
            result = self._follow(pending[0])
            mismatches += result.mismatches
            if not result.need_snapshot:
                pending.popleft()
        self._buffer.extend(pending)
        if result.need_snapshot:
            return msgspec.structs.replace(result, mismatches=mismatches)
        done = self._rescaled() if self.counters.rescales != rescales else _APPLIED
        return msgspec.structs.replace(done, mismatches=mismatches) if mismatches else done

    def _advance(self, update_id: int) -> SyncResult:
        """The book was changed and stands at ``update_id``: checks it there."""
        self.update_id = update_id
        book = self.book
        rescaled = self.counters.rescales != book.rescales
        self.counters.rescales = book.rescales
        if book.is_crossed:
            self.counters.crossed += 1
            bid, bid_size, ask, ask_size = self._best()
            return self._give_up(
                SyncReason.CROSSED, f"at {update_id} bid {bid} ({bid_size}) meets ask {ask} ({ask_size})"
            )
        quotes = self._quotes
        result = self._rescaled() if rescaled else _APPLIED
        while quotes and quotes[0].update_id <= update_id:
            quote = quotes.popleft()
            if quote.update_id == update_id:
                result = self._with_mismatch(result, quote)
                if result.need_snapshot:
                    break
        return result

    def _rescaled(self) -> SyncResult:
        book = self.book
        detail = f"prices in steps of 1e{book.price_exponent}, sizes of 1e{book.size_exponent} from here on"
        return SyncResult(applied=True, reason=SyncReason.RESCALED, detail=detail)

    def _give_up(self, reason: SyncReason, detail: str, keep: Iterable[DepthDiff] = ()) -> SyncResult:
        """The book is no longer the venue's: out of sync at once, buffering until a new snapshot."""
        self.state = SyncState.BUFFERING
        self.counters.resyncs += 1
        self.counters.rescales = self.book.rescales
        self._awaiting = True
        self._audit = None
        self._buffer.extend(keep)
        return SyncResult(need_snapshot=True, reason=reason, detail=detail)

    def _drop_contained(self, snapshot_id: int) -> None:
        """Drops the buffered diffs that a snapshot holds already."""
        buffer = self._buffer
        while buffer and self.rule.first(snapshot_id, buffer[0]) is Verdict.DROP:
            buffer.popleft()
            self.counters.dropped += 1

    def _drop_strays(self, snapshot_id: int) -> None:
        """Drops what is buffered with ids far ahead of its successors': it could block the buffer for ever.

        A diff that the snapshot does not reach, while it reaches one that came later, has a wrong id, or was
        overtaken on its way; if it was needed, the one behind it will show a gap.
        """
        buffer, first = self._buffer, self.rule.first
        while buffer and first(snapshot_id, buffer[0]) is Verdict.GAP:
            reached = next((at for at, diff in enumerate(buffer) if first(snapshot_id, diff) is not Verdict.GAP), 0)
            if not reached:
                return
            for _ in range(reached):
                buffer.popleft()
            self.counters.dropped += reached
            self._drop_contained(snapshot_id)

    def _old_diff(self, diff: DepthDiff) -> SyncResult:
        self.counters.dropped += 1
        self._old_diffs += 1
        if self._old_diffs < self._max_old_diffs:
            return _OLD_DIFF
        self.counters.old_runs += 1
        return self._give_up(
            SyncReason.OLD_RUN, f"{self._old_diffs} diffs in a row before {self.update_id}, the last {_ids(diff)}"
        )

    def _old_quote(self) -> SyncResult:
        self._old_quotes += 1
        if self._old_quotes < self._max_old_quotes:
            return _NOTHING
        self.counters.old_runs += 1
        return self._give_up(SyncReason.OLD_RUN, f"{self._old_quotes} quotes in a row before {self.update_id}")

    def _sums_up_to(self, expected: int) -> bool:
        assert self._checksum is not None
        if self._checksum.of(self.book) == expected:
            self.counters.checksums_ok += 1
            return True
        self.counters.checksums_failed += 1
        return False

    def _needs_checks(self) -> bool:
        return bool(self._depth) or self._checksum is not None

    # ------------------------------------------------------------------------------------------------- quotes

    def _with_mismatch(self, result: SyncResult, quote: BestQuote | UnreadQuote) -> SyncResult:
        self.counters.bbo_checked += 1
        if self.book.best_equals(quote.bid, quote.bid_size, quote.ask, quote.ask_size):
            self.counters.bbo_equal += 1
            self._mismatched = 0
            return result
        mismatch = QuoteMismatch(quote.update_id, (quote.bid, quote.bid_size, quote.ask, quote.ask_size), self._best())
        mismatches = (*result.mismatches, mismatch)
        self._mismatched += 1
        if self._mismatched != self._max_mismatches:
            return msgspec.structs.replace(result, mismatches=mismatches)
        detail = f"not the venue's best at {self._mismatched} ids running, the last {quote.update_id}"
        return msgspec.structs.replace(self._give_up(SyncReason.QUOTE, detail), mismatches=mismatches)

    def _best(self) -> tuple[str, str, str, str]:
        bids, asks = self.book.depth_strings(1)
        bid, bid_size = bids[0] if bids else ("", "0")
        ask, ask_size = asks[0] if asks else ("", "0")
        return bid, bid_size, ask, ask_size


def _ids(diff: DepthDiff) -> str:
    return f"{diff.first_id}..{diff.last_id}" + (f" after {diff.previous_id}" if diff.previous_id is not None else "")
