"""Public requests: rules, depth, trades, tickers, bars.

Source: binance-spot-api-docs ``rest-api.md`` "Market Data endpoints" and "General endpoints" (2026).
"""

from __future__ import annotations

from collections.abc import Callable

from engine.simulator.amounts import ONE
from engine.simulator.amounts import format_amount as amount
from engine.simulator.binance import params as read
from engine.simulator.binance import shapes
from engine.simulator.binance.api import Api, Call, Params
from engine.simulator.binance.errors import ApiError
from engine.simulator.binance.rules import symbol_info, symbol_of
from engine.simulator.events import BestQuote
from engine.simulator.history import MINUTE_MS
from engine.simulator.venue import Market

_HOUR = 60
_DAY = 24 * _HOUR
INTERVALS = {
    "1m": 1,
    "3m": 3,
    "5m": 5,
    "15m": 15,
    "30m": 30,
    "1h": _HOUR,
    "2h": 2 * _HOUR,
    "4h": 4 * _HOUR,
    "6h": 6 * _HOUR,
    "8h": 8 * _HOUR,
    "12h": 12 * _HOUR,
    "1d": _DAY,
    "3d": 3 * _DAY,
    "1w": 7 * _DAY,
}
"""Bar lengths in minutes; seconds and months are not kept."""


def depth_weight(params: Params) -> int:
    text = params.get("limit", "")
    limit = int(text) if text.isdigit() else 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def ping(api: Api, call: Call) -> object:
    return {}


def server_time(api: Api, call: Call) -> object:
    return {"serverTime": shapes.ms(call.now_ns)}


def exchange_info(api: Api, call: Call) -> object:
    return {
        "timezone": "UTC",
        "serverTime": shapes.ms(call.now_ns),
        "rateLimits": api.limits.table(),
        "exchangeFilters": [],
        "symbols": [symbol_info(market.pair) for market in _asked(api, call)],
    }


def depth(api: Api, call: Call) -> object:
    symbol = read.required(call.params, "symbol")
    book = api.market(symbol).book
    limit = read.bounded(call.params, "limit", 100, 5000)
    update_id, bids, asks = api.picture(symbol) or (book.update_id, book.levels(True, limit), book.levels(False, limit))
    return {"lastUpdateId": update_id, "bids": shapes.levels(bids[:limit]), "asks": shapes.levels(asks[:limit])}


def trades(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    limit = read.bounded(call.params, "limit", 500, 1000)
    first = read.integer(call.params, "fromId")
    found = [trade for trade in market.history.trades if first is None or trade.trade_id >= first]
    chosen = found[:limit] if first is not None else found[-limit:]
    return [shapes.public_trade(trade) for trade in chosen]


def aggregate_trades(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    limit = read.bounded(call.params, "limit", 500, 1000)
    first = read.integer(call.params, "fromId")
    start, end = read.integer(call.params, "startTime"), read.integer(call.params, "endTime")
    found = [
        trade
        for trade in market.history.aggregates
        if (first is None or trade.aggregate_id >= first)
        and (start is None or shapes.ms(trade.time_ns) >= start)
        and (end is None or shapes.ms(trade.time_ns) <= end)
    ]
    forward = first is not None or start is not None
    return [shapes.aggregate_trade(trade) for trade in (found[:limit] if forward else found[-limit:])]


def klines(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    minutes = read.choice(call.params, "interval", INTERVALS, ApiError(-1120, "Invalid interval."))
    limit = read.bounded(call.params, "limit", 500, 1000)
    start, end = read.integer(call.params, "startTime"), read.integer(call.params, "endTime")
    length = minutes * MINUTE_MS
    found = [
        bar
        for bar in market.history.bars_of(length)
        if (start is None or bar.open_ms >= start) and (end is None or bar.open_ms <= end)
    ]
    return [shapes.kline(bar, length) for bar in (found[:limit] if start is not None else found[-limit:])]


def average_price(api: Api, call: Call) -> object:
    market = api.market(read.required(call.params, "symbol"))
    return {
        "mins": 5,
        "price": amount(api.average_price(market)),
        "closeTime": shapes.ms(call.now_ns),
    }


def ticker_price(api: Api, call: Call) -> object:
    return _one_or_all(api, call, _price)


def ticker_book(api: Api, call: Call) -> object:
    return _one_or_all(api, call, _book)


def ticker_day(api: Api, call: Call) -> object:
    return _one_or_all(api, call, lambda symbol, market: day(symbol, market, call.now_ns))


def _price(symbol: str, market: Market) -> shapes.Json:
    return {"symbol": symbol, "price": amount(_last_price(market))}


def _book(symbol: str, market: Market) -> shapes.Json:
    quote = best_quote(market)
    return {
        "symbol": symbol,
        "bidPrice": amount(quote.bid[0]),
        "bidQty": amount(quote.bid[1]),
        "askPrice": amount(quote.ask[0]),
        "askQty": amount(quote.ask[1]),
    }


def day(symbol: str, market: Market, now_ns: int) -> shapes.Json:
    """The 24-hour ticker, over what has been traded since the box started."""
    bar = market.history.day()
    last = _last_price(market)
    opened = bar.open if bar else last
    change = last - opened
    quote = best_quote(market)
    volume, worth = (bar.volume, bar.quote) if bar else (0, 0)
    return {
        "symbol": symbol,
        "priceChange": amount(change),
        "priceChangePercent": _percent(change, opened),
        "weightedAvgPrice": amount(worth * ONE // volume if volume else last),
        "prevClosePrice": amount(opened),
        "lastPrice": amount(last),
        "lastQty": amount(market.history.trades[-1].size if market.history.trades else 0),
        "bidPrice": amount(quote.bid[0]),
        "bidQty": amount(quote.bid[1]),
        "askPrice": amount(quote.ask[0]),
        "askQty": amount(quote.ask[1]),
        "openPrice": amount(opened),
        "highPrice": amount(bar.high if bar else last),
        "lowPrice": amount(bar.low if bar else last),
        "volume": amount(volume),
        "quoteVolume": amount(worth),
        "openTime": shapes.ms(now_ns) - 86_400_000,
        "closeTime": shapes.ms(now_ns),
        "firstId": bar.first_id if bar else -1,
        "lastId": bar.last_id if bar else -1,
        "count": bar.trades if bar else 0,
    }


def best_quote(market: Market) -> BestQuote:
    book = market.book
    return BestQuote(market.pair.name, book.update_id, book.bids.best() or (0, 0), book.asks.best() or (0, 0))


def _last_price(market: Market) -> int:
    return market.history.trades[-1].price if market.history.trades else market.flow.mid


def _asked(api: Api, call: Call) -> list[Market]:
    symbol, symbols = read.optional(call.params, "symbol"), read.names(call.params, "symbols")
    if symbol is not None and symbols is not None:
        raise ApiError(-1128, "Combination of optional parameters invalid.")
    if symbol is not None:
        return [api.market(symbol)]
    if symbols is not None:
        return [api.market(name) for name in symbols]
    return list(api.markets.values())


def _one_or_all(api: Api, call: Call, shape: Callable[[str, Market], shapes.Json]) -> object:
    asked = [shape(symbol_of(market.pair.name), market) for market in _asked(api, call)]
    return asked[0] if "symbol" in call.params else asked


def _percent(change: int, of: int) -> str:
    thousandths = abs(change) * 100_000 // of
    return f"{'-' if change < 0 else ''}{thousandths // 1000}.{thousandths % 1000:03d}"
