"""The engine that benchmarks run: it works as the engine does, tells more at its end, and leaves nothing."""

from __future__ import annotations

import pytest

from benchmarks.live import Engine, config, pss_mb


@pytest.mark.processes
def test_an_engine_of_a_benchmark_tells_its_histograms_and_leaves_nothing() -> None:
    with Engine(config({"name": "Watcher"}), box={"activity": 100.0, "depth_interval_ms": 10}) as engine:
        engine.wait_running()
        engine.wait("books to change", lambda status: status["books"]["binance/BTC-USDT"]["updates"] > 20)
        pids = engine.pids()
        assert {"supervisor", "fork_server", "clock", "venue", "strategy.watcher"} <= pids.keys()
        assert all(pss_mb(pid) > 1 for pid in pids.values())
        result = engine.finish()
    assert result.report["ok"], result.report["problems"]
    assert result.histogram("frame_to_strategy_ns", "strategy.").count > 0
    assert not engine.folder.exists()
    assert not engine.paths.run.exists()
    assert not engine.paths.shm.exists()
