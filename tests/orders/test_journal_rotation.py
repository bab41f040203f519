"""A journal that stays small, and loses nothing by it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import JournalError
from engine.messages import Accepted, OrderEvent, OrderState, Reason, Refused, StreamPosition
from engine.orders.journal import Journal
from engine.orders.journal_reader import archive_of
from engine.orders.rotation import Rotation, folded_by_all
from engine.orders.strategy_store import StrategyStore

Desk = Any
STORES = ("sqlite", "postgres")
S = OrderState
DAY_S = 86_400
DAY_NS = DAY_S * 1_000_000_000


@pytest.fixture
def aged(desk: Desk) -> Desk:
    """Two ended orders and a refusal of long ago, one still open from then, and one order of today."""
    for name in ("e-1", "e-2", "e-3"):
        desk.placed(name)
    desk.tell("e-1", S.FILLED, "1", desk.fill("t1"))
    desk.tell("e-2", S.CANCELLED)
    desk.place("e-small", size="0.0001")
    desk.wait(10 * DAY_S)
    desk.placed("e-4")
    desk.tell("e-4", S.FILLED, "1", desk.fill("t4"))
    return desk


def rotate(desk: Desk, keep_days: float = 5, folded: int | None = None, delete: bool = True) -> int:
    desk.journal.flush()
    rotation = Rotation(desk.journal, round(keep_days * DAY_NS))
    moved = rotation.copy(desk.now, desk.journal.last() if folded is None else folded)
    for _ in rotation.deletions() if delete else ():
        pass
    desk.journal.archive_changed()
    return moved


def told(desk: Desk) -> dict[str, Any]:
    """Everything that the journal can be asked."""
    journal = desk.journal
    ids = ("e-1", "e-2", "e-3", "e-4", "e-small", "e-none")
    return {
        "events": journal.since(0, 100),
        "some": journal.since(2, 3),
        "first": journal.first(),
        "last": journal.last(),
        "orders": journal.orders(),
        "fills": journal.fills(),
        "run": (journal.run_orders("run"), journal.run_fills("run"), journal.counts("run")),
        "fates": [journal.fate(id_) for id_ in ids],
        "stored": [journal.order(id_) for id_ in ids],
        "by exchange id": journal.order_by_exchange_id(desk.pair, "xe-1"),
        "recovered": journal.recover(),
    }


def hot(desk: Desk, table: str) -> int:
    desk.journal.flush()
    with sqlite3.connect(desk.path) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.mark.parametrize("delete", [True, False])
def test_a_rotation_changes_no_answer_even_if_it_ended_half_way(aged: Desk, delete: bool) -> None:
    before = told(aged)
    assert rotate(aged, delete=delete) > 0
    assert told(aged) == before
    aged.crash()
    assert told(aged) == before


def test_what_is_old_and_ended_moves_and_the_rest_stays(aged: Desk) -> None:
    rotate(aged)
    assert [order.client_order_id for order in aged.journal.orders()] == ["e-4", "e-3", "e-2", "e-1"]
    assert (hot(aged, "orders"), hot(aged, "fills"), hot(aged, "refusals")) == (2, 1, 0)
    decoded = [msgspec.msgpack.decode(body, type=OrderEvent) for _, body in aged.journal.since(0, 100)]
    of_open = sum(event.order.client_order_id in ("e-3", "e-4") for event in decoded)
    assert hot(aged, "events") == of_open
    assert rotate(aged) == 0


def test_the_newest_order_and_event_always_stay(desk: Desk) -> None:
    desk.placed("e-1")
    desk.tell("e-1", S.CANCELLED)
    desk.wait(100 * DAY_S)
    rotate(desk)
    assert (hot(desk, "orders"), hot(desk, "events")) == (1, 1)
    desk.crash()
    desk.placed("e-2")
    assert [number for number, _ in desk.journal.since(0, 10)] == [1, 2, 3]


def test_events_that_a_checkpoint_has_not_folded_stay(aged: Desk) -> None:
    rotate(aged, folded=1)
    assert hot(aged, "events") == aged.journal.last() - 1


def test_a_strategy_far_behind_is_replayed_from_the_archive(aged: Desk) -> None:
    before = aged.journal.since(0, 100)
    rotate(aged)
    assert aged.journal.since(0, 2) == before[:2]
    assert aged.journal.since(1, 100) == before[1:]


def test_a_fill_of_an_order_in_the_archive_brings_it_back_and_it_moves_again(aged: Desk) -> None:
    rotate(aged)
    aged.crash()
    late = msgspec.structs.replace(aged.fill("late", "0.1"), time_ns=aged.now)
    aged.do(aged.account.venue_fill(aged.pair, late, aged.now, "e-2", "xe-2"))
    assert aged.account.order("e-2").filled == Decimal("0.1")
    stored = aged.journal.order("e-2")
    assert (stored.order.filled, stored.trade_ids) == (Decimal("0.1"), {"late"})
    assert len(aged.journal.orders()) == 4
    assert aged.journal.counts("run")["placed"] == 4
    aged.wait(10 * DAY_S)
    before = told(aged)
    rotate(aged)
    assert told(aged) == before
    assert hot(aged, "orders") == 2


def test_an_id_in_the_archive_is_still_taken(aged: Desk) -> None:
    rotate(aged)
    aged.crash()
    assert aged.place("e-1") == Accepted(client_order_id="e-1", state=S.FILLED)
    refused = aged.place("e-small")
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BELOW_MIN_SIZE
    assert not aged.sends[4:]


def test_an_order_that_changed_between_copy_and_deletion_stays(aged: Desk) -> None:
    rotation = Rotation(aged.journal, 5 * DAY_NS)
    rotation.copy(aged.now, aged.journal.last())
    late = msgspec.structs.replace(aged.fill("late", "0.1"), time_ns=aged.now)
    aged.do(aged.account.venue_fill(aged.pair, late, aged.now, "e-2", "xe-2"))
    for _ in rotation.deletions():
        pass
    assert aged.journal.order("e-2").order.filled == Decimal("0.1")
    assert hot(aged, "orders") == 3


def test_a_reader_sees_the_archive_too(aged: Desk) -> None:
    rotate(aged)
    with Journal.open_readonly(aged.path) as reader:
        assert len(reader.orders()) == 4
        assert len(reader.fills()) == 2


def test_a_damaged_archive_is_not_passed_over(aged: Desk) -> None:
    rotate(aged)
    aged.journal.close()
    archive_of(aged.path).write_bytes(b"not a database at all" * 100)
    with pytest.raises(JournalError, match="archive"):
        Journal(aged.path, "binance", "main", aged.clock)


def test_the_floor_is_the_oldest_checkpoint_of_this_stream(tmp_path: Path) -> None:
    def save(name: str, exchange: str, incarnation: int, number: int) -> None:
        with StrategyStore(tmp_path / f"{name}.db") as store:
            store.save({}, {exchange: StreamPosition(incarnation=incarnation, number=number)})

    assert folded_by_all(tmp_path, "exchange.a", 7, 100) == 100
    save("quick", "exchange.a", 7, 90)
    save("slow", "exchange.a", 7, 40)
    save("elsewhere", "exchange.b", 7, 1)
    save("before", "exchange.a", 6, 1)
    StrategyStore(tmp_path / "new.db").close()
    assert folded_by_all(tmp_path, "exchange.a", 7, 100) == 40
    (tmp_path / "odd.db").write_bytes(b"?" * 5000)
    assert folded_by_all(tmp_path, "exchange.a", 7, 100) == 0


def test_the_hot_part_stays_bounded(desk: Desk, make_desk: Callable[[Path], Desk]) -> None:
    for index in range(60):
        desk.placed(f"e-{index}")
        desk.tell(f"e-{index}", S.CANCELLED)
        desk.wait(DAY_S)
        if index % 10 == 9:
            rotate(desk, keep_days=5)
            assert hot(desk, "orders") <= 7
    assert len(desk.journal.orders()) == 60
    assert len(desk.journal.since(0, 1000)) == desk.journal.last() == 120


def steps(desk: Desk, question: Callable[[], Any]) -> int:
    """What a question costs, in steps of the database's machine."""
    counted = 0

    def step() -> None:
        nonlocal counted
        counted += 1

    connections = [desk.journal._both, desk.journal._connection]
    for connection in connections:
        connection.set_progress_handler(step, 1)
    question()
    for connection in connections:
        connection.set_progress_handler(None, 1)
    return counted


def test_what_a_list_costs_does_not_grow_with_what_is_not_listed(aged: Desk) -> None:
    """Commands and the risk actor ask the exchange actor, which does nothing else meanwhile."""
    rotate(aged)
    journal, since_ns = aged.journal, aged.now - DAY_NS
    questions: dict[str, Callable[[], Any]] = {
        "orders": lambda: journal.orders(limit=5),
        "orders of today": lambda: journal.orders(since_ns, limit=5),
        "open orders": lambda: journal.orders(open_only=True, limit=5),
        "fills": lambda: journal.fills(limit=5),
        "fills of today": lambda: journal.fills(since_ns, limit=5),
        "recovery": journal.recover,
        "the first event": journal.first,
        "events": lambda: journal.since(0, 5),
    }

    def traded(first: int, last: int) -> None:
        for index in range(first, last):
            aged.placed(f"e-more-{index}")
            aged.tell(f"e-more-{index}", S.FILLED, "1", aged.fill(f"more-{index}"))
        journal.flush()

    traded(0, 10)
    before = {name: steps(aged, question) for name, question in questions.items()}
    traded(10, 300)
    for name, question in questions.items():
        assert steps(aged, question) < 2 * before[name], name


@pytest.mark.parametrize("delete", [True, False])
def test_pages_over_both_parts_leave_nothing_out(aged: Desk, delete: bool) -> None:
    everything = aged.journal.orders(), aged.journal.fills()
    rotate(aged, delete=delete)
    for size in (1, 2, 3):
        pages = [aged.journal.orders(limit=size, offset=at) for at in range(0, 6, size)]
        assert [order for page in pages for order in page] == everything[0]
        fills = [aged.journal.fills(limit=size, offset=at) for at in range(0, 6, size)]
        assert [fill for page in fills for fill in page] == everything[1]
    boundary = everything[0][-1].created_ns
    assert aged.journal.orders(boundary) == everything[0]
    assert aged.journal.orders(boundary + 1) == [order for order in everything[0] if order.created_ns > boundary]
