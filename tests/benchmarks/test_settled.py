"""What an actor timed before its engine had settled does not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.settled import forget_the_start, settle
from engine.actors.base import Metrics
from engine.runtime.base import ActorSpec


def test_what_was_timed_before_is_forgotten_once_and_counters_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Metrics, "message", Metrics.message)  # put back afterwards
    spec = ActorSpec(
        name="a",
        kind="clock",
        connector="",
        incarnation=1,
        run_dir="",
        shm_dir="",
        state_dir=str(tmp_path),
        engine_id="",
        entry="",
    )
    forget_the_start(spec)
    metrics = Metrics()
    kept = metrics.histogram("late")
    kept.record(5)
    metrics.count("ticks")
    assert metrics.message("a", 1).histograms == {"late": {5: 1}}
    settle(tmp_path)
    assert metrics.message("a", 1).histograms == {"late": {}}
    kept.record(7)
    assert metrics.message("a", 1).histograms == {"late": {7: 1}}
    assert metrics.message("a", 1).counters == {"ticks": 1}
