"""Histograms without an engine's start: what an actor timed before the engine had settled is forgotten."""

from __future__ import annotations

from pathlib import Path

from engine.actors.base import Metrics
from engine.messages import ActorStats
from engine.runtime.base import ActorSpec

FILE = "settled"


def settle(state: Path) -> None:
    """Have every actor that was set up so forget what it timed until now; it does within a second."""
    (state / FILE).touch()


def forget_the_start(spec: ActorSpec) -> None:
    """Set this process up so."""
    marker, ordinary = Path(spec.state_dir) / FILE, Metrics.message
    waiting = True

    def message(metrics: Metrics, actor: str, incarnation: int) -> ActorStats:
        nonlocal waiting
        if waiting and marker.exists():
            waiting = False
            for histogram in metrics.histograms.values():
                histogram.buckets.clear()
        return ordinary(metrics, actor, incarnation)

    Metrics.message = message  # type: ignore[method-assign]
