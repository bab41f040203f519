"""From a venue's frame, read from its socket, to a strategy's ``on_book`` in another process."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.common import Line, Options, line, median, microseconds, say
from benchmarks.live import Engine, config

PAIRS = {"BTC-USDT": "60000", "ETH-USDT": "3000"}
CASES = {
    "calm": {"activity": 20.0, "depth_interval_ms": 100},
    "raised": {"activity": 200.0, "depth_interval_ms": 10},
}


def run(options: Options) -> Iterator[Line]:
    for case, box in CASES.items():
        found: dict[str, list[float]] = {"p50": [], "p99": [], "published_p50": [], "published_p99": []}
        count = 0
        for number in range(options.times(3)):
            say(f"frame_to_strategy: {case}, run {number + 1}")
            with Engine(config({"name": "Watcher"}, pairs=PAIRS), box=box) as engine:
                engine.wait_running()
                time.sleep(options.seconds(6.0))
                result = engine.finish()
            there = result.histogram("frame_to_strategy_ns", "strategy.")
            count += there.count
            found["p50"].append(microseconds(there, 0.5))
            found["p99"].append(microseconds(there, 0.99))
            published = result.histogram("book_latency_ns/BTC-USDT", "order_book.")
            found["published_p50"].append(microseconds(published, 0.5))
            found["published_p99"].append(microseconds(published, 0.99))
        published_to = {name: round(median(found[f"published_{name}"]), 1) for name in ("p50", "p99")}
        for name in ("p50", "p99"):
            yield line(
                "frame_to_strategy",
                median(found[name]),
                "us",
                case=f"{case}_{name}",
                to_shared_memory=published_to[name],
                samples=count,
                runs=len(found[name]),
            )
