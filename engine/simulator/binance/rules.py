"""Symbols, filters and the reading of an order request.

Source: binance-spot-api-docs ``filters.md``, ``rest-api.md`` "New order" and "Exchange information" (2026).
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping

from engine.simulator.amounts import format_amount, notional
from engine.simulator.binance import params as read
from engine.simulator.binance.errors import ApiError, filter_failure, missing, not_required, rejected
from engine.simulator.config import Pair
from engine.simulator.orders import NewOrder, OrderType, SelfTrade, TimeInForce

MAX_ORDERS = 200
_MULTIPLIER = 5
_MAX_NOTIONAL = 9_000_000 * 10**8
_MAX_PRICE = 1_000_000 * 10**8
_ALPHABET = string.ascii_letters + string.digits
_SIDES = {"BUY": True, "SELL": False}
_TYPES = {kind.value: kind for kind in OrderType}
_TIMES = {tif.value: tif for tif in TimeInForce}
_MODES = {mode.value: mode for mode in SelfTrade}
_STOPS = {
    "STOP_LOSS": "Stop loss orders are not supported for this symbol.",
    "STOP_LOSS_LIMIT": "Stop loss limit orders are not supported for this symbol.",
    "TAKE_PROFIT": "Take profit orders are not supported for this symbol.",
    "TAKE_PROFIT_LIMIT": "Take profit limit orders are not supported for this symbol.",
}


def symbol_of(pair: str) -> str:
    """``"BTC-USDT"`` → ``"BTCUSDT"``."""
    return pair.replace("-", "")


def made_up_id() -> str:
    """A client order id as the venue makes one up where the client sent none."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(22))


def read_order(params: Mapping[str, str], pair: Pair) -> NewOrder:
    """Parameters of a new order, each present where its type demands it; filters are not checked yet."""
    is_buy = read.choice(params, "side", _SIDES, ApiError(-1117, "Invalid side."))
    if params.get("type", "") in _STOPS:
        raise rejected(_STOPS[params["type"]])
    kind = read.choice(params, "type", _TYPES, ApiError(-1116, "Invalid orderType."))
    if "icebergQty" in params:
        raise rejected("Iceberg orders are not supported for this symbol.")
    tif = TimeInForce.GTC
    if kind is OrderType.LIMIT:
        tif = read.choice(params, "timeInForce", _TIMES, ApiError(-1115, "Invalid timeInForce."))
    elif "timeInForce" in params:
        raise not_required("timeInForce")
    price = quote_quantity = 0
    if kind is OrderType.MARKET:
        if "price" in params:
            raise not_required("price")
        quantity, quote_quantity = _market_size(params)
    else:
        quantity = read.required_amount(params, "quantity")
        price = read.required_amount(params, "price")
    mode = params.get("selfTradePreventionMode") or SelfTrade.EXPIRE_MAKER.value
    if mode not in _MODES:
        raise ApiError(-1013, "This symbol does not allow the specified self-trade prevention mode.")
    client_id = read.client_id(params, "newClientOrderId") or made_up_id()
    return NewOrder(pair.name, is_buy, kind, tif, price, quantity, quote_quantity, client_id, _MODES[mode])


def _market_size(params: Mapping[str, str]) -> tuple[int, int]:
    quantity, quote = read.amount(params, "quantity"), read.amount(params, "quoteOrderQty")
    if quantity is not None and quote is not None:
        raise not_required("quoteOrderQty")
    if quantity is None and quote is None:
        raise missing("quantity")
    if quote is not None and quote <= 0:
        raise ApiError(-1013, "Invalid quote order quantity.")
    if quantity is not None and quantity <= 0:
        raise ApiError(-1013, "Invalid quantity.")
    return quantity or 0, quote or 0


def check_filters(order: NewOrder, pair: Pair, average: int, open_orders: int) -> None:
    """-1013 naming the first filter that the order breaks. ``average``: the pair's average price."""
    if order.type is not OrderType.MARKET:
        if order.price <= 0:
            raise ApiError(-1013, "Invalid price.")
        if order.quantity <= 0:
            raise ApiError(-1013, "Invalid quantity.")
        if order.price % pair.tick or order.price < pair.tick or order.price > _MAX_PRICE:
            raise filter_failure("PRICE_FILTER")
        if not average // _MULTIPLIER <= order.price <= average * _MULTIPLIER:
            raise filter_failure("PERCENT_PRICE_BY_SIDE")
    if order.quantity and (order.quantity % pair.step or order.quantity < pair.step):
        raise filter_failure("LOT_SIZE")
    if order.quantity > pair.max_size:
        raise filter_failure("MARKET_LOT_SIZE" if order.type is OrderType.MARKET else "LOT_SIZE")
    worth = order.quote_quantity or notional(order.price or average, order.quantity)
    if worth < pair.min_notional or (worth > _MAX_NOTIONAL and order.type is not OrderType.MARKET):
        raise filter_failure("NOTIONAL")
    if open_orders >= MAX_ORDERS and order.type is not OrderType.MARKET:
        raise filter_failure("MAX_NUM_ORDERS")


def symbol_info(pair: Pair) -> dict[str, object]:
    """One entry of exchangeInfo's ``symbols``."""
    return {
        "symbol": symbol_of(pair.name),
        "status": "TRADING",
        "baseAsset": pair.base,
        "baseAssetPrecision": 8,
        "quoteAsset": pair.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "otoAllowed": False,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": False,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(pair),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }


def _filters(pair: Pair) -> list[dict[str, object]]:
    tick, step, most = format_amount(pair.tick), format_amount(pair.step), format_amount(pair.max_size)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": format_amount(_MAX_PRICE),
            "tickSize": tick,
        },
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": most, "stepSize": step},
        {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": most, "stepSize": "0.00000000"},
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": format_amount(pair.min_notional),
            "applyMinToMarket": True,
            "maxNotional": format_amount(_MAX_NOTIONAL),
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": MAX_ORDERS},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]
