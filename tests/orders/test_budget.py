"""What an account can afford."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from engine.messages import Balance, FeeSchema, FixedFee, Order, OrderState, OrderType, Side, TradingRule
from engine.orders.budget import BudgetChecker, OrderCandidate, lacks, locked_by, needs_of

D = Decimal
PAIR = "BTC-USDT"
FEE = FeeSchema(maker=D("0.01"), taker=D("0.01"))
BUY, SELL = Side.BUY, Side.SELL


def candidate(side: Side = BUY, size: str = "1", price: str = "100", **more: Any) -> OrderCandidate:
    return OrderCandidate(pair=PAIR, side=side, size=D(size), price=D(price), **more)


def checker(schema: FeeSchema = FEE, **available: str) -> BudgetChecker:
    return BudgetChecker({asset: D(amount) for asset, amount in available.items()}, {PAIR: schema})


def test_F41_a_buy_needs_its_cost_and_its_fee_and_a_sell_what_it_sells() -> None:
    assert needs_of(candidate(), FEE).of(D(1)) == {"USDT": D(101)}
    assert needs_of(candidate(SELL), FEE).of(D(1)) == {"BTC": D(1)}


def test_F41_a_taker_pays_the_takers_rate() -> None:
    schema = FeeSchema(maker=D("0.01"), taker=D("0.02"))
    assert needs_of(candidate(), schema).of(D(1)) == {"USDT": D(102)}
    maker = candidate(order_type=OrderType.LIMIT_MAKER)
    assert needs_of(maker, schema).of(D(1)) == {"USDT": D(101)}


def test_F41_a_fee_taken_off_the_returns_needs_nothing() -> None:
    schema = msgspec.structs.replace(FEE, buy_from_returns=True)
    assert needs_of(candidate(), schema).of(D(1)) == {"USDT": D(100)}


def test_F41_a_fee_in_an_asset_of_the_venues_own_needs_that_asset() -> None:
    schema = msgspec.structs.replace(FEE, fee_asset="BNB")
    mids = {"BNB-USDT": D(10)}
    assert needs_of(candidate(), schema, mids).of(D(1)) == {"USDT": D(100), "BNB": D("0.1")}
    short = BudgetChecker({"USDT": D(100), "BNB": D("0.05")}, {PAIR: schema}, mids)
    adjusted = short.adjust(candidate(), all_or_none=False)
    assert (adjusted.candidate.size, adjusted.lacking) == (D("0.5"), "BNB")


def test_F41_fixed_fees_come_on_top_but_not_those_taken_off_what_comes_in() -> None:
    fixed = (FixedFee(asset="USDT", amount=D(3)), FixedFee(asset="BNB", amount=D(1)))
    schema = FeeSchema(taker_fixed=fixed)
    assert needs_of(candidate(), schema).of(D(1)) == {"USDT": D(103), "BNB": D(1)}
    assert needs_of(candidate(SELL), schema).of(D(1)) == {"BTC": D(1), "BNB": D(1)}
    assert checker(schema, USDT="103").adjust(candidate()).refused
    assert not checker(schema, USDT="103", BNB="1").adjust(candidate()).refused


def test_F41_enough_is_left_as_it_is() -> None:
    adjusted = checker(USDT="101").adjust(candidate())
    assert (adjusted.candidate, adjusted.lacking) == (candidate(), "")
    assert adjusted.needs == {"USDT": D(101)}


def test_F41_all_or_none_is_none_where_it_is_not_all() -> None:
    adjusted = checker(USDT="100.99").adjust(candidate())
    assert adjusted.refused
    assert (adjusted.lacking, adjusted.needs) == ("USDT", {})


@pytest.mark.parametrize(
    ("side", "held", "size"), [(BUY, {"USDT": "50.5"}, "0.5"), (SELL, {"BTC": "0.25"}, "0.25"), (BUY, {}, "0")]
)
def test_F41_otherwise_as_much_as_there_is(side: Side, held: dict[str, str], size: str) -> None:
    adjusted = checker(**held).adjust(candidate(side), all_or_none=False)
    assert adjusted.candidate.size == D(size)


def test_F41_what_one_candidate_locks_is_not_there_for_the_next() -> None:
    budget = checker(USDT="151.5")
    first, second = (budget.adjust_and_lock(candidate(), all_or_none=False) for _ in range(2))
    assert (first.candidate.size, second.candidate.size) == (D(1), D("0.5"))
    assert budget.free("USDT") == 0
    budget.reset()
    assert budget.free("USDT") == D("151.5")


def test_F41_many_at_once_begin_without_locks() -> None:
    budget = checker(USDT="101", BTC="1")
    budget.adjust_and_lock(candidate())
    adjusted = budget.adjust_all([candidate(), candidate(SELL), candidate()])
    assert [each.refused for each in adjusted] == [False, False, True]


def test_F41_a_perpetual_needs_its_notional_by_its_leverage_and_nothing_to_close() -> None:
    opening = candidate(SELL, leverage=D(10), collateral="USDC")
    assert needs_of(opening).of(D(1)) == {"USDC": D(10)}
    assert needs_of(candidate(leverage=D(4)), FEE).of(D(1)) == {"USDT": D(26)}
    assert needs_of(candidate(leverage=D(4), closes=True), FEE).of(D(1)) == {}


def test_a_part_is_rounded_down_to_the_rule_and_nothing_where_it_is_too_small() -> None:
    rule = TradingRule(
        pair=PAIR,
        symbol="BTCUSDT",
        base="BTC",
        quote="USDT",
        price_increment=D("0.01"),
        size_increment=D("0.1"),
        min_size=D("0.1"),
        min_notional=D(20),
    )
    budget = BudgetChecker({"USDT": D("55.5")}, rules={PAIR: rule})
    assert budget.adjust(candidate(), all_or_none=False).candidate.size == D("0.5")
    budget = BudgetChecker({"USDT": D("19")}, rules={PAIR: rule})
    assert budget.adjust(candidate(), all_or_none=False).refused


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-1", "0"])
def test_numbers_that_are_none_are_refused_and_never_raise(bad: str) -> None:
    assert checker(USDT="1000").adjust(candidate(size=bad)).refused
    assert checker(USDT="NaN").adjust(candidate()).refused


@given(
    held=st.decimals("0", "1e6", allow_nan=False, places=8),
    price=st.decimals("0.0001", "1e6", allow_nan=False, places=4),
    size=st.decimals("0.0001", "1e6", allow_nan=False, places=4),
)
def test_what_is_left_of_a_candidate_is_always_affordable(held: Decimal, price: Decimal, size: Decimal) -> None:
    budget = BudgetChecker({"USDT": held}, {PAIR: FEE})
    adjusted = budget.adjust_and_lock(candidate(size=str(size), price=str(price)), all_or_none=False)
    assert adjusted.needs.get("USDT", D(0)) <= held
    assert 0 <= adjusted.candidate.size <= size


# ------------------------------------------------------------------------------------------- before an order is sent


def resting(side: Side = BUY, created_ns: int = 1, price: str | None = "100", filled: str = "0") -> Order:
    return Order(
        client_order_id="e-1",
        strategy="maker",
        pair=PAIR,
        side=side,
        order_type=OrderType.LIMIT if price else OrderType.MARKET,
        size=D(1),
        price=None if price is None else D(price),
        state=OrderState.PENDING_CREATE,
        filled=D(filled),
        created_ns=created_ns,
    )


def why(total: str, available: str, *orders: Order, needs: str = "100", dated_ns: int = 10) -> str:
    balances = {"USDT": (Balance(total=D(total), available=D(available)), dated_ns)}
    return lacks({"USDT": D(needs)}, balances, orders, {})


def test_what_is_there_suffices_and_what_is_not_is_named_with_both_amounts() -> None:
    assert why("100", "100") == ""
    assert why("99", "99") == "it needs 100 USDT, and 99 is there beside what open orders hold"


def test_orders_under_way_lock_what_the_venues_word_does_not_know_of_yet() -> None:
    assert why("150", "150", resting(created_ns=11)) != ""
    assert why("200", "200", resting(created_ns=11)) == ""


def test_an_order_that_just_ended_has_given_back_what_the_venues_word_still_holds() -> None:
    assert why("200", "100", resting(), needs="100") == ""
    assert why("100", "0", needs="100") == ""


def test_an_asset_that_is_not_known_denies_nothing() -> None:
    assert lacks({"USDT": D(1)}, {}, [], {}) == ""
    assert why("NaN", "NaN") == ""


def test_an_open_order_locks_its_rest_and_its_fee() -> None:
    assert locked_by(resting(filled="0.4"), FEE) == ("USDT", D("60.600"))
    assert locked_by(resting(SELL, filled="0.4")) == ("BTC", D("0.6"))
    assert locked_by(resting(price=None)) == ("USDT", 0)
    assert locked_by(resting(price="NaN")) == ("USDT", 0)
    assert locked_by(resting(SELL), FeeSchema(), D(5)) == ("USDT", D(20))


@given(
    price=st.decimals("0.0001", "1e6", allow_nan=False, places=4),
    filled=st.decimals("0", "2", allow_nan=False, places=4),
    rate=st.decimals("-0.001", "0.01", allow_nan=False, places=5),
    asset=st.sampled_from(["", "BNB", "USDT", "BTC"]),
    from_returns=st.booleans(),
    order_type=st.sampled_from([OrderType.LIMIT, OrderType.LIMIT_MAKER]),
)
def test_an_open_buy_locks_what_it_would_need_as_a_candidate_of_its_rest(
    price: Decimal, filled: Decimal, rate: Decimal, asset: str, from_returns: bool, order_type: OrderType
) -> None:
    schema = FeeSchema(maker=rate, taker=rate * 2, fee_asset=asset, buy_from_returns=from_returns)
    order = msgspec.structs.replace(resting(), price=price, filled=filled, order_type=order_type)
    rest = max(order.size - filled, D(0))
    wanted = OrderCandidate(pair=PAIR, side=BUY, size=rest, price=price, order_type=order_type)
    assert locked_by(order, schema) == ("USDT", needs_of(wanted, schema).of(rest).get("USDT", D(0)))
