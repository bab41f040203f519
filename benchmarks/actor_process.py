"""The entry of a benchmark's actors: the engine's own, after what ``params["benchmark"]`` names was set up.

``stages``: :mod:`benchmarks.stages` measures the process. ``samples``: every latency of an order is kept
(:mod:`benchmarks.samples`). ``settled``: what it timed before the engine had settled is forgotten
(:mod:`benchmarks.settled`). ``memory_journal``: the exchange actor keeps its journal in memory
(:class:`benchmarks.memory_journal.MemoryJournal`).
"""

from __future__ import annotations

from benchmarks import memory_journal, samples, settled, stages
from engine.actors import process
from engine.runtime.base import ActorSpec


def main(spec: ActorSpec) -> int:
    """Run the actor of ``spec``; its exit code."""
    wanted = spec.params.get("benchmark", ())
    if "memory_journal" in wanted:
        memory_journal.install()
    if "stages" in wanted:
        return stages.measured(spec, process.main)
    if "samples" in wanted:
        return samples.kept(spec, samples.ORDER_LATENCIES, process.main)
    if "settled" in wanted:
        settled.forget_the_start(spec)
    return process.main(spec)
