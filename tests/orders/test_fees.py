"""What executions cost."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given

from engine.messages import FeeSchema, Fill, FixedFee, Order, OrderState, OrderType, Side
from engine.orders.fees import Fee, FeeKind, convert, fee_in, fee_of, percent_amount, with_fee

D = Decimal
BUY, SELL = Side.BUY, Side.SELL
PAIR = "BTC-USDT"
ADDED, DEDUCTED = FeeKind.ADDED_TO_COST, FeeKind.DEDUCTED_FROM_RETURNS
PLAIN = FeeSchema(maker=D("0.001"), taker=D("0.002"))
FROM_RETURNS = FeeSchema(maker=D("0.001"), taker=D("0.002"), buy_from_returns=True)
OWN = FeeSchema(maker=D("0.001"), taker=D("0.002"), fee_asset="BNB", buy_from_returns=True)


def order(side: Side) -> Order:
    return Order(
        client_order_id="e-1",
        strategy="maker",
        pair=PAIR,
        side=side,
        order_type=OrderType.LIMIT,
        size=D(1),
        price=D(100),
        state=OrderState.OPEN,
    )


def fill(fee_asset: str = "", is_maker: bool = True) -> Fill:
    return Fill(trade_id="1", price=D(100), size=D("0.5"), fee=D(0), fee_asset=fee_asset, is_maker=is_maker, time_ns=1)


@pytest.mark.parametrize(
    ("schema", "side", "kind", "asset"),
    [
        (PLAIN, BUY, ADDED, "USDT"),
        (PLAIN, SELL, DEDUCTED, "USDT"),
        (FROM_RETURNS, BUY, DEDUCTED, "BTC"),
        (FROM_RETURNS, SELL, DEDUCTED, "USDT"),
        (OWN, BUY, ADDED, "BNB"),
        (OWN, SELL, ADDED, "BNB"),
    ],
)
def test_F40_a_spot_fee_is_added_to_the_cost_or_taken_off_the_returns(
    schema: FeeSchema, side: Side, kind: FeeKind, asset: str
) -> None:
    fee = fee_of(schema, PAIR, side, is_maker=True)
    assert (fee.kind, fee.asset, fee.rate) == (kind, asset, D("0.001"))
    assert fee_of(schema, PAIR, side, is_maker=False).rate == D("0.002")


@pytest.mark.parametrize(("closes", "kind"), [(False, ADDED), (True, DEDUCTED)])
def test_F40_a_perpetual_pays_to_open_and_is_paid_less_on_closing(closes: bool, kind: FeeKind) -> None:
    for side in Side:
        fee = fee_of(PLAIN, PAIR, side, is_maker=False, perpetual=True, closes=closes)
        assert (fee.kind, fee.asset) == (kind, "USDT")


def test_F40_a_percentage_is_of_what_it_is_taken_from() -> None:
    price, size = D("60000.1"), D("0.3")
    assert percent_amount(fee_of(PLAIN, PAIR, BUY, True), PAIR, price, size) == D("18.000030")
    assert percent_amount(fee_of(FROM_RETURNS, PAIR, BUY, True), PAIR, price, size) == D("0.0003")
    own = fee_of(OWN, PAIR, SELL, True)
    assert percent_amount(own, PAIR, price, size) is None
    assert percent_amount(own, PAIR, price, size, {"BNB-USDT": D(600)}) == D("0.03000005")


def test_F40_fixed_fees_are_counted_with_the_percentage_in_one_asset() -> None:
    fixed = (FixedFee(asset="USDT", amount=D(2)), FixedFee(asset="BNB", amount=D("0.01")))
    schema = FeeSchema(maker=D("0.001"), maker_fixed=fixed)
    fee = fee_of(schema, PAIR, BUY, True)
    assert fee_in(fee, "USDT", PAIR, D(1000), D(1)) is None
    assert fee_in(fee, "USDT", PAIR, D(1000), D(1), {"BNB-USDT": D(600)}) == D(9)
    assert fee_in(fee, "BTC", PAIR, D(1000), D(1), {"BNB-USDT": D(600)}) == D("0.009")


def test_a_conversion_goes_by_a_pair_either_way_or_over_one_asset_between() -> None:
    mids = {"BNB-USDT": D(600), "ETH-USDT": D(3000)}
    assert convert(D(2), "BNB", "USDT", mids) == D(1200)
    assert convert(D(1200), "USDT", "BNB", mids) == D(2)
    assert convert(D(5), "BNB", "ETH", mids) == D(1)
    assert convert(D(5), "BNB", "XRP", mids) is None
    assert convert(D(5), "BNB", "BNB", {}) == D(5)
    assert convert(D(0), "BNB", "XRP", {}) == 0


@pytest.mark.parametrize("mid", ["NaN", "0", "-1", "Infinity"])
def test_a_price_that_is_none_leads_nowhere(mid: str) -> None:
    assert convert(D(1), "BNB", "USDT", {"BNB-USDT": D(mid)}) is None
    assert convert(D(1), "USDT", "BNB", {"BNB-USDT": D(mid)}) is None


def test_a_fill_without_a_fee_is_given_one_and_says_so() -> None:
    told = fill("BNB")
    assert with_fee(told, order(BUY), PLAIN) is told
    assert with_fee(fill(), order(BUY), None) == fill()
    estimated = with_fee(fill(is_maker=False), order(BUY), FROM_RETURNS)
    assert (estimated.fee, estimated.fee_asset, estimated.fee_estimated) == (D("0.0010"), "BTC", True)
    sold = with_fee(fill(), order(SELL), PLAIN)
    assert (sold.fee, sold.fee_asset, sold.fee_estimated) == (D("0.0500"), "USDT", True)


def test_an_estimated_fee_in_an_asset_of_no_known_price_is_counted_in_the_quote_asset() -> None:
    estimated = with_fee(fill(), order(BUY), OWN)
    assert (estimated.fee, estimated.fee_asset) == (D("0.050"), "USDT")
    assert with_fee(fill(), order(BUY), OWN, {"BNB-USDT": D(500)}).fee_asset == "BNB"


def test_a_rebate_is_a_fee_below_zero() -> None:
    schema = FeeSchema(maker=D("-0.0001"))
    assert with_fee(fill(), order(SELL), schema).fee == D("-0.0050")


@given(
    price=st.decimals("0.00000001", "1e9", allow_nan=False, places=8),
    size=st.decimals("0.00000001", "1e9", allow_nan=False, places=8),
    rate=st.decimals("0", "0.1", allow_nan=False, places=6),
)
def test_fees_are_exact(price: Decimal, size: Decimal, rate: Decimal) -> None:
    fee = Fee(kind=ADDED, rate=rate, asset="USDT")
    amount = percent_amount(fee, PAIR, price, size)
    assert amount is not None
    assert Fraction(amount) == Fraction(price) * Fraction(size) * Fraction(rate)
