"""Rounding to a venue's increments and the check against its limits."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from engine.messages import OrderType, Reason, TradingRule
from engine.orders.rules import quantise, quantise_price, quantise_size, validate

LIMIT, MARKET = OrderType.LIMIT, OrderType.MARKET
RULE = TradingRule(
    pair="BTC-USDT",
    symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    price_increment=Decimal("0.05"),
    size_increment=Decimal("0.003"),
    min_size=Decimal("0.003"),
    max_size=Decimal(100),
    min_price=Decimal(1),
    max_price=Decimal(1_000_000),
    min_notional=Decimal(10),
    order_types=[LIMIT, MARKET],
)
D = Decimal


@given(
    value=st.decimals("0", "1e30", allow_nan=False, places=18),
    increment=st.decimals("0.00000001", "1000", allow_nan=False, places=8),
)
def test_F36_rounding_goes_down_to_a_multiple_exactly(value: Decimal, increment: Decimal) -> None:
    rule = msgspec.structs.replace(RULE, price_increment=increment, size_increment=increment)
    rounded = quantise_price(rule, value)
    assert 0 <= Fraction(value) - Fraction(rounded) < Fraction(increment)
    assert Fraction(rounded) % Fraction(increment) == 0
    assert quantise_size(rule, value) == rounded


def test_a_market_order_has_no_price() -> None:
    assert quantise(RULE, MARKET, D("1.0001"), D(100)) == (D("0.999"), None)
    assert quantise(RULE, LIMIT, D("1.0001"), D("100.07")) == (D("0.999"), D("100.05"))


def test_no_increment_leaves_a_number_as_it_is() -> None:
    rule = msgspec.structs.replace(RULE, price_increment=D(0))
    assert quantise_price(rule, D("1.23456")) == D("1.23456")


@pytest.mark.parametrize(
    ("order_type", "size", "price", "reason"),
    [
        (LIMIT, "1", "100", None),
        (LIMIT, "0", "100", Reason.BELOW_MIN_SIZE),
        (LIMIT, "-1", "100", Reason.BELOW_MIN_SIZE),
        (LIMIT, "NaN", "100", Reason.BELOW_MIN_SIZE),
        (LIMIT, "0.002", "100000", Reason.BELOW_MIN_SIZE),
        (LIMIT, "101", "100", Reason.ABOVE_MAX_SIZE),
        (LIMIT, "1", None, Reason.INVALID_PRICE),
        (LIMIT, "1", "NaN", Reason.INVALID_PRICE),
        (LIMIT, "1", "Infinity", Reason.INVALID_PRICE),
        (LIMIT, "1", "0", Reason.INVALID_PRICE),
        (LIMIT, "50", "0.99", Reason.INVALID_PRICE),
        (LIMIT, "1", "1000001", Reason.INVALID_PRICE),
        (LIMIT, "0.003", "3333.3", Reason.BELOW_MIN_NOTIONAL),
        (LIMIT, "0.003", "3333.35", None),
        (MARKET, "0.003", None, None),
        (OrderType.LIMIT_MAKER, "1", "100", Reason.UNSUPPORTED),
    ],
)
def test_S16_the_first_broken_limit_is_named(
    order_type: OrderType, size: str, price: str | None, reason: Reason | None
) -> None:
    violation = validate(RULE, order_type, D(size), None if price is None else D(price))
    assert (violation and violation.reason) == reason
    if violation is not None:
        assert violation.detail


def test_a_market_orders_notional_is_checked_at_the_reference_price() -> None:
    violation = validate(RULE, MARKET, D("0.003"), None, reference_price=D(100))
    assert violation is not None
    assert violation.reason is Reason.BELOW_MIN_NOTIONAL
    assert "0.300" in violation.detail
    rule = msgspec.structs.replace(RULE, market_min_notional=False)
    assert validate(rule, MARKET, D("0.003"), None, reference_price=D(100)) is None


def test_a_pair_that_does_not_trade_takes_no_orders() -> None:
    violation = validate(msgspec.structs.replace(RULE, is_trading=False), LIMIT, D(1), D(100))
    assert violation is not None
    assert violation.reason is Reason.NOT_TRADING


def test_F35_significant_digits_are_cut_towards_zero_for_either_side() -> None:
    rule = msgspec.structs.replace(RULE, price_increment=D("0.000001"), price_digits=5, size_digits=3)
    assert quantise_price(rule, D("123.4567")) == D("123.45")
    assert quantise_price(rule, D("0.001234567")) == D("0.001234")
    assert quantise_price(rule, D("1234567")) == D(1234500)
    assert quantise_size(rule, D("12.3456")) == D("12.300")
    assert quantise_price(rule, D(0)) == 0
    assert quantise_price(rule, D("NaN")).is_nan()


def test_F35_the_least_order_value_holds_for_market_orders_too() -> None:
    rule = msgspec.structs.replace(RULE, min_notional=D(0), market_min_notional=False, min_order_value=D(50))
    limit = validate(rule, LIMIT, D("0.3"), D(100))
    market = validate(rule, MARKET, D("0.3"), None, reference_price=D(100))
    assert limit is not None
    assert market is not None
    assert limit.detail == market.detail == "notional 30.0 is below BTC-USDT's min_order_value 50 USDT"


@pytest.mark.parametrize(
    ("size", "price", "named"),
    [
        ("0.002", "100000", "min_size 0.003"),
        ("101", "100", "max_size 100"),
        ("50", "0.99", "min_price 1"),
        ("1", "1000001", "max_price 1000000"),
        ("0.003", "3333.3", "min_notional 10"),
    ],
)
def test_S16_a_violation_names_the_rule_with_its_value(size: str, price: str, named: str) -> None:
    violation = validate(RULE, LIMIT, D(size), D(price))
    assert violation is not None
    assert named in violation.detail
