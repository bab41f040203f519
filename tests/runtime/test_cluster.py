"""What the runtime on Ray makes of what Ray says of a cell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from engine.bus.directory import Listens, read_table
from engine.runtime import cluster
from engine.runtime.base import ActorSpec, Exit
from engine.runtime.cell import CellState, Spawned
from engine.runtime.cluster import ClusterRuntime, _Cell

GONE = Exit(name="clock", incarnation=3, pid=7)
LATER = Exit(name="risk", incarnation=4, pid=8, signal=9)


class Handle:
    """A cell's end of Ray: it answers, or fails, as it is told, and then says nothing more."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers = asyncio.Queue[Any]()
        for answer in answers:
            self.answers.put_nowait(answer)
        self.asked = asyncio.Event()
        self.pid = asyncio.Queue[int]()
        self.ends, self.spawn, self.announce = Method(self._ends), Method(self._spawn), Method(self._announce)
        self.tables: list[bytes] = []
        self.cut = asyncio.Event()

    async def _ends(self, seen: int) -> bytes:
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return msgspec.msgpack.encode(answer)

    async def _announce(self, table: bytes) -> bytes:
        self.tables.append(table)
        if len(self.tables) == 1:
            await self.cut.wait()
            raise ActorUnavailableError("for a while", None)
        return b""

    async def _spawn(self, spec: bytes) -> bytes:
        self.asked.set()
        return msgspec.msgpack.encode(Spawned(pid=await self.pid.get()))


@dataclass
class Method:
    """A method of a cell, as Ray shows it."""

    remote: Callable[[Any], Coroutine[Any, Any, bytes]]


@dataclass
class Joined:
    """A runtime with one cell, and the ends that it tells of."""

    runtime: ClusterRuntime
    cell: _Cell
    told: asyncio.Queue[Exit]

    async def spawn(self, incarnation: int) -> int:
        spec = ActorSpec(
            name="clock",
            kind="clock",
            connector="",
            incarnation=incarnation,
            run_dir="",
            shm_dir="",
            state_dir="",
            engine_id="",
            entry="",
        )
        return await self.runtime.spawn(spec)


@asynccontextmanager
async def joined(tmp_path: Path, answers: list[Any], living: tuple[Exit, ...] = ()) -> AsyncIterator[Joined]:
    """One whose cell answers so, and in which these run."""
    runtime = ClusterRuntime(
        namespace="",
        state_dir="",
        home="",
        identity=b"",
        grace_s=1,
        dead_man_s=1,
        run_dir=tmp_path,
        own=lambda: ("", {}),
    )
    told = asyncio.Queue[Exit]()
    runtime.on_exit = told.put_nowait
    state = CellState(name="home", host="h", node="n", pid=1, shm_dir="", run_dir="")
    cell = _Cell("home", Handle(answers), state)
    for each in living:
        runtime._lives(each.name)
        cell.actors[each.name] = each
    runtime._joined(cell)
    try:
        async with asyncio.timeout(10):
            yield Joined(runtime, cell, told)
    finally:
        assert cell.listener is not None
        cell.listener.cancel()
        await asyncio.gather(cell.listener, return_exceptions=True)


async def heard(tmp_path: Path, answers: list[Any], count: int) -> list[Exit]:
    """The ends that the runtime tells of, of two actors in a cell that answers so."""
    async with joined(tmp_path, answers, (GONE, LATER)) as made:
        return [await made.told.get() for _ in range(count)]


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("")], ids=lambda error: type(error).__name__)
def test_a_cell_that_is_gone_ends_its_actors_however_it_went(tmp_path: Path, error: Exception) -> None:
    """One that Ray had killed for its memory counted as living for ever, and its actors were not started anew."""
    assert asyncio.run(heard(tmp_path, [error], 2)) == [GONE, LATER]


def test_a_cell_that_fails_to_answer_once_is_asked_again(tmp_path: Path) -> None:
    failed = RayTaskError("ends", "a traceback", ValueError("odd"))
    unavailable = ActorUnavailableError("for a while", None)
    assert asyncio.run(heard(tmp_path, [failed, unavailable, [LATER]], 1)) == [LATER]


@pytest.mark.parametrize("answer", [[GONE], ActorDiedError()], ids=["it", "its cell"])
def test_what_ended_before_its_start_was_answered_ends_after_it(tmp_path: Path, answer: Any) -> None:
    """It counted as living for ever, and no signal reached it."""

    async def body() -> None:
        async with joined(tmp_path, []) as made:
            order, handle = list[Any](), made.cell.handle
            made.runtime.on_exit = order.append

            async def start() -> None:
                order.append(await made.spawn(GONE.incarnation))

            starting = asyncio.create_task(start())
            await handle.asked.wait()
            handle.answers.put_nowait(answer)
            while not made.cell.early and made.runtime._cells:  # noqa: ASYNC110
                await asyncio.sleep(0)
            handle.pid.put_nowait(GONE.pid)
            await starting
            while made.runtime.living():  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert order == [GONE.pid, GONE]

    asyncio.run(body())


def test_the_end_of_an_older_life_is_not_that_of_the_one_that_runs(tmp_path: Path) -> None:
    older = msgspec.structs.replace(GONE, incarnation=GONE.incarnation - 1)

    async def body() -> None:
        async with joined(tmp_path, [[older], [LATER]], (GONE, LATER)) as made:
            assert await made.told.get() == LATER
            assert made.runtime.living() == [GONE.name]
            assert made.runtime.cell_of(GONE.name) is made.cell.state

    asyncio.run(body())


def test_a_cell_is_told_where_actors_listen_until_it_has_heard_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said during a cut never arrived, and its host looked for an actor where it had been before."""
    monkeypatch.setattr(cluster, "AGAIN_S", 0)

    async def body() -> None:
        async with joined(tmp_path, [], (GONE, LATER)) as made:
            handle = made.cell.handle
            for port in range(1, 4):
                made.runtime.announce(GONE.name, "/clock.sock", f"10.0.0.1:{port}")
                await asyncio.sleep(0)
            handle.cut.set()
            assert made.cell.teller is not None
            await made.cell.teller
            tables = [msgspec.json.decode(table, type=dict[str, Listens]) for table in handle.tables]
            assert [table[GONE.name].port for table in tables] == [1, 3]
            assert read_table(tmp_path) == tables[-1]

    asyncio.run(body())
