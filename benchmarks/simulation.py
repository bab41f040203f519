"""Simulated runs a minute on one core: whole engines with their venues and misfortunes, each from a seed.

Counted in this process's CPU time, so that others on the machine count little; ``wall`` is what the clock on the wall
makes of it. There is no peer to measure: the line says what a run is made of instead.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

from benchmarks.common import Line, Options, line, median, say
from engine.simulation.run import run_seed

SEEDS = 40


def run(options: Options) -> Iterator[Line]:
    seeds = range(1, 1 + (2 if options.quick else SEEDS))
    run_seed(0)  # what is imported and compiled on first use
    gc.collect()
    gc.freeze()
    rates, walls = [], []
    for number in range(options.times(3)):
        say(f"simulation: {len(seeds)} seeds, run {number + 1}")
        cpu, wall = time.process_time(), time.monotonic()
        outcomes = [run_seed(seed) for seed in seeds]
        rates.append(60 * len(seeds) / (time.process_time() - cpu))
        walls.append(60 * len(seeds) / (time.monotonic() - wall))
    gc.unfreeze()
    yield line(
        "simulation",
        median(rates),
        "runs a minute of CPU",
        wall=round(median(walls), 1),
        seeds=len(seeds),
        broken=sum(bool(outcome.broken) for outcome in outcomes),
        virtual_seconds=round(median(outcome.virtual_s for outcome in outcomes), 1),
        orders=round(median(outcome.orders for outcome in outcomes)),
        fills=round(median(outcome.fills for outcome in outcomes)),
        faults=round(median(sum(outcome.faults.values()) for outcome in outcomes)),
        runs=len(rates),
        more_is_better=True,
    )
