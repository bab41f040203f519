"""Runtime ``cluster``: actors on several hosts, in cells that Ray places.

A cell (:mod:`engine.runtime.cell`) is a named, detached Ray actor; the Ray namespace is the engine's id. Actors that
name the same place share a cell. Ray is asked to make cells and to say when one is gone, and carries what the
``local`` runtime's link to its fork server carries on one host: starts, signals and ends. Nothing of the market does
it ever see.

A cell that dies takes its actors with it, each by its dead-man switch; the next start of one of them makes a new cell
where the place says, and that waits until the old one's are gone if it is on the same host.

A cell outlives the process that made it. Whoever supervises the same engine next finds it by its name, and with it all
that runs in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import ray
import structlog
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.bus.directory import Listens, encode_table, read_table, write_table
from engine.errors import NoHost, RuntimeFailure
from engine.runtime.base import ActorSpec, Exit, Living, Runtime, check_name
from engine.runtime.cell import Cell, CellSettings, CellState, Spawned
from engine.runtime.ray_nodes import Node, choose, named_actors, nodes

PREFIX: Final = "cell."
CELL_START_S: Final = 90.0
CALL_S: Final = 60.0
CLOSE_SPARE_S: Final = 10.0
AGAIN_S: Final = 0.2
LEAVES_CHILDREN: Final = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""A worker that loses its node would kill the fork server, which ends what is left of the cell and tidies up."""
HOME: Final = "home"
"""The name of the cell of all that name no place."""

log = structlog.get_logger("engine.runtime")


@dataclass(slots=True)
class _Cell:
    name: str
    handle: Any
    state: CellState
    actors: dict[str, Exit] = field(default_factory=dict)
    early: dict[str, Exit] = field(default_factory=dict)
    loads: set[str] = field(default_factory=set)
    listener: asyncio.Task[None] | None = None
    teller: asyncio.Task[None] | None = None


class ClusterRuntime(Runtime):
    """Actors in cells. ``namespace``: the engine's in Ray. ``home``: the id of the node where actors run that name no
    place. ``own``: the engine's id, and where the supervisor listens.
    """

    def __init__(
        self,
        *,
        namespace: str,
        state_dir: str,
        home: str,
        identity: bytes,
        grace_s: float,
        dead_man_s: float,
        run_dir: Path,
        own: Callable[[], tuple[str, dict[str, Listens]]],
        preload: Sequence[str] = (),
        on_cell: Callable[[CellState, bool], None] | None = None,
    ) -> None:
        super().__init__()
        self.on_cell = on_cell
        self._namespace = namespace
        self._home = home
        self._settings = CellSettings(
            name="",
            engine_id="",
            home=home,
            state_dir=state_dir,
            grace_s=grace_s,
            dead_man_s=dead_man_s,
            preload=list(preload),
            identity=identity,
        )
        self._cells: dict[str, _Cell] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._hosts: dict[str, str] = {}
        self._spawning: set[str] = set()
        self._run_dir = run_dir
        self._own = own
        self._table: dict[str, Listens] = {}
        self._encoded = encode_table(self._table)
        self._closing = False

    async def start(self) -> Sequence[Living]:
        """Take over the cells that live, and make the cell of this host; others are made when they are first needed.

        A cell that Ray believes to be living is waited for, for as long as it does: nobody else may have its name.
        """
        if not ray.is_initialized():
            raise RuntimeFailure("this process has joined no Ray cluster")
        engine_id, own = self._own()
        self._settings = msgspec.structs.replace(self._settings, engine_id=engine_id)
        names = [name.removeprefix(PREFIX) for name in named_actors(self._namespace) if name.startswith(PREFIX)]
        found = [cell for cell in await asyncio.gather(*map(self._find, names)) if cell is not None]
        if found:
            self._table = read_table(self._run_dir)
        self._table |= own
        for cell in found:
            self._take_over(cell)
        self._tell_all()
        await self._cell(HOME, ())
        return [living for cell in found for living in cell.state.living]

    async def spawn(self, spec: ActorSpec) -> int:
        check_name(spec.name)
        if spec.name in self._exits or spec.name in self._spawning:
            raise RuntimeFailure(f"{spec.name} is living already: end it before it is started again")
        self._spawning.add(spec.name)
        try:
            cell = await self._cell(spec.cell or HOME, spec.place)
            answer = msgspec.msgpack.decode(
                await self._call(cell, cell.handle.spawn, msgspec.msgpack.encode(spec)), type=Spawned
            )
        finally:
            self._spawning.discard(spec.name)
        if answer.error:
            cell.early.pop(spec.name, None)
            raise RuntimeFailure(answer.error)
        self._lives(spec.name)
        started = Exit(name=spec.name, incarnation=spec.incarnation, pid=answer.pid)
        early = cell.early.pop(spec.name, None)
        if self._cells.get(cell.name) is not cell:
            early = started
        if early is not None and early.incarnation == spec.incarnation:
            # Nobody knows yet that it lived: whoever asked for it is to hear that first.
            asyncio.get_running_loop().call_soon(self._ended, early)
        else:
            cell.actors[spec.name] = started
        return answer.pid

    async def cannot_load(self, path: str, place: tuple[str, ...], cell: str) -> str:
        """Asked of the cell, once for each that it can be had in."""
        found = await self._cell(cell or HOME, place)
        if path in found.loads:
            return ""
        said: str = await self._call(found, found.handle.cannot_load, path)
        if said:
            return f"on {found.state.host}: {said}"
        found.loads.add(path)
        return ""

    def send_signal(self, name: str, number: int) -> bool:
        cell = self.cell_of(name)
        if cell is None:
            return False
        self._cells[cell.name].handle.signal.remote(name, number)
        return True

    def cell_of(self, name: str) -> CellState | None:
        """The cell that a living actor runs in."""
        return next((cell.state for cell in self._cells.values() if name in cell.actors), None)

    def host_of(self, name: str) -> str:
        cell = self.cell_of(name)
        return cell.host if cell is not None else super().host_of(name)

    def announce(self, name: str, unix: str, tcp: str) -> None:
        cell = self.cell_of(name)
        if cell is None or not tcp:
            return
        host, _, port = tcp.rpartition(":")
        self._table[name] = Listens(node=cell.node, unix=unix, host=host, port=int(port))
        self._tell_all()

    async def close(self, grace_s: float = 5.0) -> None:
        self._closing = True
        cells = list(self._cells.values())
        await asyncio.gather(*(self._end_cell(cell, grace_s) for cell in cells))
        for cell in cells:
            self._lost(cell)

    # --------------------------------------------------------------------------------------------------------- cells

    def _tell_all(self) -> None:
        self._encoded = encode_table(self._table)
        write_table(self._run_dir, self._encoded)
        for cell in self._cells.values():
            self._tell(cell)

    def _tell(self, cell: _Cell) -> None:
        if cell.teller is None or cell.teller.done():
            cell.teller = asyncio.get_running_loop().create_task(self._tell_newest(cell))

    async def _tell_newest(self, cell: _Cell) -> None:
        """Until the cell has the newest table: what is said during a cut would be lost, and nobody says it again."""
        told = None
        while told is not self._encoded and self._cells.get(cell.name) is cell:
            newest = self._encoded
            try:
                await cell.handle.announce.remote(newest)
            except RayError as error:  # one that is gone is found out by its listener
                log.info("a cell was not told where actors listen", cell=cell.name, error=_first_line(error))
                await asyncio.sleep(AGAIN_S)
            else:
                told = newest

    async def _cell(self, name: str, place: tuple[str, ...]) -> _Cell:
        async with self._making.setdefault(name, asyncio.Lock()):
            if self._closing:
                raise RuntimeFailure("the runtime is closing: nothing is started any more")
            found = self._cells.get(name)
            if found is None:
                found = await self._make_cell(name, place)
                self._joined(found)
                self._tell(found)
            return found

    async def _find(self, name: str) -> _Cell | None:
        """The living cell of that name; None if it dies while it is asked, or cannot start."""
        try:
            handle: Any = ray.get_actor(f"{PREFIX}{name}", self._namespace)
        except ValueError:
            return None
        while True:
            try:
                return _Cell(name, handle, msgspec.msgpack.decode(await handle.start.remote(), type=CellState))
            except ActorUnavailableError:
                await asyncio.sleep(AGAIN_S)
            except RayError as error:
                log.warning("a cell cannot be taken over", cell=name, error=_first_line(error))
                ray.kill(handle)
                return None

    def _take_over(self, cell: _Cell) -> None:
        self._hosts[cell.name] = cell.state.host
        for living in cell.state.living:
            spec = living.spec
            self._lives(spec.name)
            cell.actors[spec.name] = Exit(name=spec.name, incarnation=spec.incarnation, pid=living.pid)
        self._joined(cell)

    def _joined(self, cell: _Cell) -> None:
        self._cells[cell.name] = cell
        cell.listener = asyncio.get_running_loop().create_task(self._listen(cell))
        if self.on_cell is not None:
            self.on_cell(cell.state, True)

    async def _make_cell(self, name: str, place: tuple[str, ...]) -> _Cell:
        node = choose(nodes(), place, self._home)
        stays = self._hosts.setdefault(name, node.host)
        if len(place) < 2 and node.host != stays:
            raise NoHost(
                f"the cell {name} has its files on {stays}, which is gone; {node.host} is another host of that place"
            )
        settings = msgspec.msgpack.encode(msgspec.structs.replace(self._settings, name=name))
        handle = self._ask_for(name, node, settings)
        try:
            async with asyncio.timeout(CELL_START_S):
                state = msgspec.msgpack.decode(await handle.start.remote(), type=CellState)
        except (TimeoutError, RayError) as error:
            ray.kill(handle)
            said = " ".join(str(error).split())[-300:] or f"not ready within {CELL_START_S:g} s"
            raise RuntimeFailure(f"the cell {name} does not come up on {node.host}: {said}") from None
        log.info("cell started", cell=name, host=state.host, pid=state.pid)
        return _Cell(name, handle, state)

    def _ask_for(self, name: str, node: Node, settings: bytes) -> Any:
        options = ray.remote(Cell).options(
            name=f"{PREFIX}{name}",
            namespace=self._namespace,
            lifetime="detached",
            num_cpus=0,
            max_restarts=0,
            runtime_env={"env_vars": LEAVES_CHILDREN},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )
        try:
            return options.remote(settings, node.id, node.address)
        except ValueError as error:
            # Ray still has one of that name, which is about to end.
            raise RuntimeFailure(f"the cell {name} cannot be made: {_first_line(error)}") from None

    async def _listen(self, cell: _Cell) -> None:
        """Hear of ends for as long as the cell lives; a cell that cannot be reached for a while is asked again."""
        seen = cell.state.ends
        while True:
            try:
                ends = msgspec.msgpack.decode(await cell.handle.ends.remote(seen), type=list[Exit])
            except ActorUnavailableError:
                await asyncio.sleep(AGAIN_S)
            except RayTaskError as error:
                log.error("a cell cannot say who has ended", cell=cell.name, error=_first_line(error))
                await asyncio.sleep(AGAIN_S)
            except RayError as error:  # each way of dying has an error of its own: Ray may want its memory back
                if not self._closing:
                    log.error("a cell is gone", cell=cell.name, host=cell.state.host, error=_first_line(error))
                self._lost(cell)
                return
            else:
                seen += len(ends)
                for ended in ends:
                    self._heard(cell, ended)

    def _heard(self, cell: _Cell, ended: Exit) -> None:
        """An end, which may come before the answer that says that it was started, or be of an older incarnation."""
        known = cell.actors.get(ended.name)
        if known is not None and known.incarnation == ended.incarnation:
            del cell.actors[ended.name]
            self._ended(ended)
        elif ended.name in self._spawning:
            cell.early[ended.name] = ended

    def _lost(self, cell: _Cell) -> None:
        if self._cells.get(cell.name) is not cell:
            return
        del self._cells[cell.name]
        ends, cell.actors = cell.actors, {}
        for ended in ends.values():
            self._ended(ended)
        if self.on_cell is not None:
            self.on_cell(cell.state, False)

    async def _end_cell(self, cell: _Cell, grace_s: float) -> None:
        try:
            async with asyncio.timeout(grace_s + CLOSE_SPARE_S):
                await cell.handle.close.remote(grace_s)
        except (TimeoutError, RayError) as error:
            log.warning("a cell did not end politely", cell=cell.name, error=_first_line(error))
        for task in (cell.listener, cell.teller):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        ray.kill(cell.handle)

    async def _call(self, cell: _Cell, method: Any, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_S):
                return await method.remote(*arguments)
        except (TimeoutError, RayError) as error:
            raise RuntimeFailure(
                f"the cell {cell.name} on {cell.state.host} does not answer: {_first_line(error)}"
            ) from None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
