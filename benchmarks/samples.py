"""Every single value that an actor timed, for differences that a histogram's buckets are too wide for."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path

from engine.actors.base import Metrics
from engine.metrics import Histogram
from engine.runtime.base import ActorSpec

TO_WIRE, TO_ACK = "strategy_to_wire_ns", "wire_to_ack_ns"
ORDER_LATENCIES = (TO_WIRE, TO_ACK)


class Sampled(Histogram):
    """A histogram that keeps the values as well."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        super().__init__()
        self.values = array("q")

    def record(self, value: int) -> None:
        self.values.append(value)
        super().record(value)


def kept(spec: ActorSpec, names: tuple[str, ...], live: Callable[[ActorSpec], int]) -> int:
    """``live(spec)``; the values of its histograms of these names are in a file of the state folder then."""
    sampled = {name: Sampled() for name in names}
    ordinary = Metrics.histogram

    def histogram(metrics: Metrics, wanted: str) -> Histogram:
        if wanted in sampled:
            return metrics.histograms.setdefault(wanted, sampled[wanted])
        return ordinary(metrics, wanted)

    Metrics.histogram = histogram  # type: ignore[method-assign]
    try:
        return live(spec)
    finally:
        values = {name: found.values.tolist() for name, found in sampled.items()}
        _file(Path(spec.state_dir), spec.name).write_text(json.dumps(values))


def read(state: Path, actor: str, name: str) -> list[int]:
    """What an actor kept of one histogram."""
    found: dict[str, list[int]] = json.loads(_file(state, actor).read_text())
    return found[name]


def _file(state: Path, actor: str) -> Path:
    return state / f"samples.{actor}.json"
