"""From a strategy's ``buy`` to its order's first byte on the exchange actor's connection to the venue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import yaml

from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import NO_LIMITS, ROOT, Engine, config

SECONDS = 8.0


def run(options: Options) -> Iterator[Line]:
    quiet = config({"name": "Placer", "params": {"every_s": 0.02}})
    yield from _case("quiet", quiet, {**NO_LIMITS, "activity": 1.0}, options)
    demo = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    yield from _case("demo", demo, {}, options)


def _case(case: str, settings: dict[str, Any], box: dict[str, Any], options: Options) -> Iterator[Line]:
    """An order each 20 ms on a quiet engine, or the demo's market makers, which send theirs at the tick."""
    latencies: list[dict[str, dict[str, float]]] = []
    placed = 0
    for number in range(options.times(3)):
        say(f"strategy_to_wire: {case}, run {number + 1}")
        with Engine(settings, box=box) as engine:
            engine.wait_running()
            time.sleep(options.seconds(SECONDS))
            report = engine.finish().report
        latencies.append(report["order_latency_us"])
        placed += report["orders"]["placed"]
    for name in ("p50", "p99"):
        yield line(
            "strategy_to_wire",
            median(found["strategy_to_wire"][name] for found in latencies),
            "us",
            case=f"{case}_{name}",
            wire_to_ack=round(median(found["wire_to_ack"][name] for found in latencies), 1),
            samples=placed,
            runs=len(latencies),
        )
