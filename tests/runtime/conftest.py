"""Engines in short folders, and a socket on which their processes say what they do."""

import asyncio
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.runtime.base import ActorSpec, Exit
from engine.runtime.local import LocalRuntime
from engine.runtime.paths import EnginePaths

HERE = Path(__file__).parent
TIMEOUT_S = 30.0


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine to its end, in bounded time."""

    def runner(work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(TIMEOUT_S):
                return await work

        return uvloop.run(bounded())

    return runner


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder with a short path, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="es-"))
    yield folder / "state"
    shutil.rmtree(folder)


@pytest.fixture
def paths(state: Path) -> EnginePaths:
    return EnginePaths.for_state(state)


class Reports:
    """What processes said: (word, name, incarnation, pid)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.link.bind(str(path))

    def read(self) -> tuple[str, str, int, int]:
        self.link.settimeout(TIMEOUT_S)
        return self._parse(self.link.recv(1000))

    async def next(self) -> tuple[str, str, int, int]:
        self.link.setblocking(False)
        return self._parse(await asyncio.get_running_loop().sock_recv(self.link, 1000))

    def waiting(self) -> list[tuple[str, str, int, int]]:
        self.link.setblocking(False)
        found = []
        while True:
            try:
                found.append(self._parse(self.link.recv(1000)))
            except BlockingIOError:
                return found

    @staticmethod
    def _parse(packet: bytes) -> tuple[str, str, int, int]:
        word, name, incarnation, pid = packet.decode().split()
        return word, name, int(incarnation), int(pid)


@pytest.fixture
def reports(state: Path) -> Iterator[Reports]:
    found = Reports(state.parent / "reports")
    yield found
    found.link.close()


@pytest.fixture
def make_spec(paths: EnginePaths, state: Path) -> Callable[..., ActorSpec]:
    def make(name: str, entry: str, incarnation: int = 1, **params: Any) -> ActorSpec:
        return ActorSpec(
            name=name,
            kind="test",
            connector="",
            incarnation=incarnation,
            run_dir=str(paths.run),
            shm_dir=str(paths.shm),
            state_dir=str(paths.state),
            engine_id="test",
            entry=f"runtime_entries:{entry}",
            params={"report": str(state.parent / "reports"), **params},
        )

    return make


class Watched(LocalRuntime):
    """A local runtime that keeps what it said."""

    def __init__(self, paths: EnginePaths, **options: Any) -> None:
        super().__init__(paths, preload=["runtime_entries"], **options)
        self.exits: asyncio.Queue[Exit] = asyncio.Queue()
        self.restarts: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.on_exit = self.exits.put_nowait
        self.on_fork_server_restart = lambda old, new: self.restarts.put_nowait((old, new))

    async def __aenter__(self) -> "Watched":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@pytest.fixture
def runtime(paths: EnginePaths, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    """Makes runtimes whose processes can import ``runtime_entries``; checks that they leave nothing."""
    monkeypatch.syspath_prepend(str(HERE))
    return lambda **options: Watched(paths, **options)


def is_gone(pid: int, timeout_s: float = TIMEOUT_S) -> bool:
    """Wait until the process has ended; whether it did in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(pidfd)


@pytest.fixture(name="is_gone")
def is_gone_fixture() -> Callable[..., bool]:
    return is_gone


@pytest.fixture
def supervisor(state: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``supervisor_program`` in a process group of its own; ends it if the test did not."""
    started: list[subprocess.Popen[str]] = []

    def start(grace_s: float, *actors: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                str(HERE / "supervisor_program.py"),
                str(state),
                str(state.parent / "reports"),
                str(grace_s),
                *actors,
            ],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
