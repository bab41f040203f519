"""One process writes as fast as it can, and dies at any moment; another reads all along."""

import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from engine.book import BookReader, BookWriter, OrderBook, ReadStatus, SyncState, TopView

pytestmark = pytest.mark.processes

PAIR = "ETH-USDT"
PATTERNS = 16
DEPTH = 50
HOUR = 3600 * 10**9
Fork = Callable[[Callable[[], None]], int]


def pattern(k: int) -> OrderBook:
    """A book of which every number, and how many there are, tells ``k``."""
    book = OrderBook(PAIR, 0, 0)
    book.apply_snapshot(
        [(str((k + 1) * 10_000 - i), str(k + 1)) for i in range(10 + k)],
        [(str((k + 1) * 10_000 + 1 + i), str(k + 1)) for i in range(30 - k)],
    )
    return book


BOOKS = [pattern(k) for k in range(PATTERNS)]
RAW = [book.best_raw() for book in BOOKS]
BYTES = [tuple(side.tobytes() for side in book.to_numpy(DEPTH)[:2]) for book in BOOKS]


def write_for_ever(path: Path, incarnation: int) -> Callable[[], None]:
    def body() -> None:
        writer = BookWriter(path, PAIR, 0, 0, DEPTH, incarnation)
        for update_id in count(1):
            writer.publish(BOOKS[update_id % PATTERNS], update_id, 0, time.monotonic_ns(), SyncState.SYNCED)

    return body


def check_top(view: TopView) -> None:
    assert (view.bids.tobytes(), view.asks.tobytes()) == BYTES[view.update_id % PATTERNS]


def has_broken_off_write(path: Path) -> bool:
    """Whether a slot's sequence is odd."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        (slot_size,) = struct.unpack_from("<Q", data, 24)
        return any(struct.unpack_from("<Q", data, 256 + slot * slot_size)[0] % 2 for slot in range(2))


def until_published(reader: BookReader, incarnation: int) -> None:
    """Waits for a writer's first book."""
    deadline = time.monotonic() + 10
    while True:
        raw = reader.read_raw()
        if raw[0] is ReadStatus.FRESH and reader.incarnation == incarnation and raw[7] > 0:
            return
        assert time.monotonic() < deadline, "the writer published nothing within 10 s"
        os.sched_yield()


@pytest.fixture
def reader(shared_folder: Path) -> Iterator[BookReader]:
    reader = BookReader(shared_folder / "x.book", stale_after_ns=HOUR)
    yield reader
    reader.close()


def test_no_read_is_torn_while_the_writer_writes_at_full_speed(fork: Fork, reader: BookReader) -> None:
    fork(write_for_ever(Path(reader.path), 1))
    until_published(reader, 1)
    seen = set()
    last = busy = 0
    for _ in range(1_000_000):
        status, bid, bid_size, ask, ask_size, _, _, update_id, _ = reader.read_raw()
        if status is ReadStatus.BUSY:
            busy += 1
            continue
        assert (bid, bid_size, ask, ask_size) == RAW[update_id % PATTERNS]
        assert update_id >= last
        last = update_id
        seen.add(update_id % PATTERNS)
    for _ in range(100_000):
        view = reader.top(DEPTH)
        if view.status is ReadStatus.BUSY:
            busy += 1
            continue
        check_top(view)
    assert len(seen) == PATTERNS
    assert busy < 1000


def test_writers_killed_at_any_moment_hang_nobody(fork: Fork, reader: BookReader) -> None:
    choose = random.Random(20)
    path = Path(reader.path)
    in_the_middle = 0
    for incarnation in range(1, 201):
        pid = fork(write_for_ever(path, incarnation))
        until_published(reader, incarnation)
        for _ in range(choose.randrange(300)):
            view = reader.top(DEPTH)
            if view.status is not ReadStatus.BUSY:
                check_top(view)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        last = reader.top(DEPTH)
        assert last.status is ReadStatus.FRESH
        check_top(last)
        assert reader.read_raw()[7] == last.update_id
        in_the_middle += has_broken_off_write(path)
    assert in_the_middle > 0


def test_a_killed_writer_is_stale_by_the_readers_clock(fork: Fork, reader: BookReader) -> None:
    pid = fork(write_for_ever(Path(reader.path), 1))
    until_published(reader, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    impatient = BookReader(reader.path)
    best = impatient.read_best(time.monotonic_ns() + 500_000_001)
    assert best.status is ReadStatus.STALE
    assert best.bid is not None
    assert best.age_ns > 500_000_000
