"""Coinbase Exchange's public feed: frames in, typed events out.

Source: "WebSocket Channels" of the Coinbase Exchange documentation (2026): ``level2_batch``, which is ``level2`` every
50 ms and without a key, ``matches``, and ``heartbeat``, which comes each second. A book is a snapshot and updates
without numbers: a lost one shows only where it leaves the book crossed, so these books are to be audited by REST. The
sequence of matches and heartbeats counts the messages of another channel (``full``), and the venue says that matches
may be dropped where ``level2`` is not: neither shows a loss of the book's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from engine.book.events import DepthDiff, DepthSnapshot
from engine.book.rules import UnnumberedRule
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
from engine.connectors.coinbase_exchange import constants
from engine.connectors.coinbase_exchange.symbols import parse_products
from engine.connectors.decoding import UNREADABLE, Amount, Id, is_list, iso_ns, utf8
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.symbols import SymbolMap
from engine.messages import Side

_NOTHING: tuple[MarketEvent, ...] = ()
_BOOK = "level2_batch"
_CHANNELS = (_BOOK, "matches", "heartbeat")


class _Kind(msgspec.Struct, gc=False):
    type: str
    message: str = ""
    reason: str = ""
    changes: msgspec.Raw = msgspec.Raw()
    asks: msgspec.Raw = msgspec.Raw()


class _Snapshot(msgspec.Struct, gc=False):
    product_id: str
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    time: str = ""


class _Update(msgspec.Struct, gc=False):
    product_id: str
    changes: list[tuple[Literal["buy", "sell"], str, str]]
    time: str = ""


class _Match(msgspec.Struct, gc=False):
    product_id: str
    trade_id: Id
    price: Amount
    size: Amount
    side: Literal["buy", "sell"]
    time: str


class _Book(msgspec.Struct):
    sequence: Id
    bids: list[list[msgspec.Raw]]
    asks: list[list[msgspec.Raw]]
    time: str = ""


_kind = msgspec.json.Decoder(_Kind).decode
_snapshot = msgspec.json.Decoder(_Snapshot).decode
_update = msgspec.json.Decoder(_Update).decode
_match = msgspec.json.Decoder(_Match).decode
_book = msgspec.json.Decoder(_Book).decode
_texts = msgspec.json.Decoder(list[str]).decode
_text = msgspec.json.Decoder(str).decode


class CoinbaseExchangeMarketData(MarketDataProtocol):
    """The book, ``matches`` and ``heartbeat`` of each product."""

    silence_after_s = 10.0
    audit_levels = 100
    audit_tolerance_s = 0.1
    audit_batched = True

    def __init__(self, ws: str, symbols: SymbolMap) -> None:
        self._ws = ws
        self._symbols = symbols

    def connections(self, pairs: Sequence[str]) -> list[ConnectionPlan]:
        each = constants.PAIRS_A_CONNECTION
        parts = [tuple(pairs[at : at + each]) for at in range(0, len(pairs), each)]
        return [
            ConnectionPlan(url=self._ws, opening=(self._ask("subscribe", part, _CHANNELS),), pairs=part)
            for part in parts
        ]

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        try:
            raw = utf8(data)
            if is_list(raw):
                return self._order_by_order(_texts(raw), data)
            frame = _kind(raw)
            if frame.type == "l2update":
                return self._on_update(_update(raw))
            if frame.type == "snapshot":
                return self._on_snapshot(_snapshot(raw))
            if frame.type == "match":
                return self._on_match(_match(raw))
            return self._rare(frame, data)
        except UNREADABLE as error:
            raise MalformedFrame(str(error), data) from error
        except ValueError as error:
            raise MalformedFrame(str(error), data) from error

    def sequence_rule(self, pair: str = "") -> UnnumberedRule:
        return UnnumberedRule()

    def snapshot_request(self, pair: str) -> None:
        return None

    def resubscribe(self, pair: str) -> tuple[str, ...]:
        return self._ask("unsubscribe", (pair,), (_BOOK,)), self._ask("subscribe", (pair,), (_BOOK,))

    def audit_request(self, pair: str) -> HttpRequest:
        return HttpRequest(path=f"{constants.PATH_RULES}/{self._symbols.symbol(pair)}/book", query="level=2")

    def parse_snapshot(self, pair: str, body: bytes | str) -> DepthSnapshot:
        """Of :meth:`audit_request`: the book by REST, whose ``sequence`` the feed does not know; its time is
        what can be compared.
        """
        try:
            book = _book(body)
            sides = [[(_text(level[0]), _text(level[1])) for level in side] for side in (book.bids, book.asks)]
            time_ns = iso_ns(book.time) if book.time else 0
        except (*UNREADABLE, IndexError, ValueError) as error:
            raise MalformedReply(f"book of {pair}: {error}") from error
        return DepthSnapshot(pair, book.sequence, sides[0], sides[1], time_ns)

    def pairs_of(self, url: str) -> tuple[str, ...]:
        return ()

    def parse_recorded(self, url: str, body: bytes | str) -> RecordedReply:
        if urlsplit(url).path != constants.PATH_RULES:
            return RecordedReply()
        rules = parse_products(body)
        self._symbols.learn(rules.values())
        return RecordedReply(rules=rules)

    # ----------------------------------------------------------------------------------------- frames

    def _on_update(self, frame: _Update) -> Sequence[MarketEvent]:
        time_ns = iso_ns(frame.time) if frame.time else 0
        pair = self._symbols.pair(frame.product_id)
        if pair is None:
            return _NOTHING
        bids = [(price, size) for side, price, size in frame.changes if side == "buy"]
        asks = [(price, size) for side, price, size in frame.changes if side == "sell"]
        return (DepthDiff(pair, 0, 0, None, bids, asks, time_ns),)

    def _on_snapshot(self, frame: _Snapshot) -> Sequence[MarketEvent]:
        time_ns = iso_ns(frame.time) if frame.time else 0
        pair = self._symbols.pair(frame.product_id)
        return _NOTHING if pair is None else (DepthSnapshot(pair, 0, frame.bids, frame.asks, time_ns),)

    def _on_match(self, frame: _Match) -> Sequence[MarketEvent]:
        time_ns = iso_ns(frame.time)
        pair = self._symbols.pair(frame.product_id)
        if pair is None:
            return _NOTHING
        # "side" is the maker's.
        side = Side.SELL if frame.side == "buy" else Side.BUY
        return (PublicTrade(pair, str(frame.trade_id), frame.price, frame.size, side, time_ns),)

    def _order_by_order(self, words: list[str], data: str | bytes) -> Sequence[MarketEvent]:
        """``level3``, a channel of single orders in lists of texts, the first of which says what happened."""
        if not words or not words[0]:
            raise MalformedFrame("a list that says nothing", data)
        return _NOTHING

    def _rare(self, frame: _Kind, data: str | bytes) -> Sequence[MarketEvent]:
        if frame.type == "subscriptions":
            return (Ack(None),)
        if frame.type == "error":
            return (VenueNotice("error", f"{frame.message} {frame.reason}".strip()),)
        if not frame.type or bytes(frame.changes) or bytes(frame.asks):
            raise MalformedFrame(f"no message is of type {frame.type!r}", data)
        return _NOTHING  # other channels, and the match before the subscription (last_match)

    # ------------------------------------------------------------------------------------ connections

    def _ask(self, kind: str, pairs: Sequence[str], channels: Sequence[str]) -> str:
        products = [self._symbols.symbol(pair) for pair in pairs]
        return msgspec.json.encode({"type": kind, "product_ids": products, "channels": list(channels)}).decode()
