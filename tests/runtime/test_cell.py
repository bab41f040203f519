"""A cell, as Ray's process would hold it: started once, whatever is asked, and what can be imported beside it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.runtime.base import ActorSpec
from engine.runtime.cell import Cell, CellSettings, CellState, Spawned
from engine.runtime.paths import EnginePaths

pytestmark = pytest.mark.processes
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def settings(state: Path) -> CellSettings:
    return CellSettings(
        name="here",
        engine_id="e-1",
        home="node",
        state_dir=str(state),
        grace_s=60.0,
        dead_man_s=1.0,
        preload=[],
        identity=b"no certificate",
    )


@asynccontextmanager
async def cell(state: Path) -> AsyncIterator[Cell]:
    made = Cell(msgspec.msgpack.encode(settings(state)), "node", "127.0.0.1")
    try:
        yield made
    finally:
        await made.close(1.0)


def spec(name: str) -> ActorSpec:
    return ActorSpec(
        name=name,
        kind="test",
        connector="",
        incarnation=7,
        run_dir="",
        shm_dir="",
        state_dir="",
        engine_id="e-1",
        entry="tests.runtime.runtime_entries:sleep",
        params={"secret": "not to be told"},
    )


def test_a_cell_that_is_asked_to_start_twice_at_once_starts_once(run: Run, state: Path) -> None:
    async def body() -> None:
        async with cell(state) as made:
            first, second = await asyncio.gather(made.start(), made.start())
            assert first == second

    run(body())


def test_whoever_asks_next_is_told_who_lives_and_nothing_secret(run: Run, state: Path) -> None:
    async def body() -> None:
        async with cell(state) as made:
            await made.start()
            answer = msgspec.msgpack.decode(await made.spawn(msgspec.msgpack.encode(spec("a"))), type=Spawned)
            assert answer.error == ""
            encoded = await made.start()
            assert b"not to be told" not in encoded
            (living,) = msgspec.msgpack.decode(encoded, type=CellState).living
            assert (living.spec.name, living.spec.incarnation, living.pid) == ("a", 7, answer.pid)
            os.kill(answer.pid, 9)
            await made.ends(0)
            state_now = msgspec.msgpack.decode(await made.start(), type=CellState)
            assert (state_now.living, state_now.ends) == ([], 1)

    run(body())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("engine.strategies.market_maker:MarketMaker", ""),
        ("engine.strategies.market_maker:Nothing", "engine.strategies.market_maker has no Nothing"),
        ("nowhere.at_all:Thing", "there is no module nowhere; install it or run from the folder that holds it"),
    ],
)
def test_whether_a_strategys_code_is_here_is_tried_by_another_process(run: Run, state: Path, path: str, said: str):
    async def body() -> None:
        async with cell(state) as made:
            await made.start()
            assert await made.cannot_load(path) == said
            assert msgspec.msgpack.decode(await made.start(), type=CellState).living == []
            assert not list((state / "logs").glob("import-*"))

    run(body())


CELL = """
import asyncio, sys
from engine.runtime.cell import Cell
async def body():
    await Cell(bytes.fromhex(sys.argv[1]), "node", "127.0.0.1").start()
    print("up", flush=True)
    await asyncio.sleep(3600)
asyncio.run(body())
"""
SUPERVISOR = """
import sys, time
from engine.runtime.paths import EnginePaths
paths = EnginePaths.for_state(sys.argv[1])
with paths.lock_state():
    paths.create()
    print("up", flush=True)
    time.sleep(3600)
"""


def test_a_supervisor_that_ends_right_after_its_cell_leaves_nothing_behind(state: Path) -> None:
    """As when a Ray node ends: nobody is left then but the cell's fork server."""
    supervisor = begun(SUPERVISOR, str(state))
    held = begun(CELL, msgspec.msgpack.encode(settings(state)).hex())
    whole, part = EnginePaths.for_state(state), EnginePaths.for_state(state, "here")
    with supervisor, held:
        held.kill()
        held.wait()
        time.sleep(0.5)
        assert whole.run.exists()
        supervisor.kill()
        supervisor.wait()
    deadline = time.monotonic() + 30.0
    while any(folder.exists() for folder in (whole.run, whole.shm, part.run)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begun(program: str, argument: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", program, argument], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process
