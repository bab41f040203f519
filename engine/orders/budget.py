"""Whether an account can afford orders, one or many, and how much of them.

Pure and exact. What an order needs is linear in its size: for each asset so much for each unit, and a fixed part. From
that comes the largest size that the balances allow, rounded down, never up. A perpetual order needs its notional
divided by its leverage, in the asset that margins it; one that closes needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal

import msgspec

from engine.messages import Balance, FeeSchema, Order, OrderType, Side, TradingRule
from engine.orders.fees import Fee, FeeKind, Mids, convert, fee_of, makes
from engine.orders.rules import EXACT, quantise_size

_DOWN = Context(prec=50, rounding=ROUND_DOWN)
_UP = Context(prec=50, rounding=ROUND_UP)
_NOTHING = Decimal(0)
_ONE = Decimal(1)
_NO_FEES = FeeSchema()


class OrderCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """An order that may be placed. ``price``: its limit, or what a market order is expected to trade at.

    ``leverage`` is None on a spot market. Of a perpetual, ``collateral`` is the asset that margins it (the quote asset
    where it is empty) and ``closes`` says that it only reduces its position.
    """

    pair: str
    side: Side
    size: Decimal
    price: Decimal
    order_type: OrderType = OrderType.LIMIT
    leverage: Decimal | None = None
    collateral: str = ""
    closes: bool = False


class Adjusted(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as the account can afford it: ``candidate.size`` is what is left of it, 0 for none.

    ``needs``: what that size locks, by asset. ``lacking``: the asset that limited it, empty if none did.
    """

    candidate: OrderCandidate
    needs: dict[str, Decimal]
    lacking: str = ""

    @property
    def refused(self) -> bool:
        return not self.candidate.size


class Needs(msgspec.Struct, frozen=True):
    """What an order needs by asset: for each unit of its size, and fixed."""

    per_unit: dict[str, Decimal]
    fixed: dict[str, Decimal]

    def of(self, size: Decimal) -> dict[str, Decimal]:
        """The whole need of a size."""
        total = dict(self.fixed)
        for asset, each in self.per_unit.items():
            total[asset] = EXACT.fma(each, size, total.get(asset, _NOTHING))
        return {asset: amount for asset, amount in total.items() if amount}


def needs_of(candidate: OrderCandidate, schema: FeeSchema = _NO_FEES, mids: Mids | None = None) -> Needs:
    """What a candidate needs, its fee included.

    A fee in an asset that no mid leads to is left out: it cannot be known.
    """
    fee = fee_of(
        schema,
        candidate.pair,
        candidate.side,
        makes(candidate.order_type),
        perpetual=candidate.leverage is not None,
        closes=candidate.closes,
    )
    per_unit = _collateral(candidate)
    if fee.kind is FeeKind.ADDED_TO_COST and fee.rate > 0:
        quote = candidate.pair.partition("-")[2]
        amount = convert(EXACT.multiply(candidate.price, fee.rate), quote, fee.asset, mids or {})
        if amount is not None:
            per_unit[fee.asset] = EXACT.add(per_unit.get(fee.asset, _NOTHING), amount)
    return Needs(per_unit, _fixed(candidate, fee))


class BudgetChecker:
    """Fits candidates into balances; what one locks is not there for the next.

    ``available``: by asset; an asset that is not in it is not held. ``fees`` and ``rules``: by pair.
    """

    def __init__(
        self,
        available: Mapping[str, Decimal],
        fees: Mapping[str, FeeSchema] | None = None,
        mids: Mids | None = None,
        rules: Mapping[str, TradingRule] | None = None,
    ) -> None:
        self._available = dict(available)
        self._fees = dict(fees or {})
        self._mids = dict(mids or {})
        self._rules = dict(rules or {})
        self._locked: dict[str, Decimal] = {}

    def free(self, asset: str) -> Decimal:
        """What is left of an asset, never below zero."""
        held = self._available.get(asset, _NOTHING)
        if not held.is_finite():
            return _NOTHING
        return max(_NOTHING, EXACT.subtract(held, self._locked.get(asset, _NOTHING)))

    def adjust(self, candidate: OrderCandidate, *, all_or_none: bool = True) -> Adjusted:
        """As much of the candidate as is affordable: all of it or nothing, or the largest part of it."""
        needs = needs_of(candidate, self._fees.get(candidate.pair, _NO_FEES), self._mids)
        if not (candidate.size.is_finite() and candidate.size > 0 and candidate.price.is_finite()):
            return self._adjusted(candidate, needs, _NOTHING, "")
        most, lacking = self._most(needs, candidate.size)
        if not lacking:
            return self._adjusted(candidate, needs, candidate.size, "")
        return self._adjusted(candidate, needs, _NOTHING if all_or_none else most, lacking)

    def adjust_and_lock(self, candidate: OrderCandidate, *, all_or_none: bool = True) -> Adjusted:
        """The same, and what it needs is locked for those that follow."""
        adjusted = self.adjust(candidate, all_or_none=all_or_none)
        for asset, amount in adjusted.needs.items():
            self._locked[asset] = EXACT.add(self._locked.get(asset, _NOTHING), amount)
        return adjusted

    def adjust_all(self, candidates: Iterable[OrderCandidate], *, all_or_none: bool = True) -> list[Adjusted]:
        """Candidates in the order of their importance, each from what the ones before it leave; locks begin anew."""
        self.reset()
        return [self.adjust_and_lock(candidate, all_or_none=all_or_none) for candidate in candidates]

    def reset(self) -> None:
        """Nothing is locked any more."""
        self._locked.clear()

    def _most(self, needs: Needs, size: Decimal) -> tuple[Decimal, str]:
        most, lacking = size, ""
        for asset in {**needs.per_unit, **needs.fixed}:
            each, fixed = needs.per_unit.get(asset, _NOTHING), needs.fixed.get(asset, _NOTHING)
            left = EXACT.subtract(self.free(asset), fixed)
            if EXACT.multiply(each, most) > left:
                most = _DOWN.divide(left, each) if each and left > 0 else _NOTHING
                lacking = asset
        return most, lacking

    def _adjusted(self, candidate: OrderCandidate, needs: Needs, size: Decimal, lacking: str) -> Adjusted:
        rule = self._rules.get(candidate.pair)
        if rule is not None and size != candidate.size:
            size = quantise_size(rule, size)
            if size < rule.min_size or EXACT.multiply(size, candidate.price) < rule.min_notional:
                size = _NOTHING
        return Adjusted(
            candidate=msgspec.structs.replace(candidate, size=size),
            needs=needs.of(size) if size else {},
            lacking=lacking,
        )


def locked_by(order: Order, schema: FeeSchema = _NO_FEES, leverage: Decimal | None = None) -> tuple[str, Decimal]:
    """The asset that an open order holds, and how much of it.

    A market buy has no price: it holds an amount that only the venue knows, counted as nothing.
    """
    base, _, quote = order.pair.partition("-")
    rest = EXACT.subtract(order.size, order.filled)
    if order.side is Side.SELL and leverage is None:
        return base, _finite(rest)
    if order.price is None:
        return quote, _NOTHING
    rest, price = _finite(rest), _finite(order.price)
    if leverage is None and not (schema.maker_fixed or schema.taker_fixed):
        return quote, _paid(order, quote, EXACT.multiply(price, rest), schema)
    candidate = OrderCandidate(
        pair=order.pair, side=order.side, size=rest, price=price, order_type=order.order_type, leverage=leverage
    )
    return quote, needs_of(candidate, schema).of(rest).get(quote, _NOTHING)


def _paid(order: Order, quote: str, cost: Decimal, schema: FeeSchema) -> Decimal:
    """What a spot buy without fixed fees holds of its quote asset: as :func:`needs_of` says, in fewer steps."""
    fee = fee_of(schema, order.pair, order.side, makes(order.order_type))
    if fee.kind is FeeKind.ADDED_TO_COST and fee.rate > 0 and fee.asset == quote:
        return EXACT.fma(cost, fee.rate, cost)
    return cost


def lacks(
    needs: Mapping[str, Decimal],
    balances: Mapping[str, tuple[Balance, int]],
    open_orders: Iterable[Order],
    fees: Mapping[str, FeeSchema],
) -> str:
    """Why an account surely cannot pay, empty if it may.

    ``balances``: with the instant that each is dated by. The venue's word may be older than this account's newest
    orders and ends, so two readings are taken, and the better one counts: what the venue says is available less what
    younger orders will lock; and the total less what all open orders of this account lock. Only what both deny is
    denied.
    """
    orders = list(open_orders)
    for asset, amount in needs.items():
        known = balances.get(asset)
        if known is None or not (known[0].available.is_finite() and known[0].total.is_finite()):
            continue
        balance, dated_ns = known
        young = _locked(asset, [order for order in orders if order.created_ns > dated_ns], fees)
        best = EXACT.subtract(balance.available, young)
        if amount <= best:
            # Enough by one reading: what all the open orders lock need not be summed up.
            continue
        best = max(best, EXACT.subtract(balance.total, _locked(asset, orders, fees)), _NOTHING)
        if amount > best:
            return f"it needs {amount:f} {asset}, and {best:f} is there beside what open orders hold"
    return ""


def _locked(asset: str, orders: Iterable[Order], fees: Mapping[str, FeeSchema]) -> Decimal:
    """How much of an asset orders lock together."""
    total = _NOTHING
    for order in orders:
        held, locked = locked_by(order, fees.get(order.pair, _NO_FEES))
        if held == asset:
            total = EXACT.add(total, locked)
    return total


def _collateral(candidate: OrderCandidate) -> dict[str, Decimal]:
    base, _, quote = candidate.pair.partition("-")
    if candidate.leverage is not None:
        if candidate.closes:
            return {}
        asset = candidate.collateral or quote
        return {asset: _UP.divide(candidate.price, max(candidate.leverage, _ONE))}
    return {quote: candidate.price} if candidate.side is Side.BUY else {base: _ONE}


def _fixed(candidate: OrderCandidate, fee: Fee) -> dict[str, Decimal]:
    """Fixed fees, but for those that are taken off what the order brings."""
    base, _, quote = candidate.pair.partition("-")
    returned = base if candidate.side is Side.BUY else quote
    fixed: dict[str, Decimal] = {}
    for each in fee.fixed:
        if fee.kind is FeeKind.DEDUCTED_FROM_RETURNS and each.asset == returned:
            continue
        fixed[each.asset] = EXACT.add(fixed.get(each.asset, _NOTHING), each.amount)
    return fixed


def _finite(value: Decimal) -> Decimal:
    return value if value.is_finite() and value > 0 else _NOTHING
