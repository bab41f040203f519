"""HTX's public streams: frames in, typed events out.

Source: "Market Depth", "Market By Price (incremental update)" and "Trade Detail" of the HTX documentation (2026).
Frames are gzip in binary; their numbers are JSON numbers, read as exact decimals. ``depth.step0`` sends the whole book,
150 levels a side, about once a second: each replaces the last. ``mbp.150`` sends changes every 100 ms, each with the
number before its own; the whole book is asked for on the same connection. One of the two is kept a symbol: the first
one seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import msgspec

from engine.book.checksums import Checksum
from engine.book.events import DepthDiff, DepthSnapshot
from engine.book.rules import PreviousIdRule, Verdict
from engine.connectors.base import (
    Ack,
    ConnectionPlan,
    MarketDataProtocol,
    MarketEvent,
    PublicTrade,
    RecordedReply,
    Send,
    VenueNotice,
)
from engine.connectors.decoding import UNREADABLE, Id, Millis, gunzipped, require_amounts, utf8
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.htx import constants
from engine.connectors.htx.symbols import parse_symbols
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_NOTHING: tuple[MarketEvent, ...] = ()
_MS = 1_000_000
_GZIP = b"\x1f\x8b"
_CHANNEL = re.compile(r"market\.([a-z0-9]+)\.(.+)")
_BOOK, _TRADES = "depth.step0", "trade.detail"
_CHANGES = re.compile(r"mbp\.([0-9]{1,3})")


class _Frame(msgspec.Struct, gc=False, rename={"error_code": "err-code", "error_text": "err-msg"}):
    ch: str = ""
    tick: msgspec.Raw = msgspec.Raw()
    ts: Millis = 0
    ping: Id | None = None
    id: int | str | None = None
    status: str = ""
    subbed: str | None = None
    rep: str = ""
    data: msgspec.Raw = msgspec.Raw()
    error_code: str = ""
    error_text: str = ""


class _Level(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    price: Decimal
    size: Decimal

    def __post_init__(self) -> None:
        _require_sizes(self.price, self.size)


class _Book(msgspec.Struct, gc=False):
    bids: list[_Level]
    asks: list[_Level]
    ts: Millis
    version: Id | None = None


class _Change(msgspec.Struct, gc=False):
    """Of ``mbp``; the reply to a request for the whole book has no number before its own."""

    seqNum: Id
    prevSeqNum: Id | None = None
    bids: list[_Level] = []
    asks: list[_Level] = []


class _Trade(msgspec.Struct, gc=False):
    price: Decimal
    amount: Decimal
    direction: Literal["buy", "sell"]
    ts: Millis
    tradeId: Id | None = None

    def __post_init__(self) -> None:
        _require_sizes(self.price, self.amount)


class _Trades(msgspec.Struct, gc=False):
    data: list[_Trade]


_frame = msgspec.json.Decoder(_Frame).decode
_book = msgspec.json.Decoder(_Book).decode
_change = msgspec.json.Decoder(_Change).decode
_trades = msgspec.json.Decoder(_Trades).decode


class HtxRule:
    """Of either channel: whole books that replace each other, or changes on a book that was asked for.

    ``whole``: whether the book's symbol is one of whole books, so far as is known.
    """

    __slots__ = ("_changes", "_whole")
    numbered: ClassVar[bool] = True
    checksum: ClassVar[Checksum | None] = None

    def __init__(self, whole: Callable[[], bool]) -> None:
        self._whole = whole
        self._changes = PreviousIdRule()

    @property
    def replacing(self) -> bool:
        return self._whole()

    def first(self, snapshot_id: int, diff: DepthDiff) -> Verdict:
        return self._changes.first(snapshot_id, diff)

    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        return self._changes.following(update_id, diff)


class HtxMarketData(MarketDataProtocol):
    """``depth.step0``, or ``mbp`` of so many levels where ``levels`` says so, and ``trade.detail`` of each symbol."""

    silence_after_s = 15.0

    def __init__(self, ws: str, symbols: SymbolMap, *, levels: int = 0) -> None:
        self._ws = ws
        self._symbols = symbols
        self._book = f"mbp.{levels}" if levels else _BOOK
        self._channels: dict[str, str] = {}

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.PAIRS_A_CONNECTION
        parts = [tuple(pairs[at : at + each]) for at in range(0, len(pairs), each)]
        if self._book == _BOOK:
            return [self._plan(self._ws, part, part, (_BOOK, _TRADES)) for part in parts]
        feed = self._ws.removesuffix("/ws") + constants.PATH_FEED
        plans = []
        for part in parts:
            plans.append(self._plan(feed, part, part, (self._book,)))
            # Losing this connection costs trades, and no book its sync.
            plans.append(self._plan(self._ws, part, (), (_TRADES,)))
        return plans

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        try:
            if isinstance(data, bytes) and data.startswith(_GZIP):
                data = gunzipped(data)
            frame = _frame(utf8(data))
            if frame.ping is not None:
                return (Send(f'{{"pong":{frame.ping}}}'),)
            if frame.ch:
                return self._data(frame)
            return self._said(frame, data)
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error
        except ValueError as error:
            raise MalformedFrame(str(error), data) from error

    def sequence_rule(self, pair: str = "") -> HtxRule:
        symbol = self._symbols.symbol(pair) if pair else ""
        return HtxRule(lambda: self._channels.get(symbol, self._book) == _BOOK)

    def snapshot_request(self, pair: str) -> None:
        return None

    def resubscribe(self, pair: str) -> tuple[str, ...]:
        """The whole book is asked for, where changes are followed; whole books come by themselves."""
        return () if self._book == _BOOK else (self._ask("req", pair, self._book),)

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        raise MalformedReply(f"snapshot of {pair}: this venue sends its books in the stream")

    def pairs_of(self, url: str) -> tuple[str, ...]:
        return ()

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        if urlsplit(url).path != constants.PATH_RULES:
            return RecordedReply()
        rules = parse_symbols(body)
        self._symbols.learn(rules.values())
        return RecordedReply(rules=rules)

    # ----------------------------------------------------------------------------------------- frames

    def _data(self, frame: _Frame) -> Sequence[MarketEvent]:
        channel = _CHANNEL.fullmatch(frame.ch)
        if channel is None:
            return _NOTHING  # streams of all symbols
        if channel[2] == _BOOK:
            return self._on_book(channel[1], _book(frame.tick))
        if _CHANGES.fullmatch(channel[2]):
            return self._on_change(channel[1], channel[2], _change(frame.tick), frame.ts)
        if channel[2] == _TRADES:
            return self._on_trades(channel[1], _trades(frame.tick))
        return _NOTHING

    def _on_book(self, symbol: str, book: _Book) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(symbol)
        if pair is None or not self._is_kept(symbol, _BOOK):
            return _NOTHING
        update_id = book.ts if book.version is None else book.version
        return (DepthSnapshot(pair, update_id, _texts(book.bids), _texts(book.asks), book.ts * _MS),)

    def _on_change(self, symbol: str, channel: str, change: _Change, time_ms: int) -> Sequence[MarketEvent]:
        number, previous = change.seqNum, change.prevSeqNum
        if previous is None or previous > number:
            raise MalformedFrame("a change without the number before it", f"{symbol} {number} after {previous}")
        pair = self._symbols.pair(symbol)
        if pair is None or not self._is_kept(symbol, channel):
            return _NOTHING
        bids, asks = _texts(change.bids), _texts(change.asks)
        return (DepthDiff(pair, number, number, previous, bids, asks, time_ms * _MS),)

    def _on_reply(self, frame: _Frame) -> Sequence[MarketEvent]:
        """To a request: of a whole book, or of something that nobody here asks for."""
        channel = _CHANNEL.fullmatch(frame.rep)
        levels = _CHANGES.fullmatch(channel[2]) if channel is not None else None
        if channel is None or levels is None or bytes(frame.data) in (b"", b"null"):
            return (Ack(frame.id),)
        book = _change(frame.data)
        pair = self._symbols.pair(channel[1])
        if pair is None or not self._is_kept(channel[1], channel[2]):
            return _NOTHING
        bids, asks = _texts(book.bids), _texts(book.asks)
        return (DepthSnapshot(pair, book.seqNum, bids, asks, frame.ts * _MS, depth=int(levels[1])),)

    def _is_kept(self, symbol: str, channel: str) -> bool:
        return self._channels.setdefault(symbol, channel) == channel

    def _on_trades(self, symbol: str, trades: _Trades) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(symbol)
        if pair is None:
            return _NOTHING
        return [
            PublicTrade(
                pair,
                str(trade.tradeId or ""),
                f"{trade.price.copy_abs():f}",
                f"{trade.amount.copy_abs():f}",
                Side.BUY if trade.direction == "buy" else Side.SELL,
                trade.ts * _MS,
            )
            for trade in trades.data
        ]

    def _said(self, frame: _Frame, data: str | bytes) -> Sequence[MarketEvent]:
        if frame.status == "ok":
            return self._on_reply(frame)
        if frame.status == "error":
            return (self._refusal(frame),)
        raise MalformedFrame("neither a ping, an answer nor data", data)

    def _refusal(self, frame: _Frame) -> VenueNotice:
        """An error. A pair whose changes cannot be subscribed to may still get the whole book that is asked for."""
        channel = _CHANNEL.fullmatch(str(frame.id))
        is_changes = channel is not None and _CHANGES.fullmatch(channel[2]) is not None
        pair = self._symbols.pair(channel[1]) if channel is not None and is_changes else None
        return VenueNotice(frame.error_code, frame.error_text, refused=pair is not None, pair=pair or "")

    # ------------------------------------------------------------------------------------ connections

    def _plan(
        self, url: str, pairs: Sequence[str], carried: tuple[str, ...], channels: Sequence[str]
    ) -> ConnectionPlan:
        opening = [self._ask("sub", pair, channel) for pair in pairs for channel in channels]
        if self._book in channels and self._book != _BOOK:
            opening += [self._ask("req", pair, self._book) for pair in pairs]
        return ConnectionPlan(url=url, opening=tuple(opening), pairs=carried)

    def _ask(self, verb: str, pair: str, channel: str) -> str:
        """A subscription goes by its topic alone, so that its refusal is told from that of a request."""
        topic = f"market.{self._symbols.symbol(pair)}.{channel}"
        return msgspec.json.encode({verb: topic, "id": topic if verb == "sub" else f"{verb} {topic}"}).decode()


def _texts(levels: list[_Level]) -> list[tuple[str, str]]:
    return [(str(level.price.copy_abs()), str(level.size.copy_abs())) for level in levels]


def _require_sizes(*values: Decimal) -> None:
    require_amounts(*values)
    if any(value < 0 for value in values):
        raise ValueError("a price or a size below zero")
