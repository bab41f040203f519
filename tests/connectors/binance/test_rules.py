from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.connectors.binance.rules import parse_exchange_info
from engine.connectors.errors import MalformedReply
from engine.messages import OrderType


def symbol(name: str = "BTCUSDT", *, filters: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    known: list[dict[str, Any]] = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": "0.01000000",
            "maxPrice": "1000000.00000000",
            "tickSize": "0.01000000",
        },
        {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
        {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": False, "maxNotional": "9000000"},
        {"filterType": "A_FILTER_OF_THE_FUTURE", "limit": 10},
    ]
    return {
        "symbol": name,
        "status": "TRADING",
        "baseAsset": name[:3],
        "quoteAsset": name[3:],
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT"],
        "filters": known if filters is None else filters,
        **more,
    }


def info(*symbols: Any, limits: list[dict[str, Any]] | None = None) -> bytes:
    return json.dumps({"timezone": "UTC", "rateLimits": limits or [], "symbols": symbols}).encode()


def test_filters_become_a_rule() -> None:
    rule = parse_exchange_info(info(symbol())).rules["BTC-USDT"]
    assert (rule.symbol, rule.base, rule.quote, rule.is_trading) == ("BTCUSDT", "BTC", "USDT", True)
    assert (str(rule.price_increment), str(rule.size_increment)) == ("0.01", "0.00001")
    assert (rule.min_size, rule.max_size) == (Decimal("0.00001"), Decimal(9000))
    assert (rule.min_price, rule.max_price) == (Decimal("0.01"), Decimal(1000000))
    assert (rule.min_notional, rule.market_min_notional) == (Decimal(5), False)
    assert rule.order_types == [OrderType.LIMIT, OrderType.LIMIT_MAKER, OrderType.MARKET]
    for value in (rule.max_size, rule.max_price, rule.min_notional):
        assert "E" not in str(value)


def test_the_older_filter_of_notionals_is_read() -> None:
    old = [{"filterType": "MIN_NOTIONAL", "minNotional": "10", "applyToMarket": True, "avgPriceMins": 5}]
    rule = parse_exchange_info(info(symbol(filters=old))).rules["BTC-USDT"]
    assert (rule.min_notional, rule.market_min_notional) == (Decimal(10), True)


def test_zero_is_no_limit_and_a_missing_step_is_the_assets_precision() -> None:
    off = [{"filterType": "PRICE_FILTER", "minPrice": "0", "maxPrice": "0.00000000", "tickSize": "0.00000000"}]
    rule = parse_exchange_info(info(symbol(filters=off))).rules["BTC-USDT"]
    assert (rule.min_price, rule.max_price, rule.max_size, rule.min_size) == (None, None, None, Decimal(0))
    assert rule.price_increment == rule.size_increment == Decimal("1e-8")


def test_W19_one_symbol_that_cannot_be_read_costs_no_other() -> None:
    bad_value = symbol("ETHUSDT", filters=[{"filterType": "LOT_SIZE", "stepSize": "NaN"}])
    parsed = parse_exchange_info(info(symbol(), bad_value, {"symbol": "XRPUSDT"}, "nonsense", symbol("LTCBTC")))
    assert set(parsed.rules) == {"BTC-USDT", "LTC-BTC"}
    assert parsed.skipped == ("ETHUSDT", "XRPUSDT", "?")


def test_only_status_trading_is_trading() -> None:
    parsed = parse_exchange_info(info(symbol(status="CANCEL_ONLY")))
    assert not parsed.rules["BTC-USDT"].is_trading


def test_limits_are_named_as_in_the_headers() -> None:
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
        {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200000},
        {"rateLimitType": "ORDERS", "interval": "FORTNIGHT", "intervalNum": 1, "limit": 1},
    ]
    found = parse_exchange_info(info(limits=limits)).limits
    assert {name: limit.limit for name, limit in found.items()} == {
        "REQUEST_WEIGHT_1M": 1200,
        "ORDERS_10S": 100,
        "ORDERS_1D": 200000,
    }
    assert found["ORDERS_10S"].interval_ns == 10 * 10**9


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"symbols": 3}', b"\xff"])
def test_what_is_no_exchange_info_says_so(body: bytes) -> None:
    with pytest.raises(MalformedReply):
        parse_exchange_info(body)


@pytest.mark.parametrize("change", [{"intervalNum": 0}, {"intervalNum": -1}, {"limit": 0}, {"limit": -5}])
def test_a_limit_that_is_none_is_left_out(change: dict[str, int]) -> None:
    entry = {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 50}
    assert list(parse_exchange_info(info(symbol(), limits=[entry])).limits) == ["ORDERS_10S"]
    assert parse_exchange_info(info(symbol(), limits=[{**entry, **change}])).limits == {}
