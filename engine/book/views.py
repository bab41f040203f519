"""What a reading of a shared-memory book answers. Every answer carries how far it can be trusted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from numpy.typing import NDArray

from engine.book.states import ReadStatus


class BestView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The best bid and ask; None where the side is empty or nothing could be read.

    ``age_ns``: time since the message behind this book was received, −1 if there was none. ``update_id`` is
    then 0.
    """

    status: ReadStatus
    bid: Decimal | None = None
    bid_size: Decimal | None = None
    ask: Decimal | None = None
    ask_size: Decimal | None = None
    update_id: int = 0
    age_ns: int = -1

    @property
    def mid(self) -> Decimal | None:
        """Half way between best bid and best ask; None when a side is empty."""
        if self.bid is None or self.ask is None:
            return None
        return (self.bid + self.ask) / 2

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid; None when a side is empty."""
        if self.bid is None or self.ask is None:
            return None
        return self.ask - self.bid


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """What a taker's order would get now: ``size`` of the base asset for ``cost`` of the quote asset.

    ``worst`` is the price of the last level it would touch, None if it would touch none. Not ``complete``: the whole
    side is not enough for the order, and this is all of it. Unless :attr:`fresh`, do not trade on it.
    """

    status: ReadStatus
    size: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    worst: Decimal | None = None
    levels: int = 0
    complete: bool = False

    @property
    def fresh(self) -> bool:
        """In sync, and its writer lives."""
        return self.status is ReadStatus.FRESH

    @property
    def vwap(self) -> Decimal | None:
        """The average price, to 28 digits; None for nothing."""
        return self.cost / self.size if self.size else None


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What is offered up to a price: ``base`` of the base asset, worth ``quote`` of the quote asset."""

    status: ReadStatus
    base: Decimal = Decimal(0)
    quote: Decimal = Decimal(0)
    levels: int = 0

    @property
    def fresh(self) -> bool:
        """In sync, and its writer lives."""
        return self.status is ReadStatus.FRESH

    @property
    def vwap(self) -> Decimal | None:
        """The average price, to 28 digits; None for nothing."""
        return self.quote / self.base if self.base else None


class DepthView(msgspec.Struct, frozen=True, kw_only=True):
    """(price, size) levels, best first.

    ``bid_total`` and ``ask_total`` are the numbers of levels in the whole book: where one is above the file's
    depth, the file holds only the best of that side.
    """

    status: ReadStatus
    bids: list[tuple[Decimal, Decimal]]
    asks: list[tuple[Decimal, Decimal]]
    bid_total: int = 0
    ask_total: int = 0
    update_id: int = 0
    age_ns: int = -1


class TopView(msgspec.Struct, frozen=True, kw_only=True):
    """As :class:`DepthView`, the levels as int64 arrays of shape (levels, 2) with price and size mantissas.

    A price is ``mantissa × 10**price_exponent``, a size likewise. Exponents may change from one reading to
    the next. Of a wide book, whose sizes need more than 64 bits, the arrays hold Python's integers
    (``dtype=object``).
    """

    status: ReadStatus
    bids: NDArray[Any]
    asks: NDArray[Any]
    price_exponent: int
    size_exponent: int
    bid_total: int = 0
    ask_total: int = 0
    update_id: int = 0
    age_ns: int = -1
