"""An engine of real processes survives chaos, and the audit at its end sees what is broken."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.actors.inline_run import run_inline
from engine.chaos.audit import audit, story
from engine.chaos.plan import FAULTS, KILLED, PAUSED, TERMINATED, make_plan
from engine.chaos.setting import write_config
from engine.config import EngineConfig, RunOptions
from engine.logs import forget_secrets
from engine.simulator.faults import Fault

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "two_venues.yml"


# ----------------------------------------------------------------------------------------------------------- the plan


def test_a_seed_has_one_plan() -> None:
    plan = make_plan(7, 60, 1.5)
    assert plan == make_plan(7, 60, 1.5)
    assert plan != make_plan(8, 60, 1.5)
    assert [strike.at_s for strike in plan] == sorted(strike.at_s for strike in plan)
    assert all(0 <= strike.at_s < 60 for strike in plan)
    assert 20 < len(plan) < 80


def test_no_kind_of_strike_is_left_out() -> None:
    plan = make_plan(3, 600, 1.5)
    struck = {(strike.action, kind) for strike in plan for kind in strike.kinds if len(strike.kinds) == 1}
    assert struck >= {("kill", kind) for kind in (*KILLED, "supervisor")}
    assert struck >= {("term", kind) for kind in TERMINATED}
    assert struck >= {("pause", kind) for kind in PAUSED}
    assert any(len(strike.kinds) == 2 for strike in plan)
    faults = [strike.fault for strike in plan if strike.action == "fault"]
    assert {fault["kind"] for fault in faults} == {kind.partition("/")[0] for kind in FAULTS}
    for fault in faults:
        Fault(**fault)


# ---------------------------------------------------------------------------------------------------------- the audit


Ended = tuple[EngineConfig, Path, dict[str, Any], int]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """An engine that traded for a while, on virtual time, and ended well."""
    folder = tmp_path_factory.mktemp("ended")
    config = write_config(CONFIG, folder / "chaos.yml", 1).model_copy(update={"runtime": "inline"})
    report = run_inline(config, RunOptions(state_dir=folder / "state", seconds=15), None)
    with closing(sqlite3.connect(folder / "state" / "accounts" / "binance.main.db")) as database:
        newest = database.execute("SELECT max(updated_ns) FROM orders").fetchone()[0]
    yield config, folder / "state", report, newest
    forget_secrets()


@pytest.fixture
def broken(ended: Ended, tmp_path: Path) -> Callable[[str, str], list[str]]:
    """``broken(file, SQL)``: what the audit says when a file of the engine had been written otherwise."""
    config, state, report, stopped_ns = ended

    def tamper(file: str, statement: str) -> list[str]:
        copied = tmp_path / "state"
        shutil.copytree(state, copied)
        if file:
            with closing(sqlite3.connect(copied / file)) as database:
                assert database.execute(statement).rowcount == 1
                database.commit()
        found = audit(config, copied, report, stopped_ns)
        for text in found.broken:
            story(text, found, copied, [(stopped_ns, "kill nobody")])
        return found.broken

    return tamper


JOURNAL, LEDGER = "accounts/binance.main.db", "venues/venue_a/ledger.db"
ONE_FILL = "(SELECT min(rowid) FROM fills)"
ONE_TAKEN = "(SELECT max(rowid) FROM orders WHERE exchange_order_id != '')"


def test_an_engine_that_ended_well_has_nothing_broken(broken: Callable[[str, str], list[str]], ended: Ended) -> None:
    assert broken("", "") == []
    config, state, report, stopped_ns = ended
    found = audit(config, state, report, stopped_ns)
    assert found.orders > 50
    assert found.fills > 10


@pytest.mark.parametrize(
    ("file", "statement", "told"),
    [
        (JOURNAL, f"DELETE FROM fills WHERE rowid = {ONE_FILL}", "fill missed"),
        (LEDGER, f"DELETE FROM fills WHERE rowid = {ONE_FILL}", "fill doubled or made up"),
        (JOURNAL, f"DELETE FROM orders WHERE rowid = {ONE_TAKEN}", "not in the journal"),
        (JOURNAL, "DELETE FROM events WHERE number = 5", "holes"),
        (LEDGER, "UPDATE orders SET status = 'NEW' WHERE order_id = (SELECT max(order_id) FROM orders)", "is open at"),
        (
            LEDGER,
            "UPDATE orders SET client_order_id = (SELECT client_order_id FROM orders ORDER BY order_id LIMIT 1)"
            " WHERE order_id = (SELECT max(order_id) FROM orders)",
            "reached the venue 2 times",
        ),
        (LEDGER, "UPDATE balances SET free = free + 1 WHERE asset = 'ETH' AND account = 'main'", "balance of ETH"),
        (
            LEDGER,
            "UPDATE balances SET free = free + 9 WHERE asset = 'BTC' AND account = 'main'",
            "BTC: the fills amount",
        ),
    ],
)
def test_whatever_is_broken_is_found(
    broken: Callable[[str, str], list[str]], file: str, statement: str, told: str
) -> None:
    assert any(told in text for text in broken(file, statement)), told


def test_a_strategy_that_missed_an_event_or_counted_one_twice_is_found(ended: Ended, tmp_path: Path) -> None:
    from engine.orders.strategy_store import StrategyStore

    config, state, report, stopped_ns = ended
    copied = tmp_path / "state"
    shutil.copytree(state, copied)
    for name in ("busy_0", "maker_a"):
        with StrategyStore(copied / "strategies" / f"{name}.db") as store:
            saved = store.load()
            assert saved is not None
            pair = next(iter(saved.state["position"]))
            saved.state["position"][pair] += "1"
            store.save(saved.state, saved.positions, saved.open_orders, saved.saved_ns)
    found = audit(config, copied, report, stopped_ns).broken
    assert {text.partition(":")[0] for text in found} == {"maker_a", "busy_0"}
    with StrategyStore(copied / "strategies" / "busy_1.db") as store:
        store.clear()
    assert "busy_1: has saved nothing" in audit(config, copied, report, stopped_ns).broken


def test_an_engine_that_gave_no_report_is_broken(ended: Ended) -> None:
    config, state, _, stopped_ns = ended
    assert "the engine did not stop and report" in audit(config, state, None, stopped_ns).broken


# ---------------------------------------------------------------------------------------------------------- the chaos


@pytest.mark.processes
def test_an_engine_of_real_processes_survives() -> None:
    command = [sys.executable, "-m", "engine.chaos", "--for", "14", "--every", "0.6", "--seed", "13"]
    done = subprocess.run([*command, "--config", str(CONFIG)], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-20_000:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["broken"] == 0
    assert sum(told["kills"].values()) >= 5, told
    assert told["orders"] > 0, told
    assert told["fills"] > 0, told


def test_a_command_line_that_makes_no_sense_is_refused() -> None:
    for arguments in (["--for", "0"], ["--for", "-1"], ["--every", "0"]):
        command = [sys.executable, "-m", "engine.chaos", *arguments]
        assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, check=False).returncode == 2
    command = [sys.executable, "-m", "engine.chaos", "--config", "nowhere.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "nowhere.yml" in done.stderr) == (2, True)
