"""What a reading of a shared-memory book answers. Every answer carries how far it can be trusted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from numpy.typing import NDArray

from engine.book.states import ReadStatus


class BestView(msgspec.Struct, frozen=True, kw_only=True):
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
