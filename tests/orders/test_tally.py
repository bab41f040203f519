"""Counting write by write gives what the journal gives when it is asked."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from engine.clock import VirtualClock
from engine.messages import Order, OrderState, OrderType, Reason, Refused, Side
from engine.orders.journal import Journal
from engine.orders.records import Write, WriteIntent, WriteOrder, WriteRefusal
from engine.orders.tally import KEPT_FAILED, Tally


def order(number: int) -> Order:
    return Order(
        client_order_id=f"x-{number}",
        strategy="s",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal(1),
        price=Decimal(100),
        state=OrderState.PENDING_CREATE,
        created_ns=number,
    )


def moved(number: int, state: OrderState, acknowledged: bool) -> WriteOrder:
    changed = msgspec.structs.replace(order(number), state=state)
    return WriteOrder(order=changed, send_by_ns=0, acknowledged=acknowledged, cancel_requested=False)


HISTORY: list[list[Write]] = [
    [WriteIntent(order=order(n), send_by_ns=0) for n in range(8)],
    [moved(0, OrderState.OPEN, True), moved(1, OrderState.OPEN, True), moved(2, OrderState.FAILED, False)],
    [moved(0, OrderState.PARTIALLY_FILLED, True), moved(3, OrderState.UNKNOWN, False)],
    [WriteRefusal(refused=Refused(client_order_id="r", reason=Reason.HALTED), strategy="s", time_ns=1)],
    [moved(0, OrderState.FILLED, True), moved(1, OrderState.CANCELLED, True), moved(4, OrderState.EXPIRED, True)],
    [moved(3, OrderState.OPEN, True), moved(2, OrderState.FAILED, True), moved(0, OrderState.FILLED, True)],
]


@pytest.mark.parametrize("restart_after", range(len(HISTORY) + 1))
def test_the_tally_equals_the_journal_over_any_restart(tmp_path: Path, restart_after: int) -> None:
    with Journal(tmp_path / "a.db", "binance", "main", VirtualClock(1), run_id="1") as journal:
        tally = Tally({}, ())
        for step, writes in enumerate(HISTORY):
            if step == restart_after:
                still_open = [
                    (s.order.client_order_id, s.order.state, s.acknowledged) for s in journal.recover().orders
                ]
                tally = Tally(journal.counts("1"), still_open)
            journal.record(writes)
            tally.note(writes)
            if step < 5 or restart_after <= 1:
                # A failed order that turns up after all is not looked for once the actor has started anew.
                assert tally.counts() == journal.counts("1")


def test_failed_orders_that_never_turn_up_are_let_go_of() -> None:
    tally = Tally({}, ())
    for number in range(3 * KEPT_FAILED):
        tally.note([WriteIntent(order=order(number), send_by_ns=0), moved(number, OrderState.FAILED, False)])
    tally.note([moved(3 * KEPT_FAILED - 1, OrderState.FAILED, True)])
    counts = tally.counts()
    assert (counts["placed"], counts["failed"], counts["open"]) == (3 * KEPT_FAILED, 3 * KEPT_FAILED, 0)
    assert counts["acknowledged"] == 1, "one that turns up soon is still counted"
    assert len(tally) <= KEPT_FAILED
