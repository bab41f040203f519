"""Recorded traffic through the code that runs live: the venue's protocol, the feed, the books.

:class:`Replay` is fed one record after the other and knows no file; :func:`replay` reads one. Which pairs there
are is learned from what the recording holds: a pair is followed from its first message on. Snapshots are taken
from the recording when a book waits for one; after a gap a pair is out of sync until a newer one comes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import msgspec

from engine.book import BestQuote, BookSync, DepthDiff, DepthSnapshot, OrderBook, SyncState, Verdict, exponent_of
from engine.captures import Record, read_capture
from engine.connectors.base import ConnectionPlan, MarketEvent, PublicTrade
from engine.connectors.decoding import UNREADABLE
from engine.connectors.errors import MalformedReply
from engine.connectors.feed import FeedResult, MarketDataFeed
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.connectors.symbols import SymbolMap
from engine.errors import BookError, ConfigError
from engine.messages import TradingRule

_FINEST_GUESS = -18
_LATEST_S = 2**63 // 10**9
_COUNTS = (
    "updates",
    "gaps",
    "resyncs",
    "rescales",
    "checksums_ok",
    "checksums_failed",
    "bbo_checked",
    "bbo_equal",
)
_DEPTH_EVENTS = (DepthDiff, DepthSnapshot)
_IGNORED = FeedResult()


def replay(path: Path, venue: str, depth: int = 25, on_progress: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Replay a file and report; ConfigError if there is no such venue, or the file is no capture. One that ends in the
    middle of a record is replayed as far as it goes, and ``cut_off_after_line`` says how far.
    """
    began = time.perf_counter()
    session = Replay(venue)
    cut_after: list[int] = []
    for number, record in enumerate(read_capture(path, on_progress, cut_after.append), 1):
        try:
            session.on_record(record)
        except ValueError as error:
            raise ConfigError(f"{path} is not a capture: record {number}: {error}") from None
    report = session.report(depth, time.perf_counter() - began)
    return {**report, "cut_off_after_line": cut_after[0] if cut_after else None}


class Replay:
    """One venue's recorded traffic, on its books."""

    def __init__(self, venue: str) -> None:
        connector = create(ConnectorSettings(connector="replay", venue=venue))
        self.symbols = connector.symbols = _GuessedSymbols(connector.spell, connector.unspell)
        self.venue = venue
        self.protocol = connector.market_data()
        self.rules: dict[str, TradingRule] = {}
        self.trades: Counter[tuple[str, bool]] = Counter()  # by pair, and whether aggregated
        self.unheard: set[str] = set()  # pairs whose book has had a snapshot, and no diff since its connection
        self.unread_replies = 0
        self.problems: Counter[str] = Counter()
        self.feed = _LearningFeed(self)
        self.connections: dict[int | str, _Connection] = {}
        self._kept: dict[str, tuple[int, bytes]] = {}

    def on_record(self, record: Record) -> None:
        """One record; ValueError if it has no such time, or its data cannot be unpacked. Nothing that a venue sends
        raises.
        """
        if record.kind == "ws_in":
            self._on_frame(self._connection(record), record.payload, _nanoseconds(record.t))
        elif record.kind == "http":
            if record.status < 300:
                self._on_reply(record.url, record.payload)
        elif record.kind == "ws_open":
            self._close(record.conn)
            self._open(record)
        elif record.kind == "ws_out":
            self._on_sent(self._connection(record), record.payload)
        elif record.kind == "ws_close":
            self._close(record.conn)

    def report(self, depth: int, seconds: float) -> dict[str, Any]:
        """What came of it. Levels are best first, exact decimal strings; of a book out of sync, the last known."""
        return {
            "venue": self.venue,
            "frames": self.feed.counters.frames,
            "unparsed": self.feed.counters.unparsed + self.unread_replies,
            "seconds": round(seconds, 3),
            "pairs": {pair: self._pair_report(pair, depth) for pair in sorted(self.feed.books)},
        }

    def book_for(self, event: DepthDiff | DepthSnapshot | BestQuote | PublicTrade) -> BookSync:
        """The book that an event is about, made on first sight."""
        book = self.feed.books.get(event.pair)
        if book is None:
            exponents = _listed_exponents(self.rules.get(event.pair)) or _exponents_of(event)
            rule, most = self.protocol.sequence_rule(event.pair), self.protocol.max_mismatches
            book = BookSync(OrderBook(event.pair, *exponents), rule, max_mismatches=most)
            self.feed.books[event.pair] = book
        return book

    # ----------------------------------------------------------------------------------------------- records

    def _open(self, record: Record) -> None:
        connection = self.connections[record.conn] = _Connection(ConnectionPlan(url=record.url))
        connection.best_levels = self.protocol.best_levels_of(record.url, ())
        for pair in self.protocol.pairs_of(record.url):
            rule = self.rules.get(pair)
            book = self.feed.books.get(pair)
            if book is None and rule is not None:
                book = self.book_for(DepthDiff(pair, 0, 0))
            if book is not None and book.state is SyncState.UNSYNCED:
                connection.begin(pair, book)
            elif book is not None:
                connection.pairs[pair] = None

    def _connection(self, record: Record) -> _Connection:
        """A recording that begins in the middle of a connection has no record of its opening."""
        connection = self.connections.get(record.conn)
        if connection is None:
            connection = self.connections[record.conn] = _Connection(ConnectionPlan(url=record.url))
        return connection

    def _on_sent(self, connection: _Connection, text: bytes) -> None:
        """Kept only where it may say what the connection is to bring: keep-alives are sent for ever."""
        if b"SUBSCRIBE" in text:
            connection.sent.append(text.decode(errors="replace"))
            connection.best_levels = self.protocol.best_levels_of(connection.plan.url, connection.sent)

    def _close(self, conn: int | str) -> None:
        """Its pairs are out of sync, but for those whose depth another connection carries as well."""
        connection = self.connections.pop(conn, None)
        if connection is None:
            return
        others = {pair for other in self.connections.values() for pair in other.pairs}
        pairs = tuple(pair for pair in connection.pairs if pair not in others)
        self.feed.on_close(msgspec.structs.replace(connection.plan, pairs=pairs))

    def _on_frame(self, connection: _Connection, data: bytes, received_ns: int) -> None:
        self.feed.current = connection
        result = self.feed.on_frame(connection.plan, data, received_ns)
        for pair in result.updated:
            connection.pairs[pair] = None
        if result.problems:
            self._note(result)
        if self._kept:
            self._offer_kept()

    def _on_reply(self, url: str, body: bytes) -> None:
        try:
            reply = self.protocol.parse_recorded(url, body)
        except MalformedReply:
            self.unread_replies += not _is_refusal(body)
            return
        self.rules.update(reply.rules or {})
        if reply.snapshot is None:
            return
        pair = reply.snapshot.pair
        book = self.feed.books.get(pair)
        if book is not None and book.awaiting_snapshot:
            if not book.buffered:
                self.unheard.add(pair)
            self._note(self.feed.on_snapshot(pair, body))
        elif book is None or book.state is SyncState.UNSYNCED or reply.snapshot.update_id > book.update_id:
            self._kept[pair] = reply.snapshot.update_id, body

    def _offer_kept(self) -> None:
        """Snapshots that nobody waited for when they were recorded: of before their stream, where only a diff tells
        whether they connect, or of after a loss that the next diff was to show.
        """
        for pair, (update_id, body) in list(self._kept.items()):
            book = self.feed.books.get(pair)
            if book is None:
                continue
            if book.buffered:
                del self._kept[pair]
                self._note(self.feed.on_snapshot(pair, body))
            elif book.state is SyncState.SYNCED and book.update_id >= update_id:
                del self._kept[pair]

    def _note(self, result: FeedResult) -> None:
        for problem in result.problems:
            self.problems[problem.kind] += 1

    # ------------------------------------------------------------------------------------------------ report

    def _pair_report(self, pair: str, depth: int) -> dict[str, Any]:
        sync = self.feed.books[pair]
        bids, asks = sync.book.depth_strings(depth) if sync.book.is_valid else ([], [])
        return {
            "symbol": self.symbols.symbol(pair),
            **{name: getattr(sync.counters, name) for name in _COUNTS},
            "trades": self.trades[pair, False] or self.trades[pair, True],
            "sequence": sync.update_id,
            "synced": sync.state is SyncState.SYNCED,
            "bids": [list(level) for level in bids],
            "asks": [list(level) for level in asks],
        }


class _Connection:
    """One recorded connection, and the pairs whose depth it carries."""

    def __init__(self, plan: ConnectionPlan) -> None:
        self.plan = plan
        self.pairs: dict[str, None] = {}
        self.sent: list[str] = []
        self.best_levels: frozenset[str] = frozenset()

    def begin(self, pair: str, book: BookSync) -> None:
        """The pair's depth is to come here, and its book out of sync until then."""
        self.pairs[pair] = None
        book.on_connected()


class _LearningFeed(MarketDataFeed):
    """The live feed, which makes a book for each pair that turns up.

    Two connections may carry one pair, as they do while one takes over from the other. Where messages are numbered, the
    numbers tell what each of them adds; where they are not, a book follows the connection that its snapshot came by.
    """

    def __init__(self, session: Replay) -> None:
        super().__init__(session.protocol, {})
        self.current = _Connection(ConnectionPlan(url=""))
        self._session = session
        self._followed: dict[str, _Connection] = {}

    def _on_event(self, conn: ConnectionPlan, event: MarketEvent) -> FeedResult:
        if isinstance(event, _DEPTH_EVENTS):
            if not self._begun(event):
                return _IGNORED
        elif isinstance(event, PublicTrade):
            self._session.book_for(event)
            self._session.trades[event.pair, event.aggregated] += 1
        elif isinstance(event, BestQuote):
            self._session.book_for(event)
        return super()._on_event(conn, event)

    def _begun(self, event: DepthDiff | DepthSnapshot) -> bool:
        """Whether the event's book is to have it; makes the book, and lets it begin."""
        current = self.current
        if event.pair in current.best_levels and isinstance(event, DepthDiff):
            return False
        book = self._session.book_for(event)
        if book.state is SyncState.UNSYNCED or self._is_too_old_for(event, book):
            current.begin(event.pair, book)
        if not book.rule.replacing:
            current.pairs[event.pair] = None
            return True
        if isinstance(event, DepthSnapshot):
            for connection in self._session.connections.values():
                connection.pairs.pop(event.pair, None)
            self._followed[event.pair] = current
            current.pairs[event.pair] = None
        return self._followed.get(event.pair, current) is current

    def _is_too_old_for(self, event: DepthDiff | DepthSnapshot, book: BookSync) -> bool:
        """Whether the snapshot that a book has is of before its connection's first diff: nothing is lost then, the
        recording has not brought the right snapshot yet.
        """
        if event.pair not in self._session.unheard:
            return False
        self._session.unheard.discard(event.pair)
        return isinstance(event, DepthDiff) and book.rule.first(book.update_id, event) is Verdict.GAP


class _GuessedSymbols(SymbolMap):
    """Symbols that the venue's list does not explain are taken for what they most likely mean."""

    def __init__(self, spell: Callable[[str, str], str], unspell: Callable[[str], str | None]) -> None:
        super().__init__(spell)
        self._unspell = unspell
        self._guessed: dict[str, str] = {}

    def pair(self, symbol: str) -> str | None:
        known = self._guessed.get(symbol) or super().pair(symbol)
        if known is not None:
            return known
        guess = self._unspell(symbol)
        base, _, quote = (guess or "").partition("-")
        if guess is None or not base or not quote or self.symbol(guess) != symbol:
            return None
        self._guessed[symbol] = guess
        return guess


class _Refusal(msgspec.Struct, rename={"error_code": "err-code"}):
    """How venues say no, in a reply whose status the recording may lack."""

    code: int | str | None = None
    message: str = ""
    error: list[str] = []
    error_code: str = ""


_ALL_WELL = (None, 0, 200, "0", "200", "200000")
_refusal = msgspec.json.Decoder(_Refusal).decode


def _is_refusal(body: bytes) -> bool:
    """Whether a reply says what is wrong, so that it is no snapshot and no list."""
    try:
        said = _refusal(body)
    except UNREADABLE:
        return False
    return said.code not in _ALL_WELL or bool(said.message or said.error or said.error_code)


def _nanoseconds(seconds: float) -> int:
    """ValueError for a time that is none in seconds since the epoch."""
    if not 0 <= seconds < _LATEST_S:
        raise ValueError(f"t {seconds} is no time in seconds since 1970")
    return int(seconds * 1e9)


def _listed_exponents(rule: TradingRule | None) -> tuple[int, int] | None:
    """Of a pair's trading rule; None if there is none, or it has increments that no book can begin with."""
    if rule is None:
        return None
    try:
        return exponent_of(rule.price_increment), exponent_of(rule.size_increment)
    except BookError:
        return None


def _exponents_of(event: DepthDiff | DepthSnapshot | BestQuote | PublicTrade) -> tuple[int, int]:
    """Where a book without a trading rule begins: at the finest price and size of its first message."""
    if isinstance(event, BestQuote):
        levels = [(event.bid, event.bid_size), (event.ask, event.ask_size)]
    elif isinstance(event, PublicTrade):
        levels = [(event.price, event.size)]
    else:
        levels = [(level[0], level[1]) for level in (*event.bids, *event.asks)]
    return _finest(price for price, _ in levels), _finest(size for _, size in levels)


def _finest(texts: Iterable[str]) -> int:
    exponent = 0
    for text in texts:
        try:
            places = Decimal(text).as_tuple().exponent
        except InvalidOperation:
            continue
        if isinstance(places, int):
            exponent = min(exponent, places)
    return max(exponent, _FINEST_GUESS)
