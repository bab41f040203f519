"""KuCoin's public streams: frames in, typed events out.

Source: "Level2 Market Data" and "Match Execution Data" of the KuCoin documentation (2026). An update covers the
sequence numbers ``sequenceStart`` to ``sequenceEnd``, and each of its changes has its own; a change at price 0
only counts a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Meta

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.book.rules import RangeRule
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
from engine.connectors.decoding import UNREADABLE, Amount, Id, IdText, Millis, utf8
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.kucoin import constants
from engine.connectors.kucoin.symbols import parse_symbols
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_NOTHING: tuple[MarketEvent, ...] = ()
_MS = 1_000_000
_LEVEL2, _MATCH, _TICKER = "/market/level2:", "/market/match:", "/market/ticker:"
_OK = "200000"
_Change = tuple[str, str, IdText]
_NsText = Annotated[str, Meta(pattern=r"\A[0-9]{1,18}\Z|\A[0-8][0-9]{18}\Z")]


class _Frame(msgspec.Struct, gc=False):
    type: str
    topic: str = ""
    subject: str = ""
    data: msgspec.Raw = msgspec.Raw()
    id: str | int | None = None
    code: int | str | None = None


class _Changes(msgspec.Struct, gc=False):
    asks: list[_Change]
    bids: list[_Change]


class _Update(msgspec.Struct, gc=False):
    symbol: str
    sequenceStart: Id
    sequenceEnd: Id
    changes: _Changes
    time: Millis = 0


class _Match(msgspec.Struct, gc=False):
    symbol: str
    tradeId: str
    price: Amount
    size: Amount
    side: Literal["buy", "sell"]
    time: _NsText


class _Quote(msgspec.Struct, gc=False):
    """Sizes and prices are null where a side is empty."""

    sequence: IdText
    bestBid: str | None = None
    bestBidSize: str | None = None
    bestAsk: str | None = None
    bestAskSize: str | None = None


class _Book(msgspec.Struct):
    """Sides are null where nothing is traded."""

    sequence: IdText
    bids: list[tuple[str, str]] | None = None
    asks: list[tuple[str, str]] | None = None
    time: Millis = 0


class _Snapshot(msgspec.Struct):
    code: str
    data: _Book


_frame = msgspec.json.Decoder(_Frame).decode
_update = msgspec.json.Decoder(_Update).decode
_quote = msgspec.json.Decoder(_Quote).decode
_match = msgspec.json.Decoder(_Match).decode
_snapshot = msgspec.json.Decoder(_Snapshot).decode


class KucoinMarketData(MarketDataProtocol):
    """``/market/level2``, ``/market/match`` and ``/market/ticker`` of each pair."""

    silence_after_s = 60.0
    keepalive = (constants.KEEPALIVE_S, '{"id":"keepalive","type":"ping"}')

    def __init__(self, ws: str, symbols: SymbolMap) -> None:
        self._ws = ws
        self._symbols = symbols

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.PAIRS_A_CONNECTION
        parts = [tuple(pairs[at : at + each]) for at in range(0, len(pairs), each)]
        return [ConnectionPlan(url=self._ws, opening=tuple(self._asks(part)), pairs=part) for part in parts]

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        try:
            frame = _frame(utf8(data))
            if frame.type == "message":
                return self._message(frame)
            return self._said(frame, data)
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error

    def is_pong(self, data: bytes) -> bool:
        return b'"pong"' in data

    def sequence_rule(self, pair: str = "") -> RangeRule:
        return RangeRule()

    def snapshot_request(self, pair: str) -> HttpRequest:
        return HttpRequest(path=constants.PATH_DEPTH, query=f"symbol={self._symbols.symbol(pair)}", weight=2)

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        try:
            reply = _snapshot(body)
        except UNREADABLE as error:
            raise MalformedReply(f"snapshot of {pair}: {error}") from error
        if reply.code != _OK:
            raise MalformedReply(f"snapshot of {pair}: the venue answers with code {reply.code}")
        book = reply.data
        return DepthSnapshot(pair, int(book.sequence), book.bids or (), book.asks or (), book.time * _MS)

    def pairs_of(self, url: str) -> tuple[str, ...]:
        return ()

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        parts = urlsplit(url)
        if parts.path in constants.PATHS_RULES:
            rules = parse_symbols(body)
            self._symbols.learn(rules.values())
            return RecordedReply(rules=rules)
        if parts.path in constants.PATHS_DEPTH:
            pair = self._symbols.pair("".join(parse_qs(parts.query).get("symbol", [])))
            if pair is not None:
                return RecordedReply(snapshot=self.parse_snapshot(pair, body))
        return RecordedReply()

    # ----------------------------------------------------------------------------------------- frames

    def _message(self, frame: _Frame) -> Sequence[MarketEvent]:
        if frame.topic.startswith(_LEVEL2):
            return self._on_update(_update(frame.data))
        if frame.topic.startswith(_MATCH):
            return self._on_match(_match(frame.data))
        if frame.topic.startswith(_TICKER):
            symbol = frame.topic.removeprefix(_TICKER)
            return self._on_quote(frame.subject if symbol == "all" else symbol, _quote(frame.data))
        if not frame.topic:
            raise MalformedFrame("a message of no topic", bytes(frame.data))
        return _NOTHING

    def _on_update(self, update: _Update) -> Sequence[MarketEvent]:
        first, last = update.sequenceStart, update.sequenceEnd
        if last < first:
            raise MalformedFrame("a range that ends before it begins", f"{first}..{last}")
        pair = self._symbols.pair(update.symbol)
        if pair is None:
            return _NOTHING
        bids, asks = _in_order(update.changes.bids), _in_order(update.changes.asks)
        return (DepthDiff(pair, first, last, None, bids, asks, update.time * _MS),)

    def _on_match(self, match: _Match) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(match.symbol)
        if pair is None:
            return _NOTHING
        side = Side.BUY if match.side == "buy" else Side.SELL
        return (PublicTrade(pair, match.tradeId, match.price, match.size, side, int(match.time)),)

    def _on_quote(self, symbol: str, quote: _Quote) -> Sequence[MarketEvent]:
        """Its sequence is the book's own."""
        pair = self._symbols.pair(symbol)
        if pair is None or None in (quote.bestBid, quote.bestBidSize, quote.bestAsk, quote.bestAskSize):
            return _NOTHING
        sizes = quote.bestBidSize or "", quote.bestAskSize or ""
        return (BestQuote(pair, int(quote.sequence), quote.bestBid or "", sizes[0], quote.bestAsk or "", sizes[1]),)

    def _said(self, frame: _Frame, data: str | bytes) -> Sequence[MarketEvent]:
        if frame.type == "ack":
            return (Ack(frame.id),)
        if frame.type == "error":
            return (VenueNotice(str(frame.code), bytes(frame.data).decode(), refused=True),)
        if frame.type in ("welcome", "pong", "notice", "command"):
            return _NOTHING
        raise MalformedFrame(f"no frame is of type {frame.type!r}", data)

    # ------------------------------------------------------------------------------------ connections

    def _asks(self, pairs: Sequence[str]) -> list[str]:
        texts = []
        for at in range(0, len(pairs), constants.PAIRS_A_TOPIC):
            symbols = ",".join(self._symbols.symbol(pair) for pair in pairs[at : at + constants.PAIRS_A_TOPIC])
            for topic in (_LEVEL2, _MATCH, _TICKER):
                request = {"id": f"{topic}{at}", "type": "subscribe", "topic": topic + symbols, "response": True}
                texts.append(msgspec.json.encode(request).decode())
        return texts


def _in_order(changes: list[_Change]) -> list[tuple[str, str]]:
    """Levels by their sequence, the later of two at one price last; without those that only count."""
    numbers = [int(number) for _, _, number in changes]
    if any(after < before for before, after in itertools.pairwise(numbers)):
        changes = [change for _, change in sorted(zip(numbers, changes, strict=True), key=lambda entry: entry[0])]
    return [(price, size) for price, size, _ in changes if price.strip("0.")]
