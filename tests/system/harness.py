"""A real engine, started as a user starts it, and the means to look at it, hurt it and see that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.commands.client import ask
from engine.commands.common import CommandError
from engine.runtime.locks import held_locks
from engine.runtime.paths import EnginePaths

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable
Status = dict[str, Any]


class Engine:
    """``engine run`` as a subprocess on a state folder of its own.

    ``nohup``: with SIGHUP ignored, as under that command; otherwise not, however the tests were started.
    """

    def __init__(
        self, config: str | Path, state: Path, *arguments: str, for_s: float | None = None, nohup: bool = False
    ) -> None:
        self.state = state
        self.paths = EnginePaths.for_state(state)
        self.report_file = state.parent / f"{state.name}-report.json"
        command = ["env", "--ignore-signal=HUP" if nohup else "--default-signal=HUP"]
        command += [PYTHON, str(ROOT / "scripts" / "run_engine.py"), str(config), "--state", str(state)]
        command += ["--report", str(self.report_file), "--no-view", *arguments]
        if for_s is not None:
            command += ["--for", str(for_s)]
        self.output = (state.parent / f"{state.name}.out").open("wb")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output, start_new_session=True
        )

    # ------------------------------------------------------------------------------------------------------- asking

    def ask(self, verb: str, timeout: float = 20.0, **args: Any) -> Any:
        """Ask the running engine, as commands do."""
        return ask(self.state, verb, timeout, **args)

    def status(self) -> Status:
        """The engine's status."""
        return dict(self.ask("status"))

    def wait(self, what: str, condition: Callable[[Status], Any], timeout: float = 30.0) -> Status:
        """Ask until the condition holds; what it was waiting for, and the log, are told if it never does."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                status = self.status()
                if condition(status):
                    return status
            except CommandError as error:
                status = {"not up": str(error)}
            if self.process.poll() is not None:
                raise AssertionError(f"the engine ended while waiting for {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {timeout} s: {what}\n{json.dumps(status, indent=1)[-6000:]}\n{self.tail()}"
                )
            time.sleep(0.05)

    def wait_trading(self, more_fills: int = 1, timeout: float = 30.0) -> Status:
        """Wait until there are so many more fills than now."""
        before = self.wait("the engine to be up", lambda s: True)["fills"]
        return self.wait(f"{more_fills} more fills than {before}", lambda s: s["fills"] >= before + more_fills, timeout)

    def actor(self, name: str, status: Status | None = None) -> dict[str, Any]:
        for row in (status or self.status())["actors"]:
            if row["name"] == name:
                return dict(row)
        raise KeyError(name)

    def pids(self, status: Status | None = None) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in (status or self.status())["actors"]}

    def ledger(self, venue: str = "venue") -> dict[str, Any]:
        """What the venue in a box has on its books."""
        url = self.actor(venue)["endpoint"] + "/admin/ledger"
        return read_json(url)

    def tail(self, lines: int = 40) -> str:
        """The last lines of the engine's own output and of all logs, for failures."""
        found = ["--- output", *self.text().splitlines()[-lines:]]
        for log in sorted((self.state / "logs").glob("*")):
            found += [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-12:]]
        return "\n".join(found)

    def text(self) -> str:
        """What the engine wrote to its terminal."""
        return Path(self.output.name).read_text(errors="replace")

    # ---------------------------------------------------------------------------------------------------- interfering

    def kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        pids = self.pids()
        for name in names:
            os.kill(pids[name], number)

    def wait_restarted(self, name: str, old_pid: int, timeout: float = 20.0) -> Status:
        def back(status: Status) -> bool:
            row = next((row for row in status["actors"] if row["name"] == name), None)
            return row is not None and row["state"] == "running" and row["pid"] != old_pid

        return self.wait(f"{name} to be back", back, timeout)

    # ---------------------------------------------------------------------------------------------------------- ends

    def interrupt(self) -> dict[str, Any]:
        """Ctrl-C, and the report."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def finish(self, timeout: float = 40.0) -> dict[str, Any]:
        """Wait for the engine's end; its report."""
        code = self.process.wait(timeout)
        assert self.report_file.exists(), self.tail()
        report: dict[str, Any] = json.loads(self.report_file.read_text())
        report["exit_code"] = code
        return report

    def close(self) -> None:
        """End it, whatever it is doing, and wait until nothing of it is left."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.output.close()
        self.assert_nothing_left(timeout=20.0)

    def assert_ended(self, pids: set[int], timeout: float = 15.0) -> None:
        """All of these processes end soon."""
        deadline = time.monotonic() + timeout
        while left := [pid for pid in pids if is_alive(pid)]:
            assert time.monotonic() < deadline, f"still alive: {left}\n{self.tail()}"
            time.sleep(0.02)

    def assert_nothing_left(self, timeout: float = 15.0) -> None:
        """No process, no socket file, no shared-memory file."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if not (self.paths.run.exists() or self.paths.shm.exists()):
                return
            time.sleep(0.05)
        left = [lock.name for lock in held_locks(self.paths.run)] if self.paths.run.exists() else []
        files = [str(path) for folder in (self.paths.run, self.paths.shm) for path in folder.glob("*")]
        raise AssertionError(f"left behind: processes {left}, files {files}\n{self.tail()}")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_json(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def descendants(pid: int) -> set[int]:
    """All living processes below a pid."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    stack = [pid]
    while stack:
        for child in children.get(stack.pop(), []):
            found.add(child)
            stack.append(child)
    return found
