"""The other traders: a seeded flow of quotes, cancels and takes around a price that wanders.

A :class:`Flow` owns no book. It looks at one and says what its traders do next; the venue carries it out. Arrivals are
a Poisson process on the venue's time, so the same seed and the same client requests at the same times give the same
market, however often the venue is advanced. Rates and moves are random floats; every price and size is an integer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from engine.simulator.config import Pair
from engine.simulator.matching import Book, HalfBook
from engine.simulator.orders import Order

_SECOND = 1_000_000_000
_MAX_CATCH_UP_NS = _SECOND
_GAP_BPS = 0.5
_HALF_SPREAD_BPS = 0.1
_NEAR_LEVELS = 30
_REFILL = 20
_SWEEP = 5.0
_TOLERATED_VOID = 4


@dataclass(slots=True, frozen=True)
class Quote:
    """Rest a limit order; dropped when it would match."""

    is_buy: bool
    price: int
    size: int


@dataclass(slots=True, frozen=True)
class Take:
    """Buy or sell at once up to ``size``, no worse than ``price`` (0: at any price)."""

    is_buy: bool
    size: int
    price: int


@dataclass(slots=True, frozen=True)
class Pull:
    """Cancel a resting order of the other traders, or make it smaller by ``size``."""

    order: Order
    size: int = 0


Action = Quote | Take | Pull


class Flow:
    """The other traders of one pair. Prices in units of 10^-8.

    ``anchor`` is the price that wanders slowly; ``mid``, what they believe in now, strays around it, so that quotes
    near the middle are soon met from both sides. ``activity``: events a second; 0 ends the flow for good.
    """

    def __init__(self, pair: Pair, seed: str, activity: float, anchor: int, start_ns: int) -> None:
        self.pair = pair
        self.anchor = anchor
        self.mid = anchor
        self._rng = random.Random(seed)
        self.activity = activity
        self._moved_ns = start_ns
        self._next_ns = start_ns
        self._schedule()

    def populate(self) -> Iterator[Action]:
        """The first orders of an empty book: every level of both sides."""
        for rank in range(self.pair.levels):
            for is_buy in (True, False):
                yield self._quote(is_buy, rank)

    def until(self, now_ns: int, book: Book) -> Iterator[Action]:
        """What happens up to now; the book must be changed by each action before the next is asked for."""
        if not self.activity:
            return
        if now_ns - self._next_ns > _MAX_CATCH_UP_NS:
            self._next_ns = now_ns - _MAX_CATCH_UP_NS
        while self._next_ns <= now_ns:
            yield from self._event(self._next_ns, book)
            self._schedule()

    def _schedule(self) -> None:
        if self.activity:
            self._next_ns += max(1, int(self._rng.expovariate(self.activity) * _SECOND))

    def _event(self, time_ns: int, book: Book) -> Iterator[Action]:
        draw = self._rng.random()
        is_buy = self._rng.random() < 0.5
        if draw < 0.15:
            yield from self._move(time_ns, book)
        elif draw < 0.60:
            yield self._quote(is_buy, int(self._rng.expovariate(0.5)))
        elif draw < 0.78:
            yield from self._pull(book.side(is_buy))
        else:
            yield Take(is_buy, self._size(_SWEEP if self._rng.random() < 0.3 else 1.0), 0)
        for side in (True, False):
            yield from self._keep_populated(book.side(side))

    def _move(self, time_ns: int, book: Book) -> Iterator[Action]:
        """The price moves, orders that it passed are taken, and new ones join behind it."""
        seconds = min(1.0, max(0.0, (time_ns - self._moved_ns) / _SECOND))
        self._moved_ns = time_ns
        volatility = self.pair.volatility / 10_000
        drift = self._rng.gauss(0.0, volatility / 2 * math.sqrt(seconds))
        lowest, highest = max(self.pair.start_price // 5, self.pair.tick * 10), self.pair.start_price * 5
        self.anchor = min(highest, max(lowest, self.anchor + int(self.anchor * drift)))
        self.mid = self.anchor + int(self.anchor * self._rng.gauss(0.0, volatility))
        for is_buy in (True, False):
            passed = sum(size for price, size in book.levels(not is_buy, 50) if self._passed(is_buy, price))
            if passed:
                yield Take(is_buy, passed, self._on_tick(self.mid, up=not is_buy))
        for is_buy in (True, False):
            yield self._quote(is_buy, 0)

    def _passed(self, taker_buys: bool, price: int) -> bool:
        return price < self.mid if taker_buys else price > self.mid

    def _quote(self, is_buy: bool, rank: int) -> Quote:
        """An order ``rank`` gaps behind the touch, sized more the further away it is."""
        gap = max(self.pair.tick, int(self.mid * _GAP_BPS) // 10_000)
        half = max(self.pair.tick // 2, int(self.mid * _HALF_SPREAD_BPS) // 10_000)
        distance = half + rank * gap + self._rng.randrange(gap)
        price = self._on_tick(self.mid - distance if is_buy else self.mid + distance, up=not is_buy)
        return Quote(is_buy, max(self.pair.tick, price), self._size(1.0 + rank / 20))

    def _pull(self, half: HalfBook) -> Iterator[Action]:
        """One of the best levels' orders is cancelled or halved."""
        if len(half) <= _NEAR_LEVELS:
            return
        key = half.keys[-1 - min(int(self._rng.expovariate(0.2)), _NEAR_LEVELS - 1)]
        for order in half.levels[key * half.sign].orders.values():
            if not order.is_client:
                part = order.remaining // 2
                part -= part % self.pair.step
                yield Pull(order, part if part and self._rng.random() < 0.4 else 0)
                return

    def _keep_populated(self, half: HalfBook) -> Iterator[Action]:
        """Fill the void that takes and moves have left before the touch, and keep the far end where it belongs."""
        best = half.best_price() or 0
        void = min(_REFILL, abs(self.mid - best) // max(self.pair.tick, int(self.mid * _GAP_BPS) // 10_000))
        if void > _TOLERATED_VOID:
            for rank in range(0, void, 2):
                yield self._quote(half.is_buy, rank)
        wanted = self.pair.levels
        if len(half) < wanted:
            yield from self._extend(half, min(_REFILL, wanted - len(half)))
        elif len(half) > wanted + wanted // 8:
            worst = half.levels[half.keys[0] * half.sign]
            for order in [order for order in worst.orders.values() if not order.is_client]:
                yield Pull(order)

    def _extend(self, half: HalfBook, count: int) -> Iterator[Quote]:
        """New levels behind the worst one."""
        gap = max(self.pair.tick, int(self.mid * _GAP_BPS) // 10_000)
        price = half.worst_price() or self.mid
        for _ in range(count):
            step = max(self.pair.tick, self.pair.tick * self._rng.randint(1, 2 * gap // self.pair.tick))
            price += -step if half.is_buy else step
            if price > 0:
                yield Quote(half.is_buy, self._on_tick(price, up=not half.is_buy), self._size(5.0))

    def _size(self, scale: float) -> int:
        size = int(self.pair.typical_size * scale * (0.1 + self._rng.expovariate(1.0)))
        return max(self.pair.step, size - size % self.pair.step)

    def _on_tick(self, price: int, up: bool) -> int:
        tick = self.pair.tick
        return (price + tick - 1) // tick * tick if up else price // tick * tick
