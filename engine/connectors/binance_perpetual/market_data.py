"""Binance USD-M's public streams: frames in, typed events out.

Source: "Websocket Market Streams" of the USDⓈ-M Futures documentation (2026), with its "How to manage a local
order book correctly". Each depth event names the last id of the one before it (``pu``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.book.rules import PreviousIdRule
from engine.connectors.base import (
    Ack,
    ConnectionPlan,
    HttpRequest,
    MarketDataProtocol,
    MarketEvent,
    PublicTrade,
    RecordedReply,
    VenueNotice,
)
from engine.connectors.binance_perpetual import constants
from engine.connectors.binance_perpetual.symbols import parse_exchange_info
from engine.connectors.decoding import UNREADABLE, Amount, Id, Millis, is_list, utf8
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_PUBLIC = ("depth@100ms", "bookTicker")
_MARKET = ("aggTrade",)
_MS = 1_000_000
_NOTHING: tuple[MarketEvent, ...] = ()
_Levels = list[tuple[str, str]]


class _Depth(msgspec.Struct, gc=False):
    E: Millis
    s: str
    U: Id
    u: Id
    pu: Id
    b: _Levels
    a: _Levels


class _Quote(msgspec.Struct, gc=False):
    u: Id
    s: str
    b: str
    B: str
    a: str
    A: str


class _Aggregate(msgspec.Struct, gc=False):
    s: str
    a: Id
    p: Amount
    q: Amount
    T: Millis
    m: bool


class _Trade(msgspec.Struct, gc=False):
    s: str
    t: Id
    p: Amount
    q: Amount
    T: Millis
    m: bool


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Frame(msgspec.Struct, gc=False):
    """Any frame, as far as is needed to know what it is."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    result: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    error: _Error | None = None
    code: int | None = None
    msg: str = ""


class _Kind(msgspec.Struct):
    e: str = ""


class _Snapshot(msgspec.Struct):
    lastUpdateId: Id
    bids: _Levels
    asks: _Levels
    T: Millis = 0


class _Request(msgspec.Struct):
    method: str = ""
    params: list[str] = []


_frame = msgspec.json.Decoder(_Frame).decode
_events = msgspec.json.Decoder(list[_Kind]).decode
_kind = msgspec.json.Decoder(_Kind).decode
_depth = msgspec.json.Decoder(_Depth).decode
_quote = msgspec.json.Decoder(_Quote).decode
_aggregate = msgspec.json.Decoder(_Aggregate).decode
_trade = msgspec.json.Decoder(_Trade).decode
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_request = msgspec.json.Decoder(_Request).decode


class BinancePerpetualMarketData(MarketDataProtocol):
    """Depth every 100 ms, best quotes and aggregate trades of each contract."""

    silence_after_s = 20.0
    quote_overdue_s = constants.QUOTE_OVERDUE_S
    max_mismatches = 2

    def __init__(self, ws: str, symbols: SymbolMap, *, snapshot_depth: int = constants.SNAPSHOT_DEPTH) -> None:
        self._ws = ws.rstrip("/")
        self._symbols = symbols
        self._snapshot_depth = snapshot_depth

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.MAX_STREAMS // len(_PUBLIC)
        plans = []
        for at in range(0, len(pairs), each):
            part = tuple(pairs[at : at + each])
            plans.append(self._plan("public", _PUBLIC, part, part))
            # Losing this connection costs trades, and no book its sync.
            plans.append(self._plan("market", _MARKET, part, ()))
        return plans

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        try:
            raw = utf8(data)
            if is_list(raw):
                return self._all_symbols(raw)
            frame = _frame(raw)
            if frame.stream:
                return self._named(frame.stream.partition("@")[2], bytes(frame.data))
            if frame.e:
                return self._event(frame.e, raw)
            return self._answer(frame, data)
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error

    def sequence_rule(self, pair: str = "") -> PreviousIdRule:
        return PreviousIdRule()

    def snapshot_request(self, pair: str) -> HttpRequest:
        return HttpRequest(
            path=constants.PATH_DEPTH,
            query=f"symbol={quote(self._symbols.symbol(pair))}&limit={self._snapshot_depth}",
            weight=_snapshot_weight(self._snapshot_depth),
        )

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        try:
            reply = _snapshot(body)
        except UNREADABLE as error:
            raise MalformedReply(f"snapshot of {pair}: {error}") from error
        return DepthSnapshot(pair, reply.lastUpdateId, reply.bids, reply.asks, reply.T * _MS)

    def pairs_of(self, url: str) -> tuple[str, ...]:
        found = (self._symbols.pair(symbol.upper()) for symbol in _with_depth(_names_of(url)))
        return tuple(dict.fromkeys(pair for pair in found if pair is not None))

    def best_levels_of(self, url: str, sent: Sequence[str]) -> frozenset[str]:
        """Bare frames of ``depth5`` and the like, without the stream's name that tells them apart."""
        names = [*_names_of(url), *_subscribed(sent)]
        best = {symbol for symbol, _, stream in (name.partition("@") for name in names) if stream.startswith("depth")}
        found = (self._symbols.pair(symbol.upper()) for symbol in best - set(_with_depth(names)))
        return frozenset(pair for pair in found if pair is not None)

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        parts = urlsplit(url)
        if parts.path == constants.PATH_RULES:
            rules = parse_exchange_info(body)
            self._symbols.learn(rules.values())
            return RecordedReply(rules=rules)
        if parts.path == constants.PATH_DEPTH:
            pair = self._symbols.pair("".join(parse_qs(parts.query).get("symbol", [])))
            if pair is not None:
                return RecordedReply(snapshot=self.parse_snapshot(pair, body))
        return RecordedReply()

    # ----------------------------------------------------------------------------------------- frames

    def _all_symbols(self, data: bytes) -> Sequence[MarketEvent]:
        if not _events(data):
            raise MalformedFrame("an empty list", data)
        return _NOTHING

    def _named(self, stream: str, event: bytes) -> Sequence[MarketEvent]:
        """A combined frame. Its stream's name tells diffs from the best levels, which call themselves the same."""
        if not event.startswith(b"{"):
            return _NOTHING
        kind = _kind(event).e
        if kind == "depthUpdate" and stream != "depth" and not stream.startswith("depth@"):
            return _NOTHING
        return self._event(kind, event)

    def _event(self, kind: str, raw: bytes) -> Sequence[MarketEvent]:
        if kind == "depthUpdate":
            return self._on_depth(_depth(raw))
        if kind == "bookTicker":
            return self._on_quote(_quote(raw))
        if kind == "aggTrade":
            return self._on_aggregate(_aggregate(raw))
        if kind == "trade":
            return self._on_trade(_trade(raw))
        if kind == "serverShutdown":
            return (VenueNotice(kind, "the venue announced that this connection will end", reconnect=True),)
        if not kind:
            raise MalformedFrame("an event of no kind", raw)
        return _NOTHING

    def _on_depth(self, event: _Depth) -> Sequence[MarketEvent]:
        if event.u < event.U or event.u < event.pu:
            raise MalformedFrame("a range that ends before it begins", f"U {event.U} u {event.u} pu {event.pu}")
        pair = self._symbols.pair(event.s)
        if pair is None:
            return _NOTHING
        return (DepthDiff(pair, event.U, event.u, event.pu, event.b, event.a, event.E * _MS),)

    def _on_quote(self, event: _Quote) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(event.s)
        return _NOTHING if pair is None else (BestQuote(pair, event.u, event.b, event.B, event.a, event.A),)

    def _on_aggregate(self, event: _Aggregate) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(event.s)
        if pair is None:
            return _NOTHING
        # "m": the buyer is the maker, so the taker sold.
        side = Side.SELL if event.m else Side.BUY
        return (PublicTrade(pair, str(event.a), event.p, event.q, side, event.T * _MS, aggregated=True),)

    def _on_trade(self, event: _Trade) -> Sequence[MarketEvent]:
        """Single trades, a stream that some recordings have instead. One of size 0 is none ("X": "NA")."""
        pair = self._symbols.pair(event.s)
        if pair is None or not event.q.strip("0."):
            return _NOTHING
        side = Side.SELL if event.m else Side.BUY
        return (PublicTrade(pair, str(event.t), event.p, event.q, side, event.T * _MS),)

    def _answer(self, frame: _Frame, data: str | bytes) -> Sequence[MarketEvent]:
        if frame.error is not None:
            return (VenueNotice(str(frame.error.code), frame.error.msg, refused=True),)
        if frame.code is not None:
            return (VenueNotice(str(frame.code), frame.msg, refused=True),)
        if bytes(frame.result):
            return (Ack(frame.id),)
        raise MalformedFrame("neither an event nor an answer", data)

    # ------------------------------------------------------------------------------------ connections

    def _plan(
        self, path: str, streams: Sequence[str], symbols_of: Sequence[str], carried: tuple[str, ...]
    ) -> ConnectionPlan:
        names = [f"{self._symbols.symbol(pair).lower()}@{stream}" for pair in symbols_of for stream in streams]
        url = f"{self._ws}/{path}/stream?streams={'/'.join(names)}"
        if len(url) <= constants.MAX_URL:
            return ConnectionPlan(url=url, pairs=carried)
        text = msgspec.json.encode({"method": "SUBSCRIBE", "params": names, "id": 1}).decode()
        return ConnectionPlan(url=f"{self._ws}/{path}/stream", opening=(text,), pairs=carried)


def _snapshot_weight(depth: int) -> int:
    return 2 if depth <= 50 else 5 if depth <= 100 else 10 if depth <= 500 else 20


def _names_of(url: str) -> list[str]:
    """Streams that a connection's address names."""
    parts = urlsplit(url)
    names = [name for streams in parse_qs(parts.query).get("streams", []) for name in streams.split("/")]
    return names + unquote(parts.path.partition("/ws/")[2]).split("/") if "/ws/" in parts.path else names


def _with_depth(names: Iterable[str]) -> Iterator[str]:
    """Symbols whose changes are among the streams."""
    for name in names:
        symbol, _, stream = name.partition("@")
        if stream == "depth" or stream.startswith("depth@"):
            yield symbol


def _subscribed(sent: Iterable[str]) -> list[str]:
    """Streams that a client asked for, and did not cancel."""
    names: dict[str, None] = {}
    for text in sent:
        try:
            request = _request(text)
        except UNREADABLE:
            continue
        if request.method == "SUBSCRIBE":
            names |= dict.fromkeys(request.params)
        elif request.method == "UNSUBSCRIBE":
            names = {name: None for name in names if name not in request.params}
    return list(names)
