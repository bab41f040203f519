"""The engine under simulation: seeds with faults, each the same every time."""

import fcntl
import gc
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
import structlog

from engine.runtime.paths import EnginePaths
from engine.simulation import __main__ as simulation
from engine.simulation import fencing
from engine.simulation.__main__ import shared
from engine.simulation.meetings import STATES, table, unmet
from engine.simulation.plan import KINDS, make_plan
from engine.simulation.run import MIN_FILLS, MIN_ORDERS, Outcome, run_seed
from engine.simulation.strategies import Busy

SEEDS = 200
MIN_FAULTS = 3
MIN_VIRTUAL_S = 60


def simulate(*arguments, hash_seed="0"):
    command = [sys.executable, "-m", "engine.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)


@pytest.mark.timeout(1800)  # a minute or two on two cores that are free
def test_no_order_and_no_fill_is_lost_or_doubled_whatever_happens():
    for outcome in shared(range(1, 1 + SEEDS), os.cpu_count() or 1):
        assert not outcome.broken, f"seed {outcome.seed}: {outcome.broken}"
        assert outcome.orders >= MIN_ORDERS
        assert outcome.fills >= MIN_FILLS
        assert outcome.virtual_s >= MIN_VIRTUAL_S
        assert sum(outcome.faults.values()) >= MIN_FAULTS, f"seed {outcome.seed}: {outcome.faults}"


@pytest.mark.parametrize("seed", [1203, 1300])
def test_faults_end_with_the_trading_also_those_that_waited_for_their_moment(seed):
    """Two deaths of a supervisor planned at once; a venue too idle to meet its death in time."""
    assert run_seed(seed).broken == []


def test_a_seed_that_hangs_is_named_and_the_others_go_on(monkeypatch):
    def child(seeds, mode, folder):
        program = f"import time\nprint({outcome_line(seeds.start)!r}, flush=True)\ntime.sleep(600)"
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        select.select([process.stdout], [], [])  # however long it takes to start
        return process

    monkeypatch.setattr(simulation, "_child", child)
    outcomes = list(shared(range(1, 4), 1, limit_s=1.0))
    assert [outcome.seed for outcome in outcomes] == [1, 2, 3]
    assert [outcome.broken for outcome in outcomes] == [[], ["it has not ended after 1 s"], []]


def test_a_process_that_dies_is_named_and_the_others_go_on(monkeypatch):
    def child(seeds, mode, folder):
        program = f"import os, sys\nprint({outcome_line(seeds.start)!r}, flush=True)\nos._exit(7)"
        command = [sys.executable, "-c", program]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)

    monkeypatch.setattr(simulation, "_child", child)
    broken = [outcome.broken for outcome in shared(range(1, 4), 1)]
    assert broken == [[], ["its process ended with code 7"], []]


def outcome_line(seed):
    return msgspec.json.encode(Outcome(seed, [])).decode()


def test_a_run_that_waits_for_the_outside_is_ended(monkeypatch, tmp_path):
    """A lock that nobody lets go of, in the midst of a run."""

    def held(path):
        with open(tmp_path / "lock", "w") as mine, open(tmp_path / "lock", "w") as other:
            fcntl.flock(mine, fcntl.LOCK_EX)
            fcntl.flock(other, fcntl.LOCK_EX)

    monkeypatch.setattr(simulation, "SEED_S", 1.0)
    monkeypatch.setattr("engine.orders.journal._lock", held)
    with pytest.raises(simulation.Overdue, match="seed 5 has not ended after 1 s"):
        list(simulation._alone(range(5, 6), simulation.Mode.FAULTS))


@pytest.mark.parametrize("run", [run_seed, fencing.run_seed])
def test_a_run_leaves_logging_as_it_was(run):
    before = structlog.get_config()
    run(7)
    assert structlog.get_config() == before


def test_the_table_says_which_faults_met_orders_in_which_states():
    met = {"cut": {"open": 3, "unknown": 1}}
    head, row = table(met, {"cut": 4})
    assert dict(zip(head.split(), row.split(), strict=True)) == {
        **dict.fromkeys(STATES, "-"),
        "fault": "cut",
        "strikes": "4",
        "open": "3",
        "unknown": "1",
    }
    assert unmet(met, ["cut"]) == [f"cut/{state}" for state in STATES if state not in ("open", "unknown")]


def test_an_event_that_a_strategy_without_checkpoints_misses_is_found(monkeypatch):
    heard = Busy.on_order

    def deaf(self, event):
        if self.name != "busy_2" or event.number % 7:
            heard(self, event)

    monkeypatch.setattr(Busy, "on_order", deaf)
    broken = run_seed(7, faults=False).broken
    assert broken
    assert all(line.startswith("busy_2 at binance") and "events missed" in line for line in broken), broken


def test_a_seed_is_the_same_in_another_process_with_other_hashes():
    last = [
        json.loads(simulate("--seeds", "2", "--from", "7", *jobs, hash_seed=hash_seed).stdout.splitlines()[-1])
        for hash_seed, jobs in (("1", []), ("4242", ["--jobs", "2"]))
    ]
    assert last[0]["digest"] == last[1]["digest"]
    assert last[0]["broken"] == 0
    assert {"seeds", "broken", "seconds", "runs_per_minute", "orders", "fills", "kills", "faults", "digest"} <= set(
        last[0]
    )


def test_a_seed_tells_its_story():
    done = simulate("--seed", "3")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "trading ends" in done.stdout
    assert "event 1 created" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1])["seeds"] == 1


def test_what_is_broken_is_found_named_and_fails_the_command(monkeypatch, capsys):
    from engine.orders.evidence import Evidence
    from engine.simulation.__main__ import main

    taken = Evidence.take_fill

    def forgetful(self, batch, tracked, fill):
        if int(fill.trade_id) % 5:
            taken(self, batch, tracked, fill)

    monkeypatch.setattr(Evidence, "take_fill", forgetful)
    assert main(["--seeds", "1", "--from", "7", "--no-faults"]) == 1
    said = capsys.readouterr().out
    assert "seed 7 is broken" in said
    assert "fill missed" in said or "not quiet" in said
    assert json.loads(said.splitlines()[-1])["broken"] == 1


def test_plans_are_the_same_for_ever_and_all_kinds_occur():
    drawn = {fault.kind for seed in range(300) for fault in make_plan(seed).faults}
    assert drawn == set(KINDS)
    random.seed(5)
    assert make_plan(17) == make_plan(17)
    assert not make_plan(17, faults=False).faults


def test_nothing_is_left_behind():
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        assert not run_seed(11, folder=folder).broken
        assert not os.listdir(folder)
        gc.collect()
        assert not [link for link in open_files() if folder in link]


def open_files():
    """What this process has open. A descriptor may be closed while they are listed."""
    links = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{entry}"))
        except FileNotFoundError:
            continue
    return links


def engine_run(config, state, report, *arguments):
    command = [sys.executable, "-m", "engine", "run", str(config), "--runtime", "inline", "--state", str(state)]
    command += ["--report", str(report), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_engine_run_inline_reports_the_same_twice_and_goes_on_where_it_stopped(tmp_path):
    config = Path(__file__).parents[2] / "configs" / "two_venues.yml"
    reports = []
    for name in ("a", "b"):
        done = engine_run(config, tmp_path / name, tmp_path / "report.json", "--for", "10")
        assert done.returncode == 0, done.stderr
        reports.append(json.loads((tmp_path / "report.json").read_text()))
    assert reports[0]["digest"] == reports[1]["digest"]
    assert reports[0]["runtime"] == "inline"
    assert reports[0]["ok"]
    assert reports[0]["seconds"] == pytest.approx(10, abs=0.5)
    assert reports[0]["orders"]["placed"] > 0
    assert reports[0]["fills_missed"] == reports[0]["fills_duplicated"] == 0
    again = engine_run(config, tmp_path / "a", tmp_path / "report.json", "--for", "5")
    assert again.returncode == 0, again.stderr
    for name in ("a", "b"):
        paths = EnginePaths.for_state(tmp_path / name)
        assert not paths.run.exists()
        shutil.rmtree(tmp_path / name)


def test_engine_run_inline_needs_an_end_and_a_venue_in_a_box(tmp_path):
    configs = Path(__file__).parents[2] / "configs"
    done = engine_run(configs / "demo.yml", tmp_path / "s", tmp_path / "report.json")
    assert (done.returncode, "--for" in done.stderr) == (2, True)
    done = engine_run(
        configs / "binance.yml", tmp_path / "s", tmp_path / "r.json", "--set", "connectors.binance.trade=false"
    )
    assert done.returncode == 2
    assert "give it a box" in done.stderr or "box" in done.stderr
