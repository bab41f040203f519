"""Balances between a venue's words on them: estimated where it sends none, limited where the configuration says so.

Pure. The estimate is::

    available = available then + locked by the orders open then − locked by those open now + what fills brought since

where *then* is the start of the request that brought the snapshot. A perpetual order locks its notional divided by its
leverage; its fills move margin, not the notional. A limit holds an asset to a part of the account:
``min(available, max(0, limit − locked + what fills brought))``.
Nothing here is ever below zero or not a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_UP, Context, Decimal

import msgspec

from engine.messages import Balance, FeeSchema, Order, OrderFill, Side
from engine.orders.budget import locked_by
from engine.orders.rules import EXACT

_UP = Context(prec=50, rounding=ROUND_UP)
_NOTHING = Decimal(0)
_ONE = Decimal(1)
_EMPTY = Balance(total=_NOTHING, available=_NOTHING)
_NO_FEES = FeeSchema()

Amounts = dict[str, Decimal]


class Position(msgspec.Struct, frozen=True):
    """A perpetual position: base held (short below zero) and the price that it was entered at."""

    size: Decimal = _NOTHING
    entry: Decimal = _NOTHING


class EstimatedBalances:
    """The balances of an account whose venue sends none of its own accord.

    ``fees``: by pair. ``leverage``: by pair, of perpetuals alone; a pair without one is spot.
    """

    def __init__(
        self, fees: Mapping[str, FeeSchema] | None = None, leverage: Mapping[str, Decimal] | None = None
    ) -> None:
        self.fees = dict(fees or {})
        self._leverage = {pair: max(value, _ONE) for pair, value in (leverage or {}).items()}
        self._then: dict[str, Balance] = {}
        self._dated_ns = 0
        self._locked_then: Amounts = {}
        self._positions: dict[str, Position] = {}
        self._since: list[OrderFill] = []

    def snapshot(
        self,
        balances: Mapping[str, Balance],
        orders: Iterable[Order],
        dated_ns: int,
        positions: Mapping[str, Position] | None = None,
    ) -> bool:
        """Take what the venue answered to a request begun at ``dated_ns``; False if it is older than what is known.

        ``orders``: those open at that instant. ``positions``: held then, of perpetuals.
        """
        if dated_ns < self._dated_ns:
            return False
        self._then, self._dated_ns = dict(balances), dated_ns
        self._locked_then = self.locked(orders)
        self._positions = dict(positions or {})
        self._since = [fill for fill in self._since if fill.fill.time_ns > dated_ns]
        return True

    def undate(self, now_ns: int) -> None:
        """The venue's clock is back, at ``now_ns``: the next snapshot counts, and has all fills so far in it."""
        self._dated_ns = 0
        self._since = [_dated_by(fill, now_ns) for fill in self._since]

    def fill(self, fill: OrderFill) -> None:
        """An execution; one that the snapshot has in it already changes nothing."""
        if fill.fill.time_ns > self._dated_ns:
            self._since.append(fill)

    def locked(self, orders: Iterable[Order]) -> Amounts:
        """What these orders lock, by asset."""
        total: Amounts = {}
        for order in orders:
            schema = self.fees.get(order.pair, _NO_FEES)
            asset, amount = locked_by(order, schema, self._leverage.get(order.pair))
            _add(total, asset, amount)
        return total

    def estimate(self, orders: Iterable[Order]) -> dict[str, Balance]:
        """Every asset as it stands with these orders open now."""
        locked_now = self.locked(orders)
        available, total = self._brought()
        found = {}
        for asset in sorted({*self._then, *locked_now, *self._locked_then, *available, *total}):
            then = self._then.get(asset, _EMPTY)
            free = EXACT.add(_finite(then.available), available.get(asset, _NOTHING))
            free = EXACT.add(free, self._locked_then.get(asset, _NOTHING))
            free = EXACT.subtract(free, locked_now.get(asset, _NOTHING))
            whole = max(_NOTHING, EXACT.add(_finite(then.total), total.get(asset, _NOTHING)))
            found[asset] = Balance(total=whole, available=min(max(_NOTHING, free), whole))
        return found

    def _brought(self) -> tuple[Amounts, Amounts]:
        """What the fills since the snapshot changed: of what is available, of the total."""
        available: Amounts = {}
        total: Amounts = {}
        positions = dict(self._positions)
        for fill in self._since:
            leverage = self._leverage.get(fill.pair)
            if leverage is None:
                changes = brought_by(fill)
                for asset, amount in changes.items():
                    _add(available, asset, amount)
                    _add(total, asset, amount)
                continue
            quote = fill.pair.partition("-")[2]
            after, margin, gain = _moved(positions.get(fill.pair, Position()), fill, leverage)
            positions[fill.pair] = after
            _add(available, quote, EXACT.add(margin, gain))
            _add(total, quote, gain)
            for amounts in (available, total):
                _add(amounts, fill.fill.fee_asset, fill.fill.fee.copy_negate())
        return available, total


class BalanceLimits:
    """Holds assets to a part of the account. ``limits``: by asset, what the engine may use of it at its start."""

    def __init__(self, limits: Mapping[str, Decimal]) -> None:
        self.limits = dict(limits)
        self._brought: Amounts = {}

    def fill(self, fill: OrderFill) -> None:
        """An execution since the start: what it brought may be used as well."""
        for asset, amount in brought_by(fill).items():
            _add(self._brought, asset, amount)

    def learn(self, brought: Mapping[str, Decimal]) -> None:
        """What executions since the start brought that are not told one by one: those before a restart."""
        for asset, amount in brought.items():
            _add(self._brought, asset, amount)

    def apply(self, balances: Mapping[str, Balance], locked: Mapping[str, Decimal]) -> dict[str, Balance]:
        """The balances with no more available than the limits leave beside what own orders lock."""
        found = dict(balances)
        for asset, limit in self.limits.items():
            balance = balances.get(asset)
            if balance is None:
                continue
            left = EXACT.subtract(limit, locked.get(asset, _NOTHING))
            left = max(_NOTHING, EXACT.add(left, self._brought.get(asset, _NOTHING)))
            available = min(max(_NOTHING, _finite(balance.available)), left)
            found[asset] = Balance(total=_finite(balance.total), available=available)
        return found


class BalanceView:
    """What an account shows as its balances: the venue's word, estimated or limited if it is to be.

    ``estimating``: the venue sends no balances of its own accord.
    """

    def __init__(
        self,
        estimating: bool = False,
        limits: Mapping[str, Decimal] | None = None,
        leverage: Mapping[str, Decimal] | None = None,
    ) -> None:
        self.estimating = estimating
        self._estimated = EstimatedBalances(leverage=leverage)
        self._limits = BalanceLimits(limits or {})
        self.known = not limits
        """Whether it is known how much of its limits was used before this was made."""
        self._shown: dict[str, Balance] = {}

    @property
    def plain(self) -> bool:
        """Whether the venue's word is shown as it is."""
        return not self.estimating and not self._limits.limits

    @property
    def limited(self) -> frozenset[str]:
        """The assets that have a limit."""
        return frozenset(self._limits.limits)

    def set_fees(self, fees: Mapping[str, FeeSchema]) -> None:
        self._estimated.fees = dict(fees)

    def snapshot(self, balances: Mapping[str, Balance], orders: Iterable[Order], dated_ns: int) -> None:
        """The venue's whole answer, and the orders that were open at the start of its request."""
        self._estimated.snapshot(balances, orders, dated_ns)

    def undate(self, now_ns: int) -> None:
        self._estimated.undate(now_ns)

    def learn(self, brought: Mapping[str, Decimal]) -> None:
        """By asset: what the executions brought that were there before this was made, since the engine's start."""
        self._limits.learn(brought)
        self.known = True

    def fills(self, fills: Iterable[OrderFill]) -> None:
        for fill in fills:
            self._estimated.fill(fill)
            self._limits.fill(fill)

    def changes(self, told: Mapping[str, Balance], orders: Iterable[Order]) -> dict[str, Balance]:
        """The assets that show another balance than before, with their new values."""
        shown = self.shown(told, orders)
        gone = dict.fromkeys(self._shown.keys() - shown.keys(), _EMPTY)
        changed = {asset: value for asset, value in shown.items() if value != self._shown.get(asset, _EMPTY)}
        self._shown = shown
        return {**gone, **changed}

    def shown(self, told: Mapping[str, Balance], orders: Iterable[Order]) -> dict[str, Balance]:
        """All balances, as they stand with these orders open. ``told``: the venue's word."""
        if self.plain:
            return dict(told)
        orders = list(orders)
        balances = self._estimated.estimate(orders) if self.estimating else dict(told)
        return self._limits.apply(balances, self._estimated.locked(orders))


def _dated_by(of: OrderFill, now_ns: int) -> OrderFill:
    fill = msgspec.structs.replace(of.fill, time_ns=min(of.fill.time_ns, now_ns))
    return msgspec.structs.replace(of, fill=fill)


def brought_by(fill: OrderFill) -> Amounts:
    """What a spot execution changes: base and quote, less its fee."""
    base, _, quote = fill.pair.partition("-")
    size, price = _finite(fill.fill.size), _finite(fill.fill.price)
    signed = size if fill.side is Side.BUY else size.copy_negate()
    changes: Amounts = {base: signed}
    _add(changes, quote, EXACT.multiply(price, signed.copy_negate()))
    _add(changes, fill.fill.fee_asset, fill.fill.fee.copy_negate())
    return changes


def _moved(held: Position, fill: OrderFill, leverage: Decimal) -> tuple[Position, Decimal, Decimal]:
    """A position after a fill, the margin that it frees (below zero: takes), and what it realises."""
    price, size = fill.fill.price, fill.fill.size
    signed = size if fill.side is Side.BUY else size.copy_negate()
    closing = min(size, abs(held.size)) if held.size and (held.size > 0) != (signed > 0) else _NOTHING
    opening = EXACT.subtract(size, closing)
    sign = _ONE if held.size > 0 else -_ONE
    gain = EXACT.multiply(EXACT.multiply(EXACT.subtract(price, held.entry), closing), sign)
    freed = EXACT.multiply(held.entry, closing)
    taken = EXACT.multiply(price, opening)
    margin = _UP.divide(EXACT.subtract(freed, taken), leverage)
    after = EXACT.add(held.size, signed)
    if not after:
        return Position(), margin, gain
    if not opening:
        return Position(after, held.entry), margin, gain
    if closing or not held.size:
        return Position(after, price), margin, gain
    cost = EXACT.fma(abs(held.size), held.entry, taken)
    return Position(after, _UP.divide(cost, abs(after))), margin, gain


def _add(amounts: Amounts, asset: str, amount: Decimal) -> None:
    if asset and amount and amount.is_finite():
        amounts[asset] = EXACT.add(amounts.get(asset, _NOTHING), amount)


def _finite(value: Decimal) -> Decimal:
    return value if value.is_finite() else _NOTHING
