"""Other books on the same frames, each by its fastest documented way, all decoded with msgspec, typed.

Each answers its best bid and ask after every frame, as ours does to see whether the book is crossed: some sort only
when they are asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from benchmarks.common import say

Levels = list[tuple[str, str]]
Best = tuple[Decimal, Decimal]


class Book(Protocol):
    def take(self, frame: bytes) -> None: ...

    def best(self) -> Best: ...

    def close(self) -> None: ...


class _Event(msgspec.Struct, gc=False):
    U: int
    u: int
    b: Levels
    a: Levels


class _Combined(msgspec.Struct, gc=False):
    data: _Event


class _Peer:
    def __init__(self, first: bytes) -> None:
        self._decode = msgspec.json.Decoder(_Combined).decode
        decoded = json.loads(first)
        self._last = decoded["lastUpdateId"]
        self._bids, self._asks = decoded["bids"], decoded["asks"]

    def _next(self, frame: bytes) -> _Event:
        event = self._decode(frame).data
        if event.U - self._last > 1:
            raise RuntimeError("a gap")
        self._last = event.u
        return event

    def close(self) -> None:
        """Nothing to leave."""


class SortedContainers(_Peer):
    """Two ``SortedDict``, prices and sizes as exact integers of the digits: faster than ``Decimal``."""

    def __init__(self, first: bytes) -> None:
        from sortedcontainers import SortedDict

        super().__init__(first)
        bids, asks = self._bids, self._asks
        self._bid_levels, self._ask_levels = SortedDict(), SortedDict()
        self._apply(self._bid_levels, bids)
        self._apply(self._ask_levels, asks)

    def take(self, frame: bytes) -> None:
        event = self._next(frame)
        self._apply(self._bid_levels, event.b)
        self._apply(self._ask_levels, event.a)
        self._bid_levels.peekitem(-1)
        self._ask_levels.peekitem(0)

    def best(self) -> Best:
        bid, ask = self._bid_levels.peekitem(-1)[0], self._ask_levels.peekitem(0)[0]
        return Decimal(bid).scaleb(-8), Decimal(ask).scaleb(-8)

    @staticmethod
    def _apply(side: Any, levels: Levels) -> None:
        for price, size in levels:
            key, value = int(price.replace(".", "")), int(size.replace(".", ""))
            if value:
                side[key] = value
            else:
                side.pop(key, None)


class OrderBookC(_Peer):
    """``order_book.OrderBook`` (C). Keys are integers of the digits, twice as fast as the ``Decimal`` of its page."""

    def __init__(self, first: bytes) -> None:
        from order_book import OrderBook

        super().__init__(first)
        self._book = OrderBook()
        self._apply(self._book.bids, self._bids)
        self._apply(self._book.asks, self._asks)

    def take(self, frame: bytes) -> None:
        event = self._next(frame)
        book = self._book
        self._apply(book.bids, event.b)
        self._apply(book.asks, event.a)
        book.bids.index(0)
        book.asks.index(0)

    def best(self) -> Best:
        bid, ask = self._book.bids.index(0)[0], self._book.asks.index(0)[0]
        return Decimal(bid).scaleb(-8), Decimal(ask).scaleb(-8)

    @staticmethod
    def _apply(side: Any, levels: Levels) -> None:
        for price, size in levels:
            key, value = int(price.replace(".", "")), int(size.replace(".", ""))
            if value:
                side[key] = value
            elif key in side:
                del side[key]


class Nautilus(_Peer):
    """``nautilus_trader``'s L2 book (Rust), level by level: a fifth faster than by ``OrderBookDeltas``."""

    def __init__(self, first: bytes) -> None:
        from nautilus_trader.model.book import OrderBook
        from nautilus_trader.model.data import BookOrder
        from nautilus_trader.model.enums import BookType, OrderSide
        from nautilus_trader.model.identifiers import InstrumentId
        from nautilus_trader.model.objects import Price, Quantity

        super().__init__(first)
        self._book = OrderBook(InstrumentId.from_str("PAIR.VENUE"), BookType.L2_MBP)
        self._order, self._price, self._size = BookOrder, Price.from_str, Quantity.from_str
        self._buy, self._sell = OrderSide.BUY, OrderSide.SELL
        self._apply(self._buy, self._bids, self._last)
        self._apply(self._sell, self._asks, self._last)

    def take(self, frame: bytes) -> None:
        event = self._next(frame)
        self._apply(self._buy, event.b, event.u)
        self._apply(self._sell, event.a, event.u)
        self._book.best_bid_price()
        self._book.best_ask_price()

    def best(self) -> Best:
        return Decimal(str(self._book.best_bid_price())), Decimal(str(self._book.best_ask_price()))

    def _apply(self, side: Any, levels: Levels, update_id: int) -> None:
        book, order, price_of, size_of = self._book, self._order, self._price, self._size
        for price, size in levels:
            level = order(side, price_of(price), size_of(size), 0)
            if size.strip("0."):
                book.update(level, update_id)
            else:
                book.delete(level, update_id)


PEERS: dict[str, Callable[[bytes], Book]] = {
    "sortedcontainers": SortedContainers,
    "order-book": OrderBookC,
    "nautilus_trader": Nautilus,
}


def available() -> dict[str, Callable[[bytes], Book]]:
    """The peers that can be imported; says why another cannot."""
    found = {}
    for name, make in PEERS.items():
        try:
            make(b'{"lastUpdateId":1,"bids":[["1.00000000","1.00000000"]],"asks":[["2.00000000","1.00000000"]]}')
        except ImportError as error:
            say(f"{name} is left out: {error} (pip install 'engine[bench]' brings it)")
        else:
            found[name] = make
    return found
