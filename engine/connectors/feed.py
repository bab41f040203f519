"""From raw frames to books: one pure object between a venue's protocol and the books that it keeps in step.

The order-book actor and the replay of recorded traffic are both thin shells around this.
"""

from __future__ import annotations

import msgspec

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.book.rules import ConnectionNumbers, Verdict
from engine.book.states import SyncState
from engine.book.sync import BookSync, SyncReason, SyncResult
from engine.connectors.base import (
    Ack,
    ConnectionPlan,
    HttpRequest,
    MarketDataProtocol,
    MarketEvent,
    PublicTrade,
    Send,
    SequenceNumber,
    VenueNotice,
)
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.hot_path import FrameIntake
from engine.errors import VenueError


class SnapshotNeed(msgspec.Struct, frozen=True):
    """Fetch this pair's book and hand the answer to :meth:`MarketDataFeed.on_snapshot`, with this ``epoch``.

    ``request`` is None where the venue sends books in the stream itself: then send ``resubscribe`` on the
    pair's connection (nothing, if the subscription was made just now).
    """

    pair: str
    epoch: int
    request: HttpRequest | None
    resubscribe: tuple[str, ...] = ()


class FeedProblem(msgspec.Struct, frozen=True):
    """Something to log and count. ``kind`` is a :class:`SyncReason`, ``unparsed``, ``mismatch`` or
    ``notice``.
    """

    kind: str
    pair: str = ""
    detail: str = ""


class FeedResult(msgspec.Struct, frozen=True):
    """What to do after an input: publish ``updated`` books and ``trades``, fetch ``snapshots``, log
    ``problems``.

    ``send``: texts to send on the connection that the frame came from. ``reconnect``: leave that connection, whose
    books are out of sync until there is another.
    """

    updated: tuple[str, ...] = ()
    trades: tuple[PublicTrade, ...] = ()
    snapshots: tuple[SnapshotNeed, ...] = ()
    problems: tuple[FeedProblem, ...] = ()
    send: tuple[str, ...] = ()
    reconnect: bool = False


_NOTHING = FeedResult()
_UNREAD = "a frame of the connection could not be read"
_QUIET = frozenset({SyncReason.NONE, SyncReason.CONNECTED, SyncReason.BUFFERED, SyncReason.OLD_DIFF})


class MarketDataFeed(FrameIntake):
    """Decodes frames and puts them on the books. ``books`` may be added to and taken from at any time.

    :meth:`on_frame` is :class:`~engine.connectors.hot_path.FrameIntake`'s: it carries out the commonest frame itself.
    """

    def __init__(self, protocol: MarketDataProtocol, books: dict[str, BookSync]) -> None:
        super().__init__(books, _NOTHING, *(protocol.hot_path() or ()))
        self.protocol = protocol
        self._updated: dict[str, FeedResult] = {}
        self._numbers: dict[ConnectionPlan, ConnectionNumbers] = {}
        self._overdue_ns = round(protocol.quote_overdue_s * 1e9)

    def on_open(self, conn: ConnectionPlan) -> FeedResult:
        """A connection is up: its pairs begin to buffer, and each needs a snapshot."""
        self._numbers.pop(conn, None)
        return self._collect([(pair, book.on_connected()) for pair, book in self._books_of(conn)])

    def on_close(self, conn: ConnectionPlan) -> FeedResult:
        """A connection is gone: its pairs' books are out of sync from here on."""
        return self._collect([(pair, book.on_disconnected()) for pair, book in self._books_of(conn)])

    def _on_frame(self, conn: ConnectionPlan, data: str | bytes) -> FeedResult:
        """Any frame that is not carried out on the hot path."""
        try:
            events = self.protocol.feed(data)
        except MalformedFrame as error:
            return self._on_unread(conn, error)
        if len(events) == 1:
            return self._on_event(conn, events[0])
        return _merged([self._on_event(conn, event) for event in events]) if events else _NOTHING

    def on_snapshot(self, pair: str, answer: bytes | str | VenueError, epoch: int | None = None) -> FeedResult:
        """The answer to a :class:`SnapshotNeed`, or the error that came instead."""
        book = self.books.get(pair)
        if book is None:
            return _NOTHING
        if isinstance(answer, VenueError):
            return self._snapshot_failed(pair, book, epoch, str(answer))
        try:
            snapshot = self.protocol.parse_snapshot(pair, answer)
        except MalformedReply as error:
            self.counters.unparsed += 1
            return self._snapshot_failed(pair, book, epoch, str(error))
        return self._result(pair, book.on_snapshot(snapshot, epoch))

    def on_time(self, now_mono_ns: int) -> FeedResult:
        """Told now and then what time it is: books that their venue's best quotes left behind are given up."""
        if not self._overdue_ns:
            return _NOTHING
        late = []
        for pair, book in self.books.items():
            result = book.on_time(now_mono_ns, self._overdue_ns)
            if result.need_snapshot:
                late.append((pair, result))
        return self._collect(late) if late else _NOTHING

    def begin_audit(self, pair: str) -> int | None:
        """A book is about to be asked for with ``audit_request``; the epoch to give back with the answer. None if there
        is nothing to compare now.
        """
        book, protocol = self.books.get(pair), self.protocol
        if book is None or book.state is not SyncState.SYNCED:
            return None
        book.begin_audit(
            levels=protocol.audit_levels,
            tolerance_ns=round(protocol.audit_tolerance_s * 1e9),
            any_moment=protocol.audit_any_moment,
            batched=protocol.audit_batched,
        )
        return book.epoch

    def on_audit(self, pair: str, answer: bytes | str | VenueError, epoch: int) -> FeedResult:
        """The answer to an ``audit_request``, or the error that came instead. A book that differs is given up."""
        book = self.books.get(pair)
        if book is None or book.epoch != epoch:
            return _NOTHING
        try:
            snapshot = None if isinstance(answer, VenueError) else self.protocol.parse_snapshot(pair, answer)
        except MalformedReply as error:
            self.counters.unparsed += 1
            snapshot, answer = None, error
        result = book.on_audit(snapshot)
        if isinstance(answer, VenueError):
            return FeedResult(problems=(FeedProblem(SyncReason.AUDIT_SKIPPED, pair, str(answer)),))
        if result.reason is SyncReason.AUDIT and not result.need_snapshot:
            return _NOTHING
        return self._collect([(pair, result)])

    # ----------------------------------------------------------------------------------------------- steps

    def _on_event(self, conn: ConnectionPlan, event: MarketEvent) -> FeedResult:
        if isinstance(event, DepthDiff):
            self.counters.diffs += 1
            book = self.books.get(event.pair)
            if book is None:
                return self._unknown()
            return self._result(book.book.pair, book.on_diff(event))
        if isinstance(event, BestQuote):
            self.counters.quotes += 1
            book = self.books.get(event.pair)
            if book is None:
                return self._unknown()
            result = book.on_quote(event)
            return self._result(book.book.pair, result) if result.mismatches or result.need_snapshot else _NOTHING
        return self._on_rare(conn, event)

    def _on_rare(self, conn: ConnectionPlan, event: MarketEvent) -> FeedResult:
        if isinstance(event, PublicTrade):
            self.counters.trades += 1
            return FeedResult(trades=(event,))
        if isinstance(event, DepthSnapshot):
            book = self.books.get(event.pair)
            return self._unknown() if book is None else self._result(event.pair, book.on_snapshot(event))
        if isinstance(event, VenueNotice):
            return self._on_notice(conn, event)
        if isinstance(event, Send):
            return FeedResult(send=(event.text,))
        if isinstance(event, SequenceNumber):
            return self._on_number(conn, event.number)
        assert isinstance(event, Ack)
        return _NOTHING

    def _on_unread(self, conn: ConnectionPlan, error: MalformedFrame) -> FeedResult:
        """A frame that cannot be read may have been a change: it costs the books that have no numbers their sync, where
        nothing else would show that it is missing.
        """
        self.counters.unparsed += 1
        said = FeedResult(problems=(FeedProblem("unparsed", "", f"{conn.url}: {error}"),))
        books = [(pair, book) for pair, book in self._books_of(conn) if not book.rule.numbered]
        return _merged([said, self._collect([(pair, book.on_loss(_UNREAD)) for pair, book in books])])

    def _on_notice(self, conn: ConnectionPlan, notice: VenueNotice) -> FeedResult:
        """A book whose subscription was refused is out of sync as long as its connection lasts. Where the venue does
        not say whose that was, the connection is left for another, which asks anew.
        """
        refused = notice.refused and bool(conn.opening)
        problem = FeedProblem("notice", notice.pair, f"{notice.code} {notice.text}".strip())
        said = FeedResult(problems=(problem,), reconnect=notice.reconnect or (refused and not notice.pair))
        books = [(pair, book) for pair, book in self._books_of(conn) if refused and pair == notice.pair]
        return _merged([said, self._collect([(pair, book.on_disconnected()) for pair, book in books])])

    def _on_number(self, conn: ConnectionPlan, number: int) -> FeedResult:
        """A hole in a connection's numbers costs all its books their sync: nobody knows whose frame is lost."""
        numbers = self._numbers.get(conn)
        if numbers is None:
            numbers = self._numbers[conn] = ConnectionNumbers()
        if numbers.on_number(number) is not Verdict.GAP:
            return _NOTHING
        detail = f"frames are missing before number {number} of the connection"
        return self._collect([(pair, book.on_loss(detail)) for pair, book in self._books_of(conn)])

    def _snapshot_failed(self, pair: str, book: BookSync, epoch: int | None, detail: str) -> FeedResult:
        if epoch is not None and epoch != book.epoch:
            return _NOTHING
        result = book.on_snapshot_failed()
        return self._result(pair, msgspec.structs.replace(result, detail=detail))

    def _result(self, pair: str, result: SyncResult) -> FeedResult:
        """The common case, an applied update, gives one and the same object each time."""
        if result.applied and not result.mismatches and not result.need_snapshot and result.reason in _QUIET:
            return self._ready(pair)
        if result.reason in _QUIET and not result.mismatches and not result.need_snapshot:
            return _NOTHING
        return self._collect([(pair, result)])

    def _ready(self, pair: str) -> FeedResult:
        ready = self._updated.get(pair)
        if ready is None:
            ready = self._updated[pair] = FeedResult(updated=(pair,))
        return ready

    def _settled(self, pair: str, book: BookSync) -> FeedResult:
        """The hot path moved the book on: quotes that waited for that are compared now."""
        return self._result(pair, book.on_advanced())

    def _collect(self, results: list[tuple[str, SyncResult]]) -> FeedResult:
        """``updated`` also names the pairs whose state changed for the worse: publish that too."""
        updated: list[str] = []
        needs: list[SnapshotNeed] = []
        problems: list[FeedProblem] = []
        for pair, result in results:
            if result.applied or result.reason in _STATE_CHANGED:
                updated.append(pair)
            if result.need_snapshot:
                needs.append(self._need(pair, result.reason))
            if result.reason not in _QUIET:
                problems.append(FeedProblem(str(result.reason), pair, result.detail))
            for wrong in result.mismatches:
                detail = f"at {wrong.update_id} venue {wrong.venue} book {wrong.book}"
                problems.append(FeedProblem("mismatch", pair, detail))
        return FeedResult(updated=tuple(updated), snapshots=tuple(needs), problems=tuple(problems))

    def _need(self, pair: str, reason: SyncReason) -> SnapshotNeed:
        request = self.protocol.snapshot_request(pair)
        texts = () if request or reason is SyncReason.CONNECTED else self.protocol.resubscribe(pair)
        return SnapshotNeed(pair, self.books[pair].epoch, request, texts)

    def _unknown(self) -> FeedResult:
        self.counters.unknown += 1
        return _NOTHING

    def _books_of(self, conn: ConnectionPlan) -> list[tuple[str, BookSync]]:
        return [(pair, self.books[pair]) for pair in conn.pairs if pair in self.books]


_STATE_CHANGED = frozenset(
    {
        SyncReason.CONNECTED,
        SyncReason.DISCONNECTED,
        SyncReason.GAP,
        SyncReason.CROSSED,
        SyncReason.BAD_VALUE,
        SyncReason.CHECKSUM,
        SyncReason.OLD_RUN,
        SyncReason.AUDIT,
        SyncReason.QUOTE,
    }
)


def _merged(results: list[FeedResult]) -> FeedResult:
    return FeedResult(
        updated=tuple(dict.fromkeys(pair for result in results for pair in result.updated)),
        trades=tuple(trade for result in results for trade in result.trades),
        snapshots=tuple(need for result in results for need in result.snapshots),
        problems=tuple(problem for result in results for problem in result.problems),
        send=tuple(text for result in results for text in result.send),
        reconnect=any(result.reconnect for result in results),
    )
