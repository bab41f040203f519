"""Every limit refuses what is over it, with its own reason, and nothing else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Order, OrderState, OrderType, PlaceOrder, Reason, Side
from engine.orders.risk import RiskGate, RiskLimits, RiskView, TradingState

SECOND = 1_000_000_000
D = Decimal


def order(side: Side = Side.BUY, size: str = "1", price: str | None = "100", **more: Any) -> PlaceOrder:
    kind = OrderType.MARKET if price is None else OrderType.LIMIT
    return PlaceOrder(
        client_order_id=more.get("id", "x-1"),
        strategy=more.get("strategy", "s"),
        pair="BTC-USDT",
        side=side,
        order_type=kind,
        size=D(size),
        price=None if price is None else D(price),
    )


def resting(side: Side = Side.BUY, size: str = "1", price: str = "100", filled: str = "0") -> Order:
    return Order(
        client_order_id="r",
        strategy="s",
        pair="BTC-USDT",
        side=side,
        order_type=OrderType.LIMIT,
        size=D(size),
        price=D(price),
        filled=D(filled),
        state=OrderState.OPEN,
    )


def view(mid: str | None = "100", position: str = "0", *orders: Order, loss: str = "0") -> RiskView:
    return RiskView(
        mid=None if mid is None else D(mid), position=D(position), open_orders=orders, daily_loss={"USDT": D(loss)}
    )


def reason(limits: RiskLimits, command: PlaceOrder, seen: RiskView, **state: Any) -> Reason | None:
    violation = RiskGate(limits, **state).check(command, seen, SECOND)
    return None if violation is None else violation.reason


CASES = [
    (RiskLimits(max_order_notional=D(100)), order(), view(), None),
    (RiskLimits(max_order_notional=D("99.99")), order(), view(), Reason.ORDER_NOTIONAL),
    (RiskLimits(max_order_notional=D(100)), order(price=None), view("101"), Reason.ORDER_NOTIONAL),
    (RiskLimits(max_order_notional=D(100)), order(price=None), view(None), Reason.ORDER_NOTIONAL),
    (RiskLimits(max_open_notional=D(200)), order(), view("100", "0", resting()), None),
    (RiskLimits(max_open_notional=D(199)), order(), view("100", "0", resting()), Reason.TOTAL_NOTIONAL),
    (RiskLimits(max_open_notional=D(199)), order(), view("100", "0", resting(Side.SELL)), None),
    (RiskLimits(max_open_notional=D(199)), order(), view("100", "0", resting(filled="0.5")), None),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(), view("100", "1"), None),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(), view("100", "1.5"), Reason.POSITION_LIMIT),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(), view("100", "1", resting()), Reason.POSITION_LIMIT),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(Side.SELL), view("100", "5"), None),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(Side.SELL), view("100", "-1.5"), Reason.POSITION_LIMIT),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(Side.SELL, "7"), view("100", "5"), None),
    (RiskLimits(max_position={"BTC-USDT": D(2)}), order(Side.SELL, "9"), view("100", "5"), Reason.POSITION_LIMIT),
    (RiskLimits(price_collar_bps=D(50)), order(price="100.5"), view(), None),
    (RiskLimits(price_collar_bps=D(50)), order(price="100.51"), view(), Reason.PRICE_COLLAR),
    (RiskLimits(price_collar_bps=D(50)), order(price="50"), view(), None),
    (RiskLimits(price_collar_bps=D(50)), order(Side.SELL, price="99.49"), view(), Reason.PRICE_COLLAR),
    (RiskLimits(price_collar_bps=D(50)), order(), view(None), Reason.PRICE_COLLAR),
    (RiskLimits(max_open_orders=2), order(), view("100", "0", resting()), None),
    (RiskLimits(max_open_orders=2), order(), view("100", "0", resting(), resting(Side.SELL)), Reason.OPEN_ORDERS),
    (RiskLimits(max_daily_loss={"USDT": D(10)}), order(), view(loss="9.99"), None),
    (RiskLimits(max_daily_loss={"USDT": D(10)}), order(), view(loss="10"), Reason.DAILY_LOSS),
    (RiskLimits(max_daily_loss={"USDT": D(10)}), order(Side.SELL), view("100", "1", loss="10"), None),
    (RiskLimits(), order(size="1000000"), view(None), None),
]


@pytest.mark.parametrize(("limits", "command", "seen", "expected"), CASES)
def test_each_limit_refuses_what_is_over_it(
    limits: RiskLimits, command: PlaceOrder, seen: RiskView, expected: Reason | None
) -> None:
    assert reason(limits, command, seen) is expected


def test_a_halted_account_takes_nothing_and_a_reducing_one_what_reduces() -> None:
    limits = RiskLimits()
    assert reason(limits, order(), view(), state=TradingState.HALTED) is Reason.HALTED
    assert reason(limits, order(Side.SELL), view("100", "1"), state=TradingState.REDUCING) is None
    assert reason(limits, order(Side.SELL, "2"), view("100", "1"), state=TradingState.REDUCING) is Reason.REDUCING
    crowded = view("100", "1", resting(Side.SELL))
    assert reason(limits, order(Side.SELL), crowded, state=TradingState.REDUCING) is Reason.REDUCING
    assert reason(limits, order(), view("100", "1"), state=TradingState.REDUCING) is Reason.REDUCING


def test_the_same_order_again_is_refused_until_the_window_is_over() -> None:
    gate = RiskGate(RiskLimits(duplicate_window_s=2))
    assert gate.check(order(), view(), 0) is None
    again = gate.check(order(id="x-2"), view(), 2 * SECOND - 1)
    assert again is not None
    assert again.reason is Reason.DUPLICATE_ORDER
    assert gate.check(order(price="101"), view(), SECOND) is None
    assert gate.check(order(id="x-3"), view(), 2 * SECOND) is None


@given(st.lists(st.integers(min_value=0, max_value=SECOND // 2), max_size=60), st.integers(1, 5))
def test_never_more_orders_in_any_second_than_allowed(gaps: list[int], limit: int) -> None:
    gate = RiskGate(RiskLimits(max_orders_per_second=limit))
    now, passed = 0, []
    for gap in gaps:
        now += gap
        violation = gate.check(order(), view(), now)
        if violation is None:
            passed.append(now)
        else:
            assert violation.reason is Reason.ORDER_RATE
            assert len([at for at in passed if now - at < SECOND]) == limit
    for at in passed:
        assert len([other for other in passed if at <= other < at + SECOND]) <= limit


HUGE = "1" + "0" * 29


@pytest.mark.parametrize("price", ["0.01", "NaN", "sNaN", "-1", "0", "1e40"])
@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (RiskLimits(max_order_notional=D("99.99")), Reason.ORDER_NOTIONAL),
        (RiskLimits(max_open_notional=D("99.99")), Reason.TOTAL_NOTIONAL),
        (RiskLimits(price_collar_bps=D(1)), None),
    ],
)
def test_what_a_market_order_says_of_a_price_evades_no_limit(
    limits: RiskLimits, price: str, expected: Reason | None
) -> None:
    """Programs that join over the bus may fill in any field; a market order trades at the book's prices."""
    command = msgspec.structs.replace(order(price=None), price=D(price))
    assert reason(limits, command, view("100")) is expected


def test_no_limit_is_passed_by_less_than_a_rounding() -> None:
    most = RiskLimits(max_position={"BTC-USDT": D(HUGE)})
    assert reason(most, order(size="1e-9"), view("100", HUGE)) is Reason.POSITION_LIMIT
    assert reason(most, order(size="1e-9"), view("100", "0", resting(size=HUGE))) is Reason.POSITION_LIMIT
    whole = RiskLimits(max_open_notional=D(HUGE))
    assert reason(whole, order(size="1e-9", price="1"), view("1", "0", resting(size=HUGE, price="1"))) is (
        Reason.TOTAL_NOTIONAL
    )
    left = resting(Side.SELL, size=HUGE, filled="0." + "0" * 8 + "1")
    reducing = {"state": TradingState.REDUCING}
    assert reason(RiskLimits(), order(Side.SELL, "1e-9"), view("1", HUGE, left), **reducing) is None
    assert reason(RiskLimits(), order(Side.SELL, "2e-9"), view("1", HUGE, left), **reducing) is Reason.REDUCING


def test_what_is_taken_back_counts_nowhere_and_the_rest_as_before() -> None:
    gate = RiskGate(RiskLimits(duplicate_window_s=60, max_orders_per_second=2))
    assert gate.check(order(), view(), 0) is None
    assert gate.check(order(price="101"), view(), 0) is None
    gate.take_back(order(price="101"))
    assert gate.check(order(price="101"), view(), 1) is None
    again = gate.check(order(), view(), SECOND)
    assert again is not None
    assert again.reason is Reason.DUPLICATE_ORDER
