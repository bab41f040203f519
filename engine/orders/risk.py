"""The checks that an order passes before it is journaled and sent, and the trading states.

Pure: orders, positions, mids and time in, a :class:`~engine.orders.rules.Violation` or None out. Cancels are never
checked. An order is only ever refused here, never changed. Amounts are exact; a notional is in the pair's quote asset,
and limits on notionals are taken to be in that asset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum

import msgspec

from engine.messages import Order, OrderType, PlaceOrder, Reason, Side
from engine.orders.rules import EXACT, Violation, check_numbers

SECOND_NS = 1_000_000_000
BASIS_POINTS = Decimal(10_000)


class TradingState(StrEnum):
    """What an account may do. ``REDUCING``: only orders that bring a position nearer to zero."""

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one account; None: no limit.

    ``max_order_notional``: of one order. ``max_open_notional``: of all open orders of a pair's side, this one
    included. ``max_position``: base held long or short by this engine's own fills, as it would be if every open order
    of that side and this one filled; by pair. ``price_collar_bps``: how far a price may be from the book's mid on its
    aggressive side (a buy above, a sell below), in basis points; needs a fresh book. ``max_orders_per_second``: over
    the last second. ``max_open_orders``: of a pair. ``duplicate_window_s``: the same strategy, pair, side, type, price
    and size are refused within so many seconds. ``max_daily_loss``: of a quote asset, by the account's fills since
    midnight UTC at the books' mids; once it is reached only reducing orders pass.
    """

    max_order_notional: Decimal | None = None
    max_open_notional: Decimal | None = None
    max_position: Mapping[str, Decimal] = {}
    price_collar_bps: Decimal | None = None
    max_orders_per_second: int | None = None
    max_open_orders: int | None = None
    duplicate_window_s: float | None = None
    max_daily_loss: Mapping[str, Decimal] = {}


_NO_LIMITS = RiskLimits()


class RiskView(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks look at, as of now.

    ``mid``: of the order's pair, None when its book is not fresh. ``position``: base gained by the engine's own fills.
    ``open_orders``: of the account. ``daily_loss``: by quote asset, positive when money was lost.
    """

    mid: Decimal | None
    position: Decimal
    open_orders: Iterable[Order]
    daily_loss: Mapping[str, Decimal] = {}


class RiskGate:
    """Decides on orders one by one; remembers what it let through for its rate and duplicate checks."""

    def __init__(self, limits: RiskLimits, state: TradingState = TradingState.ACTIVE, reason: str = "") -> None:
        self.limits = limits
        self.state = state
        self.reason = reason
        self._passed: deque[int] = deque()
        self._recent: dict[tuple[object, ...], int] = {}

    @property
    def idle(self) -> bool:
        """Nothing is limited and trading is active: every order may go."""
        return self.state is TradingState.ACTIVE and self.limits == _NO_LIMITS

    def check(self, order: PlaceOrder, view: RiskView, now_ns: int) -> Violation | None:
        """The first limit that the order breaks; None, and it is counted, if it may go.

        ``now_ns``: of a clock that never steps.
        """
        violation = (
            check_numbers(order.order_type, order.size, order.price)
            or self._check_state(order, view)
            or self._check_rate(now_ns)
            or self._check_duplicate(order, now_ns)
            or self._check_collar(order, view)
            or self._check_amounts(order, view)
            or self._check_loss(order, view)
        )
        if violation is None:
            self._passed.append(now_ns)
            if self.limits.duplicate_window_s is not None:
                self._recent[_likeness(order)] = now_ns
        return violation

    def take_back(self, order: PlaceOrder) -> None:
        """The order that was let through last was refused for something else: it counts nowhere."""
        if self._passed:
            self._passed.pop()
        self._recent.pop(_likeness(order), None)

    # ----------------------------------------------------------------------------------------------------- the checks

    def _check_state(self, order: PlaceOrder, view: RiskView) -> Violation | None:
        if self.state is TradingState.HALTED:
            return Violation(Reason.HALTED, self.reason or "trading is halted")
        if self.state is TradingState.REDUCING and not _reduces(order, view):
            return Violation(Reason.REDUCING, self.reason or "only orders that reduce a position are taken")
        return None

    def _check_rate(self, now_ns: int) -> Violation | None:
        while self._passed and now_ns - self._passed[0] >= SECOND_NS:
            self._passed.popleft()
        limit = self.limits.max_orders_per_second
        if limit is not None and len(self._passed) >= limit:
            return Violation(Reason.ORDER_RATE, f"{limit} orders in the last second are the limit")
        return None

    def _check_duplicate(self, order: PlaceOrder, now_ns: int) -> Violation | None:
        window_s = self.limits.duplicate_window_s
        if window_s is None:
            return None
        window_ns = round(window_s * SECOND_NS)
        self._recent = {key: at for key, at in self._recent.items() if now_ns - at < window_ns}
        if _likeness(order) in self._recent:
            return Violation(Reason.DUPLICATE_ORDER, f"the same order was sent less than {window_s:g} s ago")
        return None

    def _check_collar(self, order: PlaceOrder, view: RiskView) -> Violation | None:
        collar = self.limits.price_collar_bps
        if collar is None:
            return None
        if view.mid is None:
            return Violation(Reason.PRICE_COLLAR, f"{order.pair} has no fresh book to judge a price by")
        price = _limit_of(order)
        if price is None:
            return None
        away = (price - view.mid) / view.mid * BASIS_POINTS
        away = away if order.side is Side.BUY else -away
        if away > collar:
            return Violation(
                Reason.PRICE_COLLAR,
                f"price {price:f} is {away:.1f} bps beyond the mid {view.mid:f}; the collar is {collar:f}",
            )
        return None

    def _check_amounts(self, order: PlaceOrder, view: RiskView) -> Violation | None:
        same_side = [o for o in view.open_orders if o.pair == order.pair and o.side is order.side]
        return (
            self._check_open_orders(order, view)
            or self._check_notional(order, view, same_side)
            or self._check_position(order, view, same_side)
        )

    def _check_open_orders(self, order: PlaceOrder, view: RiskView) -> Violation | None:
        limit = self.limits.max_open_orders
        if limit is None:
            return None
        count = sum(o.pair == order.pair for o in view.open_orders)
        if count >= limit:
            return Violation(Reason.OPEN_ORDERS, f"{order.pair} has {count} open orders; the limit is {limit}")
        return None

    def _check_notional(self, order: PlaceOrder, view: RiskView, same_side: list[Order]) -> Violation | None:
        one, whole = self.limits.max_order_notional, self.limits.max_open_notional
        if one is None and whole is None:
            return None
        notional = _notional(_limit_of(order), order.size, view.mid)
        if notional is None:
            return Violation(Reason.ORDER_NOTIONAL, f"{order.pair} has no fresh book to value a market order by")
        if one is not None and notional > one:
            return Violation(Reason.ORDER_NOTIONAL, f"notional {notional:f} is above the limit {one:f}")
        if whole is not None:
            rests = (_notional(o.price, _rest(o), view.mid) or Decimal(0) for o in same_side)
            total = _sum(rests, notional)
            if total > whole:
                return Violation(
                    Reason.TOTAL_NOTIONAL, f"open {order.side.value} notional would be {total:f}, above {whole:f}"
                )
        return None

    def _check_position(self, order: PlaceOrder, view: RiskView, same_side: list[Order]) -> Violation | None:
        limit = self.limits.max_position.get(order.pair)
        if limit is None:
            return None
        moved = _sum(map(_rest, same_side), order.size)
        after = EXACT.add(view.position, moved if order.side is Side.BUY else moved.copy_negate())
        nearer = after.copy_abs() <= view.position.copy_abs() and after.is_signed() == view.position.is_signed()
        if after.copy_abs() > limit and not nearer:
            return Violation(
                Reason.POSITION_LIMIT, f"{order.pair} could come to {after:f}; the limit is {limit:f} either way"
            )
        return None

    def _check_loss(self, order: PlaceOrder, view: RiskView) -> Violation | None:
        quote = order.pair.partition("-")[2]
        limit = self.limits.max_daily_loss.get(quote)
        if limit is None:
            return None
        loss = view.daily_loss.get(quote, Decimal(0))
        if loss >= limit and not _reduces(order, view):
            return Violation(Reason.DAILY_LOSS, f"today's loss is {loss:.2f} {quote}; the limit is {limit:f}")
        return None


def _reduces(order: PlaceOrder, view: RiskView) -> bool:
    """Whether the order, with all open ones of its side, can only bring the position nearer to zero."""
    same_side = (o for o in view.open_orders if o.pair == order.pair and o.side is order.side)
    held = view.position.copy_negate() if order.side is Side.BUY else view.position
    return _sum(map(_rest, same_side), order.size) <= held


def _limit_of(order: PlaceOrder) -> Decimal | None:
    """The price that an order keeps to. What a market order says of one means nothing: it trades at any."""
    return None if order.order_type is OrderType.MARKET else order.price


def _rest(order: Order) -> Decimal:
    return EXACT.subtract(order.size, order.filled)


def _sum(amounts: Iterable[Decimal], first: Decimal) -> Decimal:
    total = first
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def _notional(price: Decimal | None, size: Decimal, mid: Decimal | None) -> Decimal | None:
    value = mid if price is None else price
    return None if value is None else EXACT.multiply(value, size)


def _likeness(order: PlaceOrder) -> tuple[object, ...]:
    return (order.strategy, order.pair, order.side, order.order_type, _limit_of(order), order.size)
