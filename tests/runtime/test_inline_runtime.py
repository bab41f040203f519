"""Actors as virtual processes: signals, ends, and what is told of them."""

import asyncio
import os
import signal
import sys
import types

import pytest

from engine.errors import ConfigError, RuntimeFailure
from engine.runtime.base import ActorSpec
from engine.runtime.inline import InlineRuntime, Place

MODULE = "inline_entries_of_a_test"


class Entries:
    """What the actors of a test do, and what they did."""

    def __init__(self):
        self.seen = []

    async def beat(self, spec, seat):
        while True:
            self.seen.append((spec.name, round(asyncio.get_running_loop().time(), 3)))
            await asyncio.sleep(1)

    async def polite(self, spec, seat):
        told = asyncio.Event()
        seat.on_term = told.set
        seat.on_supervisor_death = told.set
        await told.wait()
        await asyncio.sleep(0.5)
        return 0

    async def failing(self, spec, seat):
        await asyncio.sleep(1)
        raise ValueError("no good")

    async def brief(self, spec, seat):
        return 3


@pytest.fixture
def entries():
    entries = Entries()
    module = types.ModuleType(MODULE)
    for name in ("beat", "polite", "failing", "brief"):
        setattr(module, name, getattr(entries, name))
    sys.modules[MODULE] = module
    yield entries
    del sys.modules[MODULE]


@pytest.fixture
def run():
    def runner(work):
        place = Place(10**18)

        async def body():
            runtime = InlineRuntime(place)
            exits = []
            runtime.on_exit = exits.append
            await runtime.start()
            await work(runtime, exits)
            await runtime.close(grace_s=1)
            assert not runtime.living()
            assert not runtime.residents

        with asyncio.Runner(loop_factory=lambda: place.loop) as loop:
            loop.run(body(), context=place.process("supervisor").context)

    return runner


def spec(name, entry, incarnation=1):
    return ActorSpec(
        name=name,
        kind="test",
        connector="",
        incarnation=incarnation,
        run_dir="/nowhere",
        shm_dir="/nowhere",
        state_dir="/nowhere",
        engine_id="test",
        entry=f"{MODULE}:{entry}",
    )


def test_killed_stopped_and_continued(run, entries):
    async def work(runtime, exits):
        assert await runtime.spawn(spec("a", "beat")) == os.getpid()
        assert runtime.living() == ["a"]
        await asyncio.sleep(1.5)
        assert runtime.send_signal("a", signal.SIGSTOP)
        await asyncio.sleep(10)
        assert len(entries.seen) == 2
        assert runtime.send_signal("a", signal.SIGCONT)
        await asyncio.sleep(0.1)
        assert entries.seen[-1] == ("a", 11.5)
        assert runtime.send_signal("a", signal.SIGKILL)
        assert not exits, "an end is news, and news takes its time"
        await asyncio.sleep(5)
        assert len(entries.seen) == 3
        (ended,) = exits
        assert (ended.name, ended.code, ended.signal) == ("a", None, signal.SIGKILL)
        assert not runtime.send_signal("a", signal.SIGKILL)

    run(work)


def test_a_stopped_one_can_be_killed(run, entries):
    async def work(runtime, exits):
        await runtime.spawn(spec("a", "beat"))
        runtime.send_signal("a", signal.SIGSTOP)
        runtime.send_signal("a", signal.SIGKILL)
        assert (await runtime.wait("a")).signal == signal.SIGKILL
        await runtime.spawn(spec("a", "beat", incarnation=2))
        await asyncio.sleep(0.1)
        assert entries.seen

    run(work)


def test_sigterm_goes_to_the_entry_and_ends_one_that_does_not_listen(run, entries):
    async def work(runtime, exits):
        await runtime.spawn(spec("polite", "polite"))
        await runtime.spawn(spec("deaf", "beat"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        runtime.send_signal("polite", signal.SIGTERM)
        runtime.send_signal("deaf", signal.SIGTERM)
        await asyncio.sleep(1)
        assert [(ended.name, ended.code, ended.signal) for ended in exits] == [
            ("deaf", None, signal.SIGTERM),
            ("polite", 0, None),
        ]

    run(work)


def test_ends_of_their_own_are_told_with_their_code(run, entries):
    async def work(runtime, exits):
        await runtime.spawn(spec("brief", "brief"))
        await runtime.spawn(spec("failing", "failing"))
        await asyncio.sleep(2)
        assert [(ended.name, ended.code) for ended in exits] == [("brief", 3), ("failing", 1)]

    run(work)


def test_the_supervisors_death_is_told_to_all(run, entries):
    async def work(runtime, exits):
        await runtime.spawn(spec("a", "polite"))
        await runtime.spawn(spec("b", "polite"))
        await asyncio.sleep(1)
        runtime.supervisor_died()
        await asyncio.sleep(1)
        assert [ended.name for ended in exits] == ["a", "b"]

    run(work)


def test_names_live_once_and_entries_must_be_there(run, entries):
    async def work(runtime, exits):
        await runtime.spawn(spec("a", "beat"))
        with pytest.raises(RuntimeFailure, match="living already"):
            await runtime.spawn(spec("a", "beat", incarnation=2))
        with pytest.raises(ConfigError, match="cannot name an actor"):
            await runtime.spawn(spec("a/b", "beat"))
        with pytest.raises(ConfigError, match="names nothing"):
            await runtime.spawn(spec("c", "absent"))
        assert runtime.living() == ["a"]

    run(work)
