"""The engine in a cell of one Ray node, as ``engine run --runtime cluster`` starts it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.cluster.conftest import Launch
from tests.system.harness import ROOT, descendants

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("ray"), pytest.mark.timeout(240)]
START_S = 120.0


def test_only_the_runtime_knows_ray() -> None:
    imports = re.compile(r"^\s*(?:import|from) ray\b", re.MULTILINE)
    knowing = {path for path in (ROOT / "engine").rglob("*.py") if imports.search(path.read_text())}
    assert knowing
    assert all(path.parent == ROOT / "engine" / "runtime" for path in knowing)


def test_the_engine_trades_in_a_cell_and_outlives_all_but_the_node_of_its_own(launch: Launch) -> None:
    engine = launch()
    engine.wait("the engine to be up", lambda status: status["fills"] >= 1, START_S)
    before = engine.pids()

    engine.kill("exchange.binance.main")
    engine.wait_restarted("exchange.binance.main", before["exchange.binance.main"])
    assert engine.pids()["order_book.binance.0"] == before["order_book.binance.0"]

    before = engine.pids()
    engine.kill("supervisor")
    engine.wait(
        "another supervisor, which took over who lives",
        lambda status: {row["state"] for row in status["actors"]} == {"running"},
        START_S,
    )
    after = engine.pids()
    assert after.pop("supervisor") != before.pop("supervisor")
    assert after == before

    os.kill(cell_pid(engine.paths.state), signal.SIGKILL)
    for name in ("clock", "order_book.binance.0", "exchange.binance:us.main", "strategy.maker_a", "venue.venue_b"):
        engine.wait_restarted(name, before[name], START_S)
    engine.wait_trading(2, START_S)

    # The node is this process's; with it everything ends, by the dead-man switches.
    actors, node = set(engine.pids().values()), descendants(engine.process.pid)
    engine.process.kill()
    engine.process.wait()
    engine.assert_ended(actors, 30.0)
    engine.assert_nothing_left(30.0)

    # What follows is a recovery, and misses nothing.
    again = launch()
    again.wait_trading(1, START_S)
    report = again.interrupt()
    assert report["exit_code"] == 0, again.tail()
    assert report["ok"]
    assert report["runtime"] == "cluster"
    assert (report["fills_missed"], report["fills_duplicated"]) == (0, 0)
    assert report["orders"]["open"] == 0
    # Everything of the engines' own Ray nodes has gone with them.
    engine.assert_ended(node, 60.0)
    assert not list(again.paths.run.parent.glob(f"{again.paths.run.name}*"))


def test_a_stop_that_comes_while_no_supervisor_is_there_is_heard_by_the_next(launch: Launch) -> None:
    engine = launch()
    engine.wait("the engine to be up", lambda status: status["fills"] >= 1, START_S)
    engine.kill("supervisor")
    report = engine.interrupt()
    assert report["exit_code"] == 0, engine.tail()
    assert report["ok"]
    assert report["orders"]["open"] == 0


def cell_pid(state: Path) -> int:
    """The process of the engine's one cell, by the lock that it holds."""
    holders = [int(path.read_text()) for path in state.glob("cell.*.lock")]
    assert len(holders) == 1, holders
    return holders[0]
