"""A real engine as a user starts it, seen and hurt from outside: nothing here asks it for what the kernel knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from engine.commands.client import ask
from engine.commands.common import CommandError
from engine.runtime.locks import HeldLock, held_locks
from engine.runtime.paths import EnginePaths

STOP_WITHIN_S: Final = 60.0
GONE_WITHIN_S: Final = 20.0
ASK_WITHIN_S: Final = 5.0
IN_USE: Final = 2
"""The exit code of an engine that was refused its state folder: one that just died may hold it for a moment more."""


class Victim:
    """``engine run`` on a state folder of its own, started again by whoever killed it."""

    def __init__(self, config: Path, folder: Path) -> None:
        self.state = folder / "state"
        self.paths = EnginePaths.for_state(self.state)
        self.report_file = folder / "report.json"
        self.output = folder / "output"
        self.seen: set[tuple[int, str]] = set()
        self.lives = 0
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------------------------------------------ its life

    def start(self) -> None:
        """Start it; what an earlier life left behind is its own to recover from."""
        command = [sys.executable, "-m", "engine", "run", str(self._config), "--state", str(self.state)]
        command += ["--report", str(self.report_file), "--no-view"]
        self.report_file.unlink(missing_ok=True)
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.lives += 1

    @property
    def exit_code(self) -> int | None:
        """None while the supervisor lives."""
        return None if self._process is None else self._process.poll()

    def reap(self) -> None:
        """Wait for the end of a supervisor that was killed."""
        assert self._process is not None
        self._process.wait(GONE_WITHIN_S)

    def stop(self) -> dict[str, Any] | None:
        """Ctrl-C; the report, None if it did not stop in time or wrote none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None
        if not self.report_file.exists():
            return None
        report: dict[str, Any] = json.loads(self.report_file.read_bytes())
        return report

    def close(self) -> None:
        """End whatever of it still lives, by force if need be."""
        for holder in self.holders():
            holder.send_signal(signal.SIGCONT)
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            for holder in self.holders():
                holder.send_signal(signal.SIGKILL)
            self._process.kill()
            self._process.wait()

    def left_over(self) -> list[str]:
        """What is there although nothing should be, after the time that it may take to go: processes and files."""
        deadline = time.monotonic() + GONE_WITHIN_S
        while (found := self._left_over()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _left_over(self) -> list[str]:
        folders = [path for path in (self.paths.run, self.paths.shm, self.paths.run_json) if path.exists()]
        files = [f"file {file}" for folder in folders for file in (folder, *folder.glob("*"))]
        return files + [f"process {pid} ({title})" for pid, born in self.seen if (title := _lives(pid, born))]

    # ------------------------------------------------------------------------------------------------------ its parts

    def holders(self) -> list[HeldLock]:
        """Its living processes, by the locks that they hold: actors, supervisor and fork server."""
        found = held_locks(self.paths.run)
        for lock in found:
            if lock.pid is not None and (born := _born(lock.pid)):
                self.seen.add((lock.pid, born))
        return found

    def of_kind(self, kind: str) -> list[HeldLock]:
        """Its living processes of a kind, in order of their names."""
        return [lock for lock in self.holders() if lock.name.partition(".")[0] == kind]

    def status(self) -> dict[str, Any]:
        """What ``engine status`` would say; empty when it cannot be asked now."""
        with suppress(CommandError):
            return dict(ask(self.state, "status", ASK_WITHIN_S))
        return {}

    def tail(self, lines: int = 30) -> list[str]:
        """The last lines of what it wrote to its terminal."""
        return self.output.read_text(errors="replace").splitlines()[-lines:]


def _stat(pid: int) -> tuple[str, list[str]]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", []
    title, _, rest = text.partition("(")[2].rpartition(")")
    return title, rest.split()


def _born(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none."""
    fields = _stat(pid)[1]
    return fields[19] if fields and fields[0] != "Z" else ""


def _lives(pid: int, born: str) -> str:
    """The title of that very process if it lives, else empty."""
    return _stat(pid)[0] if pid != os.getpid() and _born(pid) == born else ""
