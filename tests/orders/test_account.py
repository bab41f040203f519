"""What an account does with commands, answers and the venue's news."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.errors import JournalError
from engine.messages import (
    Accepted,
    CancelAll,
    CancelOrder,
    FeeSchema,
    OrderEventKind,
    OrderState,
    Reason,
    Refused,
)
from engine.orders.account import Account, Failure
from engine.orders.effects import JournalWrite, PublishBalance, Send
from engine.orders.ids import ClientOrderIds
from engine.orders.records import WriteIntent
from tests.orders.conftest import balance

K, S = OrderEventKind, OrderState
Desk = Any


def fail(desk: Desk, failure: Failure, reason: Reason = Reason.NONE, name: str = "e-1") -> None:
    desk.do(desk.account.place_failed(name, failure, reason, "why", desk.now))


# ------------------------------------------------------------------------------------------------------ placing


def test_an_order_is_journaled_before_it_is_sent(desk: Desk) -> None:
    decision = desk.account.place(desk.command("e-1"), desk.now)
    write, send = decision.effects
    assert isinstance(write, JournalWrite)
    assert isinstance(write.writes[0], WriteIntent)
    assert isinstance(send, Send)
    assert send.order.client_order_id == "e-1"
    assert decision.answer == Accepted(client_order_id="e-1", state=S.PENDING_CREATE)


def test_a_repeated_id_is_answered_with_its_fate_and_not_sent_again(desk: Desk) -> None:
    desk.placed()
    again = desk.place()
    assert again == Accepted(client_order_id="e-1", state=S.OPEN)
    desk.restart()
    assert desk.place() == again
    assert len(desk.sends) == 1


def test_a_refused_id_stays_refused(desk: Desk) -> None:
    first = desk.place(size="0.0001")
    assert isinstance(first, Refused)
    assert first.reason is Reason.BELOW_MIN_SIZE
    desk.restart()
    assert desk.place(size="1") == first
    assert desk.sends == []


def test_a_journal_that_has_the_intent_refuses_a_second_one(desk: Desk) -> None:
    decision = desk.account.place(desk.command("e-1"), desk.now)
    desk.do(decision.effects)
    with pytest.raises(JournalError):
        desk.do(decision.effects)
    assert len(desk.sends) == 1


def test_an_expired_command_is_refused(desk: Desk) -> None:
    decision = desk.account.place(desk.command("e-1"), desk.now, expires_ns=desk.now)
    assert isinstance(decision.answer, Refused)
    assert decision.answer.reason is Reason.EXPIRED


def test_the_fate_of_an_id_never_seen_is_refused_from_then_on(desk: Desk) -> None:
    answer = desk.decide(desk.account.fate("e-late", desk.now))
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.UNKNOWN_ORDER
    assert desk.place("e-late") == answer
    assert desk.sends == []


@pytest.mark.parametrize("name", ["foreign", "e-" + "x" * 40, "e-ö", "e-"])
def test_an_id_that_is_not_the_engines_is_refused(desk: Desk, name: str) -> None:
    answer = desk.place(name)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("size", "price", "named"),
    [
        ("1.23456", "100", "size 1.23456 is off BTC-USDT's size_increment 0.001; 1.234 would be taken"),
        ("1", "100.129", "price 100.129 is off BTC-USDT's price_increment 0.01; 100.12 would be taken"),
        ("1.0005", None, "size_increment 0.001; 1.000 would be taken"),
    ],
)
def test_what_is_off_the_increments_is_refused_and_not_sent(
    desk: Desk, size: str, price: str | None, named: str
) -> None:
    refused = desk.place(size=size, price=price)
    assert isinstance(refused, Refused)
    assert (refused.reason, desk.sends) == (Reason.OFF_INCREMENT, [])
    assert named in refused.detail


def test_trailing_zeros_are_not_off_the_increments(desk: Desk) -> None:
    desk.place(size="1.2340000", price="100.120")
    assert (desk.sends[0].order.size, desk.sends[0].order.price) == (Decimal("1.234"), Decimal("100.12"))


def test_a_market_order_is_sent_without_a_price(desk: Desk) -> None:
    desk.place(price=None)
    assert desk.sends[0].order.price is None


# --------------------------------------------------------------------------------------------------- life cycle


def test_S13_created_then_filled_then_completed(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"))
    desk.tell("e-1", S.FILLED, "1", desk.fill("t2", "0.6", "101"))
    assert desk.kinds == [K.CREATED, K.FILL, K.FILL, K.COMPLETED]
    last = desk.published[-1].order
    assert (last.filled, last.cost) == (Decimal(1), Decimal("100.6"))
    assert [event.number for event in desk.published] == [1, 2, 3, 4]


def test_a_fill_before_the_acknowledgement_is_taken(desk: Desk) -> None:
    desk.place()
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, client_order_id="e-1"))
    assert desk.kinds == [K.CREATED, K.FILL]
    desk.do(desk.account.placed(desk.update("e-1", S.OPEN), (), desk.now, desk.now))
    assert desk.state() is S.PARTIALLY_FILLED


def test_a_fill_by_a_venue_id_that_is_not_known_yet_is_kept(desk: Desk) -> None:
    desk.place()
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, exchange_order_id="xe-1"))
    assert desk.kinds == []
    desk.do(desk.account.placed(desk.update("e-1", S.OPEN), (), desk.now, desk.now))
    assert desk.kinds == [K.CREATED, K.FILL]


def test_a_fill_counts_once_whatever_tells_of_it(desk: Desk) -> None:
    desk.placed()
    fill = desk.fill("t1", "0.4")
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", fill)
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", fill)
    desk.do(desk.account.venue_fill(desk.pair, fill, desk.now, exchange_order_id="xe-1"))
    desk.restart()
    desk.do(desk.account.venue_fill(desk.pair, fill, desk.now, exchange_order_id="xe-1"))
    assert desk.kinds == [K.CREATED, K.FILL]


def test_an_account_that_trades_with_itself_has_a_fill_of_each_order(desk: Desk) -> None:
    desk.placed("e-1")
    desk.placed("e-2")
    for name in ("e-1", "e-2"):
        desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, client_order_id=name))
    assert desk.kinds.count(K.FILL) == 2
    assert len(desk.journal.fills()) == 2


def test_FILLED_before_its_fills_waits_for_them_and_asks(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.FILLED, "1")
    assert desk.state() is S.OPEN
    desk.wait(1)
    desk.due()
    assert [fetch.order.client_order_id for fetch in desk.fetches] == ["e-1"]
    desk.do(desk.account.venue_fill(desk.pair, desk.fill(), desk.now, exchange_order_id="xe-1"))
    assert desk.kinds == [K.CREATED, K.FILL, K.COMPLETED]
    assert desk.account.next_due() is None


def test_a_cancelled_order_waits_for_the_fills_that_it_had(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.CANCELLED, "0.4")
    assert desk.kinds == [K.CREATED]
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"))
    assert desk.kinds == [K.CREATED, K.FILL, K.CANCELLED]


def test_W7_late_repeated_and_reordered_news_never_move_an_order_back(desk: Desk) -> None:
    desk.placed()
    early = desk.now
    desk.wait(1)
    desk.tell("e-1", S.CANCELLED)
    for state in (S.OPEN, S.PARTIALLY_FILLED, S.CANCELLED, S.PENDING_CREATE, S.EXPIRED, S.FILLED, S.FAILED):
        desk.tell("e-1", state)
        desk.tell("e-1", state, at=early)
    assert desk.state() is S.CANCELLED
    assert desk.kinds == [K.CREATED, K.CANCELLED]
    assert desk.cancels == []


def test_a_fill_after_the_end_is_still_told(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.CANCELLED)
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, exchange_order_id="xe-1"))
    assert desk.kinds == [K.CREATED, K.CANCELLED, K.FILL]
    assert desk.state() is S.CANCELLED
    assert desk.journal.orders()[0].filled == Decimal("0.4")


def test_more_filled_than_fills_known_is_asked_for_also_after_the_end(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.CANCELLED)
    desk.tell("e-1", S.CANCELLED, "0.4")
    desk.wait(1)
    desk.due()
    assert len(desk.fetches) == 1
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, exchange_order_id="xe-1"))
    assert desk.account.next_due() is None


def test_news_of_an_order_that_left_memory_finds_it_in_the_journal(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.CANCELLED)
    desk.restart()
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, exchange_order_id="xe-1"))
    desk.do(desk.account.venue_fill(desk.pair, desk.fill("t1", "0.4"), desk.now, exchange_order_id="xe-1"))
    assert desk.kinds == [K.CREATED, K.CANCELLED, K.FILL]


# ------------------------------------------------------------------------------------------------- unknown fate


def test_a_refused_order_fails_with_the_venues_reason(desk: Desk) -> None:
    desk.place()
    fail(desk, Failure.REFUSED, Reason.WOULD_CROSS)
    assert desk.kinds == [K.FAILED]
    assert desk.published[0].order.reason is Reason.WOULD_CROSS


def test_an_id_that_the_venue_has_already_is_asked_about(desk: Desk) -> None:
    desk.place()
    fail(desk, Failure.REFUSED, Reason.DUPLICATE_ID)
    assert desk.state() is S.UNKNOWN
    desk.due()
    assert len(desk.queries) == 1


def test_F24_an_order_of_unknown_fate_is_asked_about_and_never_sent_again(desk: Desk) -> None:
    desk.place()
    desk.do(desk.account.sent("e-1", desk.now, desk.now))
    fail(desk, Failure.UNKNOWN)
    assert desk.kinds == [K.UNKNOWN]
    for _ in range(10):
        desk.due()
        desk.wait(1)
    assert len(desk.sends) == 1
    assert 2 <= len(desk.queries) <= 10
    desk.tell("e-1", S.OPEN)
    assert desk.kinds == [K.UNKNOWN, K.CREATED]
    assert desk.account.next_due() is None


def test_W1_not_found_ends_an_order_only_if_asked_after_the_horizon(desk: Desk) -> None:
    desk.place()
    signed = desk.now
    desk.do(desk.account.sent("e-1", signed, desk.now))
    fail(desk, Failure.UNKNOWN)
    for asked in (signed, signed + desk.horizon):
        desk.do(desk.account.order_not_found("e-1", asked, signed + 2 * desk.horizon))
        assert desk.state() is S.UNKNOWN
    desk.do(desk.account.order_not_found("e-1", signed + desk.horizon + 1, signed + 2 * desk.horizon))
    assert desk.kinds == [K.UNKNOWN, K.FAILED]
    assert desk.published[-1].order.reason is Reason.NOT_FOUND
    # What it was filled with, if the venue forgot it after that, is asked for.
    assert [wanted.order.client_order_id for wanted in desk.fetches] == ["e-1"]


def test_a_question_is_due_right_after_the_horizon(desk: Desk) -> None:
    desk.place()
    desk.do(desk.account.sent("e-1", desk.now, desk.now))
    signed = desk.now
    fail(desk, Failure.UNKNOWN)
    asked = []
    while desk.now <= signed + desk.horizon:
        desk.clock.advance_to(max(desk.now, desk.account.next_due()))
        asked.append(desk.now)
        desk.due()
    assert asked[-1] == signed + desk.horizon + 1


def test_not_found_asked_before_newer_evidence_is_ignored(desk: Desk) -> None:
    desk.placed()
    desk.wait(10)
    asked = desk.now
    desk.wait(1)
    desk.tell("e-1", S.OPEN)
    desk.do(desk.account.order_not_found("e-1", asked, desk.now))
    assert desk.state() is S.OPEN


def test_an_order_signed_before_a_crash_is_judged_by_the_journals_bound(desk: Desk) -> None:
    desk.place()
    send_by = desk.sends[0].send_by_ns
    desk.restart()
    assert desk.state() is S.UNKNOWN
    desk.do(desk.account.order_not_found("e-1", send_by + desk.horizon, send_by + desk.horizon))
    assert desk.state() is S.UNKNOWN
    desk.do(desk.account.order_not_found("e-1", send_by + desk.horizon + 1, send_by + desk.horizon + 1))
    assert desk.kinds == [K.UNKNOWN, K.FAILED]


def test_a_late_signing_is_journaled_before_it_leaves(desk: Desk) -> None:
    desk.place()
    late = desk.sends[0].send_by_ns + desk.second
    desk.do(desk.account.sent("e-1", late, late))
    desk.restart()
    desk.do(desk.account.order_not_found("e-1", late + desk.horizon, late + desk.horizon))
    assert desk.state() is S.UNKNOWN


def test_evidence_after_not_found_is_taken_and_what_lives_is_cancelled(desk: Desk) -> None:
    desk.place()
    fail(desk, Failure.UNKNOWN)
    desk.wait(60)
    desk.do(desk.account.order_not_found("e-1", desk.now, desk.now))
    desk.wait(1)
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"))
    assert desk.kinds == [K.UNKNOWN, K.FAILED, K.FILL]
    assert [order.client_order_id for order in desk.cancels] == ["e-1"]
    desk.due()
    assert len(desk.queries) == 1
    desk.tell("e-1", S.CANCELLED, "0.4")
    assert desk.kinds == [K.UNKNOWN, K.FAILED, K.FILL]
    assert desk.account.next_due() is None


def test_old_evidence_after_not_found_is_checked_before_anything_is_cancelled(desk: Desk) -> None:
    desk.placed()
    early = desk.now
    desk.wait(60)
    desk.do(desk.account.order_not_found("e-1", desk.now, desk.now))
    desk.tell("e-1", S.OPEN, at=early)
    assert desk.cancels == []
    desk.due()
    assert len(desk.queries) == 1
    desk.wait(1)
    desk.do(desk.account.order_not_found("e-1", desk.now, desk.now))
    assert desk.account.next_due() is None


def test_an_order_given_up_before_sending_fails_as_not_sent(desk: Desk) -> None:
    desk.place()
    fail(desk, Failure.NOT_SENT)
    assert desk.published[0].order.reason is Reason.NOT_SENT


def test_an_unanswered_request_is_asked_about_in_the_end(desk: Desk) -> None:
    desk.place()
    desk.wait(13)
    desk.due()
    assert len(desk.queries) == 1
    assert desk.state() is S.PENDING_CREATE


def test_a_refusal_after_the_order_was_seen_alive_is_not_believed(desk: Desk) -> None:
    desk.place()
    desk.tell("e-1", S.OPEN)
    fail(desk, Failure.REFUSED, Reason.VENUE_REFUSED)
    assert desk.state() is S.OPEN
    assert desk.account.counters["contradictions"] == 1


# ------------------------------------------------------------------------------------------------------- cancel


def cancel(desk: Desk, name: str = "e-1") -> Accepted | Refused:
    answer: Accepted | Refused = desk.decide(desk.account.cancel(CancelOrder(client_order_id=name), desk.now))
    return answer


def test_S17_a_cancel_is_sent_and_confirmed(desk: Desk) -> None:
    desk.placed()
    assert cancel(desk) == Accepted(client_order_id="e-1", state=S.PENDING_CANCEL)
    assert len(desk.cancels) == 1
    desk.do(desk.account.cancel_result("e-1", desk.update("e-1", S.CANCELLED), desk.now, desk.now))
    assert desk.kinds == [K.CREATED, K.CANCELLED]


def test_a_cancel_of_an_unknown_id_is_refused(desk: Desk) -> None:
    answer = cancel(desk, "e-none")
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.UNKNOWN_ORDER


def test_a_cancel_before_the_acknowledgement_waits_for_it(desk: Desk) -> None:
    desk.place()
    assert cancel(desk) == Accepted(client_order_id="e-1", state=S.PENDING_CREATE)
    assert desk.cancels == []
    desk.tell("e-1", S.OPEN)
    assert len(desk.cancels) == 1
    assert desk.state() is S.PENDING_CANCEL


def test_a_cancel_that_waits_survives_a_restart(desk: Desk) -> None:
    desk.place()
    cancel(desk)
    desk.restart()
    desk.tell("e-1", S.OPEN)
    assert len(desk.cancels) == 1


def test_a_repeated_cancel_is_not_sent_while_one_is_under_way(desk: Desk) -> None:
    desk.placed()
    cancel(desk)
    cancel(desk)
    assert len(desk.cancels) == 1


def test_S19_cancel_not_found_asks_for_the_order(desk: Desk) -> None:
    desk.placed()
    cancel(desk)
    desk.do(desk.account.cancel_failed("e-1", Failure.NOT_FOUND, Reason.NOT_FOUND, "", desk.now))
    assert len(desk.queries) == 1
    assert desk.state() is S.PENDING_CANCEL
    desk.tell("e-1", S.FILLED, "1", desk.fill())
    assert desk.kinds == [K.CREATED, K.FILL, K.COMPLETED]


@pytest.mark.parametrize("failure", [Failure.UNKNOWN, Failure.REFUSED, Failure.NOT_SENT])
def test_S18_a_cancel_that_failed_is_tried_again_while_the_order_is_open(desk: Desk, failure: Failure) -> None:
    desk.placed()
    cancel(desk)
    desk.do(desk.account.cancel_failed("e-1", failure, Reason.RATE_LIMITED, "", desk.now))
    desk.wait(6)
    desk.due()
    assert len(desk.queries) == 1
    desk.tell("e-1", S.OPEN)
    assert len(desk.cancels) == 2
    assert desk.state() is S.PENDING_CANCEL


def test_a_refused_cancel_leaves_the_order_open(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"))
    cancel(desk)
    desk.do(desk.account.cancel_failed("e-1", Failure.REFUSED, Reason.VENUE_REFUSED, "", desk.now))
    assert desk.state() is S.PARTIALLY_FILLED


def test_an_unconfirmed_cancel_is_asked_about(desk: Desk) -> None:
    desk.placed()
    cancel(desk)
    desk.do(desk.account.cancel_result("e-1", None, desk.now, desk.now))
    desk.wait(5)
    desk.due()
    assert len(desk.queries) == 1


def test_S20_cancel_all_takes_only_what_it_names(desk: Desk) -> None:
    desk.placed("e-1")
    desk.placed("e-2")
    assert desk.account.cancel_all(CancelAll(strategy="other"), desk.now) == ([], [])
    assert desk.account.cancel_all(CancelAll(pair="ETH-USDT"), desk.now) == ([], [])
    ids, effects = desk.account.cancel_all(CancelAll(strategy="maker", pair=desk.pair), desk.now)
    desk.do(effects)
    assert ids == ["e-1", "e-2"]
    assert len(desk.cancels) == 2


# ----------------------------------------------------------------------------------------------- reconciliation


def test_S2_a_restart_takes_up_the_open_orders_and_reconciles(desk: Desk) -> None:
    desk.placed("e-1")
    desk.placed("e-2")
    desk.tell("e-2", S.CANCELLED)
    desk.restart()
    assert [order.client_order_id for order in desk.account.open_orders()] == ["e-1"]
    assert desk.reconciled
    assert [fetch.pair for fetch in desk.fetches] == [desk.pair]
    assert desk.account.last_number == 3


def test_a_missing_order_in_the_open_orders_is_asked_about(desk: Desk) -> None:
    desk.placed("e-1")
    desk.placed("e-2")
    desk.place("e-3")
    desk.wait(1)
    updates = [desk.update("e-1", S.OPEN)]
    desk.do(desk.account.open_orders_snapshot(updates, desk.now, desk.now))
    assert [order.client_order_id for order in desk.queries] == ["e-2"]


def test_a_snapshot_of_open_orders_older_than_the_order_asks_nothing(desk: Desk) -> None:
    asked = desk.now
    desk.wait(1)
    desk.placed("e-1")
    desk.do(desk.account.open_orders_snapshot([], asked, desk.now))
    desk.do(desk.account.open_orders_snapshot([], desk.now + 1, desk.now, pairs=["ETH-USDT"]))
    assert desk.queries == []


def test_foreign_orders_are_reported_and_never_touched(desk: Desk) -> None:
    foreign = desk.update("web_1", S.OPEN, exchange_id="x9")
    desk.do(desk.account.open_orders_snapshot([foreign], desk.now, desk.now))
    assert desk.account.foreign_orders == [foreign]
    assert desk.account.open_orders() == []
    _, effects = desk.account.cancel_all(CancelAll(), desk.now)
    assert effects == []
    desk.do(desk.account.open_orders_snapshot([], desk.now, desk.now))
    assert desk.account.foreign_orders == []
    assert desk.account.counters["foreign_orders"] == 1


def test_a_snapshot_names_the_event_that_it_is_as_of(desk: Desk) -> None:
    desk.placed()
    snapshot = desk.account.snapshot()
    assert (snapshot.incarnation, snapshot.number) == (desk.journal.incarnation, desk.journal.last())
    assert [order.state for order in snapshot.orders] == [S.OPEN]


def test_events_are_replayed_from_the_journal_as_they_were_published(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.FILLED, "1", desk.fill())
    bodies = desk.journal.since(1, 10)
    assert bodies == [(event.number, msgspec.msgpack.encode(event)) for event in desk.published[1:]]


# ----------------------------------------------------------------------------------------------------- balances


def test_an_older_balance_never_overwrites_a_newer_per_asset(desk: Desk) -> None:
    account = desk.account
    account.balances({"BTC": balance("2")}, desk.now, desk.now)
    effects = account.balances({"BTC": balance("1"), "USDT": balance("7")}, desk.now - 1, desk.now)
    assert [list(effect.event.balances) for effect in effects if isinstance(effect, PublishBalance)] == [["USDT"]]
    assert account.snapshot().balances == {"BTC": balance("2"), "USDT": balance("7")}
    assert account.balances({"BTC": balance("2")}, desk.now + 1, desk.now) == []


def test_S21_an_asset_missing_from_a_complete_answer_is_gone(desk: Desk) -> None:
    account = desk.account
    account.balances({"BTC": balance("2"), "USDT": balance("7")}, desk.now, desk.now)
    account.balances({"BTC": balance("3")}, desk.now + 5, desk.now)
    account.balances({"USDT": balance("8")}, desk.now + 1, desk.now, complete=True)
    assert account.snapshot().balances == {"BTC": balance("3"), "USDT": balance("8")}
    account.balances({"USDT": balance("8")}, desk.now + 6, desk.now, complete=True)
    assert account.snapshot().balances == {"USDT": balance("8")}


def test_W10_ended_orders_leave_memory(desk: Desk) -> None:
    for index in range(1100):
        desk.placed(f"e-{index}")
        desk.tell(f"e-{index}", S.CANCELLED)
    assert desk.account.gauges()["orders_open"] == 0
    assert desk.account.gauges()["orders_ended_in_memory"] == 1000
    assert desk.state("e-0") is S.CANCELLED


def test_a_cancel_for_a_life_that_is_over_leaves_the_next_ones_orders(desk: Desk) -> None:
    old = ClientOrderIds("e-", "maker", 1, desk.clock).next()
    desk.placed(old)
    died_ns = desk.now
    desk.wait(0.001)
    new = ClientOrderIds("e-", "maker", 2, desk.clock).next()
    desk.placed(new)
    ids, effects = desk.account.cancel_all(CancelAll(made_by_ns=died_ns), desk.now)
    desk.do(effects)
    assert ids == [old]
    assert [order.client_order_id for order in desk.cancels] == [old]
    assert desk.account.cancel_all(CancelAll(), desk.now)[0] == [old, new]


def test_F40_a_fee_in_an_asset_of_its_own_is_counted_at_the_present_mids(desk: Desk) -> None:
    mids = {"BNB-USDT": Decimal(500)}
    schema = FeeSchema(taker=Decimal("0.001"), maker=Decimal("0.001"), fee_asset="BNB")
    account = Account("b", "main", desk.account.rules, "e-", 0, desk.journal.recover(), desk.journal, mids=lambda: mids)
    account.set_fees({desk.pair: schema})
    desk.account = account
    desk.placed()
    untold = msgspec.structs.replace(desk.fill("t1", "1"), fee=Decimal(0), fee_asset="")
    desk.tell("e-1", S.FILLED, "1", untold)
    (fill,) = [event.fill for event in desk.published if event.fill is not None]
    assert (fill.fee, fill.fee_asset, fill.fee_estimated) == (Decimal("0.0002"), "BNB", True)
