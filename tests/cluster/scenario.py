"""An engine across two hosts made of namespaces: how it is looked at and hurt, and what is compared at its end."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.commands.common import CommandError
from engine.simulation.invariants import check_account, compare
from engine.simulation.venue import read_ledger
from scripts.two_hosts import REPORT, STATE, Host, TwoHosts

Row = dict[str, Any]
POLL_S = 0.1
TITLES = (
    *("clock", "exchange.", "fork_server", "mirror.", "order_book.", "recorder", "risk", "strategy.", "user_stream."),
    *("venue", "ray::Cell", "ray::KeptSupervisor"),
)
"""How the command lines of an engine's processes begin."""


def until(what: str, condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """What the condition answers once it is true; questions that fail are asked again."""
    deadline = time.monotonic() + timeout
    said: Any = None
    while time.monotonic() < deadline:
        try:
            said = condition()
            if said:
                return said
        except (CommandError, RuntimeError, KeyError, OSError) as error:
            said = error
        time.sleep(POLL_S)
    raise AssertionError(f"not within {timeout} s: {what}; last: {str(said)[-3000:]}")


class Run:
    """An engine that was started on alpha, from nothing. ``times``: seconds that were measured, by what they are of."""

    def __init__(self, hosts: TwoHosts, config: str, *arguments: str) -> None:
        self.hosts = hosts
        for host in hosts.hosts:
            shutil.rmtree(host.path(STATE), ignore_errors=True)
        hosts.alpha.path("/tmp/engine.yml").write_text(config)
        hosts.alpha.path(REPORT).unlink(missing_ok=True)
        self.driver = hosts.engine("/tmp/engine.yml", *arguments)
        self.times: dict[str, float] = {}

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """A test that failed leaves no engine to the next one on these hosts."""
        if kind is not None and self.hosts.alpha.is_alive:
            print(self.problem(), flush=True)
            self.hosts.alpha.run(["engine", "stop", "--state", STATE], self.hosts.environment)

    # -------------------------------------------------------------------------------------------------------- looking

    def status(self, host: Host | None = None) -> Row:
        return dict(self.hosts.ask(host or self.hosts.alpha, "status"))

    def rows(self, host: Host | None = None) -> dict[str, Row]:
        return {row["name"]: row for row in self.status(host)["actors"]}

    def pids(self) -> dict[str, int]:
        return {name: row["pid"] for name, row in self.rows().items()}

    def placed(self, since_ns: int, strategy: str, *connectors: str) -> bool:
        """Whether a strategy has had orders acknowledged by these venues since."""
        found = {
            row["connector"]
            for row in self.hosts.ask(self.hosts.alpha, "orders", "--since", str(since_ns / 1e9))
            if row["strategy"] == strategy and row.get("exchange_order_id") and row.get("created_ns", 0) >= since_ns
        }
        return found >= set(connectors)

    def trades(self, strategy: str, *connectors: str, timeout: float = 90.0) -> float:
        """Wait until a strategy has orders acknowledged by these venues; the seconds that it took."""
        began, since_ns = time.monotonic(), time.time_ns()
        until(f"{strategy} to trade", lambda: self.placed(since_ns, strategy, *connectors), timeout)
        return time.monotonic() - began

    def on(self, host: Host) -> list[str]:
        """The actors that run on a host."""
        return [name for name, row in self.rows().items() if row["host"] == host.name and name != "supervisor"]

    def problem(self) -> str:
        """What the engine said last, for failures."""
        return self.hosts.alpha.path("/tmp/engine.out").read_text()[-3000:]

    # -------------------------------------------------------------------------------------------------------- hurting

    def kill(self, host: Host, *pids: int) -> None:
        """kill -9 of processes, by their ids on that host."""
        done = host.run(["kill", "-9", *map(str, pids)], self.hosts.environment)
        assert done.returncode == 0, done.stderr

    def kill_all_on(self, host: Host) -> None:
        """kill -9 of every actor of a host at once, and wait until others run in their stead."""
        before = self.rows()
        names = [name for name, row in before.items() if row["host"] == host.name and name != "supervisor"]
        began = time.monotonic()
        self.kill(host, *(before[name]["pid"] for name in names))
        self.back(names, before, began, f"all actors of {host.name}")

    def back(self, names: Iterable[str], before: dict[str, Row], began: float, what: str, timeout: float = 90) -> None:
        """Wait until actors run as other processes than before."""
        wanted = list(names)

        def all_are() -> bool:
            now = self.rows()
            return all(now[name]["state"] == "running" and _life(now[name]) != _life(before[name]) for name in wanted)

        until(f"{what} to be back: {wanted}", all_are, timeout)
        self.times[what] = round(time.monotonic() - began, 1)

    def kill_cell(self, host: Host, cell: str) -> None:
        self.kill(host, int(host.path(f"{STATE}/cell.{cell}.lock").read_text()))

    def kill_driver(self) -> None:
        """The process that started the engine."""
        (pid,) = [pid for pid, command in processes(self.hosts.alpha).items() if "--report" in command]
        self.kill(self.hosts.alpha, pid)
        self.driver.wait(20)

    def stop(self, host: Host) -> Row:
        """``engine halt`` on a host and, once no order is open and the venues have told all balances, ``engine stop``;
        the report.
        """
        self.hosts.tell(host, "halt")

        def is_quiet() -> bool:
            status = self.status(host)
            held = [balance for account in status["balances"].values() for balance in account.values()]
            return not status["open_orders"] and all(each["available"] == each["total"] for each in held)

        until("all orders to be cancelled", is_quiet)
        self.hosts.tell(host, "stop")
        until("the report", self.hosts.alpha.path(REPORT).exists)
        return self.hosts.report()

    # -------------------------------------------------------------------------------------------------------- the end

    def differences(self, connector: str, venue: str, host: Host, report: Row) -> list[str]:
        """What differs between the journal, on alpha, and the ledger of a venue in a box on a host."""
        ledger, balances = read_ledger(fetched(host, f"venues/{venue}"))
        journal = fetched(self.hosts.alpha, "accounts") / f"{connector}.main.db"
        books = compare(connector, journal, ledger, balances)
        assert len(books.venue_orders) > 0
        return list(check_account(books, report))


def fetched(host: Host, folder: str) -> Path:
    """A copy of a folder of a host's state, where databases can be opened: SQLite follows no way into another host."""
    copy = Path(tempfile.mkdtemp(prefix="fetched-")) / "copy"
    atexit.register(shutil.rmtree, copy.parent, ignore_errors=True)
    return Path(shutil.copytree(host.path(f"{STATE}/{folder}"), copy))


def processes(host: Host) -> dict[int, str]:
    """The command line of every process of a host, by its id there."""
    found = {}
    for entry in host.path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


def engine_processes(host: Host) -> dict[int, str]:
    """Those of an engine: actors, fork servers, cells and supervisors; none of Ray's own."""
    return {pid: line for pid, line in processes(host).items() if line.startswith(TITLES)}


def leftovers(host: Host) -> list[str]:
    """What an engine left on a host, beside its state."""
    folders = [*host.path("/tmp").glob("engine-*/*"), *host.path("/dev/shm").glob("engine-*")]
    files = [path for path in (host.path(f"{STATE}/run.json"),) if path.exists()]
    return [str(path) for path in (*folders, *files)]


def show(times: dict[str, float]) -> None:
    """Print what was measured, for docs/cluster.md."""
    print(json.dumps({"recovery_s": times}), flush=True)


def _life(row: Row) -> tuple[str, int]:
    return row["host"], row["pid"]
