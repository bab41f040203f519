"""What a journal had at one instant, read on a thread while it is written."""

from __future__ import annotations

import os
import threading
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from engine.actors.account_past import check, read_exposure, read_run
from engine.actors.takings import Takings
from engine.errors import JournalError
from engine.messages import OrderState
from engine.orders import journal as journal_module
from engine.orders import journal_past
from engine.orders.journal import Journal
from engine.orders.journal_past import JournalPast
from engine.orders.rotation import Rotation
from engine.orders.tally import NAMES

Desk = Any
S = OrderState
DAY_NS = 86_400_000_000_000


def read_past(past: JournalPast, run_id: str, since_ns: int) -> Any:
    positions, day = read_exposure(past, since_ns)
    counts, takings = read_run(past, run_id)
    return SimpleNamespace(positions=positions, day=day, counts=counts, takings=takings)


@pytest.fixture
def traded(desk: Desk) -> Desk:
    """Five filled orders, of which a rotation has moved the first three to the archive, and an open one."""
    for index in range(3):
        desk.placed(f"e-{index}")
        desk.tell(f"e-{index}", S.FILLED, "1", desk.fill(f"t{index}"))
    desk.wait(10 * 86_400)
    for index in range(3, 5):
        desk.placed(f"e-{index}")
        desk.tell(f"e-{index}", S.FILLED, "1", desk.fill(f"t{index}"))
    desk.placed("e-open")
    desk.journal.flush()
    return desk


def rotated(desk: Desk) -> int:
    rotation = Rotation(desk.journal, 5 * DAY_NS)
    moved = rotation.copy(desk.now, desk.journal.last())
    for _ in rotation.deletions():
        pass
    return moved


@pytest.mark.parametrize("when", ["before", "after", "meanwhile"])
def test_it_is_what_the_journal_itself_says_wherever_the_rows_are(traded: Desk, when: str) -> None:
    journal = traded.journal
    assert when != "before" or rotated(traded)
    past = journal.past()
    assert when != "meanwhile" or rotated(traded)
    counts, fills = journal.counts("run"), journal.run_fills("run")
    found = read_past(past, "run", 0)
    assert dict(found.counts) == counts
    assert {name: counts[name] for name in ("placed", "filled", "open")} == {"placed": 6, "filled": 5, "open": 1}
    assert found.takings.table() == found.day.table() == Takings(fills).table()
    assert found.positions == {traded.pair: Decimal(5)}
    assert set(counts) == set(NAMES)


def test_what_is_written_after_it_was_made_is_not_in_it(traded: Desk) -> None:
    past = traded.journal.past()
    traded.tell("e-open", S.FILLED, "1", traded.fill("late"))
    traded.journal.flush()
    assert len(traded.journal.fills()) == 6
    found = read_past(past, "run", 0)
    assert (found.takings.fills, found.positions, found.counts["open"]) == (5, {traded.pair: Decimal(5)}, 1)


def test_what_is_in_the_front_log_alone_is_in_it(desk: Desk) -> None:
    desk.placed("e-1")
    desk.tell("e-1", S.FILLED, "1", desk.fill("t1"))
    assert read_past(desk.journal.past(), "run", 0).takings.fills == 1


def test_only_that_run_and_that_day_are_added_up(traded: Desk) -> None:
    found = read_past(traded.journal.past(), "another run", traded.now - DAY_NS)
    assert (found.counts["placed"], found.takings.fills, found.day.fills) == (0, 0, 2)
    assert found.positions == {traded.pair: Decimal(5)}


def test_it_ends_soon_once_nobody_waits_for_it(traded: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_past, "AT_ONCE", 2)
    past = traded.journal.past()
    sizes = past.each_size()
    assert next(sizes)[0] == traded.pair
    past.give_up()
    with pytest.raises(JournalError, match="not read to its end"):
        list(sizes)
    past.close()


def test_a_check_that_nobody_waits_for_ends_in_the_middle(traded: Desk) -> None:
    past = traded.journal.past()
    past._connection.set_progress_handler(lambda: past.give_up(), 10)
    with pytest.raises(JournalError, match="interrupted"):
        check(past)
    past.give_up()


def test_another_thread_reads_it(traded: Desk) -> None:
    past, found = traded.journal.past(), []
    thread = threading.Thread(target=lambda: found.append(read_past(past, "run", 0)))
    thread.start()
    thread.join()
    assert found[0].takings.fills == 5


def test_a_large_file_is_checked_by_its_past(traded: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "CHECKED_AT_ONCE", 1000)
    for index in range(100):
        traded.placed(f"e-more-{index}")
    traded.journal.close()
    content = bytearray(traded.path.read_bytes())
    middle = len(content) // 2 // 1024 * 1024
    content[middle : middle + 1024] = os.urandom(1024)
    traded.path.write_bytes(content)
    journal = Journal(traded.path, "binance", "main", traded.clock)
    assert journal.unchecked
    past = journal.past()
    with pytest.raises(JournalError, match=r"main\.db"):
        check(past)
    journal.close()
