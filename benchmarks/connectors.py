"""What a connector costs: memory and CPU of an engine with 1, 5, 10, 20 and more, until two cores are not enough.

Each connector has a venue in a box of its own (20 events a second), an order-book, a user-stream and an exchange actor.
One strategy reads every book that changes, another places and cancels one order a second at each connector. The boxes'
CPU is told apart from the engine's: with real venues it is not spent here. The machine counts as saturated when both
together take 90 % of its cores, when ticks are late by an interval at p99, or when actors were killed because they did
not answer any more (``restarts``; then only what was measured until then is told). ``machine_busy`` has everything else
that ran on it meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.chart import bars
from benchmarks.common import Line, Options, line, say
from benchmarks.live import CLOCK_TICKS, NO_LIMITS, ROOT, Engine, Result, all_running, config, cpu_seconds, pss_mb
from benchmarks.settled import settle
from engine.metrics import Histogram

COUNTS = (1, 5, 10, 20, 40, 60, 80)
SATURATED = 0.9
"""Of all cores, by the engine and its boxes."""
CORES = os.cpu_count() or 1
SECONDS = 15.0
SETTLING_S = 3.0
START_S = 180.0
INTERVAL_S = 0.1
IMAGE = ROOT / "docs" / "images" / "connectors.png"
BOX = "venue"
OF_A_CONNECTOR = ("order_book", "user_stream", "exchange")
TIMED = ("order_book.{}.0", "user_stream.{}.main", "exchange.{}.main")


def run(options: Options) -> Iterator[Line]:
    found: list[Line] = []
    for count in COUNTS[:2] if options.quick else COUNTS:
        say(f"connectors: {count}")
        found.append(_measure(count, options.seconds(SECONDS)))
        yield found[-1]
        if found[-1]["saturated"]:
            break
    if not options.quick:
        bars(IMAGE, "CPU of an engine with so many connectors, on two cores: % of one core", list(_rows(found)))


def _rows(found: list[Line]) -> Iterator[tuple[str, float]]:
    for one in found:
        yield f"engine, {one['case']}", one["cpu"]["engine"]
        yield "its venues in boxes", one["cpu"]["boxes"]


def _measure(count: int, seconds: float) -> Line:
    names = [f"c{number:02d}" for number in range(1, count + 1)]
    timed = [pattern.format(name) for name in names for pattern in TIMED] + ["strategy.watcher", "strategy.placer"]
    actors = {name: ["settled"] for name in timed}
    with Engine(_config(names), box=dict(NO_LIMITS), actors=actors) as engine:
        engine.wait("all actors to run", all_running, START_S)
        time.sleep(SETTLING_S)
        settle(engine.state)
        pids = engine.pids()
        busy, cpu, began = _busy(), _of_living(pids, cpu_seconds), time.monotonic()
        time.sleep(seconds)
        took, after = time.monotonic() - began, _of_living(pids, cpu_seconds)
        shares = {name: 100 * (used - cpu[name]) / took for name, used in after.items() if name in cpu}
        machine = (_busy() - busy) / took / CORES
        memory = _of_living(pids, pss_mb)
        restarts = sum(row["restarts"] for row in engine.status()["actors"])
        result = engine.finish() if not restarts else None
    return _line(count, machine, shares, memory, restarts, result)


def _of_living(pids: Mapping[str, int], measure: Callable[[int], float]) -> dict[str, float]:
    """What is measured of each process; those that have been killed are left out."""
    found = {}
    for name, pid in pids.items():
        try:
            found[name] = measure(pid)
        except (FileNotFoundError, ProcessLookupError):
            say(f"connectors: {name} is gone")
    return found


def _line(
    count: int,
    machine: float,
    shares: Mapping[str, float],
    memory: Mapping[str, float],
    restarts: int,
    result: Result | None,
) -> Line:
    own = {name: size for name, size in memory.items() if not name.startswith(BOX)}
    of_connectors = sum(size for name, size in own.items() if _kind(name) in OF_A_CONNECTOR)
    used = sum(shares.values()) / 100 / CORES
    boxes = sum(share for name, share in shares.items() if name.startswith(BOX))
    actors = result.actors if result is not None else {}
    latency, late = Histogram(), Histogram()
    for name, actor in actors.items():
        latency.add(actor.histograms.get("book_latency_ns/BTC-USDT", {}))
        if _kind(name) in (*OF_A_CONNECTOR, "strategy"):
            late.add(actor.histograms.get("tick_lateness_ns", {}))
    lateness_ms = (late.percentile(0.99) or 0) / 1e6
    return line(
        "connectors",
        round(sum(own.values()), 1),
        "MB",
        case=f"{count} connector{'s' if count > 1 else ''}",
        mb_a_connector=round(of_connectors / count, 1),
        mb_by_kind=_mean_by_kind(memory),
        cpu={"engine": round(sum(shares.values()) - boxes, 1), "boxes": round(boxes, 1)},
        cpu_by_kind=_mean_by_kind(shares),
        machine_busy=round(100 * machine, 1),
        tick_lateness_p99_ms=round(lateness_ms, 1) if late.count else None,
        book_latency_p99_us=round((latency.percentile(0.99) or 0) / 1e3) if latency.count else None,
        processes=len(memory),
        restarts=restarts,
        saturated=used >= SATURATED or lateness_ms >= 1000 * INTERVAL_S or restarts > 0,
    )


def _config(names: list[str]) -> dict[str, Any]:
    settings = config(interval=INTERVAL_S, supervision={"start_timeout": START_S})
    box = settings.pop("venue")
    settings["venues"] = {f"v{name}": {**box, "seed": number} for number, name in enumerate(names)}
    settings["connectors"] = {name: {"venue": "binance", "at": f"v{name}", "pairs": ["BTC-USDT"]} for name in names}
    pairs = [f"{name}/BTC-USDT" for name in names]
    settings["strategies"] = {
        "watcher": {"strategy": "benchmarks.strategies:Watcher", "pairs": pairs},
        "placer": {
            "strategy": "benchmarks.strategies:TurnPlacer",
            "pairs": pairs,
            "params": {"every_s": 1 / len(names)},
        },
    }
    return settings


def _mean_by_kind(values: Mapping[str, float]) -> dict[str, float]:
    """Of the actors of each kind."""
    kinds: dict[str, list[float]] = {}
    for name, value in values.items():
        kinds.setdefault(_kind(name), []).append(value)
    return {kind: round(sum(found) / len(found), 1) for kind, found in sorted(kinds.items())}


def _kind(name: str) -> str:
    return name.partition(".")[0]


def _busy() -> float:
    """Seconds that the machine's cores have been busy, all together."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / CLOCK_TICKS
