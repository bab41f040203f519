"""Reading a book from shared memory while another process writes it.

The writer puts each update on its book of 50 levels a side and publishes it: 10,000 a second, then as fast as it can.
Both best sizes are always the update's id, so that a reading mixed of two updates would show. Figures are CPU time a
read; ``retries`` are a reader's tries that met a write in the middle, a million reads.

A reader keeps the Decimals of what has not changed since it last looked. ``read_best, all new`` is the other extreme: a
book whose best prices and sizes are all others at each reading, published in between by the same process; what the
publishing takes by itself is taken off.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Line, Options, line, median, say
from engine.book import BookReader, BookWriter, OrderBook, ReadStatus, SyncState

DEPTH = 50
TOP = 20
PAIR = "BTC-USDT"
STALE_AFTER_NS = 60_000_000_000


def run(options: Options) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        folder = Path(name)
        loop = _compiled(folder)
        yield _all_new(folder / "new.book", options)
        for rate in (10_000, 0):
            pid = _start_writer(folder / f"{rate}.book", rate)
            try:
                yield from _measure(folder / f"{rate}.book", rate, loop, options)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _measure(path: Path, rate: int, loop: Any, options: Options) -> Iterator[Line]:
    reader = BookReader(path, stale_after_ns=STALE_AFTER_NS)
    deadline = time.monotonic() + 10
    while reader.read_best().status is not ReadStatus.FRESH:
        if time.monotonic() > deadline:
            raise RuntimeError("the writer does not write")
    say(f"book_read: {rate or 'as many as can be'} updates a second")
    cases: dict[str, Callable[[], Any]] = {
        "read_raw": reader.read_raw,
        "read_best": reader.read_best,
        f"top {TOP} as numpy": lambda: reader.top(TOP),
    }
    count = 20_000 if options.quick else 200_000
    for case, read in cases.items():
        first, retries = reader.read_raw()[7], reader.retries
        began = time.monotonic()
        took = median(_nanoseconds(read, count) for _ in range(options.times(5)))
        updates = (reader.read_raw()[7] - first) / (time.monotonic() - began)
        reads = count * options.times(5)
        yield _line(case, rate, took, updates, reads, reader.retries - retries)
    if loop is not None:
        reads = 100_000 if options.quick else 10_000_000
        first, retries, began = reader.read_raw()[7], reader.retries, time.monotonic()
        seconds, other, torn = loop.read_many(reader, reads)
        updates = (reader.read_raw()[7] - first) / (time.monotonic() - began)
        extra = {"not_fresh": other, "torn": torn}
        yield _line("compiled", rate, seconds / reads * 1e9, updates, reads, reader.retries - retries, **extra)


def _all_new(path: Path, options: Options) -> Line:
    """What a reading costs of which nothing can be kept."""
    say("book_read: another best price and size at each reading")
    writer, reader = BookWriter(path, PAIR, -2, -8, depth=DEPTH), BookReader(path, stale_after_ns=STALE_AFTER_NS)
    books = [OrderBook(PAIR, -2, -8) for _ in range(2)]
    for number, book in enumerate(books):
        bids = [(f"{64000 + number - n / 100:.2f}", f"1.2345678{number}") for n in range(DEPTH)]
        asks = [(f"{64001.01 + number + n / 100:.2f}", f"2.3456789{number}") for n in range(DEPTH)]
        book.apply_snapshot(bids, asks)
    now = time.monotonic_ns()
    seen = []
    for number, book in enumerate(books):
        writer.publish(book, number, now, now, SyncState.SYNCED)
        seen.append(reader.read_best())
    if any(one == other for one, other in zip(*((v.bid, v.bid_size, v.ask, v.ask_size) for v in seen), strict=True)):
        raise RuntimeError("the two books have something in common")

    def publish_both() -> None:
        for book in books:
            writer.publish(book, 1, now, now, SyncState.SYNCED)

    def publish_and_read_both() -> None:
        for book in books:
            writer.publish(book, 1, now, now, SyncState.SYNCED)
            reader.read_best()

    count = 10_000 if options.quick else 100_000
    times = options.times(5)
    took = median(
        (_nanoseconds(publish_and_read_both, count) - _nanoseconds(publish_both, count)) / 2 for _ in range(times)
    )
    writer.unlink()
    return line("book_read", took, "ns", case="read_best, all new", writer="between two reads", reads=2 * count * times)


def _line(case: str, rate: int, took: float, updates: float, reads: int, retries: int, **extra: Any) -> Line:
    return line(
        "book_read",
        took,
        "ns",
        case=case,
        writer=f"{rate}/s" if rate else "full speed",
        updates_per_s=round(updates),
        reads=reads,
        retries_per_million=round(retries / reads * 1e6, 1),
        **extra,
    )


def _nanoseconds(read: Callable[[], Any], count: int) -> float:
    began = time.thread_time_ns()
    for _ in range(count):
        read()
    return (time.thread_time_ns() - began) / count


def _compiled(folder: Path) -> Any:
    """The loop in Cython, built for this run; None, and said so, where it cannot be."""
    try:
        import pyximport
    except ImportError:
        say("book_read: no Cython here, so no figure for compiled readers (pip install 'engine[dev]')")
        return None
    root = Path(__file__).resolve().parents[1]
    installed = pyximport.install(
        build_dir=str(folder / "build"), setup_args={"include_dirs": [str(root)]}, language_level=3
    )
    try:
        return importlib.import_module("benchmarks.book_read_loop")
    except ImportError as error:
        say(f"book_read: no figure for compiled readers: {error}")
        return None
    finally:
        pyximport.uninstall(*installed)


def _start_writer(path: Path, rate: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _write(path, rate)
        except BaseException as error:
            print(f"book_read: the writer: {error!r}", file=sys.stderr)
        finally:
            os._exit(1)
    return pid


def _write(path: Path, rate: int) -> None:
    book = OrderBook(PAIR, -2, 0)
    bids = [(f"{100 - n / 100:.2f}", "1") for n in range(DEPTH)]
    asks = [(f"{100.01 + n / 100:.2f}", "1") for n in range(DEPTH)]
    book.apply_snapshot(bids, asks)
    writer = BookWriter(path, PAIR, -2, 0, depth=DEPTH)
    parent = os.getppid()
    update_id, began = 0, time.monotonic_ns()
    while os.getppid() == parent:
        update_id += 1
        size = str(update_id)
        book.apply_diff((("100.00", size),), (("100.01", size),))
        now = time.monotonic_ns()
        writer.publish(book, update_id, now, now, SyncState.SYNCED)
        while rate and time.monotonic_ns() < began + update_id * 1_000_000_000 // rate:
            if began + update_id * 1_000_000_000 // rate - time.monotonic_ns() > 60_000:
                time.sleep(30e-6)
