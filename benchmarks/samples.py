"""Every single value that an actor timed, for differences that a histogram's buckets are too wide for."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path

from engine.actors.base import Metrics
from engine.metrics import Histogram
from engine.runtime.base import ActorSpec


class Sampled(Histogram):
    """A histogram that keeps the values as well."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        super().__init__()
        self.values = array("q")

    def record(self, value: int) -> None:
        self.values.append(value)
        super().record(value)


def kept(spec: ActorSpec, name: str, live: Callable[[ActorSpec], int]) -> int:
    """``live(spec)``; the values of its histogram ``name`` are in ``samples.<actor>.json`` of the state folder then."""
    sampled = Sampled()
    ordinary = Metrics.histogram

    def histogram(metrics: Metrics, wanted: str) -> Histogram:
        if wanted == name:
            return metrics.histograms.setdefault(name, sampled)
        return ordinary(metrics, wanted)

    Metrics.histogram = histogram  # type: ignore[method-assign]
    try:
        return live(spec)
    finally:
        _file(Path(spec.state_dir), spec.name).write_text(json.dumps(sampled.values.tolist()))


def read(state: Path, actor: str) -> list[int]:
    """What an actor kept."""
    found: list[int] = json.loads(_file(state, actor).read_text())
    return found


def _file(state: Path, actor: str) -> Path:
    return state / f"samples.{actor}.json"
