"""Both buses behind one interface, so that one suite says what must hold for either."""

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager

import pytest
import structlog
import uvloop

from engine.bus import Limits, MemoryBus, MemoryNetwork, RunDirectory, SocketBus
from engine.messages import LogLine

SMALL = Limits(high_water=4096, backoff_min=0.001, backoff_max=0.02)


class Recorder:
    """The events and states of a subscription, to be waited for."""

    def __init__(self):
        self.events = []
        self.states = []
        self._news = asyncio.Event()

    def event(self, message, number):
        self.events.append((number, message))
        self._news.set()

    def state(self, state):
        self.states.append(state)
        self._news.set()

    def append(self, item):
        self.events.append(item)
        self._news.set()

    @property
    def numbers(self):
        return [number for number, _ in self.events]

    def of(self, kind):
        return [state for state in self.states if isinstance(state, kind)]

    async def until(self, condition):
        while not condition():
            self._news.clear()
            await self._news.wait()


class MemoryWorld:
    kind = "memory"

    def __init__(self):
        self.network = MemoryNetwork()
        self.buses = []

    async def bus(self, name, incarnation=1, *, start=True, **options):
        options.setdefault("limits", SMALL)
        bus = MemoryBus(self.network, name, incarnation, **options)
        self.buses.append(bus)
        if start:
            await bus.start()
        return bus

    def stall(self, bus):
        self.network.stall(bus.name)

    def resume(self, bus):
        self.network.resume(bus.name)

    async def close(self):
        for bus in self.buses:
            self.network.resume(bus.name)
        await asyncio.gather(*(bus.close() for bus in self.buses))
        assert not self.network._buses
        assert not self.network._pipes


class SocketWorld:
    kind = "socket"

    def __init__(self):
        self.run_dir = tempfile.mkdtemp(prefix="bus-")
        self.directory = RunDirectory(self.run_dir)
        self.buses = []

    async def bus(self, name, incarnation=1, *, start=True, **options):
        options.setdefault("limits", SMALL)
        bus = SocketBus(name, incarnation, self.directory, **options)
        self.buses.append(bus)
        if start:
            await bus.start()
        return bus

    def stall(self, bus):
        for transport in self._transports(bus):
            transport.pause_reading()

    def resume(self, bus):
        for transport in self._transports(bus):
            transport.resume_reading()

    def _transports(self, bus):
        channels = [loop.peer._channel for loop in bus._peers.values()]
        return [channel._transport for channel in channels if channel is not None]

    async def close(self):
        await asyncio.gather(*(bus.close() for bus in self.buses))
        left = os.listdir(self.run_dir)
        shutil.rmtree(self.run_dir)
        assert not left


WORLDS = {"memory": MemoryWorld, "socket": SocketWorld}


def run_in(world_class, body, seconds=15):
    """Run ``body(world)`` and see that nothing is left behind."""

    @asynccontextmanager
    async def made():
        world = world_class()
        try:
            yield world
        finally:
            await world.close()

    async def main():
        async with asyncio.timeout(seconds):
            async with made() as world:
                await body(world)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, f"left running: {others}"

    with structlog.testing.capture_logs() as logs:
        uvloop.run(main())
    return logs


@pytest.fixture(params=list(WORLDS))
def run(request):
    """``run(body)`` for each kind of bus; returns what was logged."""
    return lambda body, seconds=15: run_in(WORLDS[request.param], body, seconds)


@pytest.fixture
def run_sockets():
    return lambda body, seconds=15: run_in(SocketWorld, body, seconds)


@pytest.fixture
def run_memory():
    return lambda body, seconds=15: run_in(MemoryWorld, body, seconds)


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def turns_until():
    """Let the event loop turn until a condition without an event of its own holds."""

    async def turns_until(condition):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)

    return turns_until


@pytest.fixture
def line():
    """A message with a number in it, and as many bytes besides as are wanted."""

    def make(number, size=0):
        return LogLine(actor="a", level="info", event="x" * size, time_ns=number)

    return make


@pytest.fixture
def history():
    """A history in memory; ``keep`` bounds it as pruning would."""

    class ListHistory:
        def __init__(self, keep=10**9):
            self.events = []
            self.keep = keep
            self.reads = []

        def append(self, body):
            self.events.append((self.last() + 1, body))
            del self.events[: -self.keep]
            return self.last()

        def first(self):
            return self.events[0][0] if self.events else 1

        def last(self):
            return self.events[-1][0] if self.events else 0

        def since(self, number, limit):
            self.reads.append((number, limit))
            start = max(0, number + 1 - self.first())
            return self.events[start : start + limit]

    return ListHistory
