"""Between a strategy and its venue anything may break at any time: no order is lost, doubled or sent late."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.commands.common import CommandError
from engine.connectors.binance.auth import signed_query
from tests.system.conftest import Launch
from tests.system.harness import Engine

pytestmark = pytest.mark.processes
FAST = ("--set", "clock.interval=0.1", "--set", "supervision.budget=50")
PATIENT = (*FAST, "--set", "supervision.stall=60")
EXCHANGE = "exchange.binance.main"
USER_STREAM = "user_stream.binance.main"
PUPPET = "strategy.puppet"


class Show:
    """One engine with one puppet. ``entry``: the way that its orders take to the venue."""

    def __init__(
        self, launch: Launch, folder: Path, *arguments: str, name: str = "state", entry: str = "websocket"
    ) -> None:
        self.folder = folder / f"puppet-{name}"
        self.folder.mkdir()
        config = {
            "name": "proof",
            "venue": {
                "speaks": "binance",
                "seed": 7,
                "pairs": [{"pair": "BTC-USDT", "price": "60000"}],
                "balances": {"USDT": "1000000", "BTC": "2"},
            },
            "connectors": {"binance": {"at": "venue", "pairs": ["BTC-USDT"], "options": {"order_entry": entry}}},
            "strategies": {
                "puppet": {
                    "strategy": "tests.system.strategies:Puppet",
                    "pairs": ["binance/BTC-USDT"],
                    "params": {"folder": str(self.folder)},
                }
            },
        }
        path = folder / f"{name}.yml"
        path.write_text(yaml.safe_dump(config))
        self.engine: Engine = launch(path, *(arguments or FAST), name=name)
        self.wait("the puppet to be ready", lambda: self.view().get("ready"))
        status = self.engine.wait("the venue's address", lambda s: self.engine.actor("venue", s)["endpoint"])
        self.venue: str = self.engine.actor("venue", status)["endpoint"]

    def command(self, *lines: dict[str, str]) -> None:
        with (self.folder / "commands.jsonl").open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def view(self) -> dict[str, Any]:
        """What the puppet saw at its last tick."""
        path = self.folder / "view.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def open(self) -> dict[str, str]:
        """The puppet's open orders by name: their states as it sees them."""
        return dict(self.view().get("open", {}))

    def told(self, name: str) -> list[str]:
        """The kinds of events that the puppet was told of an order."""
        return [event["kind"] for event in self.events() if event["id"] == self.view().get("ids", {}).get(name)]

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "told.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait(self, what: str, condition: Callable[[], Any], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.engine.process.poll() is None, f"the engine ended\n{self.engine.tail()}"
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}\n{self.story()}\n{self.engine.tail()}"
            time.sleep(0.02)

    def wait_open(self, *names: str) -> None:
        self.wait(f"{names} to be open", lambda: all(self.open().get(name) == "open" for name in names))

    def story(self) -> str:
        return "\n".join(map(str, [self.view(), *self.events()]))

    def inflict(self, *faults: dict[str, Any]) -> None:
        """Arm faults at the venue."""
        request = urllib.request.Request(f"{self.venue}/admin/faults", json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(request, timeout=5).close()

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.venue + path, timeout=5) as reply:
            return dict(json.load(reply))

    def at_venue(self) -> dict[str, dict[str, Any]]:
        """The client's orders at the venue; each id is there once."""
        orders = self.get("/admin/ledger")["orders"]
        counts = Counter(order["client_order_id"] for order in orders)
        assert max(counts.values(), default=0) <= 1, counts
        return {order["client_order_id"]: order for order in orders}

    def id(self, name: str) -> str:
        return str(self.view()["ids"][name])

    def by_hand(self, client_order_id: str, price: str = "30000") -> None:
        """Place an order with the engine's key, past the engine."""
        with closing(sqlite3.connect(self.engine.state / "venues" / "venue" / "ledger.db")) as database:
            key, secret = database.execute("SELECT api_key, api_secret FROM accounts").fetchone()
        params = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
        params |= {"price": price, "newClientOrderId": client_order_id, "timestamp": str(time.time_ns() // 1_000_000)}
        url = f"{self.venue}/api/v3/order?{signed_query(list(params.items()), secret)}"
        request = urllib.request.Request(url, method="POST", headers={"X-MBX-APIKEY": key})
        urllib.request.urlopen(request, timeout=5).close()

    def settled(self) -> bool:
        """Whether the puppet's view and the venue's books name the same open orders."""
        ids = {client_order_id: name for name, client_order_id in self.view()["ids"].items()}
        resting = {ids[key] for key, order in self.at_venue().items() if order["status"] in ("NEW", "PARTIALLY_FILLED")}
        return resting == set(self.open())


def good(report: dict[str, Any]) -> bool:
    return bool(report["ok"]) and report["fills_missed"] == report["fills_duplicated"] == 0


PLACE = {"rest": "POST /api/v3/order", "websocket": "WS order.place"}
CANCEL = {"rest": "DELETE /api/v3/order", "websocket": "WS order.cancel"}


def test_lost_replies_server_errors_and_refused_cancels(launch: Launch, tmp_path: Path) -> None:
    shows = {entry: Show(launch, tmp_path, name=entry, entry=entry) for entry in ("rest", "websocket")}
    for entry, show in shows.items():
        show.inflict({"kind": "reject", "status": 503, "code": -1008, "match": PLACE[entry]})
        show.command({"place": "unknown"})
        show.wait("its fate to be unknown", lambda show=show: show.told("unknown") == ["unknown"])
        show.inflict({"kind": "drop_reply", "match": PLACE[entry]})
        show.command({"place": "unheard"})
        show.wait_open("unheard")
        show.inflict({"kind": "drop_reply", "match": CANCEL[entry]})
        show.command({"cancel": "unheard"})
        show.wait("the cancel that nobody answered", lambda show=show: "cancelled" in show.told("unheard"))
        show.command({"place": "stubborn"})
        show.wait_open("stubborn")
        refusal = {"kind": "reject", "status": 400, "code": -2011, "msg": "Order was not canceled"}
        show.inflict({**refusal, "match": CANCEL[entry]})
        show.command({"cancel": "stubborn"}, {"place": "kept"})
    for show in shows.values():
        show.wait("a refused cancel to be tried again", lambda show=show: "cancelled" in show.told("stubborn"))
        show.wait("the unknown order's end", lambda show=show: show.told("unknown")[-1] == "failed", timeout=30)
        show.wait("the kept one alone to be open", lambda show=show: show.open() == {"kept": "open"})
        assert show.told("unknown") == ["unknown", "failed"]
        assert show.told("unheard")[-2:] == ["created", "cancelled"]
        assert show.told("stubborn") == ["created", "cancelled"]
        assert show.id("unknown") not in show.at_venue()
        report = show.engine.interrupt()
        assert good(report), report
        expected = {"placed": 4, "cancelled": 3, "failed": 1, "open": 0, "unknown": 0}
        assert report["orders"] | expected == report["orders"]


def test_foreign_orders_are_not_touched_and_fills_are_found_without_the_stream(launch: Launch, tmp_path: Path) -> None:
    show = Show(launch, tmp_path)
    show.by_hand("by-hand")
    show.by_hand("proof-by-hand")
    os.kill(show.engine.pids()[USER_STREAM], signal.SIGSTOP)
    show.inflict({"kind": "disconnect_user"})
    before = show.get("/admin/stats")["requests"]
    began = time.monotonic()
    show.command(*({"place": f"taker{n}", "factor": "1.02"} for n in range(3)))
    for n in range(3):
        show.wait("its fill", lambda n=n: show.told(f"taker{n}")[-1:] == ["completed"])
    show.engine.wait_restarted(USER_STREAM, show.engine.pids()[USER_STREAM], timeout=30)
    seconds = time.monotonic() - began
    asked = show.get("/admin/stats")["requests"] - before
    assert asked < 40 + 15 * seconds, f"{asked} requests in {seconds:.1f} s"
    show.command({"place": "rests"})
    show.wait_open("rests")
    for _ in range(5):
        show.inflict({"kind": "disconnect_user"})
        name = f"late{time.monotonic_ns()}"
        show.command({"place": name, "factor": "1.02"})
        show.wait("a fill beside a broken stream", lambda name=name: show.told(name)[-1:] == ["completed"])
    report = show.engine.interrupt()
    assert good(report), report
    assert report["fills"] >= 8
    resting = ledger_on_disk(show.engine)
    assert resting == {"by-hand", "proof-by-hand"}


def ledger_on_disk(engine: Engine) -> set[str]:
    """The client order ids that rest at a venue that has ended."""
    query = "SELECT client_order_id FROM orders WHERE status IN ('NEW', 'PARTIALLY_FILLED')"
    with closing(sqlite3.connect(engine.state / "venues" / "venue" / "ledger.db")) as database:
        return {row[0] for row in database.execute(query)}


def test_a_venue_that_stands_still_and_goes_on(launch: Launch, tmp_path: Path) -> None:
    show = Show(launch, tmp_path, *PATIENT)
    show.command({"place": "before"})
    show.wait_open("before")
    show.engine.kill("venue", number=signal.SIGSTOP)
    show.command({"place": "during"}, {"cancel": "before"})
    show.wait("requests to time out", lambda: "unknown" in show.told("during"), timeout=15)
    show.engine.kill(EXCHANGE)
    show.engine.kill("venue", number=signal.SIGCONT)
    show.wait("the cancel to be done by the next life", lambda: "cancelled" in show.told("before"), timeout=30)
    show.command({"place": "after"})
    show.wait_open("after")
    show.wait("all fates to be known", lambda: show.settled() and "unknown" not in show.open().values(), timeout=40)
    assert show.told("during")[:1] == ["unknown"]
    assert show.told("during")[-1] in ("created", "failed")
    report = show.engine.interrupt()
    assert good(report), report
    assert report["orders"]["open"] == report["orders"]["unknown"] == 0


def test_the_end_is_bounded_while_the_venue_stands_still(launch: Launch, tmp_path: Path) -> None:
    polite = Show(launch, tmp_path, *PATIENT, name="polite")
    orphaned = Show(launch, tmp_path, *PATIENT, name="orphaned")
    for show in (polite, orphaned):
        show.command({"place": "open"})
        show.wait_open("open")
    pids = set(orphaned.engine.pids().values()) | set(polite.engine.pids().values())
    for show in (polite, orphaned):
        show.engine.kill("venue", number=signal.SIGSTOP)
    began = time.monotonic()
    orphaned.engine.process.send_signal(signal.SIGKILL)
    report = polite.engine.interrupt()
    assert time.monotonic() - began < 30
    assert report["fills_missed"] is None
    assert report["fills_duplicated"] is None
    assert report["orders"]["open"] == 1
    assert report["ok"] is False
    assert any("leaves orders open at the venue" in problem for problem in report["problems"]), report["problems"]
    assert "orders may still be open at the venue" in (polite.engine.state / "logs" / f"{EXCHANGE}.jsonl").read_text()
    orphaned.engine.process.wait()
    orphaned.engine.assert_ended(pids - {orphaned.engine.process.pid}, timeout=15)


@pytest.mark.parametrize("delay", [0.0, 0.1])
def test_the_engine_stops_right_after_the_exchange_actor_died(launch: Launch, tmp_path: Path, delay: float) -> None:
    show = Show(launch, tmp_path)
    show.command({"place": "one"}, {"place": "two"}, {"place": "taker", "factor": "1.02"})
    show.wait_open("one", "two")
    show.engine.kill(EXCHANGE)
    time.sleep(delay)  # the instant within its restart is what is tested
    report = show.engine.interrupt()
    assert good(report), report
    assert report["orders"]["open"] == 0
    assert ledger_on_disk(show.engine) == set()


def test_a_journal_that_cannot_be_written(launch: Launch, tmp_path: Path) -> None:
    show = Show(launch, tmp_path)
    show.command({"place": "before"})
    show.wait_open("before")
    pid = show.engine.pids()[EXCHANGE]
    journal = show.engine.state / "accounts" / "binance.main.db-wal"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, resource.RLIM_INFINITY))
    show.command(*({"place": f"n{n}"} for n in range(3)))
    show.engine.wait_restarted(EXCHANGE, pid)
    show.wait("every fate to be known", lambda: all(show.told(f"n{n}") for n in range(3)), timeout=30)
    show.wait("the two to agree", show.settled, timeout=30)
    show.command({"place": "after"})
    show.wait_open("before", "after")
    log = (show.engine.state / "logs" / f"{EXCHANGE}.jsonl").read_text()
    assert "JournalError" in log
    assert any("ended" in event["event"] and event["level"] == "warning" for event in show.engine.status()["events"])
    numbers = [event["number"] for event in show.events() if event["number"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert good(show.engine.interrupt())


def test_commands_to_an_exchange_actor_that_comes_and_goes(launch: Launch, tmp_path: Path) -> None:
    show = Show(launch, tmp_path)
    show.command(*({"place": f"early{n}"} for n in range(4)))
    show.wait_open(*(f"early{n}" for n in range(4)))
    answers: list[Any] = []

    def ask() -> None:
        for verb in ("orders", "fills", "balances"):
            try:
                answers.append((verb, show.engine.ask(verb)))
            except CommandError as error:
                answers.append((verb, str(error)))

    for n in range(4):
        pid = show.engine.pids()[EXCHANGE]
        show.command({"place": f"mid{n}"}, {"cancel": f"early{n}"})
        if n % 2:
            show.wait("the commands to be sent", lambda n=n: show.view()["done"] >= 4 + 2 * (n + 1))
        show.engine.kill(EXCHANGE, number=signal.SIGTERM if n == 3 else signal.SIGKILL)
        asking = threading.Thread(target=ask)
        asking.start()
        show.engine.wait_restarted(EXCHANGE, pid)
        asking.join()
    show.wait("every fate to be known", lambda: all(show.told(f"mid{n}") for n in range(4)), timeout=30)
    show.wait("the two to agree", lambda: show.settled() and "unknown" not in show.open().values(), timeout=40)
    assert "pending_create" not in show.open().values()
    for name in [name for name, state in show.open().items() if state == "open"]:
        show.command({"cancel": name})
    show.wait("all to be cancelled", lambda: not show.open(), timeout=30)
    assert not [answer for answer in answers if isinstance(answer[1], str) or answer[1]["unanswered"]]
    numbers = [event["number"] for event in show.events() if event["number"]]
    assert numbers == sorted(set(numbers))
    assert good(show.engine.interrupt())


def test_a_strategy_taken_out_while_its_exchange_actor_is_away(launch: Launch, tmp_path: Path) -> None:
    show = Show(launch, tmp_path)
    show.command(*({"place": f"n{n}"} for n in range(3)))
    show.wait_open(*(f"n{n}" for n in range(3)))
    show.command(*({"place": f"flying{n}"} for n in range(3)))
    show.wait("they are in flight", lambda: show.view()["done"] == 6)
    show.engine.kill(EXCHANGE)
    show.engine.ask("detach", 40.0, name="puppet")
    status = show.engine.wait("nothing to be open", lambda s: not s["open_orders"])
    assert PUPPET not in show.engine.pids(status)
    assert not [order for order in show.at_venue().values() if order["status"] == "NEW"]
    assert good(show.engine.interrupt())
