"""A real engine for a benchmark: its own processes, its own folder, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from benchmarks.common import say
from engine.commands.client import ask
from engine.commands.common import CommandError
from engine.metrics import Histogram
from engine.runtime.local import SERVER_NAME
from engine.runtime.paths import EnginePaths

ROOT = Path(__file__).resolve().parent.parent
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
Status = dict[str, Any]

NO_LIMITS = {"enforce_limits": False, "weight_limit": 10**9, "order_limit_10s": 10**9, "order_limit_1d": 10**9}
"""A box that takes any number of requests, and says so."""


class ActorResult(msgspec.Struct, kw_only=True):
    """What one actor counted: counters over its whole life, histograms of its last incarnation."""

    counters: dict[str, int]
    histograms: dict[str, dict[int, int]]


class Result(msgspec.Struct, kw_only=True):
    """What an engine leaves: its report, and each actor's counters and histograms."""

    report: dict[str, Any]
    actors: dict[str, ActorResult]

    def histogram(self, name: str, actor: str = "") -> Histogram:
        """A histogram over all actors whose name begins so."""
        total = Histogram()
        for found, result in self.actors.items():
            if found.startswith(actor):
                total.add(result.histograms.get(name, {}))
        return total


class Engine:
    """``config``: as a configuration file. ``box``: what its venue in a box has beyond what a configuration can say.

    ``actors``: by actor, what :mod:`benchmarks.actor_process` sets up in its process.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        box: Mapping[str, Any] | None = None,
        actors: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self._folder.name)
        self.state = self.folder / "state"
        self.paths = EnginePaths.for_state(self.state)
        self._output = self.folder / "output"
        (self.folder / "config.yml").write_text(json.dumps(config))
        (self.folder / "box.json").write_text(json.dumps(box or {}))
        (self.folder / "actors.json").write_text(json.dumps(actors or {}))
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.engine_process", str(self.folder)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            say(self._tail())
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._process.pid

    def status(self) -> Status:
        return dict(ask(self.state, "status", 20.0))

    def pids(self) -> dict[str, int]:
        """Process ids by actor, the supervisor's and the fork server's among them."""
        found = {row["name"]: row["pid"] for row in self.status()["actors"]}
        server = self.fork_server()
        return found if server is None else {**found, SERVER_NAME: server}

    def fork_server(self) -> int | None:
        """The living fork server's process id; it is the child of the supervisor with that title."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == self.pid and (entry / "comm").read_text().strip() == SERVER_NAME:
                        return int(entry.name)
                except (OSError, ValueError):
                    continue
        return None

    def wait(self, what: str, condition: Callable[[Status], Any], timeout: float = 30.0) -> Status:
        """Ask until the condition holds. Raises RuntimeError when it does not in time, or the engine ends."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                status = self.status()
                if condition(status):
                    return status
            except CommandError:
                status = {}
            if self._process.poll() is not None:
                raise RuntimeError(f"the engine ended while waiting for {what}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {timeout} s: {what}; {json.dumps(status)[:2000]}")
            time.sleep(0.05)

    def wait_running(self) -> Status:
        """Wait until all actors run, all books are in sync and the venue has been reached."""
        return self.wait("all actors to run", all_running)

    def finish(self) -> Result:
        """Stop it politely; what it leaves. Raises RuntimeError for a run that was not ok: its figures say nothing."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        try:
            result = msgspec.json.decode((self.folder / "result.json").read_bytes(), type=Result, strict=False)
        except OSError:
            raise RuntimeError("the engine left no result") from None
        if not result.report["ok"]:
            raise RuntimeError(f"the engine's run was not ok: {'; '.join(result.report['problems'])}")
        return result

    def _tail(self) -> str:
        text = self._output.read_text(errors="replace")
        for log in sorted((self.state / "logs").glob("*")):
            text += f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:]) + "\n"
        return text


def all_running(status: Status) -> bool:
    """Whether every actor runs, every account has reached its venue and every book is in sync."""
    actors, books = status["actors"], status["books"]
    return (
        all(row["state"] == "running" for row in actors)
        and all(row["network"] == "connected" for row in actors if row["kind"] in ("exchange", "user_stream"))
        and bool(books)
        and all(book["state"] == "synced" for book in books.values())
    )


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def pss_mb(pid: int) -> float:
    """The memory of a process, in MB of 10^6 bytes; what it shares counts by the number of those that share it."""
    for row in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if row.startswith("Pss:"):
            return int(row.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"this system does not tell the memory of process {pid}")


def config(
    *strategies: Mapping[str, Any], pairs: Mapping[str, str] | None = None, interval: float = 1.0, **sections: Any
) -> dict[str, Any]:
    """A configuration with one venue in a box and strategies of :mod:`benchmarks.strategies`, named by their class."""
    pairs = pairs or {"BTC-USDT": "60000"}
    return {
        "name": "bench",
        "clock": {"interval": interval},
        "venue": {
            "speaks": "binance",
            "seed": 7,
            "pairs": [{"pair": pair, "price": price} for pair, price in pairs.items()],
            "balances": {"USDT": "10000000", "BTC": "100", "ETH": "1000"},
        },
        "connectors": {"binance": {"at": "venue", "pairs": list(pairs)}},
        "strategies": {
            str(entry["name"]).lower(): {
                "strategy": f"benchmarks.strategies:{entry['name']}",
                "pairs": [f"binance/{pair}" for pair in pairs],
                "params": entry.get("params", {}),
            }
            for entry in strategies
        },
        **sections,
    }
