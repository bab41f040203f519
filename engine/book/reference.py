"""The order book once more, plainly: dictionaries of Decimals, against which the fast one is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import NoReturn

from engine.book.events import Levels
from engine.book.states import ReadStatus
from engine.book.views import Execution, Volume
from engine.errors import BookError
from engine.messages import Side

_LARGEST = 2**63 - 1
_LARGEST_SIZE = 10**36 - 1  # of a wide book
_FINEST_EXPONENT = -30
_DECIMAL = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?", re.ASCII)


class ReferenceBook:
    """Holds, refuses and rescales just what :class:`engine.book.OrderBook` does, without regard to speed."""

    def __init__(self, pair: str, price_exponent: int, size_exponent: int) -> None:
        self.pair = pair
        self.price_exponent = self._first_price_exponent = price_exponent
        self.size_exponent = self._first_size_exponent = size_exponent
        self.is_valid = True
        self.is_wide = False
        self.rescales = 0
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}
        self._loading: list[tuple[Decimal, Decimal]] = []

    def apply_diff(self, bids: Levels, asks: Levels) -> None:
        if not self.is_valid:
            raise BookError(f"{self.pair}: the book is invalid")
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            for level in levels:
                self._set(side, self._read(level))

    def apply_snapshot(self, bids: Levels, asks: Levels) -> None:
        self.clear()
        for side, levels in ((self.bids, bids), (self.asks, asks)):
            # Until a side is complete, a level that a later one replaces still has to fit at a rescale.
            for level in levels:
                value = self._read(level)
                if value is not None:
                    self._loading.append(value)
            for value in self._loading:
                self._set(side, value)
            self._loading.clear()

    def clear(self) -> None:
        if not self.is_valid:
            self.price_exponent = self._first_price_exponent
            self.size_exponent = self._first_size_exponent
            self.is_wide = False
        self.is_valid = True
        self.bids.clear()
        self.asks.clear()
        self._loading.clear()

    def truncate(self, depth: int) -> int:
        if not self.is_valid:
            raise BookError(f"{self.pair}: the book is invalid")
        excess = [(self.bids, price) for price in sorted(self.bids, reverse=True)[depth:]]
        excess += [(self.asks, price) for price in sorted(self.asks)[depth:]]
        for side, price in excess:
            del side[price]
        return len(excess)

    def depth(self) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        return sorted(self.bids.items(), reverse=True), sorted(self.asks.items())

    @property
    def is_crossed(self) -> bool:
        return bool(self.bids and self.asks) and max(self.bids) >= min(self.asks)

    def mid(self) -> Decimal | None:
        return _exactly((Fraction(max(self.bids)) + Fraction(min(self.asks))) / 2) if self.bids and self.asks else None

    def spread(self) -> Decimal | None:
        return _exactly(Fraction(min(self.asks)) - Fraction(max(self.bids))) if self.bids and self.asks else None

    def fill(self, side: Side, size: Decimal) -> Execution:
        left, taken, cost, touched = Fraction(size), Fraction(0), Fraction(0), []
        for price, offered in self._facing(side):
            if left:
                part = min(left, Fraction(offered))
                left, taken, cost = left - part, taken + part, cost + part * Fraction(price)
                touched.append(price)
        return self._execution(taken, cost, touched, not left)

    def fill_quote(self, side: Side, quote: Decimal) -> Execution:
        step = Fraction(10) ** self.size_exponent
        left, taken, cost, touched = Fraction(quote), Fraction(0), Fraction(0), []
        done = False
        for price, offered in self._facing(side):
            part = Fraction(offered)
            if not done and part * Fraction(price) > left:
                part = left / Fraction(price) // step * step
                done = True
            elif done:
                part = Fraction(0)
            if part:
                left, taken, cost = left - part * Fraction(price), taken + part, cost + part * Fraction(price)
                touched.append(price)
            done = done or not left
        return self._execution(taken, cost, touched, done)

    def volume(self, side: Side, price: Decimal) -> Volume:
        within = [
            level for level in self._facing(side) if (level[0] <= price if side is Side.BUY else level[0] >= price)
        ]
        return Volume(
            status=ReadStatus.FRESH,
            base=_exactly(sum((Fraction(size) for _, size in within), Fraction(0))),
            quote=_exactly(sum((Fraction(at) * Fraction(size) for at, size in within), Fraction(0))),
            levels=len(within),
        )

    def _facing(self, side: Side) -> list[tuple[Decimal, Decimal]]:
        bids, asks = self.depth()
        return asks if side is Side.BUY else bids

    @staticmethod
    def _execution(size: Fraction, cost: Fraction, touched: list[Decimal], complete: bool) -> Execution:
        return Execution(
            status=ReadStatus.FRESH,
            size=_exactly(size),
            cost=_exactly(cost),
            worst=touched[-1] if touched else None,
            levels=len(touched),
            complete=complete,
        )

    def _set(self, side: dict[Decimal, Decimal], level: tuple[Decimal, Decimal] | None) -> None:
        if level is None:
            return
        price, size = level
        if size:
            side[price] = size
        else:
            side.pop(price, None)

    def _read(self, level: Iterable[str]) -> tuple[Decimal, Decimal] | None:
        """The level's numbers; None for the removal of a price that the book cannot hold, and so does not."""
        price_text, size_text, *_ = level
        size = self._parse(size_text)
        price = self._parse(price_text)
        if size[0] < 0:
            self._refuse(size_text)
        if not size[0]:
            return (_decimal(price), Decimal(0)) if _fits(price, self.price_exponent, _LARGEST) else None
        self.size_exponent = self._settle(size, size_text, self.size_exponent, self._sizes(), _LARGEST_SIZE)
        if not self.is_wide and not all(
            _fits(value, self.size_exponent, _LARGEST) for value in (size, *map(_whole, self._sizes()))
        ):
            self.is_wide = True
            self.rescales += 1
        self.price_exponent = self._settle(price, price_text, self.price_exponent, self._prices(), _LARGEST)
        return _decimal(price), _decimal(size)

    def _settle(self, value: tuple[int, int], text: str, exponent: int, others: Iterable[Decimal], largest: int) -> int:
        """The exponent at which the book holds the value and all others."""
        mantissa, places = value
        if mantissa and abs(mantissa) <= largest and _FINEST_EXPONENT <= places < exponent:
            if not all(_fits(_whole(other), places, largest) for other in others):
                self._refuse(text)
            exponent = places
            self.rescales += 1
        if not _fits(value, exponent, largest):
            self._refuse(text)
        return exponent

    def _prices(self) -> list[Decimal]:
        return [*self.bids, *self.asks, *(price for price, _ in self._loading)]

    def _sizes(self) -> list[Decimal]:
        return [*self.bids.values(), *self.asks.values(), *(size for _, size in self._loading)]

    def _parse(self, text: str) -> tuple[int, int]:
        """The value as a whole number without trailing zeros, and its exponent."""
        match = _DECIMAL.fullmatch(text)
        if match is None or not (match[2] or match[3]):
            self._refuse(text)
        fraction = match[3] or ""
        mantissa, places = int(match[2] + fraction), int(match[4] or 0) - len(fraction)
        while mantissa and mantissa % 10 == 0:
            mantissa //= 10
            places += 1
        return (-mantissa if match[1] == "-" else mantissa), (places if mantissa else 0)

    def _refuse(self, text: str) -> NoReturn:
        self.is_valid = False
        raise BookError(f"{self.pair}: {text!r} cannot be held")


def _exactly(value: Fraction) -> Decimal:
    """A fraction of tens as a Decimal with all its digits."""
    places = 0
    while value.denominator != 1:
        value, places = value * 10, places + 1
    return Decimal(f"{value.numerator}e-{places}")


def _decimal(value: tuple[int, int]) -> Decimal:
    return Decimal(f"{value[0]}e{value[1]}")


def _whole(value: Decimal) -> tuple[int, int]:
    sign, digits, places = value.as_tuple()
    assert isinstance(places, int)
    return int("".join(map(str, digits))) * (-1 if sign else 1), places


def _fits(value: tuple[int, int], exponent: int, largest: int) -> bool:
    """Whether the value is a whole number of ``10**exponent``, and not above ``largest``."""
    mantissa, places = value
    if not mantissa:
        return True
    return places >= exponent and abs(mantissa) * 10 ** (places - exponent) <= largest
