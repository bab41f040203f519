from __future__ import annotations

import gzip
import json
from decimal import Decimal

import pytest

from engine.book import DepthSnapshot, ReplacingRule
from engine.connectors.base import Ack, MarketDataProtocol, PublicTrade, Send, VenueNotice
from engine.connectors.errors import MalformedFrame
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import Side

BOOK = (
    '{"ch":"market.btcusdt.depth.step0","ts":9,"tick":{"bids":[[52690.69,0.36281],[5.2690E+4,1]],'
    '"asks":[[52691,9.1E-7]],%s}}'
)
TRADE = (
    '{"ch":"market.btcusdt.trade.detail","ts":9,"tick":{"id":1,"ts":8,"data":[{"id":137005445109359286410323766,"ts":8,'
    '"tradeId":102523573486,"amount":0.006754,"price":9.2E-7,"direction":"buy"}]}}'
)


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="h", venue="htx", pairs=("BTC-USDT",))).market_data()


def test_numbers_are_exact_and_each_message_is_the_whole_book(protocol: MarketDataProtocol) -> None:
    text = BOOK % '"version":136998124622,"ts":8'
    bids, asks = [("52690.69", "0.36281"), ("52690", "1")], [("52691", "9.1E-7")]
    for frame in (gzip.compress(text.encode()), text.encode(), text):
        (event,) = protocol.feed(frame)
        assert event == DepthSnapshot("BTC-USDT", 136998124622, bids, asks, 8_000_000)
    assert isinstance(protocol.sequence_rule(), ReplacingRule)


def test_a_book_without_a_version_has_its_time(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(BOOK % '"ts":8')
    assert isinstance(event, DepthSnapshot)
    assert event.update_id == 8


def test_trades_are_plain_decimals(protocol: MarketDataProtocol) -> None:
    assert list(protocol.feed(TRADE)) == [
        PublicTrade("BTC-USDT", "102523573486", "0.00000092", "0.006754", Side.BUY, 8_000_000)
    ]


def test_a_ping_is_answered_with_its_number(protocol: MarketDataProtocol) -> None:
    assert list(protocol.feed(gzip.compress(b'{"ping":1492420473027}'))) == [Send('{"pong":1492420473027}')]


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    for channel in ("btcusdt.depth.step1", "btcusdt.mbp.150", "btcusdt.kline.1min", "btcusdt.bbo", "btcusdt.detail"):
        assert not protocol.feed(json.dumps({"ch": f"market.{channel}", "ts": 1, "tick": {}}))
    assert not protocol.feed(json.dumps({"ch": "market.overview", "ts": 1}))
    assert list(protocol.feed('{"id":"a","status":"ok","subbed":"market.btcusdt.depth.step0","ts":1}')) == [Ack("a")]
    (notice,) = protocol.feed('{"status":"error","err-code":"bad-request","err-msg":"invalid topic","id":"a","ts":1}')
    assert notice == VenueNotice("bad-request", "invalid topic")


@pytest.mark.parametrize(
    "frame",
    [
        gzip.compress(b'{"ping":1}')[:-3],
        gzip.compress(b'{"ping":1}') + b"x",
        gzip.compress(b'{"ping":1}') * 2,
        b"\x1f\x8bjunk",
        gzip.compress(b" " * (17 * 1024 * 1024)),
        (BOOK % '"ts":8').replace("0.36281", '"NaN"'),
        (BOOK % '"ts":8').replace("0.36281", "-1"),
        (BOOK % '"ts":8').replace("0.36281", "1e99"),
        (BOOK % '"ts":8').replace("0.36281", "1,2"),
        (BOOK % '"version":-1,"ts":8'),
        TRADE.replace("0.006754", "-1"),
        '{"ping":-1}',
    ],
)
def test_what_cannot_be_read(protocol: MarketDataProtocol, frame: str | bytes) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(frame)


def test_symbols(protocol: MarketDataProtocol) -> None:
    entry = {"symbol": "trioeth", "base-currency": "trio", "quote-currency": "eth", "price-precision": 10}
    entry |= {"amount-precision": 2, "state": "offline", "min-order-value": 0.01}
    rules = protocol.parse_recorded(
        "https://x/v1/common/symbols", json.dumps({"status": "ok", "data": [entry, {}]})
    ).rules
    assert rules is not None
    rule = rules["TRIO-ETH"]
    assert (rule.price_increment, rule.min_notional, rule.is_trading) == (Decimal("1E-10"), Decimal("0.01"), False)
