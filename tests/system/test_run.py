"""The engine as a whole: started from one command, trading on a venue in a box, and stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.captures import captured
from tests.system.conftest import Launch
from tests.system.harness import PYTHON, ROOT, descendants, read_json

pytestmark = pytest.mark.processes
FAST = ("--set", "clock.interval=0.1")


def test_the_demo_trades_and_its_report_adds_up(launch: Launch) -> None:
    engine = launch("configs/demo.yml", for_s=8)
    report = engine.finish()
    assert report["exit_code"] == 0, engine.tail()
    assert report["ok"] is True
    orders = report["orders"]
    assert orders["placed"] > 0
    assert orders["acknowledged"] > 0
    assert report["fills"] > 0
    assert report["fills_missed"] == 0
    assert report["fills_duplicated"] == 0
    assert orders["open"] == orders["unknown"] == 0
    ended = sum(orders[state] for state in ("filled", "cancelled", "expired", "failed", "unknown", "open"))
    assert ended == orders["placed"]
    for book in report["books"].values():
        assert book["updates"] > 0
        assert book["gaps"] == 0
        assert book["bbo_checked"] == book["bbo_equal"] > 0
    assert "fills" in engine.text()


def test_each_part_of_two_connectors_and_two_strategies_has_its_own_process(launch: Launch) -> None:
    engine = launch("configs/two_venues.yml", *FAST)
    status = engine.wait("all to trade", lambda s: s["fills"] > 0 and len(s["balances"]) == 2)
    rows = status["actors"]
    kinds = [row["kind"] for row in rows]
    for kind, count in {
        "clock": 1,
        "order_book": 2,
        "user_stream": 2,
        "exchange": 2,
        "strategy": 2,
        "venue": 2,
    }.items():
        assert kinds.count(kind) == count, kind
    pids = [row["pid"] for row in rows]
    assert len(set(pids)) == len(pids)
    assert set(pids) - {engine.process.pid} <= descendants(engine.process.pid)
    assert engine.interrupt()["ok"]


@pytest.mark.capture
def test_a_served_capture_builds_the_recorded_book(launch: Launch) -> None:
    recorded = captured("binance_spot_ethusdt_2024")
    engine = launch("configs/replay.yml", "--set", f"venue.capture={recorded}", "--set", "venue.speed=60")

    def compared(status: dict) -> bool:
        return status["books"].get("binance/ETH-USDT", {}).get("bbo_checked", 0) >= 1000

    engine.wait("1,000 best quotes compared", compared, timeout=60)
    report = engine.interrupt()
    book = report["books"]["binance/ETH-USDT"]
    assert book["bbo_checked"] == book["bbo_equal"] >= 1000
    assert book["gaps"] == 0
    assert book["resyncs"] == 0


@pytest.mark.parametrize("way", ["ctrl-c", "engine stop", "SIGTERM", "SIGHUP", "kill -9"])
def test_however_it_ends_nothing_is_left_and_no_order_stays_open(launch: Launch, way: str) -> None:
    engine = launch("configs/two_venues.yml", *FAST)
    status = engine.wait("open orders", lambda s: len(s["open_orders"]) >= 2 and s["fills"] > 0)
    processes = descendants(engine.process.pid)
    assert len(processes) >= len(status["actors"]) - 1
    if way == "ctrl-c":
        os.kill(engine.process.pid, signal.SIGINT)
    elif way.startswith("SIG"):
        os.kill(engine.process.pid, signal.Signals[way])
    elif way == "engine stop":
        stopped = subprocess.run(
            [PYTHON, "-m", "engine", "stop", "--state", str(engine.state)], cwd=ROOT, capture_output=True, timeout=60
        )
        assert stopped.returncode == 0, stopped.stderr
    else:
        os.kill(engine.process.pid, signal.SIGKILL)
    code = engine.process.wait(40)
    assert (code, engine.report_file.exists()) == ((-signal.SIGKILL, False) if way == "kill -9" else (0, True))
    engine.assert_nothing_left()
    engine.assert_ended(processes)
    for venue in ("venue_a", "venue_b"):
        assert open_at_venue(engine.state, venue) == []


def test_under_nohup_a_terminal_that_closes_ends_nothing(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST, nohup=True)
    engine.wait_trading()
    os.kill(engine.process.pid, signal.SIGHUP)
    fills = engine.status()["fills"]
    engine.wait("it to trade on", lambda s: s["fills"] > fills)
    assert engine.interrupt()["ok"]


def open_at_venue(state: Path, venue: str) -> list[dict]:
    """The orders that a stopped box still has open, by starting its ledger again."""
    command = [
        PYTHON,
        "-m",
        "engine.simulator",
        "--venue",
        "binance",
        "--state",
        str(state / "venues" / venue),
        "--print-json",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        info = json.loads(process.stdout.readline())
        try:
            ledger = read_json(info["admin"] + "/ledger")
        finally:
            process.send_signal(signal.SIGTERM)
    return [order for order in ledger["orders"] if order["status"] in ("NEW", "PARTIALLY_FILLED")]
