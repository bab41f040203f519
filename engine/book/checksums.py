"""Checksums that venues send of their books' best levels, over the very text of prices and sizes.

A checksum keeps the venue's own words of every level, since a number's trailing zeros are part of the sum
and no part of the number.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

from engine.book.events import Levels
from engine.book.order_book import OrderBook

_SLACK = 1000


class Checksum(ABC):
    """One book's words, and their sum. Feed it everything that the book is fed, after the book took it.

    ``levels``: how many levels of each side are summed up.
    """

    levels: int

    __slots__ = ("_asks", "_bids", "_most")

    def __init__(self) -> None:
        self._bids: dict[str, str] = {}  # by the price without its trailing zeros
        self._asks: dict[str, str] = {}
        self._most = _SLACK

    def load(self, bids: Levels, asks: Levels) -> None:
        """A snapshot: forget all other words."""
        self._bids.clear()
        self._asks.clear()
        self._take(self._bids, bids)
        self._take(self._asks, asks)
        self._most = 2 * (len(self._bids) + len(self._asks)) + _SLACK

    def update(self, bids: Levels, asks: Levels, book: OrderBook) -> None:
        """A diff that is in the book."""
        self._take(self._bids, bids)
        self._take(self._asks, asks)
        if len(self._bids) + len(self._asks) > self._most:
            self._forget_absent(book)

    def of(self, book: OrderBook) -> int | None:
        """The book's checksum; None if it holds a level that was never told in plain words."""
        bids, asks = book.depth_strings(self.levels)
        try:
            return self._sum(
                [self._bids[_key(price)] for price, _ in bids], [self._asks[_key(price)] for price, _ in asks]
            )
        except KeyError:
            return None

    @staticmethod
    @abstractmethod
    def _word(price: str, size: str) -> str:
        """What a level contributes."""

    @staticmethod
    @abstractmethod
    def _sum(bids: list[str], asks: list[str]) -> int:
        """The sum of the best levels' words, best first."""

    def _take(self, side: dict[str, str], levels: Levels) -> None:
        for price, size, *_ in levels:
            if size.strip("0."):
                side[_key(price)] = self._word(price, size)
            else:
                side.pop(_key(price), None)

    def _forget_absent(self, book: OrderBook) -> None:
        """Words of levels that the depth's cap dropped, not the venue."""
        for side, levels in zip((self._bids, self._asks), book.depth_strings(), strict=True):
            kept = {_key(price) for price, _ in levels}
            for key in side.keys() - kept:
                del side[key]
        self._most = 2 * (len(self._bids) + len(self._asks)) + _SLACK


class KrakenChecksum(Checksum):
    """Kraken, WebSocket v1 and v2 ("Book checksum" of its API centre).

    Unsigned CRC32 over the ten best asks, then the ten best bids: of each the price, then the size, without
    the point and without leading zeros.
    """

    levels = 10

    __slots__ = ()

    @staticmethod
    def _word(price: str, size: str) -> str:
        return price.replace(".", "").lstrip("0") + size.replace(".", "").lstrip("0")

    @staticmethod
    def _sum(bids: list[str], asks: list[str]) -> int:
        return zlib.crc32("".join((*asks, *bids)).encode())


class OkxChecksum(Checksum):
    """OKX v5, until it was retired in 2026 ("Checksum" of its order-book channel); Bitget's is the same.

    Signed CRC32 over the 25 best levels, bid and ask by turns, ``price:size`` joined by colons; where one side
    is shorter the other goes on alone.
    """

    levels = 25

    __slots__ = ()

    @staticmethod
    def _word(price: str, size: str) -> str:
        return f"{price}:{size}"

    @staticmethod
    def _sum(bids: list[str], asks: list[str]) -> int:
        words = [word for pair in zip(bids, asks, strict=False) for word in pair]
        both = min(len(bids), len(asks))
        total = zlib.crc32(":".join((*words, *bids[both:], *asks[both:])).encode())
        return total - (1 << 32) if total >> 31 else total


def _key(price: str) -> str:
    return price.rstrip("0").rstrip(".") if "." in price else price
