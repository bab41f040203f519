"""The file in front of a journal: what it gives back after any death, and what a journal makes of it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import VirtualClock
from engine.errors import JournalError
from engine.messages import OrderState
from engine.orders.front_log import HEADER, FrontLog, front_of, read_front
from engine.orders.journal import MOST_PENDING, Journal

Desk = Any
S = OrderState
LIFE = 1_700_000_000


def written(path: Path, bodies: list[bytes], first: int = 1) -> list[tuple[int, bytes]]:
    log = FrontLog(path, LIFE)
    numbered = list(enumerate(bodies, first))
    for number, body in numbered:
        log.append(number, body)
    log.close()
    return numbered


def test_a_file_that_is_not_there_lacks_nothing(tmp_path: Path) -> None:
    assert read_front(tmp_path / "none.front", 0, LIFE) == []


@given(bodies=st.lists(st.binary(max_size=40), max_size=5), cut=st.integers(0, 400), has=st.integers(0, 6))
def test_what_was_cut_off_anywhere_gives_the_whole_records_before(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], cut: int, has: int
) -> None:
    path = tmp_path_factory.mktemp("front") / "main.db.front"
    numbered = written(path, bodies)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    ends = [sum(HEADER.size + len(body) for body in bodies[: index + 1]) for index in range(len(bodies))]
    whole = [record for record, end in zip(numbered, ends, strict=True) if end <= cut]
    assert read_front(path, has, LIFE) == [record for record in whole if record[0] > has]


@given(
    rounds=st.lists(st.lists(st.binary(max_size=12), min_size=1, max_size=4), min_size=1, max_size=4),
    torn=st.integers(0, 30),
)
def test_what_is_left_of_earlier_rounds_is_nothing(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[bytes]], torn: int
) -> None:
    """Also when the last record of all is written in part: over an older one, which then is nothing either."""
    path = tmp_path_factory.mktemp("front") / "main.db.front"
    log, number, last = FrontLog(path, LIFE), 0, []
    for bodies in rounds:
        log.rewind()
        flushed, last = number, []
        for body in bodies:
            number += 1
            log.append(number, body)
            last.append((number, body))
    log.close()
    assert read_front(path, flushed, LIFE) == last
    assert read_front(path, number, LIFE) == []
    size = HEADER.size + len(last[-1][1])
    at = sum(HEADER.size + len(body) for _, body in last[:-1])
    content = path.read_bytes()
    part = min(torn, size - 1)
    other = bytes(byte ^ 0xFF for byte in content[at + part : at + size])
    path.write_bytes(content[: at + part] + other + content[at + size :])
    assert read_front(path, flushed, LIFE) == last[:-1]


@given(flip=st.integers(0, 10**6))
def test_a_damaged_record_is_none(tmp_path_factory: pytest.TempPathFactory, flip: int) -> None:
    path = tmp_path_factory.mktemp("front") / "main.db.front"
    numbered = written(path, [b"first", b"second", b"third"])
    content = bytearray(path.read_bytes())
    content[flip // 8 % len(content)] ^= 1 << flip % 8
    path.write_bytes(content)
    found = read_front(path, 0, LIFE)
    assert found == numbered[: len(found)]
    assert len(found) < 3


def test_records_that_do_not_follow_are_of_another_life(tmp_path: Path) -> None:
    path = tmp_path / "main.db.front"
    written(path, [b"a", b"b"], first=7)
    assert read_front(path, 5, LIFE) == []
    assert [number for number, _ in read_front(path, 6, LIFE)] == [7, 8]
    assert read_front(path, 8, LIFE) == []
    assert read_front(path, 90, LIFE) == []


# ---------------------------------------------------------------------------------------------------- in a journal


def test_what_was_committed_and_not_flushed_is_there_after_a_crash(desk: Desk) -> None:
    desk.placed("e-1")
    desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", desk.fill("t1", "0.4"))
    assert desk.journal.pending
    held = desk.account.order("e-1")
    desk.crash()
    assert not desk.journal.pending
    assert desk.journal.orders() == [held]
    assert desk.account.order("e-1") == held
    assert [number for number, _ in desk.journal.since(0, 10)] == [1, 2]
    assert [fill.fill.trade_id for fill in desk.journal.fills()] == ["t1"]


def test_a_writer_that_died_at_any_byte_of_a_commit_had_not_made_it(desk: Desk, tmp_path: Path) -> None:
    desk.placed("e-1")
    desk.journal.flush()
    desk.tell("e-1", S.CANCELLED)
    for suffix in ("", "-wal", ".front"):
        shutil.copy(f"{desk.path}{suffix}", tmp_path / f"kept.db{suffix}")
    ((_, body),) = read_front(tmp_path / "kept.db.front", desk.journal.front - 1, desk.journal.incarnation)
    whole = HEADER.size + len(body)
    for size in (0, 1, HEADER.size, HEADER.size + 1, whole - 1, whole):
        for suffix in ("", "-wal", ".front"):
            shutil.copy(tmp_path / f"kept.db{suffix}", tmp_path / f"copy.db{suffix}")
        with (tmp_path / "copy.db.front").open("r+b") as file:
            file.truncate(size)
        with Journal(tmp_path / "copy.db", "binance", "main", desk.clock) as journal:
            assert journal.orders()[0].state is (S.CANCELLED if size == whole else S.OPEN)
        (tmp_path / "copy.db-shm").unlink(missing_ok=True)


def test_orders_belong_to_the_run_that_placed_them(tmp_path: Path, desk: Desk) -> None:
    desk.placed("e-1")
    desk.journal.abandon()
    with Journal(desk.path, "binance", "main", desk.clock, run_id="later") as journal:
        assert [order.client_order_id for order in journal.run_orders("run")] == ["e-1"]
        assert journal.run_orders("later") == []


def test_so_many_commits_are_flushed_without_being_asked(desk: Desk) -> None:
    for index in range(MOST_PENDING):
        assert desk.journal.transactions == 0
        desk.place(f"{'e-maker':15}{index:011}".replace(" ", "-"))
    assert desk.journal.transactions == 1
    assert not desk.journal.pending


def test_a_reader_after_a_crash_brings_in_what_was_left(desk: Desk) -> None:
    desk.placed("e-1")
    desk.journal.abandon()
    assert front_of(desk.path).exists()
    with Journal.open_readonly(desk.path) as reader:
        assert [order.client_order_id for order in reader.orders()] == ["e-1"]
    assert not front_of(desk.path).exists()


def test_a_reader_beside_a_living_writer_leaves_its_front_log_alone(desk: Desk) -> None:
    desk.placed("e-1")
    with Journal.open_readonly(desk.path) as reader:
        assert reader.orders() == []
        desk.journal.flush()
        assert [order.client_order_id for order in reader.orders()] == ["e-1"]
    desk.tell("e-1", S.CANCELLED)
    desk.crash()
    assert desk.state("e-1") is S.CANCELLED


def test_a_flush_that_fails_keeps_what_is_pending_in_order(desk: Desk) -> None:
    desk.placed("e-1")
    desk.journal._connection.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(desk.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="another program holds it"):
        desk.journal.flush()
    desk.tell("e-1", S.CANCELLED)
    other.close()
    desk.journal.flush()
    assert desk.journal.orders()[0].state is S.CANCELLED
    desk.crash()
    assert [number for number, _ in desk.journal.since(0, 10)] == [1, 2]


def test_a_journal_put_back_from_a_copy_takes_nothing_from_another_life(desk: Desk, tmp_path: Path) -> None:
    desk.placed("e-1")
    desk.journal.flush()
    desk.journal.checkpoint()
    shutil.copy(desk.path, tmp_path / "backup.db")
    desk.placed("e-2")
    desk.journal.flush()
    desk.placed("e-3")
    desk.journal.abandon()
    for suffix in ("-wal", "-shm"):
        Path(f"{desk.path}{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", desk.path)
    with Journal(desk.path, "binance", "main", desk.clock) as journal:
        assert [order.client_order_id for order in journal.orders()] == ["e-1"]


def test_a_journal_without_a_front_log_takes_over_from_one_that_had_one(tmp_path: Path, desk: Desk) -> None:
    desk.placed("e-1")
    desk.journal.abandon()
    with Journal(desk.path, "binance", "main", desk.clock, "run", deferred=False) as journal:
        assert [order.client_order_id for order in journal.orders()] == ["e-1"]
        assert not front_of(desk.path).exists()
    with Journal(desk.path, "binance", "main", VirtualClock(1), "run") as journal:
        assert journal.last() == 1


def test_a_front_log_that_cannot_be_written_ends_the_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.pwrite", lambda file, data, offset: len(data) - 1)
    with pytest.raises(JournalError, match="free some space"):
        desk.place("e-1")


def test_a_front_log_of_another_journal_is_nothing(tmp_path: Path) -> None:
    """A journal was moved away to begin anew, or its account's file was exchanged, and the front log stayed behind."""
    path = tmp_path / "main.db.front"
    written(path, [b"first", b"second"])
    assert read_front(path, 0, LIFE + 1) == []


def test_a_journal_begun_anew_takes_nothing_of_the_old_ones_front_log(desk: Desk) -> None:
    desk.placed("e-1")
    desk.journal.abandon()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{desk.path}{suffix}").unlink(missing_ok=True)
    desk.wait(1)
    with Journal(desk.path, "binance", "main", desk.clock) as journal:
        assert journal.orders() == []
        assert journal.last() == 0


@pytest.mark.parametrize("body", [b"\xc1", b"\x92\xa3run\x91\x81\xa4type\xa6future"])
def test_a_front_log_that_its_journal_cannot_take_is_told_and_kept(desk: Desk, body: bytes) -> None:
    desk.journal.flush()
    number, incarnation = desk.journal.front, desk.journal.incarnation
    desk.journal.abandon()
    log = FrontLog(front_of(desk.path), incarnation)
    log.append(number + 1, body)
    log.close()
    kept = front_of(desk.path).read_bytes()
    with pytest.raises(JournalError, match="keep it elsewhere and start again"):
        Journal(desk.path, "binance", "main", desk.clock)
    assert front_of(desk.path).read_bytes() == kept
    front_of(desk.path).unlink()
    desk.journal = desk.open()


def test_a_fill_of_no_time_that_a_row_can_have_is_not_committed(desk: Desk) -> None:
    desk.placed("e-1")
    late = msgspec.structs.replace(desk.fill("t1", "0.4"), time_ns=2**63)
    with pytest.raises(JournalError, match="no time that can be kept"):
        desk.tell("e-1", S.PARTIALLY_FILLED, "0.4", late)
    desk.crash()
    assert desk.state("e-1") is S.OPEN
