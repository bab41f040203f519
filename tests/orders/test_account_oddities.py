"""What an account makes of a venue that says what cannot be: no sizes, too much, dates far ahead, several ends."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.messages import (
    CancelOrder,
    OrderEventKind,
    OrderState,
    Reason,
)
from engine.orders.account import Failure
from tests.orders.conftest import balance

K, S = OrderEventKind, OrderState
Desk = Any


@pytest.mark.parametrize("size", ["0", "-0", "-0.4", "0E+5", "NaN", "Infinity"])
def test_an_execution_of_no_size_is_none(desk: Desk, size: str) -> None:
    desk.placed()
    desk.tell("e-1", S.OPEN, "0", desk.fill("t1", size))
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t2", size), desk.now, "e-1"))
    assert desk.kinds == [K.CREATED]
    assert desk.state() is S.OPEN
    assert desk.journal.fills() == []
    desk.tell("e-1", S.FILLED, "1", desk.fill("t1", "1"))
    assert desk.kinds == [K.CREATED, K.FILL, K.COMPLETED]


def test_an_order_that_a_person_made_smaller_ends_with_what_was_executed(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.FILLED, "0.4", desk.fill("t1", "0.4"))
    assert desk.kinds == [K.CREATED, K.FILL, K.COMPLETED]
    assert desk.account.order("e-1").filled == Decimal("0.4")
    assert desk.state() is S.FILLED


def test_more_executed_than_was_ordered_is_told_as_it_is_and_ends_the_order_once(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.7", desk.fill("t1", "0.7"))
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.7", desk.fill("t2", "0.8"))
    desk.tell("e-1", S.FILLED, "1.7", desk.fill("t3", "0.2"))
    assert desk.kinds == [K.CREATED, K.FILL, K.FILL, K.COMPLETED, K.FILL]
    order = desk.account.order("e-1")
    assert (order.state, order.filled) == (S.FILLED, Decimal("1.7"))
    desk.restart()
    assert desk.account.order("e-1") == order


HOUR = 3600


def test_a_date_far_ahead_puts_nothing_off_for_as_long(desk: Desk) -> None:
    """The venue's clock stepped by an hour and back: what is told from then on counts again within seconds."""
    desk.placed()
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"), at=desk.now + HOUR * desk.second)
    desk.decide(desk.account.cancel(CancelOrder(client_order_id="e-1"), desk.now))
    desk.do(desk.account.cancel_failed("e-1", Failure.UNKNOWN, Reason.NONE, "", desk.now))
    desk.wait(2 * desk.horizon / desk.second)
    desk.cancels.clear()
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4")
    assert [order.client_order_id for order in desk.cancels] == ["e-1"]
    desk.wait(1)
    desk.do(desk.account.order_not_found("e-1", desk.now, desk.now))
    assert desk.state() is S.FAILED


def test_balances_dated_far_ahead_are_overwritten_soon(desk: Desk) -> None:
    account = desk.account
    account.balances({"BTC": balance("2")}, desk.now + HOUR * desk.second, desk.now)
    desk.wait(2 * desk.horizon / desk.second)
    account.balances({"BTC": balance("3")}, desk.now, desk.now)
    assert account.balance("BTC") == balance("3")


@pytest.mark.parametrize("restarted", [False, True])
def test_an_execution_dated_far_ahead_hides_no_later_one(desk: Desk, restarted: bool) -> None:
    desk.placed()
    ahead = msgspec.structs.replace(desk.fill("t1", "0.4"), time_ns=desk.now + HOUR * desk.second)
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", ahead)
    if restarted:
        desk.restart()
    (wanted,) = desk.account.fills_wanted(desk.now)
    assert wanted.since_ns <= desk.now


def step_back(desk: Desk) -> None:
    """The venue's clock was an hour ahead, and is not any more. (A journal's clock is the host's.)"""
    desk.clock.step_wall(-HOUR * desk.second)


def test_a_clock_that_goes_back_leaves_no_order_and_no_balance_behind(desk: Desk) -> None:
    account = desk.account
    desk.placed("e-1")
    desk.placed("e-2")
    account.balances({"BTC": balance("2")}, desk.now, desk.now)
    desk.decide(account.cancel(CancelOrder(client_order_id="e-1"), desk.now))
    desk.place("e-3")
    desk.do(account.sent("e-3", desk.now, desk.now))
    desk.do(account.place_failed("e-3", Failure.UNKNOWN, Reason.NONE, "", desk.now))
    desk.due()
    step_back(desk)
    desk.cancels.clear()
    desk.queries.clear()
    account.balances({"BTC": balance("3")}, desk.now, desk.now)
    assert account.balance("BTC") == balance("3")
    assert account.counters["clock_went_back"] == 1
    # What is open is cancelled and asked about at once, by the clock as it is now.
    desk.tell("e-1", S.OPEN)
    assert [order.client_order_id for order in desk.cancels] == ["e-1"]
    assert account.next_due() == desk.now
    desk.due()
    assert [order.client_order_id for order in desk.queries] == ["e-1", "e-3"]
    desk.do(account.open_orders_snapshot([desk.update("e-1", S.OPEN)], desk.now, desk.now))
    assert [order.client_order_id for order in desk.queries] == ["e-1", "e-3", "e-2"]
    # But a request signed by the clock that was ahead may be accepted when the venue's comes to that again.
    desk.do(account.order_not_found("e-3", desk.now, desk.now))
    assert desk.state("e-3") is S.UNKNOWN
    desk.wait(HOUR + 2 * desk.horizon / desk.second)
    desk.do(account.order_not_found("e-3", desk.now, desk.now))
    assert desk.state("e-3") is S.FAILED


def test_a_clock_that_is_corrected_by_a_little_undoes_nothing(desk: Desk) -> None:
    account = desk.account
    account.balances({"BTC": balance("2")}, desk.now, desk.now)
    desk.clock.step_wall(-desk.horizon)
    account.balances({"BTC": balance("3")}, desk.now, desk.now)
    assert account.balance("BTC") == balance("2")
    assert account.counters["clock_went_back"] == 0


def test_the_first_end_that_is_told_is_the_end(desk: Desk) -> None:
    """Its fills are still awaited as another end is told, by an answer that was on its way, say."""
    desk.placed()
    desk.tell("e-1", S.CANCELLED, "0.4")
    desk.tell("e-1", S.EXPIRED, "0.4")
    desk.tell("e-1", S.FAILED, "0.4")
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, "e-1"))
    assert desk.kinds == [K.CREATED, K.FILL, K.CANCELLED]


def test_a_filled_size_never_shrinks(desk: Desk) -> None:
    """An older word with less executed does not end a cancelled order before all its fills are there."""
    desk.placed()
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.7")
    desk.tell("e-1", S.CANCELLED, "0.4")
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, "e-1"))
    assert desk.kinds == [K.CREATED, K.FILL]
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t2", "0.3"), desk.now, "e-1"))
    assert desk.kinds == [K.CREATED, K.FILL, K.FILL, K.CANCELLED]


def test_FILLED_without_a_size_is_the_whole_size_and_never_completes_with_nothing(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.FILLED, "0")
    assert desk.kinds == [K.CREATED]
    desk.wait(1)
    desk.due()
    assert [wanted.order.client_order_id for wanted in desk.fetches] == ["e-1"]
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "1"), desk.now, "e-1"))
    assert desk.kinds == [K.CREATED, K.FILL, K.COMPLETED]
