"""The demo's memory: PSS of each process, and of all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import yaml

from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import ROOT, Engine, pss_mb


def run(options: Options) -> Iterator[Line]:
    settings = yaml.safe_load((ROOT / "configs" / "demo.yml").read_text())
    found: dict[str, list[float]] = {}
    for number in range(options.times(3)):
        say(f"memory: run {number + 1}")
        with Engine(settings) as engine:
            engine.wait_running()
            time.sleep(options.seconds(5.0))
            measured = {name: pss_mb(pid) for name, pid in engine.pids().items()}
            measured["all"] = sum(measured.values())
            for name, size in measured.items():
                found.setdefault(name, []).append(size)
    for name, sizes in sorted(found.items()):
        yield line("memory", round(median(sizes), 1), "MB", case=name, runs=len(sizes))
