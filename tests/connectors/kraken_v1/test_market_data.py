from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.book import ChecksumRule, DepthDiff, DepthSnapshot
from engine.connectors.base import Ack, MarketDataProtocol, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import Side

ASK = ["5541.30000", "2.50700000", "1534614248.123678"]
BID = ["5541.20000", "1.52900000", "1534614248.765567"]


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="k", venue="kraken_v1", pairs=("BTC-USD",))).market_data()


def book(*parts: Any, channel: str = "book-25", symbol: str = "XBT/USD") -> bytes:
    return json.dumps([1920, *parts, channel, symbol]).encode()


def test_a_snapshot_has_the_depth_that_was_subscribed_to(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(book({"as": [ASK], "bs": [BID]}))
    assert event == DepthSnapshot("BTC-USD", 0, [BID], [ASK], 1_534_614_248_765_567_000, None, 25)
    assert list(protocol.feed(book({"as": [ASK]}, {"bs": [BID]}))) == [event], "a side each"
    assert isinstance(protocol.sequence_rule(), ChecksumRule)


def test_updates_of_one_side_and_of_both(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(book({"a": [ASK], "c": "974942666"}))
    assert event == DepthDiff("BTC-USD", 0, 0, None, [], [ASK], 1_534_614_248_123_678_000, 974942666)
    (event,) = protocol.feed(book({"a": [ASK]}, {"b": [[*BID, "r"]], "c": "7"}))
    assert event == DepthDiff("BTC-USD", 0, 0, None, [[*BID, "r"]], [ASK], 1_534_614_248_765_567_000, 7)


def test_of_several_depths_the_book_is_the_one_whose_snapshot_came_last(protocol: MarketDataProtocol) -> None:
    snapshots = {channel: book({"as": [ASK], "bs": [BID]}, channel=channel) for channel in ("book-10", "book-1000")}
    updates = {channel: book({"a": [ASK], "c": "1"}, channel=channel) for channel in snapshots}
    assert protocol.feed(updates["book-10"]), "until there is a snapshot, any"
    for kept, other in (("book-10", "book-1000"), ("book-1000", "book-10")):
        assert protocol.feed(snapshots[kept])
        assert protocol.feed(updates[kept])
        assert not protocol.feed(updates[other])


def test_trades_without_ids_have_their_time_and_place(protocol: MarketDataProtocol) -> None:
    trades = [
        ["5541.20000", "0.15850568", "1534614057.321597", "s", "l", ""],
        ["5541.30000", "0.02455000", "1534614057.321597", "b", "m", ""],
    ]
    first, second = protocol.feed(json.dumps([337, trades, "trade", "XBT/USD"]))
    assert first == PublicTrade(
        "BTC-USD", "1534614057.321597-0", "5541.20000", "0.15850568", Side.SELL, 1_534_614_057_321_597_000
    )
    assert isinstance(second, PublicTrade)
    assert (second.side, second.trade_id) == (Side.BUY, "1534614057.321597-1")


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    for channel in ("ticker", "spread", "ohlc-5"):
        assert not protocol.feed(book({"a": 1}, channel=channel))
    assert not protocol.feed(book({"as": [ASK], "bs": []}, symbol="ETH/USD"))
    for frame in ('{"event":"heartbeat"}', '{"event":"pong","reqid":4}', '{"event":"systemStatus","status":"online"}'):
        assert not protocol.feed(frame)
    assert list(protocol.feed('{"event":"systemStatus","status":"maintenance"}')) == [
        VenueNotice("systemStatus", "maintenance")
    ]
    assert list(protocol.feed('{"event":"subscriptionStatus","status":"subscribed","reqid":4}')) == [Ack(4)]
    (notice,) = protocol.feed('{"event":"subscriptionStatus","status":"error","errorMessage":"no such pair"}')
    assert notice == VenueNotice("subscriptionStatus", "no such pair")


@pytest.mark.parametrize(
    "frame",
    [
        book({"c": "1"}),
        book({"a": [ASK[:2]]}),
        book({"a": [[*ASK[:2], "yesterday"]]}),
        book({"a": [ASK], "c": "-1"}),
        book({"a": [ASK]}, channel="booc-25"),
        book({"a": [ASK]}, channel="book-x"),
        b'[1,{"a":[]},"book-10"]',
        json.dumps([337, [["1e5", "1", "1.0", "s", "l", ""]], "trade", "XBT/USD"]).encode(),
        json.dumps([337, [["1", "1", "1.0", "x", "l", ""]], "trade", "XBT/USD"]).encode(),
    ],
)
def test_what_cannot_be_read(protocol: MarketDataProtocol, frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(frame)


def test_subscriptions(protocol: MarketDataProtocol) -> None:
    (plan,) = protocol.connections(["BTC-USD"])
    assert [json.loads(text)["subscription"] for text in plan.opening] == [
        {"name": "book", "depth": 100},
        {"name": "trade"},
    ]
    again = [json.loads(text) for text in protocol.resubscribe("BTC-USD")]
    assert [(text["event"], text["pair"]) for text in again] == [
        ("unsubscribe", ["XBT/USD"]),
        ("subscribe", ["XBT/USD"]),
    ]


def test_asset_pairs(protocol: MarketDataProtocol) -> None:
    entry = {"wsname": "XDG/XBT", "pair_decimals": 8, "lot_decimals": 8, "ordermin": "50", "costmin": "0.00002"}
    dark = {"altname": "XBTUSD.d", "pair_decimals": 1, "lot_decimals": 8}
    body = json.dumps({"error": [], "result": {"XXDGXXBT": entry, "XXBTZUSD.d": dark}})
    rules = protocol.parse_recorded("https://api.kraken.com/0/public/AssetPairs", body).rules
    assert rules is not None
    rule = rules["DOGE-BTC"]
    assert list(rules) == ["DOGE-BTC"]
    assert (rule.symbol, rule.price_increment, rule.min_size) == ("XDG/XBT", Decimal("1E-8"), Decimal(50))


def test_the_book_by_rest_is_asked_for_by_the_venues_name_and_read(protocol: MarketDataProtocol) -> None:
    request = protocol.audit_request("BTC-USD")
    assert request is not None
    assert (request.path, request.query) == ("/0/public/Depth", "pair=XBTUSD&count=100")
    body = {"error": [], "result": {"XXBTZUSD": {"asks": [[*ASK[:2], 1534614248]], "bids": [[*BID[:2], 1534614249]]}}}
    snapshot = protocol.parse_snapshot("BTC-USD", json.dumps(body))
    assert snapshot == DepthSnapshot("BTC-USD", 0, [tuple(BID[:2])], [tuple(ASK[:2])])
    with pytest.raises(MalformedReply):
        protocol.parse_snapshot("BTC-USD", json.dumps({"error": ["EQuery:Unknown asset pair"]}))


@pytest.mark.parametrize("channel", ["ownTrades", "openOrders"])
def test_an_account_s_own_channels_are_passed_over(protocol: MarketDataProtocol, channel: str) -> None:
    assert not protocol.feed(json.dumps([[{"TDLH43": {"cost": "1"}}], channel, {"sequence": 1}]))
    with pytest.raises(MalformedFrame):
        protocol.feed(json.dumps([[], "book-10", {"sequence": 1}]))
