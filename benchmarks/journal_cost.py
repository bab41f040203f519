"""What journaling an order before it is sent adds on its way from a strategy to the wire.

One engine, two accounts at two venues in boxes of the same kind: one keeps its journal on disk (``durability:
process``), the other in memory, behind the same methods. A strategy places its orders by turns at both, so that all
else is the same; the difference of the two latencies is the journal's. Where the time goes is measured in a run of its
own, in which each function's own time is stamped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import samples, stages
from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import NO_LIMITS, Engine, Result, config

T = TypeVar("T")

SECONDS = 15.0
EVERY_S = 0.01
ON_DISK, IN_MEMORY = "exchange.binance.main", "exchange.memory.main"
PERCENTILES = (50, 90, 99)


def run(options: Options) -> Iterator[Line]:
    runs: list[dict[str, list[float]]] = []
    for number in range(options.times(3)):
        say(f"journal_cost: run {number + 1}")
        runs.append(_once(options.seconds(SECONDS), "samples", _percentiles))
    for at, percent in enumerate(PERCENTILES):
        yield line(
            "journal_cost",
            median(each[ON_DISK][at] - each[IN_MEMORY][at] for each in runs),
            "us",
            case=f"added_p{percent}",
            on_disk=round(median(each[ON_DISK][at] for each in runs), 1),
            in_memory=round(median(each[IN_MEMORY][at] for each in runs), 1),
            samples=sum(round(each[ON_DISK][-1]) for each in runs),
            runs=len(runs),
        )
    say("journal_cost: measuring where the time goes")
    for actor, table in _once(options.seconds(SECONDS), "stages", _table).items():
        yield line("journal_cost", sum(table.values()), "us", case=f"cpu_per_order of {actor}", stages=table)


def _once(seconds: float, how: str, read: Callable[[Path, str, Result], T]) -> dict[str, T]:
    """One run, measured so: what is read of each of the two exchange actors."""
    actors = {ON_DISK: [how], IN_MEMORY: [how, "memory_journal"]}
    with Engine(_config(), box={**NO_LIMITS, "activity": 1.0}, actors=actors) as engine:
        engine.wait_running()
        time.sleep(seconds)
        result = engine.finish()
        return {name: read(engine.state, name, result) for name in actors}


def _percentiles(state: Path, actor: str, result: Result) -> list[float]:
    """In microseconds, and how many there were."""
    values = sorted(samples.read(state, actor, samples.TO_WIRE))
    if not values:
        raise RuntimeError(f"{actor} sent nothing")
    return [*(values[len(values) * percent // 100] / 1e3 for percent in PERCENTILES), len(values)]


def _table(state: Path, actor: str, result: Result) -> dict[str, float]:
    return stages.table(state, actor, result.histogram("strategy_to_wire_ns", actor).count)


def _config() -> dict[str, Any]:
    settings = config()
    box = settings.pop("venue")
    settings["venues"] = {"venue_a": {**box, "seed": 1}, "venue_b": {**box, "seed": 1}}
    settings["connectors"] = {
        "binance": {"at": "venue_a", "pairs": ["BTC-USDT"]},
        "memory": {"venue": "binance", "at": "venue_b", "pairs": ["BTC-USDT"]},
    }
    settings["strategies"] = {
        "placer": {
            "strategy": "benchmarks.strategies:TurnPlacer",
            "pairs": ["binance/BTC-USDT", "memory/BTC-USDT"],
            "params": {"every_s": EVERY_S},
        }
    }
    return settings
