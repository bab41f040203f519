"""A cell: a group of actors on one host, forked and watched there by the ``local`` runtime.

Ray places cells; this module knows nothing of it. A cell is told what to start, and is asked, in one long question
after the other, which of its actors have ended. It lives as long as its engine's supervisor asks: after ``grace_s``
of silence it ends its process, and its actors then find themselves without a supervisor, as they would on one host.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from typing import Final

import msgspec

from engine.bus.directory import write_table
from engine.bus.tls import write_identity
from engine.errors import EngineError, RuntimeFailure
from engine.runtime.base import ActorSpec, Exit, HostLink, Living
from engine.runtime.leftovers import clear_previous
from engine.runtime.local import LocalRuntime
from engine.runtime.locks import take_lock
from engine.runtime.paths import EnginePaths

ASK_S: Final = 5.0
"""How long a question for ended actors waits for the first one."""
LOCK_WAIT_S: Final = 30.0
SILENT_EXIT: Final = 75
IMPORT_S: Final = 30.0
TRY_IMPORT: Final = "engine.strategies.loading:try_import"


class CellSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell is made with. ``home``: the supervisor's node. ``grace_s``: of the supervisor's silence.
    ``dead_man_s``: for its actors after that.
    """

    name: str
    engine_id: str
    home: str
    state_dir: str
    grace_s: float
    dead_man_s: float
    preload: list[str]
    identity: bytes


class CellState(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell is, and what runs in it. ``ends``: how many of its actors have ended since it began."""

    name: str
    host: str
    node: str
    pid: int
    shm_dir: str
    run_dir: str
    ends: int = 0
    living: list[Living] = []


class Spawned(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a spawn: the process id, or why there is none."""

    pid: int = 0
    error: str = ""


class Cell:
    """One cell's life, in its own process. All answers are MessagePack."""

    def __init__(self, settings: bytes, node: str, address: str) -> None:
        self.settings = msgspec.msgpack.decode(settings, type=CellSettings)
        self._paths = EnginePaths.for_state(self.settings.state_dir, self.settings.name)
        self._node = node
        self._address = address
        self._runtime: LocalRuntime | None = None
        self._living: dict[str, Living] = {}
        self._ends: list[Exit] = []
        self._tries = itertools.count(1)
        self._ended = asyncio.Condition()
        self._starting = asyncio.Lock()
        self._heard = time.monotonic()
        self._watch: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._link: HostLink | None = None
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> bytes:
        """Wait for what an earlier cell of this name left here, then be ready; the state. Again: just the state."""
        self._heard = time.monotonic()
        async with self._starting:
            if self._runtime is None:
                self._runtime = await self._begin()
        return self._state()

    async def _begin(self) -> LocalRuntime:
        self._watch = asyncio.create_task(self._leave_when_forgotten())
        self._paths.create_state()
        await self._take_lock()
        shm = None if self._paths.others_live() else self._paths.shm
        await clear_previous(self._paths.run, shm, self.settings.dead_man_s)
        self._paths.create()
        identity = write_identity(self._paths.run, self.settings.identity)
        self._link = HostLink(host=socket.gethostname(), node=self._node, address=self._address, identity=str(identity))
        runtime = LocalRuntime(self._paths, preload=self.settings.preload, grace_s=self.settings.dead_man_s)
        runtime.on_exit = self._on_exit
        await runtime.start()
        if self._node != self.settings.home:
            self._paths.write_run_json(self.settings.engine_id, self._node)
        return runtime

    def _state(self) -> bytes:
        return msgspec.msgpack.encode(
            CellState(
                name=self.settings.name,
                host=socket.gethostname(),
                node=self._node,
                pid=os.getpid(),
                shm_dir=str(self._paths.shm),
                run_dir=str(self._paths.run),
                ends=len(self._ends),
                living=list(self._living.values()),
            )
        )

    async def spawn(self, encoded: bytes) -> bytes:
        """Start an actor with this host's folders; a :class:`Spawned`.

        Asked again, because the answer was lost, it says what it did; an older incarnation is ended first.
        """
        spec = msgspec.msgpack.decode(encoded, type=ActorSpec)
        living = self._living.get(spec.name)
        if living is not None and living.spec.incarnation == spec.incarnation:
            return msgspec.msgpack.encode(Spawned(pid=living.pid))
        spec = msgspec.structs.replace(
            spec,
            run_dir=str(self._paths.run),
            shm_dir=str(self._paths.shm),
            state_dir=str(self._paths.state),
            link=self._link,
        )
        try:
            if living is not None:
                await self._ready().terminate(spec.name, 0, 0)
            pid = await self._ready().spawn(spec)
        except EngineError as error:
            return msgspec.msgpack.encode(Spawned(error=str(error)))
        self._living[spec.name] = Living(spec=msgspec.structs.replace(spec, params={}), pid=pid)
        return msgspec.msgpack.encode(Spawned(pid=pid))

    async def cannot_load(self, path: str) -> str:
        """Why the class ``module:Class`` cannot be imported here, by a process of its own; empty if it can."""
        number = next(self._tries)
        name = f"import-{number}"
        spec = ActorSpec(
            name=name,
            kind="import",
            connector="",
            incarnation=number,
            run_dir=str(self._paths.run),
            shm_dir=str(self._paths.shm),
            state_dir=str(self._paths.state),
            engine_id=self.settings.engine_id,
            entry=TRY_IMPORT,
            params={"path": path},
        )
        output = self._paths.output(name)
        runtime = self._ready()
        try:
            await runtime.spawn(spec)
            ended = await runtime.terminate(name, IMPORT_S, 0)
            said = output.read_text(errors="replace").strip() if output.exists() else ""
        except EngineError as error:
            return str(error)
        finally:
            output.unlink(missing_ok=True)
        if ended is not None and ended.code == 0:
            return ""
        reason = ended.reason if ended is not None else "ended"
        return said.splitlines()[-1] if said else f"importing {path} ends the process that tries it: {reason}"

    async def signal(self, name: str, number: int) -> bool:
        """Deliver a signal; False when no such actor lives here."""
        return self._ready().send_signal(name, number)

    async def ends(self, seen: int) -> bytes:
        """The ends after the first ``seen``, as soon as there are any; none after a while. Also a sign of life."""
        self._heard = time.monotonic()
        try:
            async with asyncio.timeout(min(ASK_S, self.settings.grace_s / 3)), self._ended:
                await self._ended.wait_for(lambda: len(self._ends) > seen)
        except TimeoutError:
            return msgspec.msgpack.encode([])
        return msgspec.msgpack.encode(self._ends[seen:])

    async def announce(self, table: bytes) -> None:
        """Tell this host's actors where all actors listen."""
        write_table(self._paths.run, table)

    async def close(self, grace_s: float) -> None:
        """End every actor and remove what lived only as long as the cell."""
        if self._watch is not None:
            self._watch.cancel()
        if self._runtime is not None:
            await self._runtime.close(grace_s)
            self._runtime = None
        info = self._paths.read_run_json()
        if info is not None and info.run_dir == str(self._paths.run):
            self._paths.run_json.unlink()
        if self._lock is not None:
            self._paths.cell_lock.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------------------------------------------------- inside

    def _ready(self) -> LocalRuntime:
        if self._runtime is None:
            raise RuntimeFailure(f"the cell {self.settings.name} is not started")
        return self._runtime

    def _on_exit(self, ended: Exit) -> None:
        self._living.pop(ended.name, None)
        self._ends.append(ended)
        self._telling = asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self._ended:
            self._ended.notify_all()

    async def _take_lock(self) -> None:
        """One cell of a name on a host, whichever engine's it is: they would use the same files."""
        path = self._paths.cell_lock
        deadline = time.monotonic() + LOCK_WAIT_S
        while (descriptor := take_lock(path)) is None:
            if time.monotonic() >= deadline:
                raise RuntimeFailure(f"{path} is locked: another engine has a cell {self.settings.name} on this host")
            await asyncio.sleep(0.05)
        self._lock = descriptor

    async def _leave_when_forgotten(self) -> None:
        while True:
            left_s = self._heard + self.settings.grace_s - time.monotonic()
            if left_s <= 0:
                # Nothing is closed politely: the actors see this process end, and do as without a supervisor.
                os._exit(SILENT_EXIT)
            await asyncio.sleep(left_s)
