"""Kraken's public streams, WebSocket v1: frames in, typed events out.

Source: "WebSockets API v1", pages "Book", "Trade", "Book checksum". Data frames are lists,
``[channel id, payload, ..., channel name, pair]``; an update of both sides has two payloads. A book has no
numbers; each update carries a CRC32 of the ten best levels. It is kept to the depth that was subscribed to,
which the channel's name tells (``book-1000``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from engine.book.checksums import KrakenChecksum
from engine.book.events import DepthDiff, DepthSnapshot
from engine.book.rules import ChecksumRule
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
from engine.connectors.decoding import UNREADABLE, Amount, epoch_ns, is_list, utf8
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.kraken_v1 import constants
from engine.connectors.kraken_v1.symbols import parse_asset_pairs
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_NOTHING: tuple[MarketEvent, ...] = ()
_BOOK = re.compile(r"book-([0-9]{1,4})")
_UNUSED = re.compile(r"ticker|spread|ohlc(-[0-9]+)?")
_PRIVATE = ("ownTrades", "openOrders")
_Level = Annotated[list[str], Meta(min_length=3, max_length=4)]
"""Price, size, time, and an "r" for a level that was sent before."""


class _Book(msgspec.Struct, gc=False, rename={"snapshot_asks": "as", "snapshot_bids": "bs"}):
    snapshot_asks: list[_Level] | None = None
    snapshot_bids: list[_Level] | None = None
    a: list[_Level] | None = None
    b: list[_Level] | None = None
    c: Annotated[str, Meta(pattern=r"\A[0-9]{1,10}\Z")] | None = None


class _RestBook(msgspec.Struct):
    bids: list[tuple[str, str, float]]
    asks: list[tuple[str, str, float]]


class _RestReply(msgspec.Struct):
    result: dict[str, _RestBook]


class _Event(msgspec.Struct):
    event: str
    status: str = ""
    errorMessage: str = ""
    reqid: int | None = None


_Trade = tuple[Amount, Amount, str, Literal["b", "s"], str, str]

_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
_book = msgspec.json.Decoder(_Book).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode
_event = msgspec.json.Decoder(_Event).decode
_rest_reply = msgspec.json.Decoder(_RestReply).decode


class KrakenV1MarketData(MarketDataProtocol):
    """Book and trades of each pair."""

    silence_after_s = 10.0
    keepalive = (constants.KEEPALIVE_S, '{"event":"ping"}')
    audit_any_moment = True

    def __init__(self, ws: str, symbols: SymbolMap, *, depth: int = constants.DEPTH) -> None:
        self._ws = ws.rstrip("/")
        self._symbols = symbols
        self._depth = depth
        self._kept: dict[str, int] = {}
        self.audit_levels = min(depth, constants.AUDIT_LEVELS)

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.PAIRS_A_CONNECTION
        parts = [tuple(pairs[at : at + each]) for at in range(0, len(pairs), each)]
        return [
            ConnectionPlan(
                url=self._ws,
                opening=(self._ask("subscribe", part, "book"), self._ask("subscribe", part, "trade")),
                pairs=part,
            )
            for part in parts
        ]

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        try:
            raw = utf8(data)
            if is_list(raw):
                return self._data(_items(raw), data)
            return self._said(_event(raw))
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error
        except ValueError as error:
            raise MalformedFrame(str(error), data) from error

    def is_pong(self, data: bytes) -> bool:
        return b'"pong"' in data

    def sequence_rule(self, pair: str = "") -> ChecksumRule:
        return ChecksumRule(KrakenChecksum())

    def snapshot_request(self, pair: str) -> None:
        return None

    def resubscribe(self, pair: str) -> tuple[str, ...]:
        return self._ask("unsubscribe", (pair,), "book"), self._ask("subscribe", (pair,), "book")

    def audit_request(self, pair: str) -> HttpRequest:
        """The checksum sees ten levels of a side; what is below them is compared with the book by REST ("Get Order
        Book"), which tells neither a number nor a time.
        """
        symbol = self._symbols.symbol(pair).replace("/", "")
        return HttpRequest(path=constants.PATH_DEPTH, query=f"pair={symbol}&count={self.audit_levels}")

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        """Of :meth:`audit_request`."""
        try:
            (book,) = _rest_reply(body).result.values()
        except UNREADABLE as error:
            raise MalformedReply(f"book of {pair}: {error}") from error
        except ValueError as error:
            raise MalformedReply(f"book of {pair}: not the book of one pair") from error
        sides = [[(price, size) for price, size, _ in side] for side in (book.bids, book.asks)]
        return DepthSnapshot(pair, 0, sides[0], sides[1])

    def pairs_of(self, url: str) -> tuple[str, ...]:
        return ()

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        if urlsplit(url).path != constants.PATH_RULES:
            return RecordedReply()
        rules = parse_asset_pairs(body)
        self._symbols.learn(rules.values())
        return RecordedReply(rules=rules)

    # ----------------------------------------------------------------------------------------- frames

    def _data(self, items: list[msgspec.Raw], data: str | bytes) -> Sequence[MarketEvent]:
        if len(items) == 3 and _text(items[1]) in _PRIVATE:
            return _NOTHING
        if len(items) < 4:
            raise MalformedFrame("too short for a data frame", data)
        channel, symbol = _text(items[-2]), _text(items[-1])
        book = _BOOK.fullmatch(channel)
        if book is not None:
            return self._on_book([_book(item) for item in items[1:-2]], symbol, int(book[1]))
        if channel == "trade" and len(items) == 4:
            return self._on_trades(_trades(items[1]), symbol)
        if _UNUSED.fullmatch(channel):
            return _NOTHING
        raise MalformedFrame(f"no channel is named {channel!r}", data)

    def _on_book(self, parts: list[_Book], symbol: str, depth: int) -> Sequence[MarketEvent]:
        """Of several depths of a pair the book is the one whose snapshot came last."""
        pair = self._symbols.pair(symbol)
        if parts[0].snapshot_asks is not None or parts[0].snapshot_bids is not None:
            asks = [level for part in parts for level in part.snapshot_asks or ()]
            bids = [level for part in parts for level in part.snapshot_bids or ()]
            time_ns = _latest(asks, bids)
            if pair is None:
                return _NOTHING
            self._kept[pair] = depth
            return (DepthSnapshot(pair, 0, bids, asks, time_ns, depth=depth),)
        if not all(part.a is not None or part.b is not None for part in parts):
            raise ValueError("a book payload with neither bids nor asks")
        asks = [level for part in parts for level in part.a or ()]
        bids = [level for part in parts for level in part.b or ()]
        sums = [part.c for part in parts if part.c is not None]
        time_ns = _latest(asks, bids)
        checksum = int(sums[-1]) if sums else None
        if pair is None or self._kept.get(pair, depth) != depth:
            return _NOTHING
        return (DepthDiff(pair, 0, 0, None, bids, asks, time_ns, checksum),)

    def _on_trades(self, trades: list[_Trade], symbol: str) -> Sequence[MarketEvent]:
        pair = self._symbols.pair(symbol)
        events = [
            # There are no ids: time and place in the message stand in.
            PublicTrade(pair or "", f"{at}-{n}", price, size, Side.BUY if side == "b" else Side.SELL, epoch_ns(at))
            for n, (price, size, at, side, _, _) in enumerate(trades)
        ]
        return _NOTHING if pair is None else events

    def _said(self, frame: _Event) -> Sequence[MarketEvent]:
        if frame.event == "error" or (frame.event == "subscriptionStatus" and frame.status == "error"):
            return (VenueNotice(frame.event, frame.errorMessage),)
        if frame.event == "systemStatus" and frame.status != "online":
            return (VenueNotice(frame.event, frame.status),)
        if frame.event == "subscriptionStatus":
            return (Ack(frame.reqid),)
        return _NOTHING

    # ------------------------------------------------------------------------------------ connections

    def _ask(self, event: str, pairs: Sequence[str], name: str) -> str:
        subscription: dict[str, str | int] = {"name": name}
        if name == "book":
            subscription["depth"] = self._depth
        symbols = [self._symbols.symbol(pair) for pair in pairs]
        return msgspec.json.encode({"event": event, "pair": symbols, "subscription": subscription}).decode()


def _latest(*sides: Sequence[Sequence[str]]) -> int:
    """The latest time of any level; ValueError if one has none."""
    return max((epoch_ns(level[2]) for side in sides for level in side), default=0)
