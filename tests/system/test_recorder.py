"""The recorder beside a trading engine, killed and back, read by the command."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Launch
from tests.system.harness import PYTHON, ROOT

pytestmark = pytest.mark.processes
FAST = ("--set", "clock.interval=0.1")


def asked(state: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [PYTHON, "-m", "engine", *arguments, "--json", "--state", str(state)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_killed_recorder_misses_no_fill_and_delays_nobody(launch: Launch, tmp_path: Path) -> None:
    state = tmp_path / "state"
    engine = launch("configs/demo.yml", *FAST, "--set", "journal.durability=power")
    engine.wait_trading()
    pid = engine.pids()["recorder"]
    engine.kill("recorder")
    engine.wait_restarted("recorder", pid)
    engine.wait_trading(more_fills=2)
    report = engine.interrupt()
    assert report["ok"] is True, engine.tail()
    assert report["fills_missed"] == report["fills_duplicated"] == 0
    fills = asked(state, "fills")
    sums: dict[str, Decimal] = {}
    for row in fills:
        size = Decimal(row["fill"]["size"])
        sums[row["pair"]] = sums.get(row["pair"], Decimal(0)) + (size if row["side"] == "buy" else -size)
    positions = asked(state, "positions")
    assert {row["pair"]: Decimal(row["base"]) for row in positions} == sums
    assert len(asked(state, "positions", "--since", "1h")) == len(fills) == report["fills"]
    changes = asked(state, "balances", "--since", "1h")
    assert {row["asset"] for row in changes} >= {"USDT", "BTC", "ETH"}
    with sqlite3.connect(state / "recorder.db") as recorder:
        placed = recorder.execute("SELECT count(*) FROM orders").fetchone()[0]
    recorder.close()
    assert placed == report["orders"]["placed"]
