"""How late ticks are, at three intervals, and what a tick costs in CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.common import Line, Options, line, say
from benchmarks.live import Engine, config, cpu_seconds

INTERVALS = (1.0, 0.1, 0.01)
IDLE = "strategy.idle"
WATCHED = ("supervisor", "clock", IDLE)


def run(options: Options) -> Iterator[Line]:
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
