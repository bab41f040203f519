"""The command line: what is typed, what is printed, and the exit codes.

The engine that is asked is a stand-in on a real bus.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.book.order_book import OrderBook
from engine.book.shared import BookWriter
from engine.book.states import SyncState
from engine.bus import Caller, RunDirectory, SocketBus
from engine.cli import build_parser, main
from engine.clock import WallClock
from engine.commands.common import duration, since
from engine.commands.logs import LogFile, _end_of
from engine.errors import EngineError
from engine.messages import (
    ActorStats,
    ControlReply,
    ControlRequest,
    Fill,
    LogLine,
    Message,
    NetworkStatus,
    Order,
    OrderFill,
    OrderState,
    OrderType,
    Side,
)
from engine.orders.journal import Journal
from engine.orders.records import WriteFill, WriteIntent
from engine.report import ActorRecord, build_report, build_status
from engine.runtime.paths import EnginePaths

ROOT = Path(__file__).resolve().parent.parent
Answer = Callable[[dict[str, Any]], Any]


class StandIn:
    """Answers control requests for a state folder, from a thread with its own event loop."""

    def __init__(self, state: Path) -> None:
        self.paths = EnginePaths.for_state(state)
        self.answers: dict[str, Answer] = {"stop": lambda _: self._loop.call_later(0.1, self._ended.set)}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> StandIn:
        self.paths.create()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.paths.remove()

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        bus = SocketBus("supervisor", 1, RunDirectory(self.paths.run), clock=WallClock(), engine_id="id-1")
        bus.serve(self._answer)
        await bus.start()
        self.paths.write_run_json("id-1")
        self._ready.set()
        await self._ended.wait()
        await bus.close()

    def _answer(self, caller: Caller, request: Message) -> Message:
        assert isinstance(request, ControlRequest)
        self.asked.append((request.verb, request.args))
        answer = self.answers.get(request.verb)
        if answer is None:
            return ControlReply(ok=False, error=f"no {request.verb} here; try another")
        try:
            data = answer(request.args)
        except EngineError as error:
            return ControlReply(ok=False, error=str(error))
        return ControlReply(ok=True, data=None if request.verb == "stop" else data)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def engine(state: Path) -> Iterator[StandIn]:
    with StandIn(state) as stand_in:
        yield stand_in


@pytest.fixture
def call(state: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns exit code, standard output and standard error."""

    def call(*arguments: str, with_state: bool = True) -> tuple[int, str, str]:
        named = [*arguments, "--state", str(state)] if with_state else list(arguments)
        try:
            code = main(named)
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def some_status() -> dict[str, Any]:
    clock = ActorRecord("clock", "clock", pid=7, host="h", state="running")
    book = ActorRecord("order_book.binance.0", "order_book", "binance", pid=8, host="h", state="stale", restarts=1)
    event = LogLine(actor="clock", level="warning", event="late", time_ns=1)
    return build_status([clock, book], engine="demo", runtime="local", seconds=12.5, events=[event])


def some_order(number: int, order_state: OrderState = OrderState.OPEN) -> Order:
    return Order(
        client_order_id=f"demo-{number}",
        strategy="maker",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal("0.10"),
        price=Decimal("60000.1"),
        state=order_state,
        created_ns=number * 10**9,
        updated_ns=number * 10**9,
    )


# ---------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "arguments",
    [[], ["staus"], ["run"], ["run", "x.yml", "--for", "soon"], ["book", "a/b", "--depth", "0"], ["status", "x"]],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(call: Any, arguments: list[str]) -> None:
    code, out, err = call(*arguments, with_state=False)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "--help" in err


def test_a_bad_configuration_is_one_line_and_exit_code_2(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text("name: demo\nconectors: {}\n")
    for command in ("run", "check"):
        code, out, err = call(command, str(path))
        assert (code, out) == (2, "")
        assert err.startswith(f"engine: {path}:")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("connectors.binance.place=[tokyo, osaka]", "so its journal must be in PostgreSQL"),
        ("strategies.maker_eth.place=[tokyo, osaka]", "its checkpoint must be in PostgreSQL"),
        ("connectors.binance.place=to kyo", "a place is up to 40 letters"),
    ],
)
def test_a_place_that_could_lose_what_was_written_is_refused(call: Any, override: str, said: str) -> None:
    code, _, err = call("run", str(ROOT / "configs/demo.yml"), "--runtime", "cluster", "--set", override)
    assert code == 2
    assert said in err


def test_virtual_time_needs_an_end(call: Any) -> None:
    code, _, err = call("run", str(ROOT / "configs/demo.yml"), "--runtime", "inline")
    assert code == 2
    assert "--for SECONDS" in err


def test_a_report_that_could_not_be_written_is_refused_before_anything_starts(call: Any, tmp_path: Path) -> None:
    code, _, err = call("run", str(ROOT / "configs/demo.yml"), "--report", str(tmp_path / "no" / "r.json"))
    assert code == 2
    assert "there is no folder" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["stop"],
        ["cancel-all"],
        ["restart", "clock"],
        ["attach", str(ROOT / "configs/strategy.yml")],
        ["detach", "x"],
        ["orders"],
        ["fills"],
        ["balances"],
        ["book", "binance/BTC-USDT"],
        ["view"],
    ],
)
def test_with_no_engine_a_command_says_so_on_one_line(call: Any, state: Path, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err == f"engine: no engine runs on {state}; start one: engine run CONFIG --state {state}\n"


def test_an_engine_that_was_killed_is_no_engine(call: Any, engine: StandIn) -> None:
    engine.end()
    assert engine.paths.run_json.exists()
    code, _, err = call("status")
    assert code == 1
    assert "no engine runs" in err


def test_what_nobody_expected_is_one_line_and_a_file(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("engine.commands.journals.exist", lambda _: 1 / 0)
    code, out, err = call("orders")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    (written,) = tmp_path.glob("engine-error-*.txt")
    assert str(written) in err
    assert "ZeroDivisionError" in written.read_text()


@pytest.fixture
def nobody() -> Iterator[None]:
    """This process as a user whom the folders of the test do not belong to."""
    before = os.geteuid()
    if before != 0:
        pytest.skip("only root can become another user")
    os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.parametrize("arguments", [["logs"], ["positions"], ["orders"], ["status"], ["logs", "clock"]])
def test_a_state_folder_of_another_user_is_named_with_what_to_do(
    call: Any, state: Path, nobody: None, arguments: list[str]
) -> None:
    code, out, err = call(*arguments)
    assert (code in (1, 2), out) == (True, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"engine: {state}")
    assert "run as " in err
    assert "remove" not in err


def test_a_traceback_that_cannot_be_written_is_one_line_too(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr("engine.commands.journals.exist", lambda _: 1 / 0)
    code, _, err = call("orders")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "the traceback could not be written: No such file or directory" in err


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1000000001", "9" * 5000, "²", "١"])
def test_a_number_of_rows_that_cannot_be_is_a_wrong_command_line(call: Any, text: str) -> None:
    code, _, err = call("orders", "--limit", text)
    assert code == 2
    assert "is not a whole number from 1 to" in err or "expected one argument" in err


HEAVY = {"aiohttp", "asyncpg", "numpy", "pydantic", "ray", "websockets", "yaml"}
"""What takes long to load."""


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["--help"], ["status", "--state", "/nonexistent-state"]])
def test_commands_load_nothing_that_takes_long(arguments: list[str]) -> None:
    code = f"""
import atexit, sys
from engine.cli import main
atexit.register(lambda: print("loaded", *sorted({HEAVY!r} & sys.modules.keys())))
sys.argv[1:] = {arguments!r}
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'pydantic', 'structlog', 'rich', 'asyncio', 'numpy', 'aiohttp', 'yaml', 'msgspec'}"
    code = f"import sys, engine.cli as c; c.build_parser(); print(*sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == ""


def test_every_command_has_help_and_the_options_of_all() -> None:
    helped = build_parser().format_help()
    for command in (
        *("run", "status", "stop", "cancel-all", "restart", "attach", "detach", "orders"),
        *("fills", "balances", "book", "logs", "simulate", "check", "venues", "view"),
    ):
        assert re.search(rf"^    {command}\s+\w", helped, re.MULTILINE), command


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1.5h", 5400), ("10m", 600), ("500ms", 0.5), ("2d", 172_800)],
)
def test_durations(text: str, expected: float) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 1_700_000_000_000_000_000 - 600 * 10**9),
        ("90", 1_700_000_000_000_000_000 - 90 * 10**9),
        ("1699999999", 1_699_999_999 * 10**9),
        ("1699999999.5", 1_699_999_999_500_000_000),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000 * 10**9),
        ("2023-11-14T22:13:20.000001Z", 1_700_000_000 * 10**9 + 1000),
    ],
)
def test_times_may_be_written_in_three_ways(text: str, expected: int) -> None:
    assert since(text, now_ns=1_700_000_000_000_000_000) == expected


# ------------------------------------------------------------------------------------ asking a running engine


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


def test_what_the_engine_refuses_is_said_as_it_says_it(call: Any, engine: StandIn) -> None:
    code, out, err = call("restart", "nobody")
    assert (code, out, err) == (1, "", "engine: no restart here; try another\n")


def test_stop_waits_until_the_engine_is_gone(call: Any, engine: StandIn) -> None:
    code, out, _ = call("stop")
    assert (code, out) == (0, "stopped\n")
    assert call("status")[0] == 1


def test_verbs_carry_their_arguments(call: Any, engine: StandIn) -> None:
    engine.answers["restart"] = lambda _: {}
    engine.answers["detach"] = lambda _: {"was_attached": True}
    engine.answers["cancel_all"] = lambda _: {"cancelled": ["a", "b"], "failed": {}, "ended": {}, "unanswered": {}}
    engine.answers["attach"] = lambda _: {"actor": "strategy.extra"}
    engine.answers["status"] = lambda _: {"actors": [{"name": "strategy.extra", "state": "running"}]}
    assert call("restart", "strategy.maker")[0] == 0
    assert call("cancel-all")[1] == "2 orders cancelled\n"
    assert call("detach", "extra")[0] == 0
    assert call("attach", str(ROOT / "configs/strategy.yml"))[0] == 0
    assert engine.asked[:3] == [
        ("restart", {"actor": "strategy.maker"}),
        ("cancel_all", {"within_s": 10.0}),
        ("detach", {"name": "extra"}),
    ]
    verb, strategy = engine.asked[3]
    assert verb == "attach"
    assert strategy["name"] == "extra"
    assert strategy["strategy"] == "engine.strategies.market_maker:MarketMaker"
    assert strategy["params"]["size"] == "0.002"


def test_a_strategy_of_the_configuration_is_detached_until_the_next_run(call: Any, engine: StandIn) -> None:
    engine.answers["detach"] = lambda args: {"was_attached": args["name"] == "extra"}
    assert call("detach", "extra")[1] == "strategy extra detached\n"
    assert "it is in the configuration, and returns with the next engine run" in call("detach", "maker")[1]


def test_orders_that_could_not_be_cancelled_fail_the_command(call: Any, engine: StandIn) -> None:
    answer: dict[str, Any] = {"cancelled": [], "failed": {"demo-1": "open"}, "ended": {"demo-2": "filled"}}
    engine.answers["cancel_all"] = lambda _: {**answer, "unanswered": {}}
    code, out, err = call("cancel-all", "--timeout", "2m")
    assert code == 1
    assert "demo-1 was not cancelled: open" in err
    assert "order demo-2 was filled before it could be cancelled" in out
    assert engine.asked == [("cancel_all", {"within_s": 120.0})]


def test_an_account_that_could_not_be_asked_to_cancel_fails_the_command(call: Any, engine: StandIn) -> None:
    lost = {"exchange.binance.main": "exchange.binance.main does not answer: closed"}
    engine.answers["cancel_all"] = lambda _: {"cancelled": ["a"], "failed": {}, "ended": {}, "unanswered": lost}
    code, out, err = call("cancel-all")
    assert (code, out) == (1, "1 orders cancelled\n")
    assert "exchange.binance.main does not answer: closed; its orders may be open" in err


@pytest.mark.parametrize(
    ("answer", "code", "out", "err"),
    [
        ({"missing": [], "not_saved": ""}, 0, "halted: no new order goes out until engine resume\n", ""),
        ({"missing": ["exchange.a.main"], "not_saved": ""}, 1, "", "exchange.a.main did not acknowledge yet"),
        ({"missing": [], "not_saved": "trading.json cannot be written"}, 1, "halted", "not over a restart yet"),
    ],
)
def test_a_halt_says_what_holds(
    call: Any, engine: StandIn, answer: dict[str, Any], code: int, out: str, err: str
) -> None:
    engine.answers["halt"] = lambda _: {"state": "halted", "acknowledged": [], **answer}
    found = call("halt", "--reason", "a test")
    assert (found[0], out in found[1], err in found[2]) == (code, True, True)
    assert engine.asked == [("halt", {"reason": "a test"})]
    assert json.loads(call("halt", "--json")[1])["missing"] == answer["missing"]


def test_a_strategy_that_does_not_start_is_told_at_its_attachment(call: Any, engine: StandIn) -> None:
    states = iter(("starting", "backing_off"))
    engine.answers["attach"] = lambda _: {"actor": "strategy.extra"}
    engine.answers["status"] = lambda _: {"actors": [{"name": "strategy.extra", "state": next(states)}]}
    code, out, err = call("attach", str(ROOT / "configs/strategy.yml"))
    assert code == 0
    assert "attached" in out
    assert "does not start (backing off): see engine logs strategy.extra" in err


def test_an_attach_file_that_is_wrong_never_reaches_the_engine(call: Any, engine: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    path.write_text("name: x\nstrategy: no.such:Thing\npairs: [binance/BTC-USDT]\n")
    code, _, err = call("attach", str(path))
    assert code == 2
    assert err.startswith(f"engine: {path}:2: strategy: there is no module no")
    assert engine.asked == []


def test_balances_as_a_table(call: Any, engine: StandIn) -> None:
    engine.answers["balances"] = lambda _: {"binance/main": {"USDT": {"total": "10.50", "available": "9"}}}
    assert re.search(r"binance/main +USDT +10\.50 +9", call("balances")[1])
    assert json.loads(call("balances", "--json")[1])["binance/main"]["USDT"]["total"] == "10.50"


def test_a_book_is_read_from_shared_memory(call: Any, engine: StandIn) -> None:
    path = engine.paths.shm / "binance.BTC-USDT.book"
    writer = BookWriter(path, "BTC-USDT", -2, -4)
    try:
        code, out, _ = call("book", "binance/BTC-USDT", "--json")
        assert code == 0
        assert json.loads(out)["state"] == "stale"
        book = OrderBook("BTC-USDT", -2, -4)
        book.apply_snapshot([("59999.90", "1.5"), ("59999.80", "2")], [("60000.10", "0.25")])
        now = time.monotonic_ns()
        writer.heartbeat(now)
        writer.publish(book, 42, time.time_ns(), now, SyncState.SYNCED)
        data = json.loads(call("book", "binance/BTC-USDT", "--depth", "1", "--json")[1])
        assert data["update_id"] == 42
        assert [[Decimal(v) for v in level] for level in data["bids"]] == [[Decimal("59999.9"), Decimal("1.5")]]
        out = call("book", "binance/BTC-USDT")[1]
        assert "update 42, 2 bids, 1 asks" in out
        assert "59999.8" in out
        code, _, err = call("book", "binance/BTC-USD")
        assert code == 1
        assert "there is no book binance/BTC-USD; did you mean binance/BTC-USDT?" in err
    finally:
        writer.close(unlink=True)


# ---------------------------------------------------------------------------------- without a running engine


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
    engine.answers["orders"] = lambda _: []
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

    def partly(args: dict[str, Any]) -> dict[str, Any]:
        if not args.get("partial"):
            raise EngineError("exchange.b.main is failed")
        rows = [{"connector": "a", **msgspec.to_builtins(some_order(9))}]
        return {"rows": rows, "unanswered": {"exchange.b.main": "exchange.b.main is failed"}}

    engine.answers["orders"] = partly
    code, out, err = call("orders", "--json")
    assert code == 0
    assert [(row["connector"], row["client_order_id"]) for row in json.loads(out)] == [("a", "demo-9"), ("b", "demo-7")]
    assert err == "engine: exchange.b.main is failed; its orders are as its journal has them\n"


def test_balances_that_are_not_known_fail_the_command_and_hide_no_others(call: Any, engine: StandIn) -> None:
    def partly(args: dict[str, Any]) -> dict[str, Any]:
        if not args.get("partial"):
            raise EngineError("exchange.b.main is failed")
        rows = {"a/main": {"USDT": {"total": "10.50", "available": "9"}}}
        return {"rows": rows, "unanswered": {"exchange.b.main": "exchange.b.main is failed"}}

    engine.answers["balances"] = partly
    code, out, err = call("balances")
    assert code == 1
    assert re.search(r"a/main +USDT +10\.50", out)
    assert err == "engine: exchange.b.main is failed; its balances are not known\n"


def test_all_rows_are_had_page_by_page_and_that_there_are_more_is_told(call: Any, engine: StandIn) -> None:
    kept = [{"connector": "box", **msgspec.to_builtins(some_order(number))} for number in reversed(range(2500))]

    def page(args: dict[str, Any]) -> list[dict[str, Any]]:
        assert args["limit"] <= 1000
        return kept[args["offset"] : args["offset"] + args["limit"]]

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


@pytest.mark.parametrize("text", ["99999999999", "99999999999999999999", "9999-12-31"])
def test_a_time_that_no_order_can_have_is_a_wrong_command_line(call: Any, text: str) -> None:
    code, _, err = call("orders", "--since", text)
    assert code == 2
    assert "later than any order can be" in err


def test_a_time_before_all_others_is_the_beginning() -> None:
    assert since("0001-01-02") == since("999999d") == 0


def test_logs_of_all_actors_in_the_order_of_time(call: Any, state: Path) -> None:
    (state / "logs").mkdir(parents=True)

    def write(actor: str, *times: str) -> None:
        lines = [
            json.dumps({"time": f"2026-01-01T00:00:{t}Z", "level": "info", "actor": actor, "event": f"e{t}", "x": 1})
            for t in times
        ]
        (state / "logs" / f"{actor}.jsonl").write_text("\n".join(lines) + "\n")

    write("clock", "01", "03")
    write("venue", "02", "04")
    (state / "logs" / "venue.jsonl.1").write_text('{"time": "2026-01-01T00:00:00Z", "event": "e00"}\n')
    assert re.findall(r"e0\d", call("logs")[1]) == ["e00", "e01", "e02", "e03", "e04"]
    assert re.findall(r"e0\d", call("logs", "-n", "2")[1]) == ["e03", "e04"]
    assert re.findall(r"e0\d", call("logs", "clock")[1]) == ["e01", "e03"]
    assert json.loads(call("logs", "clock", "-n", "1", "--json")[1])["event"] == "e03"
    code, _, err = call("logs", "clok")
    assert code == 1
    assert "did you mean clock?" in err


def test_logs_are_followed_over_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def add(*numbers: int) -> None:
        with path.open("a") as file:
            file.writelines(f'{{"n": {number}}}\n' for number in numbers)

    def added() -> list[Any]:
        return [line["n"] for line in log.added()]

    log = LogFile(path)
    assert added() == []
    add(1, 2)
    assert added() == [1, 2]
    with path.open("a") as file:
        file.write('{"n": ')
    assert added() == []
    with path.open("a") as file:
        file.write("3}\n")
    assert added() == [3]
    add(4)
    path.rename(tmp_path / "a.jsonl.1")
    add(5)
    assert added() == [4, 5]
    assert added() == []


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 16])
@pytest.mark.parametrize("count", [1, 3, 8, 9, 50])
def test_the_end_of_a_log_is_read_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, count: int
) -> None:
    monkeypatch.setattr("engine.commands.logs._BLOCK", block)
    (tmp_path / "a.jsonl.1").write_text("".join(f'{{"n": {number}}}\n' for number in range(1, 6)))
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"n": {number}}}\n' for number in range(6, 9)) + '{"n": ')
    log = LogFile(path)
    assert [line["n"] for line in log.last(count)] == list(range(1, 9))[-count:]
    with path.open("a") as file:
        file.write('9}\n{"n": 10}\n')
    assert [line["n"] for line in log.added()] == [9, 10]


def test_a_log_of_megabytes_is_not_read_for_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' * 500_000)

    class Counted(io.FileIO):
        had = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            Counted.had += len(data)
            return data

    with Counted(path) as file:
        assert _end_of(file, 50).count(b"\n") > 50
        assert file.tell() == path.stat().st_size
    assert Counted.had == 1 << 16


def test_check_says_what_would_run(call: Any) -> None:
    code, out, _ = call("check", str(ROOT / "configs/demo.yml"), "--json")
    assert code == 0
    names = [actor["name"] for actor in json.loads(out)["actors"]]
    assert {"clock", "order_book.binance.0", "exchange.binance.main", "strategy.maker_btc"} <= set(names)
    assert "a tick every 1 s" in call("check", str(ROOT / "configs/demo.yml"))[1]


@pytest.mark.parametrize("config", ["demo.yml", "two_hosts.yml", "two_venues.yml"])
def test_check_takes_the_configurations_that_need_nothing(call: Any, config: str) -> None:
    code, out, err = call("check", str(ROOT / "configs" / config))
    assert (code, err) == (0, "")
    assert "is valid; would run" in out


def test_check_says_where_what_has_a_place_would_run(call: Any) -> None:
    code, out, _ = call("check", str(ROOT / "configs/two_hosts.yml"), "--json")
    rows = {actor["name"]: actor for actor in json.loads(out)["actors"]}
    assert code == 0
    assert (rows["mirror.binance:us.home"]["place"], rows["order_book.binance:us.0"]["place"]) == ("", "beta")
    assert "books of binance:us" in rows["mirror.binance:us.home"]["what"]


def test_venues_name_the_variables_of_their_keys(call: Any) -> None:
    rows = {row["venue"]: row for row in json.loads(call("venues", "--json")[1])}
    assert rows["binance:us"]["keys"] == ["BINANCE_US_API_KEY", "BINANCE_US_API_SECRET"]
    assert "wss://" in call("venues")[1]


# --------------------------------------------------------------------------------------- running, and watching


@pytest.mark.parametrize("ok", [True, False])
def test_run_prints_the_summary_and_writes_the_report(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ok: bool
) -> None:
    report = build_report([], seconds=2.0, runtime="local", problems=[] if ok else ["it broke"])
    seen: list[Any] = []

    async def supervise(config: Any, options: Any, terminal: Any = None) -> Any:
        seen.append((config.clock.interval, options.seconds, options.terminal_logs, terminal))
        return report

    monkeypatch.setattr("engine.actors.supervisor.supervise", supervise)
    path = tmp_path / "report.json"
    code, out, _ = call(
        *("run", str(ROOT / "configs/demo.yml"), "--for", "2", "--report", str(path), "--set", "clock.interval=0.1")
    )
    assert code == (0 if ok else 1)
    assert seen[0][:3] == (0.1, 2.0, True)
    assert json.loads(path.read_text()) == report
    assert out.startswith("ok after 2.0 s" if ok else "NOT OK")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


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


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["view"]])
def test_a_terminal_without_unicode_and_a_pipe_end_no_command(
    engine: StandIn, state: Path, arguments: list[str]
) -> None:
    status = some_status()
    status["events"][0]["event"] = "größer"
    engine.answers["status"] = lambda _: status
    result = subprocess.run(
        [sys.executable, "-m", "engine", *arguments, "--state", str(state)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"order_book.binance.0" in result.stdout
    assert b"\x1b" not in result.stdout
    if "--json" in arguments:
        assert json.loads(result.stdout)["events"][0]["event"] == "größer"


@pytest.mark.parametrize(
    ("where", "code", "said"), [(">&-", 0, ""), ("> /dev/full", 1, "No space left on device; free some")]
)
def test_an_output_that_is_closed_or_full_is_no_surprise(where: str, code: int, said: str) -> None:
    command = f"{sys.executable} -m engine venues {where}"
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, said in result.stderr) == (code, True)
    assert "unexpected" not in result.stderr
    assert len(result.stderr.splitlines()) <= 1


def _read_all(descriptor: int, into: bytearray) -> None:
    try:
        while data := os.read(descriptor, 65536):
            into += data
    except OSError:
        return
