from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.book import DepthDiff, DepthSnapshot, UnnumberedRule
from engine.connectors.base import Ack, MarketDataProtocol, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import Side

AT, AT_NS = "2022-08-04T15:25:05.010758Z", 1_659_626_705_010_758_000
UPDATE = {
    "type": "l2update",
    "product_id": "BTC-USD",
    "time": AT,
    "changes": [["buy", "10.80", "0.16"], ["sell", "11", "0"]],
}
MATCH = {
    "type": "match",
    "trade_id": 10,
    "sequence": 50,
    "product_id": "BTC-USD",
    "time": AT,
    "size": "5.2",
    "price": "400.2",
    "side": "sell",
}


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="c", venue="coinbase_exchange", pairs=("BTC-USD",))).market_data()


def test_snapshots_and_updates(protocol: MarketDataProtocol) -> None:
    frame = {"type": "snapshot", "product_id": "BTC-USD", "bids": [["1", "2"]], "asks": [["3", "4"]]}
    assert list(protocol.feed(json.dumps(frame))) == [DepthSnapshot("BTC-USD", 0, [("1", "2")], [("3", "4")])]
    (event,) = protocol.feed(json.dumps(UPDATE))
    assert event == DepthDiff("BTC-USD", 0, 0, None, [("10.80", "0.16")], [("11", "0")], AT_NS)
    assert isinstance(protocol.sequence_rule(), UnnumberedRule)


def test_a_match_s_side_is_the_maker_s(protocol: MarketDataProtocol) -> None:
    assert list(protocol.feed(json.dumps(MATCH))) == [PublicTrade("BTC-USD", "10", "400.2", "5.2", Side.BUY, AT_NS)]


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    for kind in (
        "ticker",
        "heartbeat",
        "status",
        "received",
        "open",
        "done",
        "change",
        "activate",
        "last_match",
        "auction",
    ):
        assert not protocol.feed(json.dumps({"type": kind, "product_id": "BTC-USD", "sequence": 1}))
    assert not protocol.feed(json.dumps({**UPDATE, "product_id": "ETH-USD"}))
    assert list(protocol.feed('{"type":"subscriptions","channels":[]}')) == [Ack(None)]
    (notice,) = protocol.feed('{"type":"error","message":"Failed to subscribe","reason":"no such product"}')
    assert notice == VenueNotice("error", "Failed to subscribe no such product")


@pytest.mark.parametrize(
    "frame",
    [
        {**UPDATE, "changes": [["bid", "1", "2"]]},
        {**UPDATE, "changes": [["buy", "1"]]},
        {**UPDATE, "time": "yesterday"},
        {**UPDATE, "time": "2022-13-04T15:25:05Z"},
        {**UPDATE, "type": "l2updatf"},
        {**UPDATE, "type": ""},
        {**MATCH, "price": "much"},
        {**MATCH, "trade_id": "10"},
        {"type": "snapshot", "product_id": "BTC-USD", "bids": [["1", "2", "3"]], "asks": []},
    ],
)
def test_what_cannot_be_read(protocol: MarketDataProtocol, frame: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(json.dumps(frame))


def test_the_book_by_rest_is_for_audits(protocol: MarketDataProtocol) -> None:
    request = protocol.audit_request("BTC-USD")
    assert request is not None
    assert (request.path, request.query) == ("/products/BTC-USD/book", "level=2")
    body = json.dumps({"sequence": 5, "bids": [["1", "2", 3]], "asks": [["4", "5", 6]], "time": AT})
    snapshot = protocol.parse_snapshot("BTC-USD", body)
    assert snapshot == DepthSnapshot("BTC-USD", 5, [("1", "2")], [("4", "5")], AT_NS)
    assert protocol.parse_recorded("https://x/products/BTC-USD/book?level=2", body).snapshot is None
    with pytest.raises(MalformedReply):
        protocol.parse_snapshot("BTC-USD", '{"sequence":5,"bids":[[1]],"asks":[]}')


def test_products(protocol: MarketDataProtocol) -> None:
    product = {"id": "SKL-EUR", "base_currency": "SKL", "quote_currency": "EUR", "base_min_size": "5"}
    product |= {"quote_increment": "0.0001", "base_increment": "0.1", "min_market_funds": "5.0", "status": "delisted"}
    rules = protocol.parse_recorded("https://x/products", json.dumps([product, {"id": "broken"}])).rules
    assert rules is not None
    rule = rules["SKL-EUR"]
    assert (rule.price_increment, rule.min_notional, rule.is_trading) == (Decimal("0.0001"), Decimal("5.0"), False)


def test_the_channel_of_single_orders_is_passed_over(protocol: MarketDataProtocol) -> None:
    assert not protocol.feed('["noop","BTC-USD","5"]')
    assert not protocol.feed('{"type":"level3","schema":{"change":["type","product_id","sequence"]}}')
    for broken in ("[]", '[""]', '["noop",5]', '["noop"'):
        with pytest.raises(MalformedFrame):
            protocol.feed(broken)


def test_a_book_whose_time_was_never_set(protocol: MarketDataProtocol) -> None:
    frame = {"type": "snapshot", "product_id": "BTC-USD", "bids": [], "asks": [], "time": "0001-01-01T00:00:00.000000Z"}
    assert list(protocol.feed(json.dumps(frame))) == [DepthSnapshot("BTC-USD", 0, [], [], 0)]


def test_the_book_that_needs_no_key_is_subscribed_to_and_heartbeats_tell_silence(protocol: MarketDataProtocol) -> None:
    (plan,) = protocol.connections(["BTC-USD"])
    (asked,) = map(json.loads, plan.opening)
    assert asked == {
        "type": "subscribe",
        "product_ids": ["BTC-USD"],
        "channels": ["level2_batch", "matches", "heartbeat"],
    }
    assert [json.loads(text)["channels"] for text in protocol.resubscribe("BTC-USD")] == [["level2_batch"]] * 2
    beat = {"type": "heartbeat", "sequence": 90, "last_trade_id": 20, "product_id": "BTC-USD", "time": AT}
    assert not protocol.feed(json.dumps(beat))
