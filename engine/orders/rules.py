"""What a venue accepts: rounding to its increments, and the check before an order is sent. Exact throughout."""

from __future__ import annotations

from decimal import ROUND_DOWN, Context, Decimal
from typing import NamedTuple

from engine.messages import OrderType, Reason, TradingRule

EXACT = Context(prec=100)
"""Wide enough that no sum or product of prices, sizes and fees is ever rounded."""


MAX_EXPONENT = 30
"""A size or price of more or less than so many powers of ten is a mistake, and no sum with it would be exact."""


class Violation(NamedTuple):
    """Why a venue would refuse an order."""

    reason: Reason
    detail: str


def quantise(
    rule: TradingRule, order_type: OrderType, size: Decimal, price: Decimal | None
) -> tuple[Decimal, Decimal | None]:
    """Size and price rounded down to the rule's increments. A market order has no price.

    A number that is not finite is given back as it is, for :func:`validate` to refuse.
    """
    if order_type is OrderType.MARKET or price is None:
        return quantise_size(rule, size), None
    return quantise_size(rule, size), quantise_price(rule, price)


def quantise_size(rule: TradingRule, size: Decimal) -> Decimal:
    """Rounded down to the rule's size increment and significant digits."""
    return _floor(_cut(size, rule.size_digits), rule.size_increment)


def quantise_price(rule: TradingRule, price: Decimal) -> Decimal:
    """Rounded down to the rule's price increment and significant digits, whichever side the order is on."""
    return _floor(_cut(price, rule.price_digits), rule.price_increment)


def validate(
    rule: TradingRule,
    order_type: OrderType,
    size: Decimal,
    price: Decimal | None,
    reference_price: Decimal | None = None,
) -> Violation | None:
    """The first of the rule's limits that an order breaks, None if it breaks none.

    ``reference_price``: what a market order is expected to trade at; without it, its notional is the venue's to check.
    """
    return (
        _check_kind(rule, order_type)
        or _check_size(rule, size)
        or _check_price(rule, order_type, price)
        or _check_notional(rule, order_type, size, price, reference_price)
    )


def check_increments(
    rule: TradingRule, order_type: OrderType, size: Decimal, price: Decimal | None
) -> Violation | None:
    """What is finer than the rule's increments or significant digits: an order is sent as it was asked for, or not."""
    rounded = quantise(rule, order_type, size, price)
    checks = [("size", size, rounded[0], rule.size_increment, rule.size_digits)]
    if order_type is not OrderType.MARKET and price is not None and rounded[1] is not None:
        checks.append(("price", price, rounded[1], rule.price_increment, rule.price_digits))
    for name, value, taken, increment, digits in checks:
        if value != taken:
            limits = f"{name}_increment {increment:f}" if digits is None else f"{name}_digits {digits}"
            detail = f"{name} {value:f} is off {rule.pair}'s {limits}; {taken:f} would be taken"
            return Violation(Reason.OFF_INCREMENT, detail)
    return None


def check_numbers(order_type: OrderType, size: Decimal, price: Decimal | None) -> Violation | None:
    """What is no number that an order can have, whatever the pair: before anything is reckoned with it."""
    if not _is_amount(size):
        return Violation(Reason.BELOW_MIN_SIZE, f"size {size} is not above zero, or beyond all measure (min_size)")
    if order_type is not OrderType.MARKET and (price is None or not _is_amount(price)):
        return Violation(Reason.INVALID_PRICE, f"a {order_type.value} order needs a price above zero, not {price}")
    return None


def _is_amount(value: Decimal) -> bool:
    return value.is_finite() and value > 0 and abs(value.adjusted()) <= MAX_EXPONENT


def _floor(value: Decimal, increment: Decimal) -> Decimal:
    if increment <= 0 or not value.is_finite():
        return value
    return EXACT.multiply(EXACT.divide_int(value, increment), increment)


def _cut(value: Decimal, digits: int | None) -> Decimal:
    """Rounded towards zero to so many significant digits."""
    if digits is None or not value.is_finite() or not value:
        return value
    return value.quantize(Decimal(1).scaleb(value.adjusted() - digits + 1), rounding=ROUND_DOWN, context=EXACT)


def _check_kind(rule: TradingRule, order_type: OrderType) -> Violation | None:
    if not rule.is_trading:
        return Violation(Reason.NOT_TRADING, f"{rule.pair} is not trading at the venue (is_trading false)")
    if rule.order_types and order_type not in rule.order_types:
        taken = ", ".join(kind.value for kind in rule.order_types)
        return Violation(Reason.UNSUPPORTED, f"{rule.pair} takes no {order_type.value} orders (order_types {taken})")
    return None


def _check_size(rule: TradingRule, size: Decimal) -> Violation | None:
    if not size.is_finite() or size <= 0:
        return Violation(Reason.BELOW_MIN_SIZE, f"size {size} is not above zero (min_size {rule.min_size:f})")
    if size < rule.min_size:
        return Violation(Reason.BELOW_MIN_SIZE, f"size {size:f} is below {rule.pair}'s min_size {rule.min_size:f}")
    if rule.max_size is not None and size > rule.max_size:
        return Violation(Reason.ABOVE_MAX_SIZE, f"size {size:f} is above {rule.pair}'s max_size {rule.max_size:f}")
    return None


def _check_price(rule: TradingRule, order_type: OrderType, price: Decimal | None) -> Violation | None:
    if order_type is OrderType.MARKET:
        return None
    if price is None or not price.is_finite() or price <= 0:
        return Violation(Reason.INVALID_PRICE, f"a {order_type.value} order needs a price above zero, not {price}")
    if rule.min_price is not None and price < rule.min_price:
        return Violation(Reason.INVALID_PRICE, f"price {price:f} is below {rule.pair}'s min_price {rule.min_price:f}")
    if rule.max_price is not None and price > rule.max_price:
        return Violation(Reason.INVALID_PRICE, f"price {price:f} is above {rule.pair}'s max_price {rule.max_price:f}")
    return None


def _check_notional(
    rule: TradingRule,
    order_type: OrderType,
    size: Decimal,
    price: Decimal | None,
    reference_price: Decimal | None,
) -> Violation | None:
    is_market = order_type is OrderType.MARKET
    price = reference_price if is_market else price
    if price is None or not price.is_finite():
        return None
    notional = EXACT.multiply(size, price)
    limits = [("min_order_value", rule.min_order_value)]
    if rule.market_min_notional or not is_market:
        limits.append(("min_notional", rule.min_notional))
    for name, limit in limits:
        if notional < limit:
            detail = f"notional {notional:f} is below {rule.pair}'s {name} {limit:f} {rule.quote}"
            return Violation(Reason.BELOW_MIN_NOTIONAL, detail)
    return None
