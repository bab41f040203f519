"""The kill switch: after a halt was acknowledged nothing is placed, over every restart, until somebody resumes."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.system.conftest import Launch
from tests.system.harness import PYTHON, ROOT, Engine

pytestmark = pytest.mark.processes
FAST = ("--set", "clock.interval=0.1")


def command(engine: Engine, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = subprocess.run(
        [PYTHON, "-m", "engine", *arguments, "--json", "--state", str(engine.state)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.returncode, json.loads(result.stdout)


def own_orders(engine: Engine) -> set[str]:
    return {order["client_order_id"] for order in engine.ledger()["orders"]}


def test_a_halt_holds_over_restarts_until_resumed(launch: Launch) -> None:
    engine = launch("configs/demo.yml", *FAST)
    engine.wait_trading()
    code, told = command(engine, "halt", "--reason", "drill")
    assert code == 0
    assert told["acknowledged"] == ["exchange.binance.main"]
    placed = own_orders(engine)
    engine.wait("open orders to be cancelled", lambda s: not s["open_orders"])
    pid = engine.pids()["exchange.binance.main"]
    engine.kill("exchange.binance.main", "risk")
    engine.wait_restarted("exchange.binance.main", pid)
    refused = engine.status()["orders"]["refused"]
    engine.wait("orders to be refused", lambda s: s["orders"]["refused"] > refused)
    assert own_orders(engine) == placed
    assert engine.interrupt()["ok"]

    again = Engine(ROOT / "configs" / "demo.yml", engine.state, *FAST)
    try:
        again.wait("orders to be refused", lambda s: s["orders"]["refused"] > 0)
        assert own_orders(again) == placed
        code, told = command(again, "resume")
        assert (code, told["state"], told["missing"]) == (0, "active", [])
        again.wait_trading()
        assert again.interrupt()["ok"]
    finally:
        again.close()


def test_a_halt_names_the_accounts_that_did_not_acknowledge(launch: Launch) -> None:
    import signal

    engine = launch("configs/two_venues.yml", *FAST, "--set", "supervision.stall=60")
    engine.wait_trading()
    engine.kill("exchange.binance:us.main", number=signal.SIGSTOP)
    code, told = command(engine, "halt")
    assert code == 1
    assert told["missing"] == ["exchange.binance:us.main"]
    assert told["acknowledged"] == ["exchange.binance.main"]
    engine.kill("exchange.binance:us.main", number=signal.SIGCONT)
    engine.wait("the late one to obey", lambda s: not s["open_orders"])
    assert engine.interrupt()["fills_missed"] == 0


def test_the_loss_limit_halts_every_account(launch: Launch) -> None:
    engine = launch("configs/two_venues.yml", *FAST, "--set", "risk.max_loss={USDT: 0}")
    status = engine.wait(
        "the halt", lambda s: any(event["event"] == "loss limit reached: halting" for event in s["events"])
    )
    status = engine.wait("all to be cancelled", lambda s: not s["open_orders"] and s["orders"]["refused"] > 0)
    assert status["fills"] >= 0
    assert engine.interrupt()["ok"]


def test_limits_refuse_orders_with_their_reason(launch: Launch) -> None:
    limits = "connectors.binance.risk={max_order_notional: 1, max_orders_per_second: 5}"
    engine = launch("configs/demo.yml", *FAST, "--set", limits)
    engine.wait("orders to be refused", lambda s: s["orders"]["refused"] > 3)
    assert not engine.ledger()["orders"]
    log = (engine.state / "logs" / "strategy.maker_btc.jsonl").read_text()
    assert "order_notional_limit" in log
    report = engine.interrupt()
    assert report["orders"]["placed"] == 0
    assert report["ok"]
