"""From a raw Binance depth frame to the book in shared memory, beside a dictionary book on the same frames.

Frames are made up, from a seed: 1,000 levels a side, about 10 changes a side in a frame, their distances from the mid
exponential with a mean of 12 ticks, 30 % of them deletions. The peer decodes the same frame with msgspec, typed, and
puts it on two ``SortedDict`` of integers made from the digits: faster than ``Decimal``, and as exact. Publishing is
ours alone; ``applied`` is the same without it, for a like comparison.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import Line, Options, line, median, say
from engine.book import BookSync, BookWriter, OrderBook, SyncState
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.feed import MarketDataFeed
from engine.connectors.symbols import SymbolMap
from engine.messages import TradingRule

PAIR, SYMBOL = "BTC-USDT", "BTCUSDT"
LEVELS = 1000
CHANGES = 10
MEAN_DISTANCE = 12
DELETIONS = 0.3
MID = 6_000_000
DEPTH = 50
Levels = list[tuple[str, str]]


def price_text(ticks: int) -> str:
    return f"{ticks // 100}.{ticks % 100:02d}000000"


def size_text(rng: random.Random) -> str:
    return f"{rng.randrange(1, 400_000) / 100_000:.5f}000"


def snapshot(rng: random.Random) -> bytes:
    bids = [[price_text(MID - 1 - n), size_text(rng)] for n in range(LEVELS)]
    asks = [[price_text(MID + 1 + n), size_text(rng)] for n in range(LEVELS)]
    return json.dumps({"lastUpdateId": 1, "bids": bids, "asks": asks}).encode()


def frames(rng: random.Random, count: int) -> list[bytes]:
    """Frames as the combined stream sends them, in sequence."""
    return [_frame(rng, number + 2) for number in range(count)]


def _frame(rng: random.Random, number: int) -> bytes:
    def changes(sign: int) -> list[list[str]]:
        distances = {1 + int(rng.expovariate(1 / MEAN_DISTANCE)) for _ in range(CHANGES + 2)}
        return [
            [price_text(MID + sign * far), "0.00000000" if rng.random() < DELETIONS else size_text(rng)]
            for far in sorted(distances)
        ]

    event = {"e": "depthUpdate", "E": 1_700_000_000_000 + number, "s": SYMBOL, "U": number, "u": number}
    event |= {"b": changes(-1), "a": changes(1)}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": event}, separators=(",", ":")).encode()


# ------------------------------------------------------------------------------------------------------------ ours


class Ours:
    """The order-book actor's own path, without its socket and its bus."""

    def __init__(self, first: bytes, folder: Path, *, publishes: bool) -> None:
        symbols = SymbolMap(lambda base, quote: base + quote)
        symbols.learn([_rule()])
        protocol = BinanceMarketData("wss://venue", symbols)
        book = OrderBook(PAIR, -2, -5)
        self._sync = BookSync(book, protocol.sequence_rule())
        self._feed = MarketDataFeed(protocol, {PAIR: self._sync})
        self._plan = protocol.connections([PAIR])[0]
        self._writer = BookWriter(folder / "bench.book", PAIR, -2, -5, depth=DEPTH) if publishes else None
        need = self._feed.on_open(self._plan).snapshots[0]
        self._feed.on_snapshot(PAIR, first, need.epoch)

    def take(self, frame: bytes) -> None:
        received_ns = time.monotonic_ns()
        result = self._feed.on_frame(self._plan, frame, received_ns)
        if self._writer is not None:
            for _ in result.updated:
                sync = self._sync
                self._writer.publish(sync.book, sync.update_id, sync.time_ns, received_ns, sync.state)

    def best(self) -> tuple[int, int]:
        if self._sync.state is not SyncState.SYNCED:
            raise RuntimeError(f"our book is {self._sync.state.name}")
        bid, _, ask, _ = self._sync.book.best_raw()
        return bid, ask

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close(unlink=True)


def _rule() -> TradingRule:
    return msgspec.convert(
        {
            "pair": PAIR,
            "symbol": SYMBOL,
            "base": "BTC",
            "quote": "USDT",
            "price_increment": "0.01",
            "size_increment": "0.00001",
        },
        TradingRule,
    )


# ------------------------------------------------------------------------------------------------------------ peer


class _Event(msgspec.Struct, gc=False):
    U: int
    u: int
    b: Levels
    a: Levels


class _Combined(msgspec.Struct, gc=False):
    data: _Event


class Sorted:
    """A book on two SortedDict, prices and sizes as exact integers of the digits."""

    def __init__(self, first: bytes, sorted_dict: Callable[[], Any]) -> None:
        self._bids, self._asks = sorted_dict(), sorted_dict()
        self._decode = msgspec.json.Decoder(_Combined).decode
        decoded = json.loads(first)
        self._last = decoded["lastUpdateId"]
        self._apply(self._bids, decoded["bids"])
        self._apply(self._asks, decoded["asks"])

    def take(self, frame: bytes) -> None:
        event = self._decode(frame).data
        if event.U - self._last > 1:
            raise RuntimeError("a gap")
        self._last = event.u
        self._apply(self._bids, event.b)
        self._apply(self._asks, event.a)

    def best(self) -> tuple[int, int]:
        return self._bids.peekitem(-1)[0] // 10**6, self._asks.peekitem(0)[0] // 10**6

    @staticmethod
    def _apply(side: Any, levels: Levels) -> None:
        for price, size in levels:
            key, value = int(price.replace(".", "")), int(size.replace(".", ""))
            if value:
                side[key] = value
            else:
                side.pop(key, None)


# ---------------------------------------------------------------------------------------------------------- measure


def run(options: Options) -> Iterator[Line]:
    rng = random.Random(7)
    first, stream = snapshot(rng), frames(rng, 2_000 if options.quick else 50_000)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        folder = Path(name)
        found: dict[str, list[float]] = {"published": [], "applied": [], "sortedcontainers": []}
        for number in range(options.times(5)):
            say(f"book_raw_diff: run {number + 1}")
            for case, book in _books(first, folder).items():
                found[case].append(_microseconds(book, stream))
            if number == 0:
                _agree(first, stream, folder)
    peers = {name: median(found[name]) for name in ("sortedcontainers",) if found[name]}
    size = round(sum(map(len, stream)) / len(stream))
    for case in ("published", "applied"):
        yield line(
            "book_raw_diff",
            median(found[case]),
            "us",
            peers,
            case=case,
            frames=len(stream),
            bytes=size,
            runs=len(found[case]),
        )


def _books(first: bytes, folder: Path) -> dict[str, Ours | Sorted]:
    books: dict[str, Ours | Sorted] = {
        "published": Ours(first, folder, publishes=True),
        "applied": Ours(first, folder, publishes=False),
    }
    try:
        from sortedcontainers import SortedDict
    except ImportError:
        say("sortedcontainers is not installed: no peer to compare with (pip install 'engine[bench]')")
    else:
        books["sortedcontainers"] = Sorted(first, SortedDict)
    return books


def _microseconds(book: Ours | Sorted, stream: list[bytes]) -> float:
    take = book.take
    began = time.perf_counter_ns()
    for frame in stream:
        take(frame)
    took = time.perf_counter_ns() - began
    book.best()
    if isinstance(book, Ours):
        book.close()
    return took / len(stream) / 1e3


def _agree(first: bytes, stream: list[bytes], folder: Path) -> None:
    """All books must show the same best bid and ask after each frame; otherwise a figure says nothing."""
    books = _books(first, folder)
    for frame in stream[:2_000]:
        for book in books.values():
            book.take(frame)
        bests = {name: book.best() for name, book in books.items()}
        if len(set(bests.values())) > 1:
            raise RuntimeError(f"the books differ: {bests}")
    for book in books.values():
        if isinstance(book, Ours):
            book.close()
