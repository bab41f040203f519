"""Runtime ``local``: a process for each actor, copied from a fork server.

The runtime knows each child by a pidfd of its own, so that it hears of a child's end, and can signal it,
whether or not the fork server lives. A child runs nothing of its actor before the runtime knows it (see
:mod:`engine.runtime.protocol`), so a fork server that dies between fork and answer leaves at most a child
that waits; that one is found among this process's adopted children and ended before the request is made
again. Thus there are never two of one incarnation.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from engine.errors import RuntimeFailure
from engine.runtime.base import KILL_GRACE_S, ActorSpec, Exit, Living, Runtime, check_name
from engine.runtime.paths import EnginePaths
from engine.runtime.processes import (
    Status,
    adopted_children,
    adopted_from,
    end_child,
    kill_group,
    reap,
    set_child_subreaper,
)
from engine.runtime.protocol import (
    Configure,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Ready,
    Shutdown,
    ToRuntime,
    memory_file,
)
from engine.runtime.server_process import ServerProcess

SERVER_NAME: Final = "fork_server"
READY_TIMEOUT_S: Final = 60.0
REPLY_TIMEOUT_S: Final = 5.0
SPAWN_TIMEOUT_S: Final = 60.0
STATUS_WAIT_S: Final = 1.0
LEAVE_TIMEOUT_S: Final = 2.0
FIRST_TRIES: Final = 3
"""How often the first fork server is started if each is killed before it is ready; one that fails by itself is not."""
RESTART_WAITS_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)


log = structlog.get_logger("engine.runtime")


class _ServerLost(Exception):
    """The fork server died before it answered; no child of the request is left."""


class _ServerKilled(RuntimeFailure):
    """Somebody killed a fork server that was not ready yet."""


@dataclass(slots=True)
class _Child:
    """A process that exists. ``status`` and ``gone`` come in either order; both make its end."""

    ticket: int
    pid: int
    pidfd: int
    name: str
    incarnation: int
    watched: bool = False
    gone: bool = False
    status: Status | None = None
    fallback: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Request:
    spec: ActorSpec
    answer: asyncio.Future[_Child]


class LocalRuntime(Runtime):
    """Actors as processes of this host.

    ``preload``: dotted modules that the fork server imports on top of the common ones. ``grace_s``: what
    actors have to leave in when this process dies. ``environment``: variables for the actors beyond those
    passed on anyway (locale, paths, proxies); the rest of this process's environment they do not see.
    ``on_fork_server_restart(old, new)`` is told the process ids.
    """

    def __init__(
        self,
        paths: EnginePaths,
        *,
        preload: Sequence[str] = (),
        grace_s: float = 8.0,
        environment: Mapping[str, str] | None = None,
        on_fork_server_restart: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        self.on_fork_server_restart = on_fork_server_restart
        self._paths = paths
        self._environment = dict(environment or {})
        self._configured = Configure(
            state_dir=str(paths.state),
            run_dir=str(paths.run),
            shm_dir=str(paths.shm),
            grace_s=grace_s,
            preload=list(preload),
            cell=paths.cell,
        )
        self._tickets = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._children: dict[int, _Child] = {}
        self._spawning: set[str] = set()
        self._tidying: set[asyncio.Task[None]] = set()
        self._server: ServerProcess | None = None
        self._changed = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None
        self._finished: deque[int] = deque(maxlen=1024)
        self._closing = False

    @property
    def fork_server_pid(self) -> int | None:
        """The process id of the living fork server."""
        return self._server.pid if self._server is not None else None

    async def start(self) -> Sequence[Living]:
        """Make the engine's folders and start the fork server. Raises RuntimeFailure or ConfigError."""
        self._paths.create()
        try:
            os.close(os.pidfd_open(os.getpid()))
            set_child_subreaper(True)
        except OSError as error:
            raise RuntimeFailure(f"this host cannot watch processes by pidfd: {error}; it needs Linux 5.4") from error
        for tries_left in reversed(range(FIRST_TRIES)):
            try:
                await self._start_server()
            except _ServerKilled as failure:
                if not tries_left:
                    raise
                log.warning("the fork server is started again", error=str(failure))
            else:
                break
        return ()

    async def spawn(self, spec: ActorSpec) -> int:
        check_name(spec.name)
        if spec.name in self._exits or spec.name in self._spawning:
            raise RuntimeFailure(f"{spec.name} is living already: end it before it is started again")
        content = msgspec.msgpack.encode(spec)
        self._spawning.add(spec.name)
        try:
            async with asyncio.timeout(SPAWN_TIMEOUT_S):
                child = await self._make(spec, content)
        except TimeoutError:
            raise RuntimeFailure(f"{spec.name} could not be started within {SPAWN_TIMEOUT_S} s") from None
        finally:
            self._spawning.discard(spec.name)
        self._lives(spec.name)
        self._watch(child)
        return child.pid

    def send_signal(self, name: str, number: int) -> bool:
        for child in self._children.values():
            if child.name == name and child.watched and not child.gone:
                try:
                    signal.pidfd_send_signal(child.pidfd, number)
                except ProcessLookupError:
                    return False
                return True
        return False

    async def close(self, grace_s: float = 5.0) -> None:
        """End all actors and the fork server, and remove the run and shm folders and run.json.

        Raises RuntimeFailure when an actor does not end even by SIGKILL; the rest is done all the same.
        """
        self._closing = True
        self._changed.set()
        for request in self._requests.values():
            _fail(request.answer, RuntimeFailure("the runtime is closing"))
        ends = await asyncio.gather(
            *(self.terminate(name, 0, grace_s, KILL_GRACE_S) for name in self.living()),
            return_exceptions=True,
        )
        await asyncio.gather(*self._tidying)
        await self._end_server()
        self._paths.remove()
        set_child_subreaper(False)
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    # ---------------------------------------------------------------------------------------------- spawning

    async def _make(self, spec: ActorSpec, content: bytes) -> _Child:
        while True:
            server = await self._ready_server()
            try:
                return await self._ask(server, spec, content)
            except _ServerLost:
                continue

    async def _ask(self, server: ServerProcess, spec: ActorSpec, content: bytes) -> _Child:
        """Have one child made and let it run; if it comes to nothing, the closed gate ends what there may
        be."""
        ticket = next(self._tickets)
        request = _Request(spec, asyncio.get_running_loop().create_future())
        gate, leave = os.pipe2(os.O_CLOEXEC)
        file = -1
        self._requests[ticket] = request
        try:
            file = memory_file(spec.name, content)
            server.send(Fork(ticket, spec.name), (file, gate))
            await asyncio.wait({request.answer}, timeout=REPLY_TIMEOUT_S)
            if not request.answer.done():
                server.kill()
            child = await request.answer
            if self._closing:
                raise RuntimeFailure("the runtime is closing")
            self._let_run(leave)
            child.watched = True
            return child
        except BlockingIOError:
            server.kill()
            raise _ServerLost from None
        finally:
            self._requests.pop(ticket, None)
            for descriptor in (gate, leave, file):
                if descriptor >= 0:
                    os.close(descriptor)
            self._forget_unwatched(ticket)

    def _let_run(self, leave: int) -> None:
        try:
            os.write(leave, b"\1")
        except BrokenPipeError:
            # It was killed while it waited; its pidfd tells of it like of any other end.
            return

    def _forget_unwatched(self, ticket: int) -> None:
        """A child that was made but will not run: its gate is closed, it ends by itself."""
        child = self._children.get(ticket)
        if child is not None and not child.watched:
            del self._children[ticket]
            os.close(child.pidfd)

    async def _ready_server(self) -> ServerProcess:
        while True:
            if self._closing:
                raise RuntimeFailure("the runtime is closing: nothing is started any more")
            if self._server is not None and self._server.ready:
                return self._server
            self._changed.clear()
            await self._changed.wait()

    # --------------------------------------------------------------------------------------- children's ends

    def _watch(self, child: _Child) -> None:
        asyncio.get_running_loop().add_reader(child.pidfd, self._gone, child)

    def _gone(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(child.pidfd)
        child.gone = True
        if self._server is not None:
            self._take_reports(self._server)
        if child.ticket in self._children and not self._finish_gone(child):
            child.fallback = loop.call_later(STATUS_WAIT_S, self._finish, child)

    def _finish_gone(self, child: _Child) -> bool:
        """Finish a child that is gone, if its status is known: told by the fork server, or ours to take if
        that is dead."""
        try:
            own = reap(child.pidfd, os.WNOWAIT)
        except ChildProcessError:
            own = None
        if own is not None:
            kill_group(child.pid)
            reap(child.pidfd)
        elif child.status is not None:
            self._finished.append(child.pid)
        else:
            return False
        child.status = own or child.status
        self._finish(child)
        return True

    async def _end_strays(self, child: _Child) -> None:
        """End what an ended actor had started itself; its orphans have come to this process."""
        while strays := adopted_from(child.pid):
            for pid in strays:
                if not await end_child(pid, KILL_GRACE_S):
                    log.error("a process that an actor started does not end", about=child.name, left_pid=pid)
                    return

    def _finish(self, child: _Child) -> None:
        if child.fallback is not None:
            child.fallback.cancel()
        del self._children[child.ticket]
        os.close(child.pidfd)
        status = child.status or Status(None, None)
        tidying = asyncio.get_running_loop().create_task(self._end_strays(child))
        self._tidying.add(tidying)
        tidying.add_done_callback(self._tidying.discard)
        self._ended(
            Exit(
                name=child.name,
                incarnation=child.incarnation,
                pid=child.pid,
                code=status.code,
                signal=status.signal,
            )
        )

    # ------------------------------------------------------------------------------------------- fork server

    async def _start_server(self) -> None:
        """Start a fork server and wait until it is ready. Raises RuntimeFailure when it does not become
        so."""
        output = self._paths.output(SERVER_NAME)
        try:
            server = ServerProcess(self._configured, output, self._environment)
        except OSError as error:
            raise RuntimeFailure(f"the fork server could not be started: {error}") from error
        self._server = server
        loop = asyncio.get_running_loop()
        loop.add_reader(server.link, self._take_reports, server)
        loop.add_reader(server.pidfd, self._server_died, server)
        if not await self._until(lambda: self._server is not server or server.ready or self._closing, READY_TIMEOUT_S):
            server.kill()
            raise RuntimeFailure(f"the fork server was not ready within {READY_TIMEOUT_S} s; see {output}")
        if self._server is not server:
            kind = _ServerKilled if server.returncode < 0 else RuntimeFailure
            raise kind(f"the fork server ended before it was ready; see {output}")

    def _take_reports(self, server: ServerProcess) -> None:
        for received in server.reports():
            if received is None:
                asyncio.get_running_loop().remove_reader(server.link)
                return
            self._take(server, *received)

    def _take(self, server: ServerProcess, report: ToRuntime, descriptors: list[int]) -> None:
        if isinstance(report, Ready):
            server.ready = True
            self._changed.set()
        elif isinstance(report, Forked):
            self._forked(report, descriptors[0])
        elif isinstance(report, ForkFailed):
            request = self._requests.get(report.ticket)
            if request is not None:
                _fail(
                    request.answer,
                    RuntimeFailure(f"{request.spec.name} could not be started: {report.error}"),
                )
        elif isinstance(report, Exited):
            child = self._children.get(report.ticket)
            if child is not None:
                child.status = Status(report.code, report.signal)
                if child.gone:
                    self._finish_gone(child)

    def _forked(self, report: Forked, pidfd: int) -> None:
        request = self._requests.get(report.ticket)
        if request is None or request.answer.done():
            os.close(pidfd)
            return
        child = _Child(report.ticket, report.pid, pidfd, request.spec.name, request.spec.incarnation)
        self._children[report.ticket] = child
        request.answer.set_result(child)

    def _server_died(self, server: ServerProcess) -> None:
        loop = asyncio.get_running_loop()
        self._take_reports(server)
        loop.remove_reader(server.pidfd)
        loop.remove_reader(server.link)
        server.close()
        self._server = None
        self._changed.set()
        for child in [child for child in self._children.values() if child.gone]:
            self._finish_gone(child)
        if server.ready:
            self._replacing = loop.create_task(self._replace(server))

    async def _replace(self, dead: ServerProcess) -> None:
        """Clear up after a dead fork server, then bring up another, however often it takes."""
        await self._end_orphans(dead)
        for request in self._requests.values():
            _fail(request.answer, _ServerLost())
        for wait_s in itertools.chain(RESTART_WAITS_S, itertools.repeat(RESTART_WAITS_S[-1])):
            if await self._until(lambda: self._closing, wait_s):
                return
            try:
                await self._start_server()
            except RuntimeFailure as failure:
                log.error("the fork server could not be replaced", error=str(failure), next_try_s=wait_s)
            else:
                break
        if self.on_fork_server_restart is not None and self._server is not None:
            self.on_fork_server_restart(dead.pid, self._server.pid)

    async def _end_orphans(self, dead: ServerProcess) -> None:
        """End the children of a dead fork server that nobody let run, and reap what it could not reap any
        more."""
        known = {child.pid for child in self._children.values()}
        for pid in adopted_children(dead.token, self._finished):
            if pid in known:
                continue
            if not await end_child(pid, KILL_GRACE_S):
                log.error("an orphan of the fork server does not end", left_pid=pid)
        self._finished.clear()

    async def _end_server(self) -> None:
        if self._server is not None:
            self._server.send(Shutdown())
        if not await self._until(lambda: self._server is None, LEAVE_TIMEOUT_S) and self._server is not None:
            self._server.kill()
            await self._until(lambda: self._server is None, KILL_GRACE_S)
        if self._replacing is not None:
            await self._replacing

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for a condition that :attr:`_changed` announces; whether it came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True


def _fail(answer: asyncio.Future[_Child], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
