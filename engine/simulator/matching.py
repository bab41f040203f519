"""One pair's book with price-time priority: a pure matching engine on integers.

A caller asks :meth:`Book.plan` what an incoming order would meet, checks funds against that, and then applies it with
:meth:`Book.fill`, :meth:`Book.remove` and :meth:`Book.rest`. Nothing is changed by planning. Every change of a
level's size takes the next update id, so a book at an update id is one definite state.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.simulator.amounts import ONE, notional
from engine.simulator.orders import Order, OrderType, SelfTrade

Levels = list[tuple[int, int]]


@dataclass(slots=True)
class Match:
    """A resting order met by the incoming one; the price is the resting order's."""

    maker: Order
    size: int


@dataclass(slots=True)
class Plan:
    """What an incoming order would do: the matches in priority order, own orders that expire, and its own fate."""

    matches: list[Match] = field(default_factory=list)
    expiring: list[Order] = field(default_factory=list)
    taker_expires: bool = False
    filled: int = 0
    quote: int = 0


@dataclass(slots=True)
class DepthChange:
    """The levels that changed between two cuts: ids ``first``..``last`` inclusive, sizes as of ``last``."""

    first: int
    last: int
    bids: Levels
    asks: Levels


class Level:
    __slots__ = ("orders", "total")

    def __init__(self) -> None:
        self.total = 0
        self.orders: dict[int, Order] = {}


class HalfBook:
    """One side. ``keys`` ascend with the best at the end: the price for bids, its negative for asks."""

    __slots__ = ("is_buy", "keys", "levels", "sign")

    def __init__(self, is_buy: bool) -> None:
        self.is_buy = is_buy
        self.sign = 1 if is_buy else -1
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def best_price(self) -> int | None:
        return self.keys[-1] * self.sign if self.keys else None

    def best(self) -> tuple[int, int] | None:
        if not self.keys:
            return None
        price = self.keys[-1] * self.sign
        return price, self.levels[price].total

    def worst_price(self) -> int | None:
        return self.keys[0] * self.sign if self.keys else None

    def prices(self) -> Iterator[int]:
        """Best first."""
        sign = self.sign
        return (key * sign for key in reversed(self.keys))

    def level(self, price: int) -> Level:
        """The level at the price, made when absent."""
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = Level()
            insort(self.keys, price * self.sign)
        return level

    def drop_level(self, price: int) -> None:
        del self.levels[price]
        del self.keys[bisect_left(self.keys, price * self.sign)]


class Book:
    """The book of one pair. ``step`` is the size increment, by which orders given in quote units are sized."""

    def __init__(self, pair: str, step: int, update_id: int = 0) -> None:
        self.pair = pair
        self.step = step
        self.update_id = update_id
        self.bids = HalfBook(True)
        self.asks = HalfBook(False)
        self._cut_id = update_id
        self._touched: tuple[set[int], set[int]] = (set(), set())
        self._ranks = 0

    def side(self, is_buy: bool) -> HalfBook:
        return self.bids if is_buy else self.asks

    def would_take(self, is_buy: bool, price: int) -> bool:
        """Whether a limit order at the price would match at once."""
        best = self.side(not is_buy).best_price()
        return best is not None and (price >= best if is_buy else price <= best)

    def levels(self, is_buy: bool, limit: int) -> Levels:
        """Up to ``limit`` (price, size), best first."""
        half = self.side(is_buy)
        sign, levels = half.sign, half.levels
        return [(key * sign, levels[key * sign].total) for key in half.keys[: -limit - 1 : -1]]

    # -- planning

    def plan(self, taker: Order) -> Plan:
        """What the order would meet now, under its limit, its size or quote amount, and its self-trade mode."""
        plan = Plan()
        half = self.side(not taker.is_buy)
        for price in half.prices():
            if not _acceptable(taker, price):
                break
            for maker in half.levels[price].orders.values():
                size = self._wanted(taker, plan, price)
                if size <= 0:
                    return plan
                if not self._meet(taker, maker, min(size, maker.remaining), plan):
                    return plan
        return plan

    def _wanted(self, taker: Order, plan: Plan, price: int) -> int:
        """How much more the order takes at this price."""
        if taker.quantity or not taker.quote_quantity:
            return taker.quantity - plan.filled
        left = (taker.quote_quantity - plan.quote) * ONE // price
        return left - left % self.step

    @staticmethod
    def _meet(taker: Order, maker: Order, size: int, plan: Plan) -> bool:
        """Add one resting order to the plan; False when the incoming order ends here."""
        own = taker.is_client and taker.account == maker.account and taker.self_trade is not SelfTrade.NONE
        if not own:
            plan.matches.append(Match(maker, size))
            plan.filled += size
            plan.quote += notional(maker.price, size)
            return True
        if taker.self_trade is not SelfTrade.EXPIRE_TAKER:
            plan.expiring.append(maker)
        if taker.self_trade is SelfTrade.EXPIRE_MAKER:
            return True
        plan.taker_expires = True
        return False

    # -- changes

    def rest(self, order: Order) -> None:
        """Put the order behind all others at its price."""
        self._ranks += 1
        order.rank = self._ranks
        level = self.side(order.is_buy).level(order.price)
        level.orders[order.rank] = order
        self._resize(order, level, order.remaining)

    def remove(self, order: Order) -> None:
        """Take a resting order off the book."""
        level = self.side(order.is_buy).levels[order.price]
        del level.orders[order.rank]
        self._resize(order, level, -order.remaining)

    def fill(self, order: Order, size: int) -> None:
        """Execute part or all of a resting order at its own price."""
        level = self.side(order.is_buy).levels[order.price]
        order.filled += size
        if not order.remaining:
            del level.orders[order.rank]
        self._resize(order, level, -size)

    def reduce(self, order: Order, size: int) -> None:
        """Make a resting order smaller by ``size`` (less than what remains); it keeps its place."""
        order.quantity -= size
        self._resize(order, self.side(order.is_buy).levels[order.price], -size)

    def _resize(self, order: Order, level: Level, by: int) -> None:
        level.total += by
        self.update_id += 1
        self._touched[0 if order.is_buy else 1].add(order.price)
        if not level.orders:
            self.side(order.is_buy).drop_level(order.price)

    def cut(self) -> DepthChange | None:
        """What has changed since the last cut; None when nothing has."""
        if self.update_id == self._cut_id:
            return None
        bids, asks = self._touched
        change = DepthChange(self._cut_id + 1, self.update_id, _sizes(self.bids, bids), _sizes(self.asks, asks))
        self._touched = (set(), set())
        self._cut_id = self.update_id
        return change


def _sizes(half: HalfBook, prices: set[int]) -> Levels:
    levels = half.levels
    ordered = sorted(prices, reverse=half.is_buy)
    return [(price, levels[price].total if price in levels else 0) for price in ordered]


def _acceptable(taker: Order, price: int) -> bool:
    if taker.type is OrderType.MARKET:
        return True
    return price <= taker.price if taker.is_buy else price >= taker.price
