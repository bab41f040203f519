"""What a journal keeps, and what it refuses."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.clock import VirtualClock, WallClock
from engine.errors import JournalError
from engine.messages import CancelOrder, OrderEvent, OrderState, Reason
from engine.orders.account import Failure
from engine.orders.journal import Journal
from engine.orders.records import WriteEvent

Desk = Any
STORES = ("sqlite", "postgres")
S = OrderState


def test_an_empty_journal_stands_before_number_one(desk: Desk) -> None:
    assert (desk.journal.first(), desk.journal.last(), desk.journal.since(0, 10)) == (1, 0, [])
    assert desk.journal.recover().orders == []


def test_events_are_read_after_a_number_up_to_a_limit(desk: Desk) -> None:
    for index in range(5):
        desk.placed(f"e-{index}")
    assert [number for number, _ in desk.journal.since(2, 2)] == [3, 4]
    assert (desk.journal.first(), desk.journal.last()) == (1, 5)


def test_the_streams_incarnation_outlives_restarts(desk: Desk) -> None:
    incarnation = desk.journal.incarnation
    desk.wait(60)
    desk.restart()
    assert desk.journal.incarnation == incarnation
    assert desk.account.incarnation == incarnation


def test_recovery_has_open_orders_with_their_fills_and_the_last_trade(desk: Desk) -> None:
    desk.placed("e-1")
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"))
    desk.placed("e-2")
    desk.tell("e-2", S.EXPIRED)
    desk.decide(desk.account.cancel(CancelOrder(client_order_id="e-1"), desk.now))
    recovered = desk.journal.recover()
    (stored,) = recovered.orders
    assert stored.order == desk.account.order("e-1")
    assert (stored.acknowledged, stored.cancel_requested, stored.trade_ids) == (True, True, {"t1"})
    assert recovered.last_trade_ns == {desk.pair: desk.now}
    assert recovered.last_number == 4


def test_each_placed_order_is_counted_in_exactly_one_state(desk: Desk) -> None:
    for index in range(8):
        desk.place(f"e-{index}")
    desk.tell("e-0", S.FILLED, "1", desk.fill())
    desk.tell("e-1", S.CANCELLED)
    desk.tell("e-2", S.EXPIRED)
    desk.do(desk.account.place_failed("e-3", Failure.REFUSED, Reason.VENUE_REFUSED, "", desk.now))
    desk.do(desk.account.place_failed("e-4", Failure.UNKNOWN, Reason.NONE, "", desk.now))
    desk.tell("e-5", S.OPEN)
    desk.place("e-small", size="0.0001")
    assert desk.journal.counts("run") == {
        "placed": 8,
        "acknowledged": 4,
        "refused": 1,
        "filled": 1,
        "cancelled": 1,
        "expired": 1,
        "failed": 1,
        "unknown": 1,
        "open": 3,
    }
    assert sum(desk.journal.counts("another run").values()) == 0


def test_orders_and_fills_are_listed_newest_first(desk: Desk) -> None:
    for index in range(3):
        desk.placed(f"e-{index}")
        desk.tell(f"e-{index}", S.PARTIALLY_FILLED, "0.4", desk.fill(f"t{index}", "0.4"))
        desk.wait(1)
    desk.tell("e-1", S.CANCELLED, "0.4")
    ids = [order.client_order_id for order in desk.journal.orders()]
    assert ids == ["e-2", "e-1", "e-0"]
    assert [order.client_order_id for order in desk.journal.orders(open_only=True, limit=1)] == ["e-2"]
    assert len(desk.journal.orders(since_ns=desk.now - 2 * desk.second)) == 2
    assert [fill.fill.trade_id for fill in desk.journal.fills(limit=2)] == ["t2", "t1"]
    assert [fill.fill.trade_id for fill in desk.journal.run_fills("run")] == ["t0", "t1", "t2"]
    assert [order.client_order_id for order in desk.journal.run_orders("run")] == ["e-0", "e-1", "e-2"]


def test_exact_decimals_come_back_as_they_were(desk: Desk) -> None:
    desk.placed()
    desk.tell("e-1", S.OPEN, "0.1", desk.fill("t1", "0.10000000000000000001", "99999999.00000001"))
    (order,) = desk.journal.orders()
    assert order == desk.account.order("e-1")
    assert Fraction(order.cost) == Fraction("0.10000000000000000001") * Fraction("99999999.00000001")


def test_an_event_that_does_not_follow_is_refused_and_nothing_is_written(desk: Desk) -> None:
    desk.placed()
    event = msgspec.structs.replace(desk.published[0], number=7)
    with pytest.raises(JournalError, match="event 7 does not follow event 1"):
        desk.journal.record([WriteEvent(event=event)])
    assert desk.journal.last() == 1
    desk.tell("e-1", S.CANCELLED)
    assert desk.journal.last() == 2


def test_slow_commits_are_counted(tmp_path: Path) -> None:
    class SlowClock(VirtualClock):
        def monotonic_ns(self) -> int:
            self.advance(60_000_000)
            return super().monotonic_ns()

    with Journal(tmp_path / "main.db", "binance", "main", SlowClock(1)) as journal:
        journal.record([])
        assert (journal.commits, journal.slow_commits, journal.commit_ns.count) == (1, 1, 1)


def test_only_one_writer_at_a_time(desk: Desk) -> None:
    with pytest.raises(JournalError, match="another process writes this journal"):
        Journal(desk.path, "binance", "main", WallClock())


def test_it_is_read_while_it_is_written_and_after(desk: Desk) -> None:
    desk.placed()
    desk.journal.flush()
    with Journal.open_readonly(desk.path) as reader:
        assert reader.last() == 1
        desk.tell("e-1", S.CANCELLED)
        desk.journal.flush()
        assert reader.last() == 2
        with pytest.raises(sqlite3.OperationalError):
            reader._connection.execute("DELETE FROM events")
    desk.journal.close()
    with Journal.open_readonly(desk.path) as reader:
        assert reader.orders()[0].state is S.CANCELLED


def test_reading_a_journal_that_is_not_there_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no such file"):
        Journal.open_readonly(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_another_accounts_journal_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "main.db", "binance", "main", WallClock()).close()
    with pytest.raises(JournalError, match="the journal of binance/main, not of binance/other"):
        Journal(tmp_path / "main.db", "binance", "other", WallClock())
    Journal(tmp_path / "main.db", "binance", "main", WallClock()).close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "main.db"
    Journal(path, "binance", "main", WallClock()).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(JournalError, match="written by a newer engine"):
        Journal(path, "binance", "main", WallClock())


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to have a header" * 40, b"SQLite format 3\0"]
)
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "main.db"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=r"restore the file|not an account's journal"):
        Journal(path, "binance", "main", WallClock())
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "main.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(JournalError, match="not an account's journal"):
        Journal(path, "binance", "main", WallClock())


def _trade_until_killed(make_desk: Callable[[Path], Desk], path: Path, pipe: int) -> None:
    """Place, fill and end orders for ever, telling the parent of each order right when it would be sent."""
    desk = make_desk(path)
    desk.do(desk.account.recover(desk.now))
    first = len(desk.journal.orders(limit=1_000_000))
    for index in range(first, first + 1_000_000):
        name = f"e-{index}"
        desk.place(name)
        os.write(pipe, f"{name}\n".encode())
        desk.tell(name, S.PARTIALLY_FILLED, "0.4", desk.fill(f"t{index}", "0.4"))
        os.write(pipe, f"#{desk.journal.last()}\n".encode())
        desk.tell(name, S.CANCELLED, "0.4")


@pytest.mark.processes
def test_W9_a_writer_killed_at_any_moment_loses_nothing_that_it_committed(
    tmp_path: Path, make_desk: Callable[[Path], Desk]
) -> None:
    path = tmp_path / "main.db"
    sent: list[str] = []
    published = 0
    luck = random.Random(4711)
    fork = multiprocessing.get_context("fork")
    for _ in range(8):
        reading, writing = os.pipe()
        child = fork.Process(target=_trade_until_killed, args=(make_desk, path, writing))
        child.start()
        os.close(writing)
        with os.fdopen(reading, "rb") as lines:
            heard = [lines.readline() for _ in range(luck.randrange(1, 60))]
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            heard += [line for line in lines.read().splitlines(keepends=True) if line.endswith(b"\n")]
        told = [line.decode().strip() for line in heard]
        sent += [line for line in told if line.startswith("e-")]
        published = max([published, *(int(line[1:]) for line in told if line.startswith("#"))])
        _check_after_kill(path, sent, published)
    assert len(sent) == len(set(sent)) > 20


def _check_after_kill(path: Path, sent: list[str], published: int) -> None:
    with Journal(path, "binance", "main", WallClock(), run_id="run") as journal:
        orders = {order.client_order_id: order for order in journal.run_orders("run")}
        events = journal.since(0, 1_000_000)
        fills = {fill.client_order_id: fill.fill.size for fill in journal.fills(limit=1_000_000)}
    assert set(sent) <= orders.keys()
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert len(events) >= published
    for _, body in events:
        msgspec.msgpack.decode(body, type=OrderEvent)
    assert fills == {name: order.filled for name, order in orders.items() if order.filled}
