"""Journals of older engines, and files that are damaged or held by others: never traded on blindly."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import JournalError
from engine.messages import OrderState
from engine.orders.database import explained
from engine.orders.journal import Journal
from engine.orders.journal_reader import JournalReader

Desk = Any
STORES = ("sqlite", "postgres")
S = OrderState


def filled(desk: Desk, orders: int = 3) -> None:
    for index in range(orders):
        desk.placed(f"e-{index}")
        desk.tell(f"e-{index}", S.FILLED, "1", desk.fill(f"t{index}"))


def placed_and_flushed(desk: Desk, name: str) -> None:
    desk.placed(name)
    desk.journal.flush()


def made_old(path: Path) -> None:
    """Take a journal back to what the first version of it was."""
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE fills DROP COLUMN fee_estimated")
        connection.execute("ALTER TABLE events DROP COLUMN client_order_id")
        connection.execute("CREATE INDEX orders_run ON orders (run_id)")
        connection.execute("DELETE FROM meta WHERE key = 'front'")
        connection.execute("PRAGMA user_version=1")
    connection.close()


def test_a_journal_of_version_1_is_brought_up_to_date_with_all_that_it_has(desk: Desk) -> None:
    filled(desk, 1200)
    before = (desk.journal.since(0, 9999), desk.journal.orders(limit=9999), desk.journal.fills(limit=9999))
    desk.journal.close()
    made_old(desk.path)
    with pytest.raises(JournalError, match="start the engine on it once"):
        JournalReader(desk.path)
    desk.journal = desk.open()
    after = (desk.journal.since(0, 9999), desk.journal.orders(limit=9999), desk.journal.fills(limit=9999))
    assert after == before
    with sqlite3.connect(desk.path) as connection:
        named = connection.execute("SELECT client_order_id FROM events WHERE number > 3597").fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    assert named == [("e-1199",)] * 3
    assert version == 3


def test_an_estimated_fee_is_kept_as_one(desk: Desk) -> None:
    desk.placed("e-1")
    estimated = msgspec.structs.replace(desk.fill(), fee_estimated=True)
    desk.tell("e-1", S.FILLED, "1", estimated)
    (found,) = desk.journal.fills()
    assert found.fill == estimated


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_journal_is_refused_in_words(desk: Desk, share: float) -> None:
    filled(desk, 50)
    desk.journal.checkpoint()
    desk.journal.close()
    os.truncate(desk.path, int(desk.path.stat().st_size * share))
    with pytest.raises(JournalError, match="restore the file"):
        Journal(desk.path, "binance", "main", desk.clock)


def test_pages_that_do_not_fit_together_are_noticed(desk: Desk) -> None:
    filled(desk, 50)
    desk.journal.checkpoint()
    desk.journal.close()
    content = bytearray(desk.path.read_bytes())
    middle = len(content) // 2 // 1024 * 1024
    content[middle : middle + 1024] = os.urandom(1024)
    desk.path.write_bytes(content)
    with pytest.raises(JournalError, match=r"main\.db"):
        Journal(desk.path, "binance", "main", desk.clock)


def test_a_journal_that_another_process_writes_is_not_written(desk: Desk) -> None:
    with pytest.raises(JournalError, match="another process writes this journal"):
        Journal(desk.path, "binance", "main", desk.clock)


def test_a_journal_that_another_program_holds_ends_the_write_and_says_what_to_do(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(desk, 1)
    desk.journal._connection.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(desk.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(JournalError, match="another program holds it; close that program"):
            placed_and_flushed(desk, "e-9")
    finally:
        other.close()
    sent = [send.order.client_order_id for send in desk.sends]
    desk.crash()
    # Whatever left before the lock was noticed is known.
    assert (desk.journal.fate("e-9") is not None) == ("e-9" in sent)


def test_new_journals_have_small_pages(desk: Desk) -> None:
    with sqlite3.connect(desk.path) as connection:
        assert connection.execute("PRAGMA page_size").fetchone()[0] == 1024
    connection.close()


def test_the_log_is_moved_into_the_file_beside_the_writer_and_used_again(desk: Desk) -> None:
    orders = 0
    while not desk.journal.wants_checkpoint:
        desk.placed(f"e-{orders}")
        desk.journal.flush()
        orders += 1
    log = Path(f"{desk.path}-wal")
    grown = log.stat().st_size
    desk.journal.checkpoint()
    assert not desk.journal.wants_checkpoint
    for index in range(50):
        desk.placed(f"e-x{index}")
        desk.journal.flush()
    assert log.stat().st_size == grown
    desk.crash()
    assert len(desk.journal.orders(limit=9999)) == orders + 50


@pytest.mark.stores("sqlite")
def test_a_sync_says_how_many_commits_are_on_disk(desk: Desk) -> None:
    filled(desk, 2)
    assert desk.journal.sync() == desk.journal.commits > 0
    assert sum(desk.journal.sync_ns.buckets.values()) == 1


@pytest.mark.parametrize("error", [sqlite3.SQLITE_FULL, errno.ENOSPC, sqlite3.SQLITE_ERROR])
def test_nobody_is_told_to_move_a_sound_journal_away(error: int) -> None:
    failure: Exception = OSError(error, "No space left on device")
    if error != errno.ENOSPC:
        failure = sqlite3.OperationalError("database or disk is full")
        failure.sqlite_errorcode = error
    with pytest.raises(JournalError) as told, explained(Path("main.db")):
        raise failure
    assert "move" not in str(told.value)
    assert ("free some space" in str(told.value)) == (error != sqlite3.SQLITE_ERROR)
