"""Commands that show a running engine, or what its journals hold."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.clock import WallClock
from engine.messages import (
    ActorStats,
    Fill,
    NetworkStatus,
    OrderFill,
    Side,
)
from engine.orders.journal import Journal
from engine.orders.records import WriteFill, WriteIntent
from engine.report import ActorRecord, build_status
from tests.commands.stand_in import StandIn, some_order, some_status

ROOT = Path(__file__).resolve().parents[2]


def test_status_as_a_table_and_as_json(call: Any, engine: StandIn) -> None:
    engine.answers["status"] = lambda _: some_status()
    code, out, err = call("status")
    assert (code, err) == (0, "")
    assert "demo  running 12 s" in out
    assert re.search(r"order_book\.binance\.0 +stale +8 +1", out)
    code, out, _ = call("status", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(some_status()))


def test_a_status_says_first_that_the_engine_is_halted_and_last_what_was_given_up(call: Any, engine: StandIn) -> None:
    assert "HALTED" not in call_status(call, engine, {})
    out = call_status(call, engine, {"halted": "loss limit\nreached", "problems": ["connector a is down: x"]})
    assert out.splitlines()[1] == "HALTED: loss limit reached; no new order goes out until engine resume"
    assert out.splitlines()[-1] == "problem  connector a is down: x"


def call_status(call: Any, engine: StandIn, more: dict[str, Any]) -> str:
    engine.answers["status"] = lambda _: {**some_status(), **more}
    code, out, err = call("status")
    assert (code, err) == (0, "")
    return str(out)


def test_a_status_shows_which_actors_reach_their_venue(call: Any, engine: StandIn) -> None:
    rows = {}
    for name, state, network in (("a", "running", "down"), ("b", "running", "none"), ("c", "failed", "connected")):
        rows[name] = ActorRecord(f"user_stream.{name}.main", "user_stream", name, pid=9, state=state)
        rows[name].update(ActorStats(actor=rows[name].name, incarnation=1, network=NetworkStatus(network)))
    status = build_status(rows.values(), engine="demo", runtime="local", seconds=1)
    out = call_status(call, engine, {"actors": status["actors"]})
    assert re.search(r"user_stream\.a\.main +running +down +9 ", out)
    assert re.search(r"user_stream\.b\.main +running +9 ", out)
    assert re.search(r"user_stream\.c\.main +failed +9 ", out)


def test_a_status_shows_how_each_book_stands(call: Any, engine: StandIn) -> None:
    book = ActorRecord("order_book.binance.0", "order_book", "binance", state="running")
    gauges = {"book_state/BTC-USDT": "synced", "book_state/ETH-USDT": "buffering"}
    book.update(ActorStats(actor=book.name, incarnation=1, gauges=gauges))
    shown = {"books": build_status([book], engine="demo", runtime="local", seconds=1)["books"]}
    out = call_status(call, engine, shown)
    assert re.search(r"binance/BTC-USDT +synced", out)
    assert re.search(r"binance/ETH-USDT +buffering", out)


def test_clocks_of_hosts_are_shown_where_there_are_several_or_a_database(call: Any, engine: StandIn) -> None:
    alone = {"host": "alpha", "clock_offset_ms": 0.0, "clock_error_ms": 0.0, "databases": {}}
    status = {**some_status(), "hosts": [alone]}
    engine.answers["status"] = lambda _: status
    assert "clock ahead of" not in call("status")[1]
    beta = {"host": "beta", "clock_offset_ms": 612.5, "clock_error_ms": 0.2, "databases": {}}
    status["hosts"] = [alone, {**beta, "databases": {"kraken/main": {"clock_offset_ms": -3, "clock_error_ms": 1}}}]
    out = call("status")[1]
    assert re.search(r"beta +the supervisor's +612\.50 +0\.20", out)
    assert re.search(r"beta +the database of kraken/main +-3 +1", out)


def test_balances_as_a_table(call: Any, engine: StandIn) -> None:
    rows = {"binance/main": {"USDT": {"total": "10.50", "available": "9"}}}
    engine.answers["balances"] = lambda _: {"rows": rows, "unanswered": {}}
    assert re.search(r"binance/main +USDT +10\.50 +9", call("balances")[1])
    assert json.loads(call("balances", "--json")[1])["binance/main"]["USDT"]["total"] == "10.50"


def test_orders_and_fills_are_read_from_the_journal_where_no_engine_runs(call: Any, state: Path) -> None:
    fill = Fill(
        trade_id="t1",
        price=Decimal("60000.1"),
        size=Decimal("0.05"),
        fee=Decimal("0.00005"),
        fee_asset="BTC",
        is_maker=True,
        time_ns=6 * 10**9,
    )
    journal = Journal(state / "accounts" / "binance:us.main.db", "binance:us", "main", WallClock(), "1")
    journal.record([WriteIntent(order=some_order(5), send_by_ns=0), WriteIntent(order=some_order(9), send_by_ns=0)])
    row = OrderFill(client_order_id="demo-5", strategy="maker", pair="BTC-USDT", side=Side.BUY, fill=fill)
    journal.record([WriteFill(fill=row)])
    journal.close()
    code, out, _ = call("orders", "--json")
    assert code == 0
    assert [(row["connector"], row["client_order_id"]) for row in json.loads(out)] == [
        ("binance:us", "demo-9"),
        ("binance:us", "demo-5"),
    ]
    assert json.loads(call("orders", "--json", "--since", "1s")[1]) == []
    assert "none" in call("fills", "--since", "1s")[1]
    assert json.loads(call("fills", "--json")[1])[0]["fill"]["fee"] == "0.00005"
    assert re.search(r"binance:us/BTC-USDT +buy +limit +0\.10 +60000\.1 +0 ", call("orders")[1])
    assert "0.00005 BTC" in call("fills")[1]
    assert call("balances")[0] == 1


def test_orders_of_a_running_engine_are_asked_of_it(call: Any, engine: StandIn) -> None:
    engine.answers["orders"] = lambda _: {"rows": [], "unanswered": {}}
    assert call("orders", "--open", "--since", "1700000000")[1] == "none\n"
    span = {"since_ns": 1_700_000_000 * 10**9, "limit": 1000, "offset": 0}
    assert engine.asked == [("orders", {**span, "open_only": True})]


def test_orders_of_an_account_that_does_not_answer_are_read_from_its_journal(
    call: Any, engine: StandIn, state: Path
) -> None:
    for name, number in (("a", 5), ("b", 7)):
        journal = Journal(state / "accounts" / f"{name}.main.db", name, "main", WallClock(), "1")
        journal.record([WriteIntent(order=some_order(number), send_by_ns=0)])
        journal.close()

    rows = [{"connector": "a", **msgspec.to_builtins(some_order(9))}]
    failed = {"exchange.b.main": "exchange.b.main is failed"}
    engine.answers["orders"] = lambda _: {"rows": rows, "unanswered": failed}
    code, out, err = call("orders", "--json")
    assert code == 0
    assert [(row["connector"], row["client_order_id"]) for row in json.loads(out)] == [("a", "demo-9"), ("b", "demo-7")]
    assert err == "engine: exchange.b.main is failed; its orders are as its journal has them\n"


def test_accounts_that_do_not_answer_and_have_no_journal_here_fail_the_command(call: Any, engine: StandIn) -> None:
    failed = {"exchange.b.main": "exchange.b.main is failed"}
    engine.answers["orders"] = lambda _: {"rows": [], "unanswered": failed}
    assert call("orders") == (1, "", "engine: exchange.b.main is failed\n")
    assert len(engine.asked) == 1


def test_balances_that_are_not_known_fail_the_command_and_hide_no_others(call: Any, engine: StandIn) -> None:
    rows = {"a/main": {"USDT": {"total": "10.50", "available": "9"}}}
    failed = {"exchange.b.main": "exchange.b.main is failed"}
    engine.answers["balances"] = lambda _: {"rows": rows, "unanswered": failed}
    code, out, err = call("balances")
    assert code == 1
    assert re.search(r"a/main +USDT +10\.50", out)
    assert err == "engine: exchange.b.main is failed; its balances are not known\n"


def test_all_rows_are_had_page_by_page_and_that_there_are_more_is_told(call: Any, engine: StandIn) -> None:
    kept = [{"connector": "box", **msgspec.to_builtins(some_order(number))} for number in reversed(range(2500))]

    def page(args: dict[str, Any]) -> dict[str, Any]:
        assert args["limit"] <= 1000
        return {"rows": kept[args["offset"] : args["offset"] + args["limit"]], "unanswered": {}}

    engine.answers["orders"] = page
    code, out, err = call("orders", "--json", "--limit", "9999")
    assert (code, err) == (0, "")
    assert json.loads(out) == kept
    code, out, err = call("orders", "--json")
    assert json.loads(out) == kept[:1000]
    assert "there are more; these are the newest 1000" in err
    assert call("orders", "--json", "--limit", "2500")[2] == ""


def test_that_a_journal_has_more_is_told_too(call: Any, state: Path) -> None:
    with Journal(state / "accounts" / "box.main.db", "box", "main", WallClock(), "1") as journal:
        for number in range(3):
            journal.record([WriteIntent(order=some_order(number), send_by_ns=0)])
    code, out, err = call("orders", "--json", "--limit", "2")
    assert (code, [row["client_order_id"] for row in json.loads(out)]) == (0, ["demo-2", "demo-1"])
    assert "there are more; these are the newest 2" in err
    assert call("orders", "--json", "--limit", "3")[2] == ""


@pytest.mark.processes
def test_the_view_draws_and_leaves_the_screen_clean_when_the_engine_is_gone(engine: StandIn, state: Path) -> None:
    drawn = threading.Event()

    def status(_: dict[str, Any]) -> Any:
        if len(engine.asked) > 2:
            drawn.set()
        return some_status()

    engine.answers["status"] = status
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-m", "engine", "view", "--state", str(state)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    output = bytearray()
    reader = threading.Thread(target=_read_all, args=(ours, output))
    reader.start()
    try:
        assert drawn.wait(15)
        engine.end()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        os.close(ours)
    text = output.decode()
    assert "\x1b[?1049h" in text
    assert "order_book.binance.0" in text
    assert text.rindex("\x1b[?1049l") > text.rindex("order_book.binance.0")
    assert "\x1b[?25h" in text[text.rindex("\x1b[?25l") :]
    assert "Traceback" not in text


def _read_all(descriptor: int, into: bytearray) -> None:
    try:
        while data := os.read(descriptor, 65536):
            into += data
    except OSError:  # the terminal has gone with its last writer
        return
