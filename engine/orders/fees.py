"""What executions cost: which fee applies, in which asset, how much, and what a fill cost whose fee is not told.

Pure and exact: sums and products are never rounded; only a conversion against a mid's direction divides, at
:data:`PRECISION` digits.

A percentage fee is either *added to the cost* (a spot buy at most venues; the opening of a perpetual position; always
where the venue takes it in an asset of its own) or *deducted from the returns* (a spot sell; a buy where the venue
takes base off what is bought; the closing of a perpetual position).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum

import msgspec

from engine.messages import FeeSchema, Fill, FixedFee, Order, OrderType, Side
from engine.orders.rules import EXACT

PRECISION = 28
_DIVIDE = Context(prec=PRECISION, rounding=ROUND_HALF_EVEN)
_NOTHING = Decimal(0)

Mids = Mapping[str, Decimal]
"""Prices by pair, ``BASE-QUOTE``."""


class FeeKind(StrEnum):
    ADDED_TO_COST = "added_to_cost"
    DEDUCTED_FROM_RETURNS = "deducted_from_returns"


class Fee(msgspec.Struct, frozen=True, kw_only=True):
    """The fee of one order or fill: a fraction ``rate`` in ``asset``, and fixed amounts."""

    kind: FeeKind
    rate: Decimal
    asset: str
    fixed: tuple[FixedFee, ...] = ()


def fee_of(
    schema: FeeSchema, pair: str, side: Side, is_maker: bool, *, perpetual: bool = False, closes: bool = False
) -> Fee:
    """The fee that a schema lays on a trade. ``closes``: a perpetual order that reduces its position."""
    base, _, quote = pair.partition("-")
    rate = schema.maker if is_maker else schema.taker
    fixed = schema.maker_fixed if is_maker else schema.taker_fixed
    own_asset = bool(schema.fee_asset) and schema.fee_asset not in (base, quote)
    if own_asset:
        return Fee(kind=FeeKind.ADDED_TO_COST, rate=rate, asset=schema.fee_asset, fixed=fixed)
    if perpetual:
        kind = FeeKind.DEDUCTED_FROM_RETURNS if closes else FeeKind.ADDED_TO_COST
        return Fee(kind=kind, rate=rate, asset=schema.fee_asset or quote, fixed=fixed)
    if side is Side.SELL:
        return Fee(kind=FeeKind.DEDUCTED_FROM_RETURNS, rate=rate, asset=quote, fixed=fixed)
    if schema.buy_from_returns:
        return Fee(kind=FeeKind.DEDUCTED_FROM_RETURNS, rate=rate, asset=base, fixed=fixed)
    return Fee(kind=FeeKind.ADDED_TO_COST, rate=rate, asset=quote, fixed=fixed)


def percent_amount(fee: Fee, pair: str, price: Decimal, size: Decimal, mids: Mids | None = None) -> Decimal | None:
    """The percentage part in ``fee.asset``; None where no mid leads from the pair's quote asset to it."""
    base, _, quote = pair.partition("-")
    if fee.asset == base:
        return EXACT.multiply(size, fee.rate)
    paid = EXACT.multiply(EXACT.multiply(price, size), fee.rate)
    return paid if fee.asset == quote else convert(paid, quote, fee.asset, mids or {})


def fee_in(fee: Fee, asset: str, pair: str, price: Decimal, size: Decimal, mids: Mids | None = None) -> Decimal | None:
    """The whole fee, percentage and fixed, counted in one asset; None where a mid to it is not known.

    The trade's own price leads from base to quote and back.
    """
    known = {**(mids or {}), pair: price}
    parts = [(fee.asset, percent_amount(fee, pair, price, size, known)), *((f.asset, f.amount) for f in fee.fixed)]
    total = _NOTHING
    for of, amount in parts:
        counted = None if amount is None else convert(amount, of, asset, known)
        if counted is None:
            return None
        total = EXACT.add(total, counted)
    return total


def convert(amount: Decimal, source: str, target: str, mids: Mids) -> Decimal | None:
    """An amount of one asset counted in another, by a pair of the two or over one asset between; None if none leads.

    Prices that are not finite and above zero count as not known.
    """
    if source == target or not amount:
        return amount
    direct = _step(amount, source, target, mids)
    if direct is not None:
        return direct
    for between in sorted({asset for pair in mids for asset in pair.split("-")} - {source, target}):
        half = _step(amount, source, between, mids)
        whole = None if half is None else _step(half, between, target, mids)
        if whole is not None:
            return whole
    return None


def with_fee(fill: Fill, order: Order, schema: FeeSchema | None, mids: Mids | None = None) -> Fill:
    """A fill whose fee the venue did not tell (``fee_asset`` empty), with the fee reckoned and marked as estimated.

    Without a schema, or where the fee's asset has no known price, it is given back as it is. Every part of a fixed fee
    is an order's, not a fill's, and is left out.
    """
    if fill.fee_asset or schema is None:
        return fill
    fee = fee_of(schema, order.pair, order.side, fill.is_maker)
    amount = percent_amount(fee, order.pair, fill.price, fill.size, mids)
    asset = fee.asset
    if amount is None:
        asset = order.pair.partition("-")[2]
        amount = EXACT.multiply(EXACT.multiply(fill.price, fill.size), fee.rate)
    return msgspec.structs.replace(fill, fee=amount, fee_asset=asset, fee_estimated=True)


def makes(order_type: OrderType) -> bool:
    """Whether an order of this type never takes."""
    return order_type is OrderType.LIMIT_MAKER


def _step(amount: Decimal, source: str, target: str, mids: Mids) -> Decimal | None:
    price = mids.get(f"{source}-{target}")
    if price is not None and price.is_finite() and price > 0:
        return EXACT.multiply(amount, price)
    price = mids.get(f"{target}-{source}")
    if price is not None and price.is_finite() and price > 0:
        return _DIVIDE.divide(amount, price)
    return None
