"""How many orders a second one strategy places and cancels, through the exchange actor, at a venue without limits."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import NO_LIMITS, Engine, config, cpu_seconds

IN_FLIGHT = (1, 8, 32)
SECONDS = 4.0
WATCHED = ("venue", "exchange.binance.main", "user_stream.binance.main", "strategy.churner", "supervisor")


def run(options: Options) -> Iterator[Line]:
    for in_flight in IN_FLIGHT:
        found = []
        for number in range(options.times(3)):
            say(f"order_rate: {in_flight} in flight, run {number + 1}")
            found.append(_once(in_flight, options.seconds(SECONDS)))
        rates = [each["orders"] / each["seconds"] for each in found]
        best = found[rates.index(sorted(rates)[len(rates) // 2])]
        yield line(
            "order_rate",
            median(rates),
            "orders/s",
            case=f"in_flight_{in_flight}",
            failed=sum(each["failed"] for each in found),
            cpu=best["cpu"],
            runs=len(rates),
        )


def _once(in_flight: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "result.json"
        params = {"in_flight": in_flight, "seconds": seconds, "file": str(file)}
        with Engine(config({"name": "Churner", "params": params}), box={**NO_LIMITS, "activity": 1.0}) as engine:
            engine.wait_running()
            pids = engine.pids()
            cpu, began = {name: cpu_seconds(pids[name]) for name in WATCHED}, time.monotonic()
            while not file.exists():
                if time.monotonic() - began > seconds + 20:
                    raise RuntimeError("the strategy did not finish")
                time.sleep(0.02)
            elapsed = time.monotonic() - began
            used = {name: round((cpu_seconds(pids[name]) - before) / elapsed, 2) for name, before in cpu.items()}
            return {**json.loads(file.read_text()), "cpu": used}
