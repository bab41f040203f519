from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.book import BestQuote, DepthDiff, DepthSnapshot, RangeRule
from engine.connectors.base import Ack, MarketDataProtocol, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import Side

UPDATE = {
    "symbol": "BTC-USDT",
    "sequenceStart": 14,
    "sequenceEnd": 17,
    "time": 1700,
    "changes": {"asks": [["18906", "0.3", "15"], ["18907", "0.5", "14"]], "bids": [["18891", "0", "17"]]},
}


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="k", venue="kucoin", pairs=("BTC-USDT",))).market_data()


def message(channel: str, data: Any) -> bytes:
    return json.dumps({"type": "message", "topic": f"/market/{channel}", "subject": "s", "data": data}).encode()


def test_changes_are_put_in_the_order_of_their_numbers(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(message("level2:BTC-USDT", UPDATE))
    asks = [("18907", "0.5"), ("18906", "0.3")]
    assert event == DepthDiff("BTC-USDT", 14, 17, None, [("18891", "0")], asks, 1_700_000_000)
    assert isinstance(protocol.sequence_rule(), RangeRule)


def test_of_all_symbols_tickers_the_subject_says_whose_it_is(protocol: MarketDataProtocol) -> None:
    data = {"sequence": "17", "bestBid": "1", "bestBidSize": "2", "bestAsk": "3", "bestAskSize": "4"}
    frame = {"type": "message", "topic": "/market/ticker:all", "subject": "BTC-USDT", "data": data}
    assert list(protocol.feed(json.dumps(frame))) == [BestQuote("BTC-USDT", 17, "1", "2", "3", "4")]
    assert list(protocol.feed(json.dumps({**frame, "subject": "NO-ONE"}))) == []


def test_a_change_at_price_zero_only_counts(protocol: MarketDataProtocol) -> None:
    update = {
        "symbol": "BTC-USDT",
        "sequenceStart": 5,
        "sequenceEnd": 5,
        "changes": {"asks": [["0", "0", "5"]], "bids": []},
    }
    assert list(protocol.feed(message("level2:BTC-USDT", update))) == [DepthDiff("BTC-USDT", 5, 5, None, [], [], 0)]


def test_trades_and_quotes(protocol: MarketDataProtocol) -> None:
    match = {
        "symbol": "BTC-USDT",
        "tradeId": "a",
        "price": "1.5",
        "size": "2",
        "side": "sell",
        "time": "1700000000000000001",
    }
    assert list(protocol.feed(message("match:BTC-USDT", match))) == [
        PublicTrade("BTC-USDT", "a", "1.5", "2", Side.SELL, 1_700_000_000_000_000_001)
    ]
    ticker = {"sequence": "17", "bestAsk": "3", "bestAskSize": "4", "bestBid": "1", "bestBidSize": "2"}
    assert list(protocol.feed(message("ticker:BTC-USDT", ticker))) == [BestQuote("BTC-USDT", 17, "1", "2", "3", "4")]
    assert not protocol.feed(message("ticker:BTC-USDT", {**ticker, "bestBid": None}))


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    for channel in ("candles:BTC-USDT_1min", "snapshot:BTC-USDT", "indicator"):
        assert not protocol.feed(message(channel, {}))
    assert not protocol.feed(message("level2:ETH-USDT", {**UPDATE, "symbol": "ETH-USDT"}))
    for frame in ('{"id":"a","type":"welcome"}', '{"id":"a","type":"pong","timestamp":1}'):
        assert not protocol.feed(frame)
    assert list(protocol.feed('{"id":"7","type":"ack"}')) == [Ack("7")]
    assert list(protocol.feed('{"id":"7","type":"error","code":404,"data":"no topic"}')) == [
        VenueNotice("404", '"no topic"', refused=True)
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"sequenceEnd": 13},
        {"sequenceStart": "14"},
        {"changes": {"asks": []}},
        {"changes": {"asks": [["1", "2"]], "bids": []}},
    ],
)
def test_updates_that_cannot_be(protocol: MarketDataProtocol, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(message("level2:BTC-USDT", {**UPDATE, **change}))
    with pytest.raises(MalformedFrame):
        protocol.feed('{"type":"mystery"}')


def test_a_snapshot(protocol: MarketDataProtocol) -> None:
    body = '{"code":"200000","data":{"time":2,"sequence":"17","bids":[["1","2"]],"asks":[["3","4"]]}}'
    for path in ("/api/v3/market/orderbook/level2", "/api/v1/market/orderbook/level2_100"):
        snapshot = protocol.parse_recorded(f"https://api.kucoin.com{path}?symbol=BTC-USDT", body).snapshot
        assert snapshot == DepthSnapshot("BTC-USDT", 17, [("1", "2")], [("3", "4")], 2_000_000)
    with pytest.raises(MalformedReply, match="400001"):
        protocol.parse_snapshot("BTC-USDT", body.replace("200000", "400001"))


def test_symbols(protocol: MarketDataProtocol) -> None:
    entry = {"symbol": "REQ-ETH", "baseCurrency": "REQ", "quoteCurrency": "ETH", "priceIncrement": "0.0000001"}
    entry |= {"baseIncrement": "0.0001", "minFunds": None, "enableTrading": False}
    rules = protocol.parse_recorded(
        "https://x/api/v2/symbols", json.dumps({"code": "200000", "data": [entry, {}]})
    ).rules
    assert rules is not None
    assert list(rules) == ["REQ-ETH"]
    assert (rules["REQ-ETH"].price_increment, rules["REQ-ETH"].is_trading) == (Decimal("1E-7"), False)


def test_a_pair_that_is_no_longer_traded_has_an_empty_book(protocol: MarketDataProtocol) -> None:
    body = '{"code":"200000","data":{"time":1,"sequence":"7","bids":null,"asks":null}}'
    assert protocol.parse_snapshot("BTC-USDT", body) == DepthSnapshot("BTC-USDT", 7, (), (), 1_000_000)


@pytest.mark.parametrize("path", ["v1/market/orderbook/level2_20", "v1/market/orderbook/level2_100"])
def test_books_of_either_depth_are_taken_from_recordings(protocol: MarketDataProtocol, path: str) -> None:
    body = '{"code":"200000","data":{"time":1,"sequence":"7","bids":[["1","2"]],"asks":[]}}'
    snapshot = protocol.parse_recorded(f"https://api.kucoin.com/api/{path}?symbol=BTC-USDT", body).snapshot
    assert snapshot == DepthSnapshot("BTC-USDT", 7, [("1", "2")], (), 1_000_000)
