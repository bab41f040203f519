"""Balances between a venue's words on them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from engine.messages import Balance, FeeSchema, Fill, Order, OrderFill, OrderState, OrderType, Side
from engine.orders.estimated import BalanceLimits, BalanceView, EstimatedBalances, Position

D = Decimal
PAIR = "BTC-USDT"
BUY, SELL = Side.BUY, Side.SELL
THEN = 1_000
HELD = {"USDT": Balance(total=D(1000), available=D(900)), "BTC": Balance(total=D(10), available=D(10))}


def order(side: Side = BUY, size: str = "1", filled: str = "0", price: str | None = "100") -> Order:
    return Order(
        client_order_id="e-1",
        strategy="maker",
        pair=PAIR,
        side=side,
        order_type=OrderType.LIMIT if price else OrderType.MARKET,
        size=D(size),
        price=None if price is None else D(price),
        state=OrderState.OPEN,
        filled=D(filled),
    )


def fill(
    side: Side = BUY, size: str = "1", price: str = "100", at: int = THEN + 1, fee: str = "0", asset: str = ""
) -> OrderFill:
    of = Fill(trade_id=f"{at}", price=D(price), size=D(size), fee=D(fee), fee_asset=asset, is_maker=True, time_ns=at)
    return OrderFill(client_order_id="e-1", strategy="maker", pair=PAIR, side=side, fill=of)


def estimated(*orders_then: Order) -> EstimatedBalances:
    found = EstimatedBalances()
    found.snapshot(HELD, orders_then, THEN)
    return found


def available(balances: EstimatedBalances, *orders_now: Order) -> tuple[Decimal, Decimal]:
    found = balances.estimate(orders_now)
    return found["USDT"].available, found["BTC"].available


def test_F38_without_orders_it_is_what_the_venue_said() -> None:
    assert available(estimated()) == (900, 10)


def test_F38_an_order_that_was_open_then_and_is_gone_gives_back_what_it_locked() -> None:
    assert available(estimated(order())) == (1000, 10)


def test_F38_an_order_since_then_locks() -> None:
    assert available(estimated(), order(), order(SELL, "2")) == (800, 8)


def test_F38_an_order_that_is_unchanged_changes_nothing() -> None:
    assert available(estimated(order()), order()) == (900, 10)


def test_F38_a_fill_since_then_moves_both_assets() -> None:
    balances = estimated(order())
    balances.fill(fill(fee="0.001", asset="BTC"))
    assert available(balances) == (900, D("10.999"))
    assert balances.estimate([])["USDT"].total == 900


def test_F38_a_fill_before_then_is_in_the_snapshot_already() -> None:
    balances = estimated()
    balances.fill(fill(at=THEN))
    assert available(balances) == (900, 10)


def test_F38_an_order_filled_in_part_then_and_gone_now() -> None:
    assert available(estimated(order(filled="0.4"))) == (960, 10)


def test_F38_an_order_filled_in_part_then_and_more_now() -> None:
    balances = estimated(order(filled="0.4"))
    balances.fill(fill(size="0.1", price="90"))
    assert available(balances, order(filled="0.5")) == (901, D("10.1"))


def test_W6_a_snapshot_is_dated_by_the_start_of_its_request() -> None:
    balances = estimated()
    balances.fill(fill(at=THEN + 5))
    assert balances.snapshot(HELD, [], THEN + 3)
    assert available(balances) == (800, 11), "the fill came after the request began: the answer may not have it"
    assert balances.snapshot(HELD, [], THEN + 6)
    assert available(balances) == (900, 10)


def test_W6_an_older_answer_changes_nothing() -> None:
    balances = estimated()
    assert not balances.snapshot({}, [], THEN - 1)
    assert available(balances) == (900, 10)


def test_W6_a_perpetual_order_locks_its_notional_by_its_leverage() -> None:
    balances = EstimatedBalances({PAIR: FeeSchema(taker=D("0.01"))}, {PAIR: D(10)})
    balances.snapshot(HELD, [], THEN)
    assert balances.estimate([order(), order(SELL)])["USDT"].available == 900 - 2 * (10 + 1)


def test_W6_a_perpetual_fill_takes_margin_and_its_closing_gives_it_back_with_the_gain() -> None:
    balances = EstimatedBalances(leverage={PAIR: D(10)})
    balances.snapshot(HELD, [], THEN)
    balances.fill(fill(SELL, size="2", price="100", at=THEN + 1))
    assert balances.estimate([])["USDT"] == Balance(total=D(1000), available=D(880))
    balances.fill(fill(BUY, size="2", price="90", at=THEN + 2, fee="1", asset="USDT"))
    assert balances.estimate([])["USDT"] == Balance(total=D(1019), available=D(919))


def test_W6_a_position_that_turns_over_is_closed_and_opened() -> None:
    balances = EstimatedBalances(leverage={PAIR: D(10)})
    balances.snapshot(HELD, [], THEN, {PAIR: Position(D(1), D(100))})
    balances.fill(fill(SELL, size="3", price="110"))
    assert balances.estimate([])["USDT"] == Balance(total=D(1010), available=D(900) + 10 + 10 - 22)


@pytest.mark.parametrize("price", [None, "NaN", "Infinity"])
def test_W6_a_market_order_without_a_price_never_makes_a_balance_no_number(price: str | None) -> None:
    balances = estimated()
    assert available(balances, order(price=price)) == (900, 10)
    limits = BalanceLimits({"USDT": D(50)})
    assert limits.apply(HELD, balances.locked([order(price=price)]))["USDT"].available == 50


def test_nothing_is_ever_below_zero_or_above_the_total() -> None:
    assert available(estimated(), order(size="1000")) == (0, 10)
    assert available(estimated(order(size="1000"))) == (1000, 10)


def test_F39_a_limit_leaves_what_own_orders_and_fills_leave_of_it() -> None:
    limits = BalanceLimits({"USDT": D(200)})
    assert limits.apply(HELD, {})["USDT"].available == 200
    assert limits.apply(HELD, {"USDT": D(150)})["USDT"].available == 50
    assert limits.apply(HELD, {"USDT": D(250)})["USDT"].available == 0
    limits.fill(fill(SELL, size="0.5"))
    assert limits.apply(HELD, {"USDT": D(150)})["USDT"].available == 100
    assert limits.apply(HELD, {})["BTC"] == HELD["BTC"]
    assert limits.apply({"USDT": Balance(total=D(30), available=D(30))}, {})["USDT"].available == 30


def test_a_view_tells_each_change_once() -> None:
    view = BalanceView(estimating=True)
    view.snapshot(HELD, [], THEN)
    assert view.changes(HELD, []) == HELD
    assert view.changes(HELD, []) == {}
    assert view.changes(HELD, [order()]) == {"USDT": Balance(total=D(1000), available=D(800))}
    view.fills([fill()])
    assert view.changes(HELD, []) == {
        "USDT": Balance(total=D(900), available=D(800)),
        "BTC": Balance(total=D(11), available=D(11)),
    }


def test_a_plain_view_shows_the_venues_word() -> None:
    view = BalanceView()
    assert view.plain
    assert view.shown(HELD, [order()]) == HELD


def test_F38_a_venues_clock_that_goes_back_counts_a_fill_once() -> None:
    """A snapshot of after the step has the fill in it, though the fill is dated later."""
    balances = estimated()
    balances.fill(fill())
    assert available(balances) == (800, 11)
    balances.undate(THEN // 2)
    assert available(balances) == (800, 11)
    filled = {"USDT": Balance(total=D(900), available=D(800)), "BTC": Balance(total=D(11), available=D(11))}
    assert balances.snapshot(filled, [], THEN // 2 + 1)
    assert available(balances) == (800, 11)
