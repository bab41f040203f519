"""500 pairs in one order-book actor, each with 10 depth frames a second: its CPU and memory.

Another process sends a frame of every pair each 100 ms over the connections that the venue's protocol plans. CPU is the
actor's own, as a share of one core; memory is what the pairs add to the process, books of 1,000 levels a side and their
files in shared memory included.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.book_workloads import Workload, synthetic
from benchmarks.common import Line, Options, line, say
from benchmarks.feed_bench import Reading, framed, sender
from benchmarks.live import pss_mb
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.symbols import SymbolMap

PAIRS = 500
EVERY_S = 0.1
SETTLING = 20
"""Rounds before the measuring begins."""


def run(options: Options) -> Iterator[Line]:
    seconds = options.seconds(10.0)
    workload = synthetic(SETTLING + round(seconds / EVERY_S) + 50)
    yield uvloop.run(_measure(workload, seconds))


async def _measure(workload: Workload, seconds: float) -> Line:
    pairs = [f"P{number:03d}-USDT" for number in range(PAIRS)]
    plans = BinanceMarketData("ws://x", SymbolMap(lambda base, quote: base + quote, pairs)).connections(pairs)

    def send(links: list[socket.socket]) -> None:
        for link in links:
            link.recv(1)
        began = time.monotonic()
        for number, frame in enumerate(workload.frames):
            for link, plan in zip(links, plans, strict=True):
                link.sendall(b"".join(framed(_of(frame, pair)) for pair in plan.pairs))
            time.sleep(max(0.0, began + (number + 1) * EVERY_S - time.monotonic()))

    before_mb = pss_mb(os.getpid())
    with sender(len(plans), send) as port, tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as folder:
        async with Reading(Path(folder), port, workload, pairs) as reading:
            actor = reading.actor
            await reading.until(lambda: len(actor.sockets) == len(plans) and all(one.is_open for one in actor.sockets))
            await reading.until(lambda: not any(sync.awaiting_snapshot for sync in actor.feed.books.values()))
            for one in actor.sockets:
                one.send("go")
            await reading.until(lambda: reading.frames >= SETTLING * PAIRS)
            say("many_pairs: measuring")
            frames, cpu, began = reading.frames, time.thread_time(), time.monotonic()
            await reading.until(lambda: time.monotonic() - began >= seconds)
            frames, cpu, took = reading.frames - frames, time.thread_time() - cpu, time.monotonic() - began
            reading.check()
            latency = [actor.metrics.histogram(f"book_latency_ns/{pair}").percentile(0.99) or 0 for pair in pairs]
            return line(
                "many_pairs",
                round(100 * cpu / took, 1),
                "% of one core",
                pairs=PAIRS,
                frames_per_s=round(frames / took),
                memory_mb=round(pss_mb(os.getpid()) - before_mb, 1),
                us_a_frame=round(1e6 * cpu / frames, 1),
                latency_p99_us=round(sorted(latency)[len(latency) // 2] / 1e3),
                statistics_ms=round(reading.statistics_ms, 1),
                connections=len(plans),
            )


def _of(frame: bytes, pair: str) -> bytes:
    symbol = pair.replace("-", "")
    return frame.replace(b"btcusdt", symbol.lower().encode()).replace(b"BTCUSDT", symbol.encode())
