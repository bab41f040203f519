"""Binance's public streams: frames in, typed events out.

Source: "WebSocket Streams" of the Spot API documentation (2026), with its "How to manage a local order book
correctly". Frames of combined streams are ``{"stream": name, "data": event}``; those of ``/ws/`` are the
bare event. Times are in milliseconds, or in microseconds where the address asks for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.book.rules import RangeRule
from engine.connectors.base import (
    LEAD,
    Ack,
    ConnectionPlan,
    HttpRequest,
    MarketDataProtocol,
    MarketEvent,
    PublicTrade,
    RecordedReply,
    VenueNotice,
)
from engine.connectors.binance import constants
from engine.connectors.binance.rules import parse_exchange_info
from engine.connectors.binance.scanner import BinanceScanner
from engine.connectors.decoding import UNREADABLE, Amount, Id, Instant, instant_ns, is_list
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_STREAMS = ("depth@100ms", "bookTicker", "trade")
_ALL_QUOTES = "!bookTicker"
"""The best quotes of all symbols, a stream that was ended in 2023."""
_NOTHING: tuple[MarketEvent, ...] = ()
_Levels = list[tuple[str, str]]
_EarlyLevels = list[tuple[str, str, list[msgspec.Raw]]]
"""With an empty list behind each, which the documentation of the time says is to be ignored."""
_COMBINED = b'{"stream":"'
_DEPTH_MARKS = (b"@depth@", b'@depth"')
"""Not ``@depth5`` and the like, which are the best levels and no diffs."""


class _Depth(msgspec.Struct, gc=False):
    E: Instant
    s: str
    U: Id
    u: Id
    b: _Levels
    a: _Levels


class _Quote(msgspec.Struct, gc=False):
    u: Id
    s: str
    b: str
    B: str
    a: str
    A: str


class _Trade(msgspec.Struct, gc=False):
    s: str
    t: Id
    p: Amount
    q: Amount
    T: Instant
    m: bool


class _Aggregate(msgspec.Struct, gc=False):
    s: str
    a: Id
    p: Amount
    q: Amount
    T: Instant
    m: bool


class _DepthFrame(msgspec.Struct, gc=False):
    data: _Depth


class _QuoteFrame(msgspec.Struct, gc=False):
    data: _Quote


class _TradeFrame(msgspec.Struct, gc=False):
    data: _Trade


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Other(msgspec.Struct):
    """Any frame, as far as is needed to know what it is."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    u: int | None = None
    result: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    last_update_id: int | None = msgspec.field(default=None, name="lastUpdateId")


class _Kind(msgspec.Struct):
    e: str = ""


class _Snapshot(msgspec.Struct, rename="camel"):
    last_update_id: Id
    bids: _Levels
    asks: _Levels


class _EarlyDepth(msgspec.Struct, gc=False):
    """As the venue wrote it until 2019."""

    E: Instant
    s: str
    U: Id
    u: Id
    b: _EarlyLevels
    a: _EarlyLevels

    def today(self) -> _Depth:
        return _Depth(self.E, self.s, self.U, self.u, _plain(self.b), _plain(self.a))


class _EarlyDepthFrame(msgspec.Struct, gc=False):
    data: _EarlyDepth


class _EarlySnapshot(msgspec.Struct, rename="camel"):
    last_update_id: Id
    bids: _EarlyLevels
    asks: _EarlyLevels


_depth_frame = msgspec.json.Decoder(_DepthFrame).decode
_quote_frame = msgspec.json.Decoder(_QuoteFrame).decode
_trade_frame = msgspec.json.Decoder(_TradeFrame).decode
_bare_depth = msgspec.json.Decoder(_Depth).decode
_bare_quote = msgspec.json.Decoder(_Quote).decode
_bare_trade = msgspec.json.Decoder(_Trade).decode
_bare_aggregate = msgspec.json.Decoder(_Aggregate).decode
_other = msgspec.json.Decoder(_Other).decode
_events = msgspec.json.Decoder(list[_Kind]).decode
_kind = msgspec.json.Decoder(_Kind).decode
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_early_depth_frame = msgspec.json.Decoder(_EarlyDepthFrame).decode
_early_bare_depth = msgspec.json.Decoder(_EarlyDepth).decode
_early_snapshot = msgspec.json.Decoder(_EarlySnapshot).decode


class BinanceMarketData(MarketDataProtocol):
    """Depth every 100 ms, best quotes and trades of each pair.

    The kind of a combined frame is told by its stream's name, near its beginning, so that each is decoded
    once and straight into its type.
    """

    silence_after_s = 20.0
    trade_mark = b'@trade"'
    quote_overdue_s = constants.QUOTE_OVERDUE_S
    max_mismatches = 2
    ping_every_s = 2.5

    def __init__(self, ws: str, symbols: SymbolMap, *, snapshot_depth: int = constants.SNAPSHOT_DEPTH) -> None:
        self._ws = ws.rstrip("/")
        self._symbols = symbols
        self._pair = symbols.pair
        self._snapshot_depth = snapshot_depth

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.MAX_STREAMS // len(_STREAMS)
        return [self._plan(pairs[at : at + each]) for at in range(0, len(pairs), each)]

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        try:
            raw = data.encode() if isinstance(data, str) else data
            if not raw.isascii():
                raw.decode()  # decoders overlook broken UTF-8 in what they skip
            if raw.startswith(_COMBINED):
                mark = raw.find(b"@", 11, LEAD)
                if raw.find(b'"', 11, mark) >= 0:
                    mark = len(raw)  # not in the stream's name
                if raw.startswith(_DEPTH_MARKS, mark):
                    return self._depth(_read_framed(raw))
                if raw.startswith(b'@bookTicker"', mark):
                    return self._quote(_quote_frame(raw).data)
                if raw.startswith(self.trade_mark, mark):
                    return self._trade(_trade_frame(raw).data)
            return self._rare(raw)
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error

    def hot_path(self) -> tuple[BinanceScanner, SymbolMap]:
        return BinanceScanner(), self._symbols

    def sequence_rule(self, pair: str = "") -> RangeRule:
        return RangeRule()

    def snapshot_request(self, pair: str) -> HttpRequest:
        return HttpRequest(
            path=constants.PATH_DEPTH,
            query=f"symbol={quote(self._symbols.symbol(pair))}&limit={self._snapshot_depth}",
            weight=_snapshot_weight(self._snapshot_depth),
        )

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        try:
            reply = _read_snapshot(body)
        except UNREADABLE as error:
            raise MalformedReply(f"snapshot of {pair}: {error}") from error
        return DepthSnapshot(pair, reply.last_update_id, reply.bids, reply.asks)

    def pairs_of(self, url: str) -> tuple[str, ...]:
        streams = (name.partition("@") for name in _stream_names(url))
        symbols = (symbol for symbol, _, stream in streams if stream == "depth" or stream.startswith("depth@"))
        found = (self._symbols.pair(symbol.upper()) for symbol in symbols)
        return tuple(dict.fromkeys(pair for pair in found if pair is not None))

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        parts = urlsplit(url)
        if parts.path in constants.PATHS_RULES:
            rules = parse_exchange_info(body).rules
            self._symbols.learn(rules.values())
            return RecordedReply(rules=rules)
        if parts.path in constants.PATHS_DEPTH:
            pair = self._symbols.pair("".join(parse_qs(parts.query).get("symbol", [])))
            if pair is not None:
                return RecordedReply(snapshot=self.parse_snapshot(pair, body))
        return RecordedReply()

    # ----------------------------------------------------------------------------------------- frames

    def _all_symbols(self, data: bytes) -> Sequence[MarketEvent]:
        if not _events(data):
            raise MalformedFrame("an empty list", data)
        return _NOTHING

    def _depth(self, event: _Depth) -> Sequence[MarketEvent]:
        pair = self._pair(event.s)
        if pair is None:
            return _NOTHING
        if event.u < event.U:
            raise MalformedFrame("a range that ends before it begins", f"U {event.U} u {event.u}")
        return (DepthDiff(pair, event.U, event.u, None, event.b, event.a, instant_ns(event.E)),)

    def _quote(self, event: _Quote) -> Sequence[MarketEvent]:
        pair = self._pair(event.s)
        if pair is None:
            return _NOTHING
        return (BestQuote(pair, event.u, event.b, event.B, event.a, event.A),)

    def _trade(self, event: _Trade) -> Sequence[MarketEvent]:
        pair = self._pair(event.s)
        if pair is None:
            return _NOTHING
        # "m": the buyer is the maker, so the taker sold.
        side = Side.SELL if event.m else Side.BUY
        return (PublicTrade(pair, str(event.t), event.p, event.q, side, instant_ns(event.T)),)

    def _aggregate(self, event: _Aggregate) -> Sequence[MarketEvent]:
        pair = self._pair(event.s)
        if pair is None:
            return _NOTHING
        side = Side.SELL if event.m else Side.BUY
        return (PublicTrade(pair, str(event.a), event.p, event.q, side, instant_ns(event.T), aggregated=True),)

    def _rare(self, data: bytes) -> Sequence[MarketEvent]:
        if is_list(data):
            return self._all_symbols(data)
        frame = _other(data)
        if frame.stream:
            return self._named(frame.stream, bytes(frame.data), data)
        if frame.e or frame.u is not None:
            return self._bare(frame.e, data)
        if frame.error is not None:
            return (VenueNotice(str(frame.error.code), frame.error.msg, refused=True),)
        if frame.code is not None:
            return (VenueNotice(str(frame.code), frame.msg, refused=True),)
        if bytes(frame.result):
            return (Ack(frame.id),)
        if bytes(frame.data):
            return self._notice(_kind(frame.data).e, data)
        if frame.last_update_id is not None:
            return _NOTHING  # the best levels, bare
        raise MalformedFrame("neither an event nor an answer", data)

    def _named(self, name: str, event: bytes, data: bytes) -> Sequence[MarketEvent]:
        """A combined frame that is not written as the venue does, or is of another stream."""
        stream = "bookTicker" if name == _ALL_QUOTES else name.partition("@")[2]
        if stream == "depth" or stream.startswith("depth@"):
            return self._depth(_read_bare(event))
        if stream == "bookTicker":
            return self._quote(_bare_quote(event))
        if stream == "trade":
            return self._trade(_bare_trade(event))
        if stream == "aggTrade":
            return self._aggregate(_bare_aggregate(event))
        return self._notice(_kind(event).e if event.startswith(b"{") else "", data)

    def _bare(self, kind: str, data: bytes) -> Sequence[MarketEvent]:
        if kind == "depthUpdate":
            return self._depth(_read_bare(data))
        if kind == "trade":
            return self._trade(_bare_trade(data))
        if kind == "aggTrade":
            return self._aggregate(_bare_aggregate(data))
        if not kind:
            return self._quote(_bare_quote(data))
        return self._notice(kind, data)

    def _notice(self, kind: str, data: bytes) -> Sequence[MarketEvent]:
        """Streams that nobody asked for, and the announcement that the server goes down."""
        if kind == "serverShutdown":
            return (VenueNotice(kind, "the venue announced that this connection will end", reconnect=True),)
        return _NOTHING

    # ------------------------------------------------------------------------------------ connections

    def _plan(self, pairs: Sequence[str]) -> ConnectionPlan:
        names = [f"{self._symbols.symbol(pair).lower()}@{stream}" for pair in pairs for stream in _STREAMS]
        url = f"{self._ws}/stream?streams={'/'.join(names)}"
        if len(url) <= constants.MAX_URL:
            return ConnectionPlan(url=url, pairs=tuple(pairs))
        opening = tuple(
            msgspec.json.encode(
                {"method": "SUBSCRIBE", "params": names[at : at + constants.SUBSCRIBE_CHUNK], "id": number}
            ).decode()
            for number, at in enumerate(range(0, len(names), constants.SUBSCRIBE_CHUNK), 1)
        )
        return ConnectionPlan(url=f"{self._ws}/stream", opening=opening, pairs=tuple(pairs))


def _read_framed(raw: bytes) -> _Depth:
    try:
        return _depth_frame(raw).data
    except msgspec.ValidationError:
        return _early_depth_frame(raw).data.today()


def _read_bare(raw: bytes) -> _Depth:
    try:
        return _bare_depth(raw)
    except msgspec.ValidationError:
        return _early_bare_depth(raw).today()


def _read_snapshot(body: bytes | str) -> _Snapshot:
    try:
        return _snapshot(body)
    except msgspec.ValidationError:
        early = _early_snapshot(body)
        return _Snapshot(early.last_update_id, _plain(early.bids), _plain(early.asks))


def _plain(levels: _EarlyLevels) -> _Levels:
    return [(price, size) for price, size, _ in levels]


def _snapshot_weight(depth: int) -> int:
    return 5 if depth <= 100 else 25 if depth <= 500 else 50 if depth <= 1000 else 250


def _stream_names(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    for streams in parse_qs(parts.query).get("streams", []):
        yield from streams.split("/")
    if "/ws/" in parts.path:
        yield from unquote(parts.path.partition("/ws/")[2]).split("/")
