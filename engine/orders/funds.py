"""An account's money: what the venue told of it, what is shown of it, and whether it pays for an order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from engine.messages import Balance, BalanceEvent, FeeSchema, Order, OrderFill, PlaceOrder
from engine.orders.balances import Balances
from engine.orders.budget import OrderCandidate, lacks, needs_of
from engine.orders.effects import Effect, PublishBalance
from engine.orders.estimated import BalanceView

_NO_FEES = FeeSchema()


class Funds:
    """The balances of one account. ``fees``: by pair, shared with who reckons the fees of fills."""

    def __init__(self, connector: str, account: str, view: BalanceView) -> None:
        self.fees: dict[str, FeeSchema] = {}
        self._connector = connector
        self._account = account
        self._view = view
        self._told = Balances()

    def set_fees(self, fees: Mapping[str, FeeSchema]) -> None:
        """What the account pays, by pair."""
        self.fees.update(fees)
        self._view.set_fees(self.fees)

    def shown(self, orders: Sequence[Order]) -> dict[str, Balance]:
        """All balances, with these orders open."""
        return self._view.shown(self._told.snapshot(), orders)

    def update(
        self,
        balances: Mapping[str, Balance],
        dated_ns: int,
        complete: bool,
        orders: Callable[[], Sequence[Order]],
        orders_then: Sequence[Order] | None,
    ) -> dict[str, Balance]:
        """Take what the venue told; the assets that show another balance now.

        ``orders_then``: of a complete answer, those that were open when its request began.
        """
        changed = self._told.update(balances, dated_ns, complete)
        if self._view.plain:
            return changed
        if complete:
            self._view.snapshot(balances, orders() if orders_then is None else orders_then, dated_ns)
        return self._view.changes(self._told.snapshot(), orders())

    def undate(self, now_ns: int) -> None:
        """The venue's clock is back, at ``now_ns``: whatever it tells from here on is news."""
        self._told.undate()
        self._view.undate(now_ns)

    def moved(self, fills: Iterable[OrderFill], orders: Callable[[], Sequence[Order]], now_ns: int) -> list[Effect]:
        """What orders and fills change in what is shown, where that is more than the venue's word."""
        if self._view.plain:
            return []
        self._view.fills(fills)
        return self.event(self._view.changes(self._told.snapshot(), orders()), now_ns)

    def event(self, changed: dict[str, Balance], time_ns: int) -> list[Effect]:
        """To be published, if anything changed."""
        if not changed:
            return []
        return [
            PublishBalance(
                BalanceEvent(connector=self._connector, account=self._account, balances=changed, time_ns=time_ns)
            )
        ]

    def lacking(
        self, command: PlaceOrder, size: Decimal, price: Decimal | None, orders: Sequence[Order], newest_ns: int
    ) -> str:
        """Why the account surely cannot pay for an order; empty where it may be able to.

        ``newest_ns``: of the newest fill. A balance that is older says nothing, and neither does an estimated one.
        """
        if price is None or self._view.estimating:
            return ""
        candidate = OrderCandidate(
            pair=command.pair, side=command.side, size=size, price=price, order_type=command.order_type
        )
        needs = needs_of(candidate, self.fees.get(command.pair, _NO_FEES)).of(size)
        known = {asset: self._told.dated(asset) for asset in needs}
        told = {asset: found for asset, found in known.items() if found is not None and found[1] >= newest_ns}
        return lacks(needs, told, orders, self.fees) or self._beyond_limits(needs, orders)

    def _beyond_limits(self, needs: Mapping[str, Decimal], orders: Sequence[Order]) -> str:
        if self._view.plain:
            return ""
        shown = self.shown(orders)
        for asset, amount in needs.items():
            left = shown[asset].available if asset in shown else None
            if asset in self._view.limited and left is not None and amount > left:
                return f"it needs {amount:f} {asset}, and the balance limit leaves {left:f}"
        return ""
