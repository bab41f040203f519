"""The box's own endpoints: the ledger, faults on demand, counts."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from engine.simulator import faults as fault_forms
from engine.simulator.amounts import plain_amount
from engine.simulator.faults import Fault
from engine.simulator.orders import Fill, Order
from engine.simulator.venue import Venue

Json = dict[str, object]


def ledger(venue: Venue) -> Json:
    """All orders, fills and balances of client accounts. ``balances`` are those of all accounts together."""
    total: dict[str, dict[str, int]] = {}
    for account in venue.accounts.values():
        for asset, balance in account.balances.items():
            sums = total.setdefault(asset, {"free": 0, "locked": 0})
            sums["free"] += balance.free
            sums["locked"] += balance.locked
    return {
        "orders": [_order(order) for order in venue.orders.values()],
        "fills": [_fill(fill) for fills in venue.pair_fills.values() for fill in fills],
        "balances": {asset: _amounts(sums) for asset, sums in total.items()},
        "accounts": {
            name: {
                asset: _amounts({"free": balance.free, "locked": balance.locked})
                for asset, balance in account.balances.items()
            }
            for name, account in venue.accounts.items()
        },
    }


def _amounts(sums: dict[str, int]) -> dict[str, str]:
    free, locked = sums["free"], sums["locked"]
    return {"free": plain_amount(free), "locked": plain_amount(locked), "total": plain_amount(free + locked)}


def _order(order: Order) -> Json:
    return {
        "order_id": str(order.order_id),
        "client_order_id": order.client_order_id,
        "account": order.account,
        "pair": order.pair,
        "side": "buy" if order.is_buy else "sell",
        "type": order.type.value.lower(),
        "time_in_force": order.time_in_force.value,
        "price": plain_amount(order.price),
        "size": plain_amount(order.quantity),
        "filled": plain_amount(order.filled),
        "filled_quote": plain_amount(order.filled_quote),
        "status": order.status.value,
        "created": order.created_ns // 1_000_000,
        "updated": order.updated_ns // 1_000_000,
    }


def _fill(fill: Fill) -> Json:
    return {
        "trade_id": str(fill.trade_id),
        "order_id": str(fill.order_id),
        "client_order_id": fill.client_order_id,
        "account": fill.account,
        "pair": fill.pair,
        "side": "buy" if fill.is_buy else "sell",
        "maker": fill.is_maker,
        "price": plain_amount(fill.price),
        "size": plain_amount(fill.size),
        "fee": plain_amount(fill.fee),
        "fee_asset": fill.fee_asset,
        "time": fill.time_ns // 1_000_000,
    }


class Admin:
    """aiohttp handlers under ``/admin``. ``stats`` makes the counts, ``inflict`` arms faults and says what it did."""

    def __init__(
        self,
        ledger: Callable[[], Json],
        stats: Callable[[], Json],
        inflict: Callable[[list[Fault]], Json],
        forgive: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._stats = stats
        self._inflict = inflict
        self._forgive = forgive

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/admin/ledger", self._get_ledger)
        app.router.add_get("/admin/stats", self._get_stats)
        app.router.add_post("/admin/faults", self._post_faults)
        app.router.add_delete("/admin/faults", self._delete_faults)

    async def _get_ledger(self, request: web.Request) -> web.Response:
        return _json(self._ledger())

    async def _get_stats(self, request: web.Request) -> web.Response:
        return _json(self._stats())

    async def _post_faults(self, request: web.Request) -> web.Response:
        try:
            faults = fault_forms.decode(await request.read())
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        return _json(self._inflict(faults))

    async def _delete_faults(self, request: web.Request) -> web.Response:
        self._forgive()
        return _json({"armed": 0})


def _json(body: Json, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
