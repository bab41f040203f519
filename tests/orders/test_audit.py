"""Comparing the journal's fills with the venue's."""

from __future__ import annotations

from decimal import Decimal

from engine.messages import Fill, OrderFill, Side
from engine.orders.audit import audit


def fill(trade_id: str, size: str = "1", order: str = "e-1", pair: str = "BTC-USDT") -> OrderFill:
    return OrderFill(
        client_order_id=order,
        strategy="maker",
        pair=pair,
        side=Side.BUY,
        fill=Fill(
            trade_id=trade_id,
            price=Decimal(100),
            size=Decimal(size),
            fee=Decimal(0),
            fee_asset="BNB",
            is_maker=False,
            time_ns=1,
        ),
    )


def test_equal_lists_differ_in_nothing_whatever_their_order_and_trailing_zeros() -> None:
    assert audit([fill("1", "1.0"), fill("2")], [fill("2"), fill("1", "1")]) == ([], [])


def test_what_only_one_side_has_is_named() -> None:
    assert audit([fill("1"), fill("3")], [fill("1"), fill("2")]) == ([fill("2")], [fill("3")])


def test_a_fill_that_is_twice_in_the_journal_is_duplicated() -> None:
    assert audit([fill("1"), fill("1")], [fill("1")]) == ([], [fill("1")])


def test_a_fill_of_another_size_pair_or_order_is_another() -> None:
    for other in (fill("1", "2"), fill("1", pair="ETH-USDT"), fill("1", order="e-2")):
        assert audit([other], [fill("1")]) == ([fill("1")], [other])
