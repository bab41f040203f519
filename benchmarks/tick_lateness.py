"""How late ticks are at three intervals, what a tick costs in CPU, and what a blocking neighbour costs the others."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.common import Line, Options, line, say
from benchmarks.live import Engine, config, cpu_seconds

INTERVALS = (1.0, 0.1, 0.01)
IDLE = "strategy.idle"
WATCHED = ("supervisor", "clock", IDLE)
OTHERS = ("order_book.binance.0", "user_stream.binance.main", "exchange.binance.main", IDLE)
BLOCK_S = 5.0


def run(options: Options) -> Iterator[Line]:
    yield from _intervals(options)
    yield from _blocked_neighbour(options)


def _blocked_neighbour(options: Options) -> Iterator[Line]:
    """The worst p99 of all other actors beside a strategy that blocks for 5 s, and without the block."""
    seconds = options.seconds(BLOCK_S + 7.0)
    figures = []
    for block_s in (0.0, BLOCK_S):
        say(f"tick_lateness: a neighbour that blocks for {block_s:g} s")
        strategies = ({"name": "Idle"}, {"name": "Blocker", "params": {"block_s": block_s}})
        with Engine(config(*strategies, interval=0.1), box={"activity": 1.0}) as engine:
            engine.wait_running()
            time.sleep(seconds)
            result = engine.finish()
        worst = (result.histogram("tick_lateness_ns", name).percentile(0.99) for name in OTHERS)
        figures.append(max(value for value in worst if value is not None) / 1e6)
    without, beside = figures
    yield line(
        "tick_lateness", beside, "ms", case="blocked_neighbour_p99", without=without, times=round(beside / without, 2)
    )


def _intervals(options: Options) -> Iterator[Line]:
    for interval in INTERVALS:
        say(f"tick_lateness: {interval} s")
        with Engine(config({"name": "Idle"}, interval=interval), box={"activity": 1.0}) as engine:
            engine.wait_running()
            pids = engine.pids()
            cpu, began = {name: cpu_seconds(pids[name]) for name in WATCHED}, time.monotonic()
            time.sleep(options.seconds(12.0))
            share = {
                name: round((cpu_seconds(pids[name]) - before) / (time.monotonic() - began), 4)
                for name, before in cpu.items()
            }
            result = engine.finish()
        lateness = result.histogram("tick_lateness_ns", IDLE)
        row = next(row for row in result.report["actors"] if row["name"] == IDLE)
        for name, value in (
            ("p50", lateness.percentile(0.5)),
            ("p99", lateness.percentile(0.99)),
            ("max", lateness.maximum),
        ):
            yield line(
                "tick_lateness",
                None if value is None else value / 1e6,
                "ms",
                case=f"{interval:g}s_{name}",
                ticks=lateness.count,
                skipped=row["ticks_skipped"],
                cpu=share,
            )
