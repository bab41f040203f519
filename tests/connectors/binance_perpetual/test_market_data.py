from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.book import BestQuote, DepthDiff, PreviousIdRule
from engine.connectors.base import Ack, MarketDataProtocol, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import OrderType, Side

DEPTH = {
    "e": "depthUpdate",
    "E": 1700,
    "T": 1690,
    "s": "BTCUSDT",
    "U": 5,
    "u": 7,
    "pu": 4,
    "b": [["1.0", "2"]],
    "a": [["3.0", "0"]],
}
DIFF = DepthDiff("BTC-USDT", 5, 7, 4, [("1.0", "2")], [("3.0", "0")], 1_700_000_000)


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="m", venue="binance_perpetual", pairs=("BTC-USDT",))).market_data()


def combined(stream: str, data: Any) -> bytes:
    return json.dumps({"stream": stream, "data": data}).encode()


def test_depth_names_the_id_before_it(protocol: MarketDataProtocol) -> None:
    for frame in (combined("btcusdt@depth@100ms", DEPTH), combined("btcusdt@depth", DEPTH), json.dumps(DEPTH)):
        assert list(protocol.feed(frame)) == [DIFF]
    assert isinstance(protocol.sequence_rule(), PreviousIdRule)


@pytest.mark.parametrize("stream", ["btcusdt@depth5", "btcusdt@depth20@100ms", "btcusdt@rpiDepth@500ms"])
def test_the_best_levels_call_themselves_depth_updates_and_are_none(protocol: MarketDataProtocol, stream: str) -> None:
    assert not protocol.feed(combined(stream, DEPTH))


def test_quotes_and_aggregate_trades(protocol: MarketDataProtocol) -> None:
    quote = {"e": "bookTicker", "u": 7, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4", "T": 1, "E": 2}
    assert list(protocol.feed(combined("btcusdt@bookTicker", quote))) == [BestQuote("BTC-USDT", 7, "1", "2", "3", "4")]
    trade = {"e": "aggTrade", "E": 9, "a": 99, "s": "BTCUSDT", "p": "1.5", "q": "2", "f": 1, "l": 2, "T": 8, "m": True}
    expected = PublicTrade("BTC-USDT", "99", "1.5", "2", Side.SELL, 8_000_000, aggregated=True)
    assert list(protocol.feed(combined("btcusdt@aggTrade", trade))) == [expected]


def test_single_trades_where_a_recording_has_them(protocol: MarketDataProtocol) -> None:
    trade = {"e": "trade", "E": 9, "T": 8, "s": "BTCUSDT", "t": 7, "p": "1.5", "q": "2", "X": "MARKET", "m": False}
    expected = PublicTrade("BTC-USDT", "7", "1.5", "2", Side.BUY, 8_000_000)
    assert list(protocol.feed(combined("btcusdt@trade", trade))) == [expected]
    assert list(protocol.feed(json.dumps(trade))) == [expected]
    assert not protocol.feed(combined("btcusdt@trade", {**trade, "X": "NA", "p": "0", "q": "0"}))


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    for stream in ("btcusdt@markPrice", "btcusdt@forceOrder"):
        assert not protocol.feed(combined(stream, {"e": "markPriceUpdate", "s": "BTCUSDT"}))
    assert not protocol.feed(combined("!markPrice@arr", [{"e": "markPriceUpdate"}]))
    assert not protocol.feed(b'[{"e":"markPriceUpdate"}]')
    assert not protocol.feed(combined("ethusdt@depth", {**DEPTH, "s": "ETHUSDT"}))
    assert list(protocol.feed('{"result":null,"id":3}')) == [Ack(3)]
    refusal = VenueNotice("-1121", "Invalid symbol.", refused=True)
    assert list(protocol.feed('{"code":-1121,"msg":"Invalid symbol."}')) == [refusal]
    assert list(protocol.feed('{"error":{"code":-1121,"msg":"Invalid symbol."},"id":1}')) == [refusal]


@pytest.mark.parametrize(
    "change", [{"pu": None}, {"u": 4}, {"pu": 8}, {"U": -1}, {"u": 2**63}, {"E": 10**18}, {"b": [["1"]]}, {"s": 5}]
)
def test_depth_that_cannot_be(protocol: MarketDataProtocol, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(combined("btcusdt@depth", {**DEPTH, **change}))


def test_books_and_trades_come_by_different_connections(protocol: MarketDataProtocol) -> None:
    public, market = protocol.connections(["BTC-USDT"])
    assert public.url == "wss://fstream.binance.com/public/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker"
    assert public.pairs == ("BTC-USDT",)
    assert market.url == "wss://fstream.binance.com/market/stream?streams=btcusdt@aggTrade"
    assert market.pairs == ()
    assert protocol.pairs_of(public.url) == ("BTC-USDT",)
    assert protocol.pairs_of(market.url) == ()
    assert protocol.pairs_of("wss://fstream.binance.com/ws/btcusdt@depth") == ("BTC-USDT",)


def test_a_snapshot(protocol: MarketDataProtocol) -> None:
    body = '{"lastUpdateId":7,"E":1,"T":2,"bids":[["1","2"]],"asks":[]}'
    url = "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
    snapshot = protocol.parse_recorded(url, body).snapshot
    assert snapshot == protocol.parse_snapshot("BTC-USDT", body)
    assert snapshot is not None
    assert (snapshot.pair, snapshot.update_id, snapshot.time_ns) == ("BTC-USDT", 7, 2_000_000)
    request = protocol.snapshot_request("BTC-USDT")
    assert request is not None
    assert (request.path, request.query, request.weight) == ("/fapi/v1/depth", "symbol=BTCUSDT&limit=1000", 20)
    assert protocol.parse_recorded("https://fapi.binance.com/fapi/v1/time", "{}").snapshot is None


def test_contracts_become_pairs(protocol: MarketDataProtocol) -> None:
    common = {"status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "pricePrecision": 2}
    common |= {"quantityPrecision": 3, "timeInForce": ["GTC", "GTX"]}
    common["filters"] = [
        {"filterType": "PRICE_FILTER", "tickSize": "0.10", "minPrice": "1", "maxPrice": "9"},
        {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "100"},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
    ]
    symbols = [{**common, "symbol": "BTCUSDT"}, {**common, "symbol": "BTCUSDT_240329"}, {"symbol": "BROKEN"}]
    rules = protocol.parse_recorded("https://x/fapi/v1/exchangeInfo", json.dumps({"symbols": symbols})).rules
    assert rules is not None
    assert set(rules) == {"BTC-USDT", "BTC-USDT-240329"}
    rule = rules["BTC-USDT"]
    assert (rule.price_increment, rule.size_increment, rule.min_notional) == (
        *(Decimal("0.10"), Decimal("0.001"), Decimal(5)),
    )
    assert OrderType.LIMIT_MAKER in rule.order_types
    assert next(iter(protocol.feed(combined("x@depth", {**DEPTH, "s": "BTCUSDT_240329"})))).pair == "BTC-USDT-240329"  # type: ignore[union-attr]
