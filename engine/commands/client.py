"""Asking a running engine: requests to the supervisor over the engine's own bus."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.bus import Bus, RunDirectory, SocketBus, TcpEndpoint, UnixEndpoint
from engine.bus.sockets import HostDirectory
from engine.clock import WallClock
from engine.commands.common import CommandError
from engine.errors import BusError
from engine.messages import ControlReply, ControlRequest
from engine.runtime.paths import EnginePaths, RunInfo

SUPERVISOR = "supervisor"
DEFAULT_TIMEOUT = 10.0


class NotRunning(CommandError):
    """No engine runs on that state folder."""


class ControlClient:
    """A connection to the supervisor of the engine on a state folder; use with ``async with``."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._paths = EnginePaths.for_state(state_dir)
        self._bus: Bus | None = None

    async def __aenter__(self) -> ControlClient:
        info = self._paths.read_run_json()
        if info is None or not is_running(self._state_dir):
            raise _not_running(self._state_dir)
        name, incarnation = f"command-{os.getpid()}", time.time_ns() // 1000
        directory = _directory(info)
        if directory is None:
            raise _not_running(self._state_dir)
        self._bus = SocketBus(name, incarnation, directory, clock=WallClock(), engine_id=info.engine_id, listen=False)
        await self._bus.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bus is not None:
            await self._bus.close()

    async def ask(self, verb: str, timeout: float = DEFAULT_TIMEOUT, /, **args: Any) -> Any:
        """The supervisor's answer to a verb.

        Raises :class:`CommandError` with what the supervisor refused, :class:`NotRunning` when it is gone.
        """
        assert self._bus is not None
        try:
            reply = await self._bus.request(SUPERVISOR, ControlRequest(verb=verb, args=args), timeout=timeout)
        except BusError as error:
            if not is_running(self._state_dir):
                raise _not_running(self._state_dir) from None
            raise CommandError(f"the engine did not answer {verb}: {error}") from None
        if not isinstance(reply, ControlReply):
            raise CommandError(f"the engine answered {verb} with {type(reply).__name__}; is it of this version?")
        if not reply.ok:
            raise CommandError(reply.error)
        return reply.data


def ask(state_dir: Path, verb: str, timeout: float = DEFAULT_TIMEOUT, /, **args: Any) -> Any:
    """One question to the engine on a state folder; see :meth:`ControlClient.ask`."""

    async def once() -> Any:
        async with ControlClient(state_dir) as client:
            return await client.ask(verb, timeout, **args)

    return asyncio.run(once())


def require_running(state_dir: Path) -> Path:
    """The shared-memory folder of the engine on a state folder; :class:`NotRunning` if there is none."""
    info = EnginePaths.for_state(state_dir).read_run_json()
    if info is None or not is_running(state_dir):
        raise _not_running(state_dir)
    return Path(info.shm_dir)


def is_running(state_dir: Path) -> bool:
    """Whether a supervisor takes connections for this state folder, and says where it is."""
    paths = EnginePaths.for_state(state_dir)
    info = paths.read_run_json()
    if info is None:
        return False
    directory = _directory(info)
    endpoint = directory.endpoint(SUPERVISOR) if directory is not None else None
    address: Any = None
    if isinstance(endpoint, UnixEndpoint):
        family, address = socket.AF_UNIX, endpoint.path
    elif isinstance(endpoint, TcpEndpoint):
        family, address = socket.AF_INET, (endpoint.host, endpoint.port)
    else:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address)
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def wait_until_gone(state_dir: Path, timeout: float) -> bool:
    """Wait until no engine runs on the state folder; False when one still does after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while is_running(state_dir):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True


def _directory(info: RunInfo) -> HostDirectory | None:
    """Who is where: on this host, and on others if the engine runs on several. None if what it takes to ask them has
    gone since the engine was found: its end removes it.
    """
    if not info.node:
        return RunDirectory(info.run_dir)
    from engine.bus.directory import FileDirectory
    from engine.bus.tls import FILE, client_context

    try:
        return FileDirectory(info.run_dir, info.node, client_context(Path(info.run_dir) / FILE))
    except FileNotFoundError:
        return None


def _not_running(state_dir: Path) -> NotRunning:
    if EnginePaths.for_state(state_dir).others_live():
        return NotRunning(
            f"the engine on {state_dir} lives, and its supervisor does not answer: another takes over within seconds;"
            " ask again"
        )
    return NotRunning(f"no engine runs on {state_dir}; start one: engine run CONFIG --state {state_dir}")
