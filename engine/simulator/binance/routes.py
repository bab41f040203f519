"""Which request is which operation, over REST and over the WebSocket API."""

from __future__ import annotations

from engine.simulator.binance import market_data, trading
from engine.simulator.binance.api import Api, Call, Operation, Params


def _open_orders_weight(params: Params) -> int:
    return 6 if "symbol" in params else 80


def _trades_weight(params: Params) -> int:
    return 5 if "orderId" in params else 20


def _ticker_weight(params: Params) -> int:
    return 2 if "symbol" in params else 4


def _day_weight(params: Params) -> int:
    return 2 if "symbol" in params else 80


def _no_contracts(api: Api, call: Call) -> object:
    """The box has no derivatives; a client that lists them finds none."""
    return {
        "timezone": "UTC",
        "serverTime": call.now_ns // 1_000_000,
        "rateLimits": [],
        "exchangeFilters": [],
        "assets": [],
        "symbols": [],
        "optionSymbols": [],
    }


_PING = Operation(market_data.ping)
_TIME = Operation(market_data.server_time)
_INFO = Operation(market_data.exchange_info, 20)
_DEPTH = Operation(market_data.depth, market_data.depth_weight)
_TRADES = Operation(market_data.trades, 25)
_AGGREGATES = Operation(market_data.aggregate_trades, 4)
_KLINES = Operation(market_data.klines, 2)
_AVERAGE = Operation(market_data.average_price, 2)
_PRICE = Operation(market_data.ticker_price, _ticker_weight)
_BOOK = Operation(market_data.ticker_book, _ticker_weight)
_DAY = Operation(market_data.ticker_day, _day_weight)

_PLACE = Operation(trading.place_order, 1, signed=True, free_when_done=True, places=True)
_TEST = Operation(trading.check_order, 1, signed=True)
_CANCEL = Operation(trading.cancel_order, 1, signed=True, free_when_done=True)
_CANCEL_ALL = Operation(trading.cancel_open_orders, 1, signed=True, free_when_done=True)
_STATUS = Operation(trading.get_order, 4, signed=True)
_OPEN = Operation(trading.open_orders, _open_orders_weight, signed=True)
_ALL = Operation(trading.all_orders, 20, signed=True)
_MINE = Operation(trading.my_trades, _trades_weight, signed=True)
_ACCOUNT = Operation(trading.account, 20, signed=True)
_COMMISSION = Operation(trading.commission, 20, signed=True)
_RATE = Operation(trading.order_rate, 40, signed=True)
_NOTHING = Operation(trading.nothing, signed=True)
_CONTRACTS = Operation(_no_contracts)

REST: dict[tuple[str, str], Operation] = {
    ("GET", "/api/v3/ping"): _PING,
    ("GET", "/api/v3/time"): _TIME,
    ("GET", "/api/v3/exchangeInfo"): _INFO,
    ("GET", "/api/v3/depth"): _DEPTH,
    ("GET", "/api/v3/trades"): _TRADES,
    ("GET", "/api/v3/historicalTrades"): _TRADES,
    ("GET", "/api/v3/aggTrades"): _AGGREGATES,
    ("GET", "/api/v3/klines"): _KLINES,
    ("GET", "/api/v3/uiKlines"): _KLINES,
    ("GET", "/api/v3/avgPrice"): _AVERAGE,
    ("GET", "/api/v3/ticker/price"): _PRICE,
    ("GET", "/api/v3/ticker/bookTicker"): _BOOK,
    ("GET", "/api/v3/ticker/24hr"): _DAY,
    ("POST", "/api/v3/order"): _PLACE,
    ("POST", "/api/v3/order/test"): _TEST,
    ("DELETE", "/api/v3/order"): _CANCEL,
    ("DELETE", "/api/v3/openOrders"): _CANCEL_ALL,
    ("GET", "/api/v3/order"): _STATUS,
    ("GET", "/api/v3/openOrders"): _OPEN,
    ("GET", "/api/v3/allOrders"): _ALL,
    ("GET", "/api/v3/myTrades"): _MINE,
    ("GET", "/api/v3/account"): _ACCOUNT,
    ("GET", "/api/v3/account/commission"): _COMMISSION,
    ("GET", "/api/v3/rateLimit/order"): _RATE,
    ("GET", "/sapi/v1/capital/config/getall"): _NOTHING,
    ("GET", "/sapi/v1/margin/allPairs"): _NOTHING,
    ("GET", "/sapi/v1/margin/isolated/allPairs"): _NOTHING,
    ("GET", "/fapi/v1/exchangeInfo"): _CONTRACTS,
    ("GET", "/dapi/v1/exchangeInfo"): _CONTRACTS,
    ("GET", "/eapi/v1/exchangeInfo"): _CONTRACTS,
}

WEBSOCKET: dict[str, Operation] = {
    "ping": _PING,
    "time": _TIME,
    "exchangeInfo": _INFO,
    "depth": _DEPTH,
    "trades.recent": _TRADES,
    "trades.aggregate": _AGGREGATES,
    "klines": _KLINES,
    "avgPrice": _AVERAGE,
    "ticker.price": _PRICE,
    "ticker.book": _BOOK,
    "ticker.24hr": _DAY,
    "order.place": _PLACE,
    "order.test": _TEST,
    "order.cancel": _CANCEL,
    "openOrders.cancelAll": _CANCEL_ALL,
    "order.status": _STATUS,
    "openOrders.status": _OPEN,
    "allOrders": _ALL,
    "myTrades": _MINE,
    "account.status": _ACCOUNT,
    "account.commission": _COMMISSION,
    "account.rateLimits.orders": _RATE,
}
