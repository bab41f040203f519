"""Signed requests: orders, executions, balances.

Source: binance-spot-api-docs ``rest-api.md`` "Trading endpoints" and "Account endpoints" (2026).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.simulator.amounts import format_amount as amount
from engine.simulator.binance import params as read
from engine.simulator.binance import shapes
from engine.simulator.binance.api import Api, Call
from engine.simulator.binance.errors import (
    ApiError,
    no_such_order,
    rejected,
    unknown_order_sent,
)
from engine.simulator.binance.rules import check_filters, made_up_id, read_order, symbol_of
from engine.simulator.orders import NewOrder, Order, OrderType, Status
from engine.simulator.venue import DuplicateClientId, InsufficientFunds, OrderRefused, WouldTake

_REFUSALS: Mapping[type[OrderRefused], str] = {
    DuplicateClientId: "Duplicate order sent.",
    WouldTake: "Order would immediately match and take.",
    InsufficientFunds: "Account has insufficient balance for requested action.",
}
_RESTRICTIONS = {"ONLY_NEW": Status.NEW, "ONLY_PARTIALLY_FILLED": Status.PARTIALLY_FILLED}
_MAX_HISTORY = 1000


def place_order(api: Api, call: Call) -> object:
    new = _new_order(api, call)
    kind = call.params.get("newOrderRespType")
    if kind not in (None, "ACK", "RESULT", "FULL"):
        raise ApiError(-1100, "Illegal characters found in parameter 'newOrderRespType'.")
    api.limits.check_order(call.account, call.now_ns)
    try:
        placed = api.venue.place(call.account, new, call.now_ns)
    except OrderRefused as refusal:
        raise rejected(_REFUSALS[type(refusal)]) from refusal
    api.limits.count_order(call.account, call.now_ns)
    kind = kind or ("ACK" if new.type is OrderType.LIMIT_MAKER else "FULL")
    if kind == "ACK":
        return shapes.placed_ack(placed.order)
    if kind == "RESULT":
        return shapes.placed_result(placed.order)
    return shapes.placed_full(placed.order, placed.fills)


def check_order(api: Api, call: Call) -> object:
    """order/test: the checks of an order and nothing else."""
    new = _new_order(api, call)
    try:
        api.venue.check(call.account, new, call.now_ns)
    except OrderRefused as refusal:
        raise rejected(_REFUSALS[type(refusal)]) from refusal
    if not read.flag(call.params, "computeCommissionRates"):
        return {}
    rates = _rates(api, call)
    return {"standardCommissionForOrder": {"maker": rates["maker"], "taker": rates["taker"]}}


def _new_order(api: Api, call: Call) -> NewOrder:
    market = api.market(read.required(call.params, "symbol"))
    new = read_order(call.params, market.pair)
    mine = api.venue.open_orders[call.account].values()
    resting = sum(1 for order in mine if order.pair == market.pair.name)
    check_filters(new, market.pair, api.average_price(market), resting)
    return new


def cancel_order(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    order = _find(api, call, market.pair.name)
    if order is None or not order.status.is_open:
        raise unknown_order_sent()
    restriction = call.params.get("cancelRestrictions")
    if restriction is not None:
        wanted = read.choice(
            call.params,
            "cancelRestrictions",
            _RESTRICTIONS,
            ApiError(-1145, "cancelRestrictions has to be either ONLY_NEW or ONLY_PARTIALLY_FILLED."),
        )
        if order.status is not wanted:
            raise ApiError(-2011, "Order was not canceled due to cancel restrictions.")
    cancel_id = read.client_id(call.params, "newClientOrderId") or made_up_id()
    api.venue.cancel(order, cancel_id, call.now_ns)
    return shapes.cancelled(order, cancel_id)


def cancel_open_orders(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    mine = [o for o in api.venue.open_orders[call.account].values() if o.pair == market.pair.name]
    if not mine:
        raise unknown_order_sent()
    replies = []
    for order in mine:
        cancel_id = made_up_id()
        api.venue.cancel(order, cancel_id, call.now_ns)
        replies.append(shapes.cancelled(order, cancel_id))
    return replies


def get_order(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    order = _find(api, call, market.pair.name)
    if order is None:
        raise no_such_order()
    return shapes.order_report(order)


def open_orders(api: Api, call: Call) -> object:
    symbol = read.optional(call.params, "symbol")
    pair = api.market(symbol).pair.name if symbol is not None else None
    mine = api.venue.open_orders[call.account].values()
    return [shapes.order_report(order) for order in mine if pair is None or order.pair == pair]


def all_orders(api: Api, call: Call) -> object:
    """Oldest first; from an order id, within a time range, or the newest ``limit``."""
    market = api.market(read.required(call.params, "symbol"))
    first = read.integer(call.params, "orderId")
    start, end = _time_range(call)
    limit = read.bounded(call.params, "limit", 500, _MAX_HISTORY)
    found = [
        order
        for order in api.venue.pair_orders[call.account, market.pair.name]
        if (first is None or order.order_id >= first) and start <= shapes.ms(order.created_ns) <= end
    ]
    forward = first is not None or "startTime" in call.params
    return [shapes.order_report(order) for order in (found[:limit] if forward else found[-limit:])]


def my_trades(api: Api, call: Call) -> object:
    """Oldest first; from a trade id, of one order, within a time range, or the newest ``limit``."""
    market = api.market(read.required(call.params, "symbol"))
    order_id = read.integer(call.params, "orderId")
    first = read.integer(call.params, "fromId")
    start, end = _time_range(call)
    limit = read.bounded(call.params, "limit", 500, _MAX_HISTORY)
    found = [
        fill
        for fill in api.venue.pair_fills[call.account, market.pair.name]
        if (first is None or fill.trade_id >= first)
        and (order_id is None or fill.order_id == order_id)
        and start <= shapes.ms(fill.time_ns) <= end
    ]
    forward = first is not None or "startTime" in call.params
    return [shapes.my_trade(fill) for fill in (found[:limit] if forward else found[-limit:])]


def account(api: Api, call: Call) -> object:
    holder = api.venue.accounts[call.account]
    rates = _rates(api, call)
    omit = read.flag(call.params, "omitZeroBalances")
    held = {
        asset: (balance.free, balance.locked)
        for asset, balance in holder.balances.items()
        if not omit or balance.free or balance.locked
    }
    return {
        "makerCommission": holder.maker_fee // 10_000,
        "takerCommission": holder.taker_fee // 10_000,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": rates,
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": shapes.ms(call.now_ns),
        "accountType": "SPOT",
        "balances": shapes.balances(held, ("asset", "free", "locked")),
        "permissions": ["SPOT"],
        "uid": list(api.venue.accounts).index(call.account) + 1,
    }


def commission(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    none = {"maker": "0.00000000", "taker": "0.00000000", "buyer": "0.00000000", "seller": "0.00000000"}
    return {
        "symbol": symbol_of(market.pair.name),
        "standardCommission": _rates(api, call),
        "specialCommission": none,
        "taxCommission": none,
        "discount": {
            "enabledForAccount": False,
            "enabledForSymbol": False,
            "discountAsset": "BNB",
            "discount": "0.00000000",
        },
    }


def order_rate(api: Api, call: Call) -> object:
    return api.limits.order_report(call.account, call.now_ns)


def nothing(api: Api, call: Call) -> object:
    """For account features that the box has none of."""
    return []


def _rates(api: Api, call: Call) -> dict[str, str]:
    holder = api.venue.accounts[call.account]
    return {
        "maker": amount(holder.maker_fee),
        "taker": amount(holder.taker_fee),
        "buyer": "0.00000000",
        "seller": "0.00000000",
    }


def _find(api: Api, call: Call, pair: str) -> Order | None:
    """The account's order by orderId or origClientOrderId; both must agree where both are sent."""
    order_id = read.integer(call.params, "orderId")
    client_id = read.optional(call.params, "origClientOrderId")
    if order_id is None and client_id is None:
        raise ApiError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    if order_id is not None:
        order = api.venue.orders.get(order_id)
        if order is not None and client_id is not None and order.client_order_id != client_id:
            return None
    else:
        order = api.venue.by_client_id.get((call.account, client_id or ""))
    if order is None or order.pair != pair or order.account != call.account:
        return None
    return order


def _time_range(call: Call) -> tuple[int, int]:
    """startTime and endTime in ms; at most 24 hours apart when both are sent."""
    start, end = read.integer(call.params, "startTime"), read.integer(call.params, "endTime")
    if start is not None and end is not None:
        if end < start:
            raise ApiError(-1127, "Start time is greater than end time.")
        if end - start > 86_400_000:
            raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return start or 0, end if end is not None else 2**63
