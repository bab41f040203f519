"""Any process may be killed, stopped or stalled at any time: the engine trades again, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from engine.book import BookReader, ReadStatus
from tests.system.conftest import Launch
from tests.system.harness import ROOT, Engine

pytestmark = pytest.mark.processes
FAST = ("--set", "clock.interval=0.1", "--set", "supervision.budget=50")
KINDS = {
    "clock": ["clock"],
    "order_book": ["order_book.binance.0"],
    "user_stream": ["user_stream.binance.main"],
    "exchange": ["exchange.binance.main"],
    "strategy": ["strategy.maker_btc"],
    "venue": ["venue"],
    "two at once": ["exchange.binance.main", "strategy.maker_btc"],
    "both streams": ["order_book.binance.0", "user_stream.binance.main"],
}


def test_each_kind_killed_in_turn_while_trading(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait_trading()
    restarts: dict[str, int] = {}
    ticks: list[int] = []
    for kind, victims in KINDS.items():
        before = engine.pids()
        ticks.append(last_tick(engine))
        engine.kill(*victims)
        for victim in victims:
            restarts[victim] = restarts.get(victim, 0) + 1
            engine.wait_restarted(victim, before[victim])
        engine.wait_trading()
        after = engine.pids()
        unchanged = {name: pid for name, pid in before.items() if name not in victims}
        assert {name: after[name] for name in unchanged} == unchanged, kind
    assert ticks == sorted(ticks)
    report = engine.interrupt()
    assert report["ok"] is True, report["problems"]
    assert report["fills_missed"] == 0
    assert report["fills_duplicated"] == 0
    assert report["orders"]["open"] == report["orders"]["unknown"] == 0
    told = {row["name"]: row["restarts"] for row in report["actors"]}
    for name, count in restarts.items():
        assert told[name] == count, name


def last_tick(engine: Engine) -> int:
    return max((row.get("last_tick") or 0 for row in engine.status()["actors"]), default=0)


def test_the_fork_server_killed_takes_nobody_along(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait_trading()
    before = engine.pids()
    os.kill(fork_server_of(engine.process.pid), signal.SIGKILL)
    engine.wait("the fork server's return", lambda s: any("fork server" in e["event"] for e in s["events"]))
    engine.wait_trading()
    assert engine.pids() == before
    engine.kill("strategy.maker_eth")
    engine.wait_restarted("strategy.maker_eth", before["strategy.maker_eth"])
    assert engine.interrupt()["ok"]


def fork_server_of(pid: int) -> int:
    """The fork server is the child that was started as a program of its own."""
    for entry in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"fork_server" in Path(f"/proc/{entry}/cmdline").read_bytes():
            return int(entry)
    raise AssertionError("no fork server")


def test_a_stopped_process_is_found_killed_and_restarted(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST, "--set", "supervision.stall=1.0")
    engine.wait_trading()
    before = engine.pids()
    engine.kill("exchange.binance.main", number=signal.SIGSTOP)
    engine.wait_restarted("exchange.binance.main", before["exchange.binance.main"], timeout=15)
    engine.wait_trading()
    after = engine.pids()
    assert {n: p for n, p in after.items() if n != "exchange.binance.main"} == {
        n: p for n, p in before.items() if n != "exchange.binance.main"
    }
    report = engine.interrupt()
    assert report["fills_missed"] == report["fills_duplicated"] == 0


def test_no_command_is_executed_late_by_a_process_that_was_stopped_for_a_while(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST, "--set", "supervision.stall=8.0")
    engine.wait_trading()
    pids = engine.pids()
    placed_before = {order["client_order_id"]: order for order in engine.ledger()["orders"]}
    stopped_at = time.time()
    engine.kill("exchange.binance.main", number=signal.SIGSTOP)
    time.sleep(3.0)  # the stop itself is what is tested: commands given now are older than their expiry at its end
    resumed_at = time.time()
    engine.kill("exchange.binance.main", number=signal.SIGCONT)
    engine.wait_trading()
    assert engine.pids() == pids
    for order in engine.ledger()["orders"]:
        if order["client_order_id"] not in placed_before and order["client_order_id"].startswith("demo-"):
            made = made_at(order["client_order_id"])
            late = made < resumed_at - 1.2 and made > stopped_at and order["created"] / 1000 > resumed_at
            assert not late, order
    report = engine.interrupt()
    assert report["fills_missed"] == report["fills_duplicated"] == 0


def made_at(client_order_id: str) -> float:
    """When an id was made: its last eleven characters count microseconds in base 36."""
    return int(client_order_id[-11:], 36) / 1e6


def test_a_spent_budget_takes_its_connector_down_and_no_other(launch: Launch) -> None:
    engine = launch("configs/two_venues.yml", "--set", "clock.interval=0.1", "--set", "supervision.budget=2")
    engine.wait("both to trade", lambda s: all(trades(s, name) for name in ("binance", "binance:us")))
    victim = "exchange.binance:us.main"
    for _ in range(3):
        pid = engine.actor(victim)["pid"]
        engine.kill(victim)

        def ended(status: dict, pid: int = pid) -> bool:
            row = engine.actor(victim, status)
            return row["state"] == "failed" or (row["state"] == "running" and row["pid"] != pid)

        engine.wait("its next life, or its end", ended)
    status = engine.wait("the connector to be down", lambda s: engine.actor(victim, s)["state"] == "failed")
    status = engine.wait(
        "its neighbours to stop", lambda s: engine.actor("order_book.binance:us.0", s)["state"] == "stopped"
    )
    assert any("binance:us" in str(event["fields"]) for event in status["events"])
    engine.wait_trading()
    report = engine.interrupt()
    assert report["ok"] is False
    assert any("binance:us" in problem for problem in report["problems"])
    assert report["exit_code"] == 1


def trades(status: dict, connector: str) -> bool:
    return any(fill["connector"] == connector for fill in status["recent_fills"])


def test_a_dead_clock_makes_nobody_else_count_as_stalled(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST, "--set", "supervision.stall=1.0")
    engine.wait_trading()
    before = engine.pids()
    engine.kill("clock", number=signal.SIGSTOP)
    engine.wait_restarted("clock", before["clock"], timeout=20)
    engine.wait_trading()
    after = engine.pids()
    assert {n: p for n, p in after.items() if n != "clock"} == {n: p for n, p in before.items() if n != "clock"}
    assert engine.interrupt()["ok"]


def test_a_reader_never_takes_a_dead_actors_book_for_fresh(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait_trading()
    reader = BookReader(engine.paths.shm / "binance.BTC-USDT.book", stale_after_ns=500_000_000)
    pid = engine.pids()["order_book.binance.0"]
    assert reader.read_best().status is ReadStatus.FRESH
    incarnation = reader.incarnation
    os.kill(pid, signal.SIGKILL)
    killed_ns = time.monotonic_ns()
    fresh_late = []
    statuses = set()
    while time.monotonic_ns() < killed_ns + 3_000_000_000:
        asked_ns = time.monotonic_ns()
        view = reader.read_raw()
        statuses.add(view[0])
        if view[0] is ReadStatus.FRESH and asked_ns > killed_ns + 500_000_000 and reader.incarnation == incarnation:
            fresh_late.append((asked_ns - killed_ns) / 1e9)
        time.sleep(0.001)
    assert not fresh_late, fresh_late[:5]
    engine.wait("a fresh book again", lambda s: reader.read_best().status is ReadStatus.FRESH)
    assert reader.incarnation != incarnation
    reader.close()


def test_two_engines_on_one_host_do_not_touch_each_other(launch: Launch) -> None:
    first = launch("configs/demo.yml", *FAST, name="one")
    second = launch("configs/demo.yml", *FAST, name="two")
    first.wait_trading()
    second.wait_trading()
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    first.assert_nothing_left()
    second.wait_trading()
    assert second.interrupt()["ok"]


def test_after_a_crash_of_everything_the_next_run_recovers(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait("open orders", lambda s: len(s["open_orders"]) >= 2 and s["fills"] > 0)
    everyone = [*engine.pids().values(), fork_server_of(engine.process.pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in everyone:
            os.kill(pid, number)
    engine.process.wait(10)
    again = Engine(ROOT / "configs" / "demo.yml", engine.state, *FAST)
    try:
        again.wait_trading()
        report = again.interrupt()
    finally:
        again.close()
    assert report["ok"] is True, again.tail()
    assert report["orders"]["open"] == 0
    assert report["fills_missed"] == report["fills_duplicated"] == 0


def test_no_secret_shows_in_titles_logs_or_the_report(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait_trading()
    with sqlite3.connect(engine.state / "venues" / "venue" / "ledger.db") as database:
        secrets = list(database.execute("SELECT api_key, api_secret FROM accounts").fetchone())
    database.close()
    titles = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    logs = "".join(path.read_text(errors="replace") for path in (engine.state / "logs").glob("*"))
    report = engine.interrupt()
    for secret in secrets:
        assert len(secret) > 20
        for place, text in {"titles": titles, "logs": logs, "report": str(report)}.items():
            assert secret not in text, place
