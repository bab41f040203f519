"""From a raw Binance depth frame to the book in shared memory, beside other books on the same frames.

Ours is what the order-book actor does with a frame, without its socket and its bus. ``published`` ends in shared
memory; ``applied`` is the same without publishing, which the peers do not do; ``general`` is the way of frames that
the hot path declines. Frames are taken in slices, each book in turn, each slice read into the cache before it is
timed, as a socket would have; a figure is the median slice's CPU time (nothing here ever waits, and the machine is
shared).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.book_peers import Best, Book, available
from benchmarks.book_workloads import Workload, recorded, synthetic
from benchmarks.chart import bars
from benchmarks.common import Line, Options, line, say
from engine.book import BookSync, BookWriter, OrderBook, SyncState, exponent_of
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.feed import MarketDataFeed
from engine.connectors.symbols import SymbolMap

SLICE = 500
DEPTH = 50
IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "book-raw-diff.png"


class Ours:
    """The order-book actor's own path."""

    def __init__(self, workload: Workload, folder: Path, *, publishes: bool, is_hot: bool = True) -> None:
        rule = workload.rule
        symbols = SymbolMap(lambda base, quote: base + quote)
        symbols.learn([rule])
        protocol = (BinanceMarketData if is_hot else _General)("wss://venue", symbols)
        exponents = exponent_of(rule.price_increment), exponent_of(rule.size_increment)
        self._sync = BookSync(OrderBook(rule.pair, *exponents), protocol.sequence_rule())
        self._feed = MarketDataFeed(protocol, {rule.pair: self._sync})
        self._plan = protocol.connections([rule.pair])[0]
        path = folder / f"{len(list(folder.iterdir()))}.book"
        self._writer = BookWriter(path, rule.pair, *exponents, depth=DEPTH) if publishes else None
        need = self._feed.on_open(self._plan).snapshots[0]
        self._feed.on_snapshot(rule.pair, workload.first, need.epoch)

    def take(self, frame: bytes) -> None:
        received_ns = time.monotonic_ns()
        result = self._feed.on_frame(self._plan, frame, received_ns)
        if self._writer is not None:
            for _ in result.updated:
                self._writer.publish_standing(self._sync, received_ns)

    def best(self) -> Best:
        if self._sync.state is not SyncState.SYNCED:
            raise RuntimeError(f"our book is {self._sync.state.name}")
        bid, ask = self._sync.book.best_bid(), self._sync.book.best_ask()
        if bid is None or ask is None:
            raise RuntimeError("a side of our book is empty")
        return bid[0], ask[0]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close(unlink=True)


class _General(BinanceMarketData):
    def hot_path(self) -> Any:
        return None


# ---------------------------------------------------------------------------------------------------------- measure


def run(options: Options) -> Iterator[Line]:
    count = 1_000 if options.quick else 20_000
    peers = available()
    found = [_measure(synthetic(count), peers, options)]
    capture = recorded(count)
    if capture is None:
        say("book_raw_diff: no recorded traffic beside the checkout, so the made-up frames alone")
    else:
        found.append(_measure(capture, peers, options))
    for lines in found:
        yield from lines
    if not options.quick:
        bars(IMAGE, "A raw depth frame, decoded and on the book: CPU time in microseconds", _rows(found))
    yield from _depths(options)


def _measure(workload: Workload, peers: dict[str, Callable[[bytes], Book]], options: Options) -> list[Line]:
    say(f"book_raw_diff: {workload.name}")
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        for number in range(options.times(3)):
            books = _books(workload, Path(name), peers)
            for case, values in _slices(books, workload.frames, check=number == 0).items():
                figures.setdefault(case, []).extend(values)
            for book in books.values():
                book.close()
    medians = {case: statistics.median(values) for case, values in figures.items()}
    return [
        line(
            "book_raw_diff",
            medians[case],
            "us",
            {peer: medians[peer] for peer in peers},
            case=case,
            workload=workload.name,
            frames=len(workload.frames),
            bytes=round(sum(map(len, workload.frames)) / len(workload.frames)),
            slices=len(figures[case]),
            fastest=round(min(figures[case]), 3),
        )
        for case in ("published", "applied", "general")
    ]


def _books(workload: Workload, folder: Path, peers: dict[str, Callable[[bytes], Book]]) -> dict[str, Book]:
    ours: dict[str, Book] = {
        "published": Ours(workload, folder, publishes=True),
        "applied": Ours(workload, folder, publishes=False),
        "general": Ours(workload, folder, publishes=True, is_hot=False),
    }
    return ours | {name: make(workload.first) for name, make in peers.items()}


def _slices(books: dict[str, Book], frames: list[bytes], *, check: bool) -> dict[str, list[float]]:
    """Microseconds a frame, of each slice. ``check``: the books must agree behind each, or a figure says nothing."""
    found: dict[str, list[float]] = {name: [] for name in books}
    for at in range(0, len(frames), SLICE):
        part = frames[at : at + SLICE]
        for name, book in books.items():
            b"".join(part)
            take = book.take
            began = time.thread_time_ns()
            for frame in part:
                take(frame)
            found[name].append((time.thread_time_ns() - began) / len(part) / 1e3)
        if check:
            bests: dict[str, tuple[Decimal, Decimal]] = {name: book.best() for name, book in books.items()}
            if len(set(bests.values())) > 1:
                raise RuntimeError(f"the books differ: {bests}")
    return found


def _depths(options: Options) -> Iterator[Line]:
    """How the figure grows with the book, near the top and at its worst."""
    count = 1_000 if options.quick else 10_000
    for is_uniform in (False, True):
        figures = {}
        for levels in (100, 1_000, 5_000):
            workload = synthetic(count, levels=levels, uniform=is_uniform)
            with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
                book = Ours(workload, Path(name), publishes=True)
                figures[str(levels)] = statistics.median(_slices({"ours": book}, workload.frames, check=False)["ours"])
                book.close()
        yield line(
            "book_raw_diff",
            figures["1000"],
            "us",
            case="by levels a side",
            workload=workload.name,
            levels={levels: round(value, 3) for levels, value in figures.items()},
            growth=round(figures["5000"] / figures["100"], 2),
        )


def _rows(found: list[list[Line]]) -> list[tuple[str, float]]:
    rows = []
    for published, *_ in found:
        rows.append((f"engine, in shared memory · {published['workload']}", published["ours"]))
        rows += [(f"{peer} · {published['workload']}", value) for peer, value in published["peers"].items()]
    return rows
