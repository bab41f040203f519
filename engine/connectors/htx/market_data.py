"""HTX's public streams: frames in, typed events out.

Source: "Market Depth" and "Trade Detail" of the HTX documentation (2026). Frames are gzip in binary; their
numbers are JSON numbers, read as exact decimals. ``depth.step0`` sends the whole book, 150 levels a side, about
once a second: each replaces the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from engine.book.events import DepthSnapshot
from engine.book.rules import ReplacingRule
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


class _Frame(msgspec.Struct, gc=False, rename={"error_code": "err-code", "error_text": "err-msg"}):
    ch: str = ""
    tick: msgspec.Raw = msgspec.Raw()
    ts: int = 0
    ping: Id | None = None
    id: int | str | None = None
    status: str = ""
    subbed: str | None = None
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
_trades = msgspec.json.Decoder(_Trades).decode


class HtxMarketData(MarketDataProtocol):
    """``depth.step0`` and ``trade.detail`` of each symbol."""

    silence_after_s = 15.0

    def __init__(self, ws: str, symbols: SymbolMap) -> None:
        self._ws = ws
        self._symbols = symbols

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.PAIRS_A_CONNECTION
        parts = [tuple(pairs[at : at + each]) for at in range(0, len(pairs), each)]
        return [
            ConnectionPlan(
                url=self._ws,
                opening=tuple(self._ask("sub", pair, channel) for pair in part for channel in (_BOOK, _TRADES)),
                pairs=part,
            )
            for part in parts
        ]

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

    def sequence_rule(self) -> ReplacingRule:
        return ReplacingRule()

    def snapshot_request(self, pair: str) -> None:
        return None

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
        if channel[2] == _TRADES:
            return self._on_trades(channel[1], _trades(frame.tick))
        return _NOTHING

    def _on_book(self, symbol: str, book: _Book) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(symbol)
        if pair is None:
            return _NOTHING
        update_id = book.ts if book.version is None else book.version
        return (DepthSnapshot(pair, update_id, _texts(book.bids), _texts(book.asks), book.ts * _MS),)

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
            return (Ack(frame.id),)
        if frame.status == "error":
            return (VenueNotice(frame.error_code, frame.error_text),)
        raise MalformedFrame("neither a ping, an answer nor data", data)

    # ------------------------------------------------------------------------------------ connections

    def _ask(self, verb: str, pair: str, channel: str) -> str:
        topic = f"market.{self._symbols.symbol(pair)}.{channel}"
        return msgspec.json.encode({verb: topic, "id": topic}).decode()


def _texts(levels: list[_Level]) -> list[tuple[str, str]]:
    return [(str(level.price.copy_abs()), str(level.size.copy_abs())) for level in levels]


def _require_sizes(*values: Decimal) -> None:
    require_amounts(*values)
    if any(value < 0 for value in values):
        raise ValueError("a price or a size below zero")
