"""The venue's objects in Binance's JSON.

Source: binance-spot-api-docs ``rest-api.md``, ``web-socket-streams.md``, ``user-data-stream.md`` (2026).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.simulator.amounts import format_amount as amount
from engine.simulator.amounts import notional
from engine.simulator.binance.rules import symbol_of
from engine.simulator.events import (
    AggregateTrade,
    BalanceEvent,
    BestQuote,
    Depth,
    OrderEvent,
    OrderEventKind,
    Trade,
)
from engine.simulator.history import Bar
from engine.simulator.matching import Levels
from engine.simulator.orders import Fill, Order, Status

Json = dict[str, object]


def ms(time_ns: int) -> int:
    return time_ns // 1_000_000


def levels(side: Levels) -> list[tuple[str, str]]:
    return [(amount(price), amount(size)) for price, size in side]


# -- REST


def order_head(order: Order) -> Json:
    return {
        "symbol": symbol_of(order.pair),
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
    }


def _order_state(order: Order) -> Json:
    return {
        "price": amount(order.price),
        "origQty": amount(order.quantity),
        "executedQty": amount(order.filled),
        "origQuoteOrderQty": amount(order.quote_quantity),
        "cummulativeQuoteQty": amount(order.filled_quote),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.type.value,
        "side": side(order.is_buy),
    }


def _prevented(order: Order) -> Json:
    if order.status is not Status.EXPIRED_IN_MATCH:
        return {}
    return {"preventedMatchId": order.prevented_id, "preventedQuantity": amount(order.remaining)}


def order_report(order: Order) -> Json:
    """GET order, openOrders, allOrders."""
    return {
        **order_head(order),
        **_order_state(order),
        "stopPrice": "0.00000000",
        "icebergQty": "0.00000000",
        "time": ms(order.created_ns),
        "updateTime": ms(order.updated_ns),
        "isWorking": True,
        "workingTime": ms(order.created_ns),
        "selfTradePreventionMode": order.self_trade.value,
        **_prevented(order),
    }


def placed_ack(order: Order) -> Json:
    return {**order_head(order), "transactTime": ms(order.created_ns)}


def placed_result(order: Order) -> Json:
    return {
        **placed_ack(order),
        **_order_state(order),
        "workingTime": ms(order.created_ns),
        "selfTradePreventionMode": order.self_trade.value,
        **_prevented(order),
    }


def placed_full(order: Order, fills: Iterable[Fill]) -> Json:
    return {
        **placed_result(order),
        "fills": [
            {
                "price": amount(fill.price),
                "qty": amount(fill.size),
                "commission": amount(fill.fee),
                "commissionAsset": fill.fee_asset,
                "tradeId": fill.trade_id,
            }
            for fill in fills
        ],
    }


def cancelled(order: Order, cancel_id: str) -> Json:
    """In a cancel's reply ``clientOrderId`` is the cancel request's id, ``origClientOrderId`` the order's."""
    return {
        "symbol": symbol_of(order.pair),
        "origClientOrderId": order.client_order_id,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": cancel_id,
        "transactTime": ms(order.updated_ns),
        **_order_state(order),
        "selfTradePreventionMode": order.self_trade.value,
    }


def my_trade(fill: Fill) -> Json:
    return {
        "symbol": symbol_of(fill.pair),
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": -1,
        "price": amount(fill.price),
        "qty": amount(fill.size),
        "quoteQty": amount(fill.quote),
        "commission": amount(fill.fee),
        "commissionAsset": fill.fee_asset,
        "time": ms(fill.time_ns),
        "isBuyer": fill.is_buy,
        "isMaker": fill.is_maker,
        "isBestMatch": True,
    }


def public_trade(trade: Trade) -> Json:
    return {
        "id": trade.trade_id,
        "price": amount(trade.price),
        "qty": amount(trade.size),
        "quoteQty": amount(notional(trade.price, trade.size)),
        "time": ms(trade.time_ns),
        "isBuyerMaker": trade.buyer_is_maker,
        "isBestMatch": True,
    }


def aggregate_trade(trade: AggregateTrade) -> Json:
    return {
        "a": trade.aggregate_id,
        "p": amount(trade.price),
        "q": amount(trade.size),
        "f": trade.first,
        "l": trade.last,
        "T": ms(trade.time_ns),
        "m": trade.buyer_is_maker,
        "M": True,
    }


def kline(bar: Bar, length_ms: int) -> list[object]:
    return [
        bar.open_ms,
        amount(bar.open),
        amount(bar.high),
        amount(bar.low),
        amount(bar.close),
        amount(bar.volume),
        bar.open_ms + length_ms - 1,
        amount(bar.quote),
        bar.trades,
        amount(bar.taker_volume),
        amount(bar.taker_quote),
        "0",
    ]


def side(is_buy: bool) -> str:
    return "BUY" if is_buy else "SELL"


# -- streams


def depth_update(event: Depth) -> Json:
    change = event.change
    return {
        "e": "depthUpdate",
        "E": ms(event.time_ns),
        "s": symbol_of(event.pair),
        "U": change.first,
        "u": change.last,
        "b": levels(change.bids),
        "a": levels(change.asks),
    }


def book_ticker(event: BestQuote) -> Json:
    return {
        "u": event.update_id,
        "s": symbol_of(event.pair),
        "b": amount(event.bid[0]),
        "B": amount(event.bid[1]),
        "a": amount(event.ask[0]),
        "A": amount(event.ask[1]),
    }


def trade(event: Trade) -> Json:
    return {
        "e": "trade",
        "E": ms(event.time_ns),
        "s": symbol_of(event.pair),
        "t": event.trade_id,
        "p": amount(event.price),
        "q": amount(event.size),
        "T": ms(event.time_ns),
        "m": event.buyer_is_maker,
        "M": True,
    }


def aggregate(event: AggregateTrade) -> Json:
    head: Json = {"e": "aggTrade", "E": ms(event.time_ns), "s": symbol_of(event.pair)}
    return head | aggregate_trade(event)


def kline_update(pair: str, bar: Bar, interval: str, length_ms: int, closed: bool, now_ns: int) -> Json:
    return {
        "e": "kline",
        "E": ms(now_ns),
        "s": symbol_of(pair),
        "k": {
            "t": bar.open_ms,
            "T": bar.open_ms + length_ms - 1,
            "s": symbol_of(pair),
            "i": interval,
            "f": bar.first_id,
            "L": bar.last_id,
            "o": amount(bar.open),
            "c": amount(bar.close),
            "h": amount(bar.high),
            "l": amount(bar.low),
            "v": amount(bar.volume),
            "n": bar.trades,
            "x": closed,
            "q": amount(bar.quote),
            "V": amount(bar.taker_volume),
            "Q": amount(bar.taker_quote),
            "B": "0",
        },
    }


# -- user data


def execution_report(event: OrderEvent) -> Json:
    """On a cancel ``c`` is the cancel request's id and ``C`` the order's own."""
    order, fill = event.order, event.fill
    by_request = event.kind is OrderEventKind.CANCELED
    report: Json = {
        "e": "executionReport",
        "E": ms(event.time_ns),
        "s": symbol_of(order.pair),
        "c": event.cancel_id if by_request else order.client_order_id,
        "S": side(order.is_buy),
        "o": order.type.value,
        "f": order.time_in_force.value,
        "q": amount(order.quantity),
        "p": amount(order.price),
        "P": "0.00000000",
        "F": "0.00000000",
        "g": -1,
        "C": order.client_order_id if by_request else "",
        "x": event.kind.value,
        "X": order.status.value,
        "r": "NONE",
        "i": order.order_id,
        "l": amount(fill.size if fill else 0),
        "z": amount(order.filled),
        "L": amount(fill.price if fill else 0),
        "n": amount(fill.fee) if fill else "0",
        "N": fill.fee_asset if fill else None,
        "T": ms(event.time_ns),
        "t": fill.trade_id if fill else -1,
        "I": event.execution_id,
        "w": event.on_book,
        "m": fill.is_maker if fill else False,
        "M": fill is not None,
        "O": ms(order.created_ns),
        "Z": amount(order.filled_quote),
        "Y": amount(fill.quote if fill else 0),
        "Q": amount(order.quote_quantity),
        "W": ms(order.created_ns),
        "V": order.self_trade.value,
    }
    if event.kind is OrderEventKind.TRADE_PREVENTION:
        report |= {"v": order.prevented_id, "A": amount(order.remaining), "B": amount(order.remaining)}
    return report


def account_position(event: BalanceEvent) -> Json:
    return {
        "e": "outboundAccountPosition",
        "E": ms(event.time_ns),
        "u": ms(event.time_ns),
        "B": balances(event.balances, ("a", "f", "l")),
    }


def balances(of: Mapping[str, tuple[int, int]], names: tuple[str, str, str]) -> list[dict[str, str]]:
    asset_name, free_name, locked_name = names
    return [
        {asset_name: asset, free_name: amount(free), locked_name: amount(locked)}
        for asset, (free, locked) in of.items()
    ]
