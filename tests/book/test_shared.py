import errno
import mmap
import os
import struct
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.book import BookReader, BookWriter, OrderBook, ReadStatus, SyncState
from engine.errors import BookError

PAIR = "ETH-USDT"
NOW = 10**15
HEADER = 256
RETIRED, INCARNATION, HEARTBEAT = 136, 128, 192


@pytest.fixture
def path(shared_folder: Path) -> Path:
    return shared_folder / f"binance.{PAIR}.book"


def make_book(bid: int = 100, levels: int = 3) -> OrderBook:
    book = OrderBook(PAIR, -2, -3)
    book.apply_snapshot(
        [(str(bid - i), str(i + 1)) for i in range(levels)], [(str(bid + 1 + i), str(i + 5)) for i in range(levels)]
    )
    return book


def publish(writer: BookWriter, update_id: int, bid: int = 100, levels: int = 3) -> None:
    writer.publish(make_book(bid, levels), update_id, 5, NOW, SyncState.SYNCED)


class File:
    """The file's bytes, by the documented layout."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.slot_size = self.word(24)

    def word(self, offset: int) -> int:
        return int(struct.unpack_from("<q", self.map, offset)[0])

    def set_word(self, offset: int, value: int) -> None:
        struct.pack_into("<q", self.map, offset, value)

    def slots(self) -> list[int]:
        """Offsets of the slots, the newest first."""
        return sorted((HEADER, HEADER + self.slot_size), key=self.word, reverse=True)


# ---------------------------------------------------------------------------------------------------------- reading


def test_no_file_is_missing_until_there_is_one(path: Path) -> None:
    reader = BookReader(path)
    assert reader.read_best(NOW).status is ReadStatus.MISSING
    assert reader.read_raw(NOW) == (ReadStatus.MISSING, 0, 0, 0, 0, 0, 0, 0, -1)
    assert reader.depth(5, NOW).status is ReadStatus.MISSING
    assert reader.top(5, NOW).status is ReadStatus.MISSING
    assert (reader.capacity, reader.incarnation, reader.pair) == (0, 0, "")
    writer = BookWriter(path, PAIR, -2, -3, depth=10, incarnation=7)
    publish(writer, 1)
    assert reader.read_best(NOW).status is ReadStatus.FRESH
    assert (reader.capacity, reader.incarnation, reader.pair) == (10, 7, PAIR)


def test_the_best_levels_are_read_exactly(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 42)
    best = reader.read_best(NOW + 100)
    assert (best.bid, best.bid_size, best.ask, best.ask_size) == (Decimal(100), Decimal(1), Decimal(101), Decimal(5))
    assert (best.status, best.update_id, best.age_ns) == (ReadStatus.FRESH, 42, 100)
    assert reader.read_raw(NOW + 7) == (ReadStatus.FRESH, 10000, 1000, 10100, 5000, -2, -3, 42, 7)


LEVEL = st.sampled_from([None, ("100", "1"), ("100.00", "1.0"), ("100", "1.0001"), ("1", "1"), ("1", "9" * 18 + ".01")])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(published=st.lists(st.tuples(st.integers(-5, 0), st.integers(-4, -1), LEVEL, LEVEL), min_size=1, max_size=12))
def test_a_reader_that_saw_other_books_reads_the_best_as_a_new_one_does(
    path: Path, published: list[tuple[int, int, tuple[str, str] | None, tuple[str, str] | None]]
) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    for update_id, (price_exponent, size_exponent, bid, ask) in enumerate(published, 1):
        book = OrderBook(PAIR, price_exponent, size_exponent)
        asks = [(str(Decimal(ask[0]) + 1000), ask[1])] if ask else []
        book.apply_snapshot([bid] if bid else [], asks)
        writer.publish(book, update_id, 0, NOW, SyncState.SYNCED)
        best, newly = reader.read_best(NOW), BookReader(path).read_best(NOW)
        assert repr(best) == repr(newly), "the same values with the same number of places"
        assert (best.bid, best.bid_size) == (tuple(map(Decimal, bid)) if bid else (None, None))
        assert (best.ask, best.ask_size) == (tuple(map(Decimal, asks[0])) if asks else (None, None))


def test_what_has_not_changed_is_the_same_decimal(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 42)
    first = reader.read_best(NOW)
    publish(writer, 43)
    second = reader.read_best(NOW)
    assert (second.update_id, second.bid) == (43, Decimal(100))
    assert second.bid is first.bid
    assert second.ask_size is first.ask_size


def test_depth_and_top_are_best_first(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 42)
    depth = reader.depth(2, NOW)
    assert depth.bids == [(Decimal(100), Decimal(1)), (Decimal(99), Decimal(2))]
    assert depth.asks == [(Decimal(101), Decimal(5)), (Decimal(102), Decimal(6))]
    top = reader.top(2, NOW)
    assert top.bids.tolist() == [[10000, 1000], [9900, 2000]]
    assert top.asks.tolist() == [[10100, 5000], [10200, 6000]]
    assert (top.price_exponent, top.size_exponent, top.update_id, top.age_ns) == (-2, -3, 42, 0)
    assert len(reader.depth(None, NOW).bids) == len(reader.top(None, NOW).asks) == 3
    assert reader.top(0, NOW).bids.shape == (0, 2)


def test_one_side_may_be_empty(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    book = OrderBook(PAIR, -2, -3)
    book.apply_diff([], [("5", "1")])
    writer.publish(book, 1, 0, NOW, SyncState.SYNCED)
    best = reader.read_best(NOW)
    assert (best.bid, best.bid_size, best.ask, best.ask_size) == (None, None, Decimal(5), Decimal(1))
    assert reader.read_raw(NOW)[1:5] == (0, 0, 500, 1000)


def test_exponents_travel_with_each_book(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    book = make_book()
    book.apply_diff([("100.0001", "1.00001")], [])
    writer.publish(book, 1, 0, NOW, SyncState.SYNCED)
    assert reader.read_raw(NOW)[5:7] == (-4, -5)
    assert reader.read_best(NOW).bid == Decimal("100.0001")


def test_asking_for_more_levels_than_the_file_holds_is_refused_never_answered_short(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3, depth=4), BookReader(path)
    publish(writer, 1, levels=10)
    for read in (reader.depth, reader.top):
        with pytest.raises(BookError, match=r"ETH-USDT: 5 levels .* holds 4"):
            read(5, NOW)
        with pytest.raises(BookError, match="-1 levels"):
            read(-1, NOW)
    view = reader.depth(4, NOW)
    assert (len(view.bids), view.bid_total, view.ask_total) == (4, 10, 10)
    publish(writer, 2, levels=2)
    view = reader.depth(4, NOW)
    assert (len(view.bids), view.bid_total) == (2, 2)


# --------------------------------------------------------------------------------------------------- what to trust


def test_stale_without_a_heartbeat_by_the_readers_clock(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path, stale_after_ns=1000)
    assert reader.read_best(NOW).status is ReadStatus.STALE
    publish(writer, 1)
    assert reader.read_best(NOW + 1000).status is ReadStatus.FRESH
    best = reader.read_best(NOW + 1001)
    assert (best.status, best.bid, best.age_ns) == (ReadStatus.STALE, Decimal(100), 1001)
    writer.heartbeat(NOW + 1001)
    best = reader.read_best(NOW + 1500)
    assert (best.status, best.age_ns) == (ReadStatus.FRESH, 1500)


def test_a_message_received_long_ago_is_no_heartbeat(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    writer.heartbeat(NOW + 2 * 10**9)
    publish(writer, 1)
    assert reader.read_best(NOW + 2 * 10**9).status is ReadStatus.FRESH


def test_the_hosts_monotonic_clock_is_the_default(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path, stale_after_ns=3600 * 10**9)
    received = time.monotonic_ns()
    writer.publish(make_book(), 1, 0, received, SyncState.SYNCED)
    best = reader.read_best()
    assert best.status is ReadStatus.FRESH
    assert 0 <= best.age_ns <= time.monotonic_ns() - received


@pytest.mark.parametrize("state", [SyncState.UNSYNCED, SyncState.BUFFERING])
def test_a_book_out_of_sync_keeps_its_levels_and_says_so(path: Path, state: SyncState) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 8)
    writer.set_state(state)
    for read in (reader.read_best, reader.depth, reader.top):
        assert read(now_mono_ns=NOW).status is ReadStatus.UNSYNCED
    best = reader.read_best(NOW)
    assert (best.bid, best.update_id) == (Decimal(100), 8)
    assert len(reader.depth(None, NOW).asks) == 3
    writer.set_state(SyncState.SYNCED)
    assert reader.read_best(NOW).status is ReadStatus.FRESH


def test_a_new_writers_book_is_unsynced_and_empty(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    writer.heartbeat(NOW)
    best = reader.read_best(NOW)
    assert (best.status, best.bid, best.ask, best.update_id, best.age_ns) == (ReadStatus.UNSYNCED, None, None, 0, -1)


# ------------------------------------------------------------------------------------------------- broken-off writes


def test_a_write_stopped_in_the_middle_leaves_the_other_slot(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 1, bid=100)
    publish(writer, 2, bid=200)
    file = File(path)
    newest, other = file.slots()
    sequence = file.word(newest)
    file.set_word(newest, sequence + 3)
    assert reader.read_raw(NOW)[7] == 1
    assert reader.read_best(NOW).bid == Decimal(100)
    file.set_word(other, file.word(other) + 1)
    assert reader.read_best(NOW).status is ReadStatus.BUSY
    assert reader.read_raw(NOW) == (ReadStatus.BUSY, 0, 0, 0, 0, 0, 0, 0, -1)
    assert reader.depth(1, NOW).status is ReadStatus.BUSY
    assert reader.top(1, NOW).status is ReadStatus.BUSY
    file.set_word(newest, sequence)
    assert reader.read_raw(NOW)[7] == 2


def test_a_new_writer_mends_what_a_dead_one_left(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 1)
    file = File(path)
    for slot in file.slots():
        file.set_word(slot, file.word(slot) | 1)
    assert reader.read_best(NOW).status is ReadStatus.BUSY
    successor = BookWriter(path, PAIR, -2, -3)
    assert reader.read_best(NOW).status is ReadStatus.UNSYNCED
    for update_id in range(2, 6):
        publish(successor, update_id)
        assert reader.read_raw(NOW)[7] == update_id


@pytest.mark.parametrize(("word", "value"), [(7, 51), (8, 2**62), (5, 19), (6, -31)])
def test_a_slot_that_makes_no_sense_is_never_followed(path: Path, word: int, value: int) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 1)
    file = File(path)
    file.set_word(file.slots()[0] + 8 * word, value)
    assert reader.read_best(NOW).status is ReadStatus.BUSY


# ------------------------------------------------------------------------------------------------------- successors


def test_a_new_writer_takes_over_in_place_and_raises_the_incarnation(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3, incarnation=5), BookReader(path)
    publish(writer, 1)
    assert (reader.read_best(NOW).status, reader.incarnation) == (ReadStatus.FRESH, 5)
    inode = path.stat().st_ino
    successor = BookWriter(path, PAIR, -2, -3, incarnation=5)
    assert (successor.incarnation, path.stat().st_ino) == (6, inode)
    assert (reader.read_best(NOW).status, reader.incarnation) == (ReadStatus.UNSYNCED, 6)
    publish(successor, 2)
    assert reader.read_raw(NOW)[7] == 2
    assert BookWriter(path, PAIR, -2, -3, incarnation=1000).incarnation == 1000


@pytest.mark.parametrize("depth", [50, 10])
def test_a_writer_that_was_succeeded_may_not_write(path: Path, depth: int) -> None:
    writer = BookWriter(path, PAIR, -2, -3)
    publish(BookWriter(path, PAIR, -2, -3, depth=depth), 9)
    for act in (
        lambda: publish(writer, 1),
        lambda: writer.heartbeat(1),
        lambda: writer.set_state(SyncState.SYNCED),
    ):
        with pytest.raises(BookError, match="ETH-USDT: another writer has taken over"):
            act()
    writer.close(unlink=True)
    assert BookReader(path).read_raw(NOW)[7] == 9


@pytest.mark.parametrize(("pair", "depth"), [(PAIR, 10), ("BTC-USDT", 50)])
def test_a_file_of_another_layout_is_replaced_and_readers_follow(path: Path, pair: str, depth: int) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3, incarnation=5), BookReader(path)
    publish(writer, 1)
    assert reader.capacity == 0
    assert reader.read_raw(NOW)[7] == 1
    old = File(path)
    successor = BookWriter(path, pair, -2, -3, depth=depth)
    assert old.word(RETIRED) == 1
    publish(successor, 2)
    assert reader.read_raw(NOW)[7] == 2
    assert (reader.capacity, reader.incarnation, reader.pair) == (depth, 6, pair)


def test_a_retired_file_is_not_written_on(path: Path) -> None:
    publish(BookWriter(path, PAIR, -2, -3), 1)
    File(path).set_word(RETIRED, 1)
    reader = BookReader(path)
    assert reader.read_best(NOW).status is ReadStatus.MISSING
    publish(BookWriter(path, PAIR, -2, -3), 2)
    assert reader.read_raw(NOW)[7] == 2


def test_a_file_replaced_behind_the_readers_back_is_found_once_the_old_one_is_stale(path: Path) -> None:
    publish(BookWriter(path, PAIR, -2, -3), 1)
    reader = BookReader(path)
    assert reader.read_best(NOW).status is ReadStatus.FRESH
    path.unlink()
    assert reader.read_best(NOW).status is ReadStatus.FRESH
    assert reader.read_best(NOW + 10**9).status is ReadStatus.MISSING
    successor = BookWriter(path, PAIR, -2, -3)
    successor.publish(make_book(), 2, 0, NOW + 10**9, SyncState.SYNCED)
    assert reader.read_best(NOW + 10**9).update_id == 2


def test_a_path_that_cannot_be_looked_at_does_not_spoil_a_stale_reading(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    publish(BookWriter(path, PAIR, -2, -3), 1)
    reader = BookReader(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        raw = reader.read_raw(NOW + 10**9)
    assert raw == (ReadStatus.STALE, 10000, 1000, 10100, 5000, -2, -3, 1, 10**9)


def test_leaving_says_unsynced_at_once_and_unlinking_missing(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 1)
    writer.close()
    writer.close()
    assert writer.closed
    assert reader.read_best(NOW).status is ReadStatus.UNSYNCED
    with pytest.raises(BookError, match="is closed"):
        publish(writer, 2)
    successor = BookWriter(path, PAIR, -2, -3)
    publish(successor, 3)
    assert reader.read_best(NOW).status is ReadStatus.FRESH
    successor.unlink()
    assert not path.exists()
    assert reader.read_best(NOW).status is ReadStatus.MISSING


def test_a_closed_reader_maps_again(path: Path) -> None:
    publish(BookWriter(path, PAIR, -2, -3), 1)
    reader = BookReader(path)
    for _ in range(2):
        assert reader.read_best(NOW).status is ReadStatus.FRESH
        reader.close()


# ----------------------------------------------------------------------------------------------------- strange files


@pytest.mark.parametrize("size", [0, 10, 255, 256, 1000, 3700])
def test_a_truncated_file_is_missing_and_is_replaced(path: Path, size: int) -> None:
    BookWriter(path, PAIR, -2, -3)
    os.truncate(path, size)
    reader = BookReader(path)
    assert reader.read_best(NOW).status is ReadStatus.MISSING
    publish(BookWriter(path, PAIR, -2, -3), 1)
    assert reader.read_best(NOW).status is ReadStatus.FRESH


def test_a_file_that_is_no_book_is_missing_and_is_replaced(path: Path) -> None:
    path.write_bytes(b"x" * 5000)
    reader = BookReader(path)
    assert reader.read_best(NOW).status is ReadStatus.MISSING
    publish(BookWriter(path, PAIR, -2, -3), 1)
    assert reader.read_best(NOW).status is ReadStatus.FRESH


@pytest.mark.parametrize(("offset", "value"), [(16, 64), (24, 2**60), (32, 0), (32, 51), (32, -1)])
def test_a_header_that_contradicts_itself_is_missing(path: Path, offset: int, value: int) -> None:
    BookWriter(path, PAIR, -2, -3)
    File(path).set_word(offset, value)
    assert BookReader(path).read_best(NOW).status is ReadStatus.MISSING
    publish(BookWriter(path, PAIR, -2, -3), 1)
    assert BookReader(path).read_best(NOW).status is ReadStatus.FRESH


def test_another_version_of_the_layout_is_refused_by_readers_and_replaced_by_writers(path: Path) -> None:
    BookWriter(path, PAIR, -2, -3, incarnation=8)
    File(path).set_word(8, 1)
    with pytest.raises(BookError, match="version 1, this engine reads 2"):
        BookReader(path).read_best(NOW)
    assert BookWriter(path, PAIR, -2, -3).incarnation == 9
    assert BookReader(path).read_best(NOW).status is ReadStatus.STALE


def test_what_an_earlier_writer_left_aside_is_no_obstacle(path: Path) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half")
    publish(BookWriter(path, PAIR, -2, -3), 1)
    assert BookReader(path).read_best(NOW).status is ReadStatus.FRESH
    assert os.listdir(path.parent) == [path.name]


def test_a_full_file_system_is_told_and_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(BookError, match=r"binance\.ETH-USDT\.book: No space left"):
        BookWriter(path, PAIR, -2, -3)
    assert os.listdir(path.parent) == []


def test_failures_of_the_file_system_name_the_path(shared_folder: Path, path: Path) -> None:
    with pytest.raises(BookError, match=r"absent/x\.book: No such file"):
        BookWriter(shared_folder / "absent" / "x.book", PAIR, -2, -3)
    path.mkdir()
    with pytest.raises(BookError, match="Is a directory"):
        BookWriter(path, PAIR, -2, -3)


@pytest.mark.parametrize(("pair", "depth"), [(PAIR, 0), (PAIR, 10_001), ("", 5), ("X" * 64, 5)])
def test_what_does_not_fit_the_layout_is_refused(path: Path, pair: str, depth: int) -> None:
    with pytest.raises(BookError):
        BookWriter(path, pair, -2, -3, depth=depth)
    assert not path.exists()


def test_of_an_invalid_book_only_the_state_is_published(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3), BookReader(path)
    publish(writer, 1)
    book = make_book()
    with pytest.raises(BookError):
        book.apply_diff([("junk", "1")], [])
    with pytest.raises(BookError, match="'junk'"):
        writer.publish(book, 2, 0, NOW, SyncState.SYNCED)
    assert reader.read_raw(NOW)[7] == 1
    writer.publish(book, 2, 0, NOW, SyncState.BUFFERING)
    best = reader.read_best(NOW)
    assert (best.status, best.update_id, best.bid) == (ReadStatus.UNSYNCED, 1, Decimal(100))


def test_the_file_is_its_owners_and_laid_out_as_documented(path: Path) -> None:
    writer = BookWriter(path, PAIR, -2, -3, depth=2, incarnation=77)
    writer.publish(make_book(), 42, 1234, NOW, SyncState.SYNCED)
    file = File(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert file.map[:8] == b"ENGBOOK\0"
    assert (file.word(8), file.word(16), file.word(24), file.word(32)) == (2, path.stat().st_size, 256, 2)
    assert file.word(40) == os.getpid()
    assert file.map[64:128].rstrip(b"\0").decode() == PAIR
    assert (file.word(INCARNATION), file.word(RETIRED), file.word(HEARTBEAT)) == (77, 0, NOW)
    words = [file.word(file.slots()[0] + 8 * word) for word in range(32)]
    assert words[0] % 2 == 0
    assert words[1:12] == [42, 1234, NOW, 2, -2, -3, 2, 2, 3, 3, 0]
    assert words[16:] == [10000, 1000, 9900, 2000, 10100, 5000, 10200, 6000, *[0] * 8]


def test_a_wide_book_is_read_exactly_and_laid_out_as_documented(path: Path) -> None:
    writer, reader = BookWriter(path, PAIR, -2, -3, depth=2), BookReader(path)
    book = make_book()
    book.apply_diff([("100", "1000000000000000.00000001"), ("97", "0.5")], [("101", "0.00000002")])
    assert book.is_wide
    writer.publish(book, 42, 1234, NOW, SyncState.SYNCED)
    best = reader.read_best(NOW)
    assert (best.bid_size, best.ask_size) == (Decimal("1000000000000000.00000001"), Decimal("0.00000002"))
    assert reader.read_raw(NOW) == (ReadStatus.FRESH, 10000, 10**23 + 1, 10100, 2, -2, -8, 42, 0)
    view = reader.depth(None, NOW)
    assert view.bids == [(Decimal(100), Decimal("1000000000000000.00000001")), (Decimal(99), Decimal(2))]
    assert view.asks == [(Decimal(101), Decimal("0.00000002")), (Decimal(102), Decimal(6))]
    top = reader.top(1, NOW)
    assert (top.bids.tolist(), top.asks.tolist()) == ([[10000, 10**23 + 1]], [[10100, 2]])
    file = File(path)
    words = [file.word(file.slots()[0] + 8 * word) for word in range(32)]
    assert words[6:12] == [-8, 2, 2, 4, 3, 1]
    assert words[16:] == [10000, 1, 9900, 2 * 10**8, 10100, 2, 10200, 6 * 10**8, 10**5, 0, 0, 0, *[0] * 4]
    writer.set_state(SyncState.UNSYNCED)
    assert reader.read_best(NOW).bid_size == Decimal("1000000000000000.00000001")
    writer.publish(make_book(), 43, 1234, NOW, SyncState.SYNCED)
    assert reader.read_raw(NOW)[:5] == (ReadStatus.FRESH, 10000, 1000, 10100, 5000)
    assert reader.top(1, NOW).bids.dtype == np.int64
