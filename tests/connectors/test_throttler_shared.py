"""Request limits shared by processes: counted to the last one, also by those that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from engine.connectors.throttler_budget import Budget, Grant, Priority, RateLimit
from engine.connectors.throttler_memory import open_memory

pytestmark = pytest.mark.processes

S = 1_000_000_000
NOON = 1_700_000_040 * S
LIMIT = 100_000


def budget(path: Path, limit: int = LIMIT) -> Budget:
    return Budget({"weight": RateLimit(limit, 60 * S)}, open_memory(path), {"address": "here"})


def take_all(path: Path, begin: Connection) -> None:
    """Take one unit after the other until there is no more, and say how many there were."""
    of = budget(path)
    begin.send("ready")
    begin.recv()
    taken = 0
    while isinstance(of.charge((("weight", 1),), Priority.CANCEL, NOON, 1000 * S), Grant):
        taken += 1
    begin.send(taken)


def take_for_ever(path: Path, begin: Connection) -> None:
    of = budget(path, 0xFFFFFFFF)
    begin.send("ready")
    while True:
        of.charge((("weight", 1),), Priority.CANCEL, NOON, 1000 * S)


def test_processes_that_count_at_once_never_pass_a_limit_and_leave_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    forks = multiprocessing.get_context("fork")
    ends, children = [], []
    for _ in range(3):
        mine, theirs = forks.Pipe()
        child = forks.Process(target=take_all, args=(path, theirs))
        child.start()
        ends.append(mine)
        children.append(child)
    for end in ends:
        assert end.recv() == "ready"
    for end in ends:
        end.send("go")
    taken = [end.recv() for end in ends]
    for child in children:
        child.join(10)
    # What several ask for at the very end may be refused to all of them; each such time leaves one unit at most.
    assert LIMIT - len(children) <= sum(taken) <= LIMIT
    assert budget(path).used(NOON)["weight"] == sum(taken)


def test_a_process_killed_while_it_counts_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    forks = multiprocessing.get_context("fork")
    of = budget(path, 0xFFFFFFFF)
    for _ in range(5):
        mine, theirs = forks.Pipe()
        child = forks.Process(target=take_for_ever, args=(path, theirs))
        child.start()
        assert mine.recv() == "ready"
        before = of.used(NOON)["weight"]
        while of.used(NOON)["weight"] < before + 100:
            os.sched_yield()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join(10)
        used = of.used(NOON)["weight"]
        assert isinstance(of.charge((("weight", 1),), Priority.CANCEL, NOON, 1000 * S), Grant)
        assert of.used(NOON)["weight"] == used + 1
