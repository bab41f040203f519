"""Which client order ids are surely new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import VirtualClock
from engine.messages import Accepted, Refused
from engine.orders.ids import ClientOrderIds
from engine.orders.seen_ids import KEPT_HEADS, SeenIds

Desk = Any
ids = st.text("ab-", min_size=1, max_size=14)


@given(kept=st.lists(ids), steps=st.lists(st.tuples(st.booleans(), ids)))
def test_what_was_seen_is_never_called_new(kept: list[str], steps: list[tuple[bool, str]]) -> None:
    seen = set(kept)
    table = SeenIds(lambda head: max((each for each in seen if each.startswith(head)), default=""))
    for write, each in steps:
        if table.is_new(each):
            assert each not in seen
        if write:
            table.saw(each)
            seen.add(each)


def test_ids_as_they_are_made_need_one_question_a_maker() -> None:
    asked: list[str] = []

    def newest(head: str) -> str:
        asked.append(head)
        return ""

    table = SeenIds(newest)
    makers = [ClientOrderIds("e-", name, 1, VirtualClock(10**18)) for name in ("a", "b")]
    for _ in range(50):
        for maker in makers:
            each = maker.next()
            assert table.is_new(each)
            table.saw(each)
            assert not table.is_new(each)
    assert len(asked) == 2


def test_it_keeps_a_bounded_number_of_makers() -> None:
    table = SeenIds(lambda head: "")
    for index in range(KEPT_HEADS + 10):
        assert table.is_new(f"{index:06}-{'0' * 11}")
    assert len(table._by_head) == KEPT_HEADS


def test_a_journal_knows_ids_of_earlier_lives_and_of_refusals(desk: Desk, tmp_path: Path) -> None:
    first, second = ("e-maker" + f"{number:011}" for number in (1, 2))
    desk.placed(first)
    assert isinstance(desk.place(second, size="0.0001"), Refused)
    desk.crash()
    assert isinstance(desk.journal.fate(first), Accepted)
    assert isinstance(desk.journal.fate(second), Refused)
    assert isinstance(desk.place(second), Refused)
    assert desk.journal.fate("e-maker" + f"{3:011}") is None


def test_an_id_that_no_order_can_have_is_known_after_a_restart(desk: Desk) -> None:
    """Its refusal is kept like any other; taken for new it would be written twice, and the journal refuses that."""
    odd = "é" * 12
    assert isinstance(desk.place(odd), Refused)
    desk.restart()
    assert isinstance(desk.journal.fate(odd), Refused)
    desk.place(odd)
    desk.restart()
    assert isinstance(desk.journal.fate(odd), Refused)
