"""What the runtime on Ray makes of what Ray says of a cell."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("ray")

from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from engine.runtime.base import Exit
from engine.runtime.cell import CellState
from engine.runtime.cluster import ClusterRuntime, _Cell

GONE = Exit(name="clock", incarnation=3, pid=7)
LATER = Exit(name="risk", incarnation=4, pid=8, signal=9)


class Handle:
    """A cell's end of Ray: it answers, or fails, as it is told, and then says nothing more."""

    def __init__(self, answers: list[Exception | list[Exit]]) -> None:
        self.answers = answers
        self.ends = self

    async def remote(self, seen: int) -> bytes:
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return msgspec.msgpack.encode(answer)


async def heard(tmp_path: Path, answers: list[Any], count: int) -> list[Exit]:
    """The ends that the runtime tells of, of two actors in a cell that answers so."""
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
    told: asyncio.Queue[Exit] = asyncio.Queue()
    runtime.on_exit = told.put_nowait
    state = CellState(name="home", host="h", node="n", pid=1, shm_dir="", run_dir="")
    cell = _Cell("home", Handle(answers), state)
    for each in (GONE, LATER):
        runtime._lives(each.name)
        cell.actors[each.name] = each
    runtime._joined(cell)
    async with asyncio.timeout(10):
        found = [await told.get() for _ in range(count)]
    assert cell.listener is not None
    cell.listener.cancel()
    await asyncio.gather(cell.listener, return_exceptions=True)
    return found


@pytest.mark.parametrize("error", [ActorDiedError(), OutOfMemoryError("")], ids=lambda error: type(error).__name__)
def test_a_cell_that_is_gone_ends_its_actors_however_it_went(tmp_path: Path, error: Exception) -> None:
    """One that Ray had killed for its memory counted as living for ever, and its actors were not started anew."""
    assert asyncio.run(heard(tmp_path, [error], 2)) == [GONE, LATER]


def test_a_cell_that_fails_to_answer_once_is_asked_again(tmp_path: Path) -> None:
    failed = RayTaskError("ends", "a traceback", ValueError("odd"))
    unavailable = ActorUnavailableError("for a while", None)
    assert asyncio.run(heard(tmp_path, [failed, unavailable, [LATER]], 1)) == [LATER]
