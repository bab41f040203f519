"""``scheduling: realtime``: who runs before whom, as the kernel has it, and that nobody can keep the processors.

``processors: awake``: for as long as the engine runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.runtime.scheduling import RANKS, cannot_keep_awake, lacking
from tests.runtime.test_scheduling import keeps_awake, may_take_us
from tests.system.conftest import Launch
from tests.system.test_strategies import FAST, command, engine_ok, strategy_file

pytestmark = pytest.mark.processes
realtime = pytest.mark.skipif(bool(lacking()), reason="needs root, to schedule in real time")


def ranks(pids: dict[str, int]) -> dict[str, int]:
    """By actor: its real-time rank, 0 for an ordinary process."""
    return {
        name: os.sched_getparam(pid).sched_priority
        for name, pid in pids.items()
        if os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == (os.SCHED_RR if name.split(".")[0] in RANKS else 0)
    }


@realtime
def test_every_actor_has_its_rank_also_one_that_is_restarted_or_attached(launch: Launch, tmp_path: Path) -> None:
    engine = launch("configs/demo.yml", *FAST, "--set", "scheduling=realtime")
    engine.wait_trading()
    path = strategy_file(tmp_path, "late", "Recorder", {"file": str(tmp_path / "late.txt")})
    assert command(engine, "attach", str(path)).returncode == 0
    engine.wait("it to run", lambda s: engine.actor("strategy.late", s)["state"] == "running")
    old = engine.pids()["order_book.binance.0"]
    engine.kill("order_book.binance.0")
    engine.wait_restarted("order_book.binance.0", old)
    pids = engine.pids()
    assert ranks(pids) == {name: RANKS.get(name.split(".")[0], 0) for name in pids}
    assert os.sched_getscheduler(engine.process.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER
    assert "strategy.late" in pids
    assert engine_ok(engine.interrupt())


@realtime
def test_a_strategy_that_keeps_its_processor_is_ended_while_the_others_trade(launch: Launch, tmp_path: Path) -> None:
    settings = ("scheduling=realtime", "supervision.strategy_stall=2", "supervision.budget=0")
    engine = launch("configs/demo.yml", *FAST, *(word for each in settings for word in ("--set", each)))
    engine.wait_trading()
    before = engine.pids()
    assert command(engine, "attach", str(strategy_file(tmp_path, "spin", "Spinner", {}))).returncode == 0
    engine.wait("it to be given up", lambda s: engine.actor("strategy.spin", s)["state"] == "failed")
    engine.wait_trading()
    assert {name: pid for name, pid in engine.pids().items() if name in before} == before
    engine.interrupt()


def test_without_it_all_are_ordinary(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait_trading()
    assert {os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK for pid in engine.pids().values()} == {os.SCHED_OTHER}
    assert engine_ok(engine.interrupt())


@pytest.mark.skipif(bool(cannot_keep_awake()), reason=f"needs root, to keep processors awake: {cannot_keep_awake()}")
def test_processors_stay_awake_while_actors_run_that_are_on_the_way_of_a_frame_or_an_order(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST, "--set", "processors=awake")
    engine.wait_trading()
    old = engine.pids()["order_book.binance.0"]
    engine.kill("order_book.binance.0")
    engine.wait_restarted("order_book.binance.0", old)
    pids = engine.pids()
    assert {name for name, pid in pids.items() if keeps_awake(pid)} == {
        name for name in pids if name.split(".")[0] in RANKS
    }
    assert may_take_us() == 0
    assert engine_ok(engine.interrupt())
