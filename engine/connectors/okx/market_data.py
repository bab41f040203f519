"""OKX's public streams: frames in, typed events out.

Source: "Order book channel" and "Trades channel" of the OKX API v5 documentation (2026). Each update names the
id before its own (``prevSeqId``); the same id twice, with no levels, says that nothing changed; after
maintenance ids may begin anew. Until 2026 a signed CRC32 came with each message; it is zero now. Messages of
before 2023 have no ids: there the time stands in, and the checksum alone shows a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from engine.book.checksums import OkxChecksum
from engine.book.events import DepthDiff, DepthSnapshot
from engine.book.rules import PreviousIdRule
from engine.connectors.base import (
    Ack,
    ConnectionPlan,
    MarketDataProtocol,
    MarketEvent,
    PublicTrade,
    RecordedReply,
    VenueNotice,
)
from engine.connectors.decoding import UNREADABLE, Amount, MillisText, utf8
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.okx import constants
from engine.connectors.okx.symbols import parse_instruments
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_NOTHING: tuple[MarketEvent, ...] = ()
_MS = 1_000_000
_UPGRADE = "64008"
_SeqId = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
_Level = Annotated[list[str], Meta(min_length=2)]


class _Arg(msgspec.Struct, gc=False):
    channel: str = ""
    instId: str = ""


class _Frame(msgspec.Struct, gc=False):
    arg: _Arg | None = None
    action: str = ""
    data: msgspec.Raw = msgspec.Raw()
    event: str = ""
    code: str = ""
    msg: str = ""


class _Book(msgspec.Struct, gc=False):
    asks: list[_Level]
    bids: list[_Level]
    ts: MillisText
    checksum: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    seqId: _SeqId | None = None
    prevSeqId: _SeqId | None = None


class _Trade(msgspec.Struct, gc=False):
    instId: str
    tradeId: str
    px: Amount
    sz: Amount
    side: Literal["buy", "sell"]
    ts: MillisText


_frame = msgspec.json.Decoder(_Frame).decode
_books = msgspec.json.Decoder(list[_Book]).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode


class OkxMarketData(MarketDataProtocol):
    """The ``books`` channel, 400 levels every 100 ms, and trades of each instrument."""

    silence_after_s = 60.0
    keepalive = (constants.KEEPALIVE_S, "ping")

    def __init__(self, ws: str, symbols: SymbolMap) -> None:
        self._ws = ws
        self._symbols = symbols
        self._channels: dict[str, str] = {}

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.PAIRS_A_CONNECTION
        parts = [tuple(pairs[at : at + each]) for at in range(0, len(pairs), each)]
        return [
            ConnectionPlan(
                url=self._ws,
                opening=(self._ask("subscribe", part, "books"), self._ask("subscribe", part, "trades")),
                pairs=part,
            )
            for part in parts
        ]

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        if data in ("pong", b"pong"):
            return _NOTHING
        try:
            frame = _frame(utf8(data))
            if frame.event:
                return self._said(frame)
            if frame.arg is None or not bytes(frame.data):
                raise MalformedFrame("neither an event nor data", data)
            return self._data(frame, frame.arg)
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error

    def is_pong(self, data: bytes) -> bool:
        return data == b"pong"

    def sequence_rule(self, pair: str = "") -> PreviousIdRule:
        return PreviousIdRule(replacing=True, resets=True, timed=True, checksum=OkxChecksum())

    def snapshot_request(self, pair: str) -> None:
        return None

    def resubscribe(self, pair: str) -> tuple[str, ...]:
        channel = self._channels.get(self._symbols.symbol(pair), "books")
        return self._ask("unsubscribe", (pair,), channel), self._ask("subscribe", (pair,), channel)

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        raise MalformedReply(f"snapshot of {pair}: this venue sends its books in the stream")

    def pairs_of(self, url: str) -> tuple[str, ...]:
        return ()

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        if urlsplit(url).path != constants.PATH_RULES:
            return RecordedReply()
        rules = parse_instruments(body)
        self._symbols.learn(rules.values())
        return RecordedReply(rules=rules)

    # ----------------------------------------------------------------------------------------- frames

    def _data(self, frame: _Frame, arg: _Arg) -> Sequence[MarketEvent]:
        if arg.channel in constants.BOOK_CHANNELS:
            return self._on_books(frame.action, arg, _books(frame.data))
        if arg.channel in constants.WHOLE_CHANNELS:
            return self._on_books("snapshot", arg, _books(frame.data))
        if arg.channel == "trades":
            return self._on_trades(_trades(frame.data))
        return _NOTHING

    def _on_books(self, action: str, arg: _Arg, books: list[_Book]) -> Sequence[MarketEvent]:
        if action not in ("snapshot", "update"):
            raise MalformedFrame("a book that is neither snapshot nor update", f"action {action!r}")
        pair = self._symbols.pair(arg.instId)
        if pair is None or not self._is_kept(arg):
            return _NOTHING
        return [self._snapshot(pair, book) if action == "snapshot" else self._diff(pair, book) for book in books]

    def _is_kept(self, arg: _Arg) -> bool:
        """One book is kept an instrument: of the first channel of changes that was seen, or else of whole books."""
        kept = self._channels.setdefault(arg.instId, arg.channel)
        if kept in constants.WHOLE_CHANNELS and arg.channel in constants.BOOK_CHANNELS:
            self._channels[arg.instId] = kept = arg.channel
        return kept == arg.channel

    def _snapshot(self, pair: str, book: _Book) -> DepthSnapshot:
        time_ms = int(book.ts)
        update_id = time_ms if book.seqId is None else book.seqId
        return DepthSnapshot(pair, update_id, book.bids, book.asks, time_ms * _MS, book.checksum or None)

    def _diff(self, pair: str, book: _Book) -> DepthDiff:
        time_ms = int(book.ts)
        update_id = time_ms if book.seqId is None else book.seqId
        previous = None if book.seqId is None else book.prevSeqId
        if book.seqId is not None and previous is None:
            raise MalformedFrame("an update with a seqId and no prevSeqId", f"{pair} {book.seqId}")
        return DepthDiff(
            pair, update_id, update_id, previous, book.bids, book.asks, time_ms * _MS, book.checksum or None
        )

    def _on_trades(self, trades: list[_Trade]) -> Sequence[MarketEvent]:
        events = []
        for trade in trades:
            pair = self._symbols.pair(trade.instId)
            if pair is not None:
                side = Side.BUY if trade.side == "buy" else Side.SELL
                events.append(PublicTrade(pair, trade.tradeId, trade.px, trade.sz, side, int(trade.ts) * _MS))
        return events

    def _said(self, frame: _Frame) -> Sequence[MarketEvent]:
        if frame.event in ("subscribe", "unsubscribe"):
            return (Ack(None),)
        if frame.event == "error":
            return (VenueNotice(frame.code, frame.msg),)
        if frame.event == "notice":
            return (VenueNotice(frame.code, frame.msg, reconnect=frame.code == _UPGRADE),)
        return _NOTHING

    # ------------------------------------------------------------------------------------ connections

    def _ask(self, op: str, pairs: Sequence[str], channel: str) -> str:
        args = [{"channel": channel, "instId": self._symbols.symbol(pair)} for pair in pairs]
        return msgspec.json.encode({"op": op, "args": args}).decode()
