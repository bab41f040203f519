"""All actors in one process, on one virtual loop.

A :class:`Place` is the machine that they share: time, the network in memory, the bus's twin in memory and the virtual
processes, one for each actor. :class:`InlineRuntime` is the :class:`~engine.runtime.base.Runtime` on it. A place can
outlive a runtime, as a host outlives an engine that was killed on it.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import importlib
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from engine.bus import MemoryNetwork
from engine.clock import Clock, VirtualClock
from engine.errors import ConfigError, RuntimeFailure
from engine.runtime.base import ActorSpec, Exit, Living, Runtime, check_name
from engine.runtime.memory_net import MemoryNet, Weather
from engine.runtime.virtual_loop import VirtualLoop, VirtualProcess

EXIT_NEWS_S: Final = 0.000_5
"""How long the end of an actor takes to be known."""


class Seat:
    """What an actor's entry is given besides its spec: where it runs, and how it hears of signals and deaths."""

    def __init__(self, place: Place, process: VirtualProcess) -> None:
        self.place = place
        self.process = process
        self.actor: object = None
        """What its entry runs, once it does."""
        self.on_term: Callable[[], None] | None = None
        self.on_supervisor_death: Callable[[], None] | None = None


Entry = Callable[[ActorSpec, Seat], Coroutine[Any, Any, int]]


class Place:
    """One virtual machine. To be made before its loop runs."""

    def __init__(self, start_ns: int, weather: Weather | None = None, bus_latency: Callable[[], float] | None = None):
        clock = VirtualClock(start_ns)
        self.clock: Clock = clock
        self.loop = VirtualLoop(clock)
        self.net = MemoryNet(self.loop, weather)
        self.buses = MemoryNetwork(bus_latency)

    def neighbour(self, clock: Clock) -> Place:
        """Another machine on the same network and loop: with a bus, and a clock, of its own."""
        other = copy.copy(self)
        other.clock = clock
        other.buses = MemoryNetwork(self.buses.latency)
        return other

    def process(self, name: str) -> VirtualProcess:
        """A new process. What it holds in this place goes with it when it is killed."""
        process = VirtualProcess(name)
        process.on_death.append(lambda: self._leave(process))
        return process

    def start(self, process: VirtualProcess, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a process's first task. Works before the loop runs, too."""
        return self.loop.create_task(work, context=process.context)

    def _leave(self, process: VirtualProcess) -> None:
        self.net.kill(process)
        if self.buses.endpoint(process.name) is not None:
            self.buses.kill(process.name)


class InlineRuntime(Runtime):
    """Actors as virtual processes of a place. Their pid is this process's own.

    SIGKILL ends one between two callbacks; SIGSTOP and SIGCONT hold its callbacks back; SIGTERM goes to its entry.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._context = contextvars.copy_context()
        self._seats: dict[str, Seat] = {}
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self._specs: dict[str, ActorSpec] = {}

    async def start(self) -> Sequence[Living]:
        """Nothing has to be made ready."""
        return ()

    async def spawn(self, spec: ActorSpec) -> int:
        check_name(spec.name)
        if spec.name in self._seats:
            raise RuntimeFailure(f"{spec.name} is living already: end it first")
        entry = _entry(spec.entry)
        process = self._place.process(spec.name)
        seat = self._seats[spec.name] = Seat(self._place, process)
        self._specs[spec.name] = spec
        self._lives(spec.name)
        task = self._tasks[spec.name] = self._place.start(process, entry(spec, seat))
        # Nobody's context: the end of an actor is the kernel's business, whether or not a supervisor lives to hear it.
        task.add_done_callback(lambda done: self._finished(spec, done), context=contextvars.Context())
        return os.getpid()

    def send_signal(self, name: str, number: int) -> bool:
        seat = self._seats.get(name)
        if seat is None:
            return False
        match number:
            case signal.SIGKILL:
                self._kill(name, signal.SIGKILL)
            case signal.SIGSTOP:
                seat.process.stop()
            case signal.SIGCONT:
                seat.process.resume()
            case signal.SIGTERM if seat.on_term is not None:
                self._place.loop.call_soon(seat.on_term, context=seat.process.context.copy())
            case _:
                # No handler: the kernel's default.
                self._kill(name, number)
        return True

    def seat(self, name: str) -> Seat | None:
        """Where the living actor of that name runs."""
        return self._seats.get(name)

    @property
    def residents(self) -> list[str]:
        """Whose processes are there, whether or not a supervisor lives to know of them."""
        return list(self._seats)

    def supervisor_died(self) -> None:
        """Tell every actor, as the kernel does through a pidfd."""
        for seat in self._seats.values():
            if seat.on_supervisor_death is not None:
                self._place.loop.call_soon(seat.on_supervisor_death, context=seat.process.context.copy())

    async def close(self, grace_s: float = 5.0) -> None:
        names = list(self._seats)
        for name in names:
            self.send_signal(name, signal.SIGTERM)
        for name in names:
            await self.terminate(name, polite_s=grace_s, term_s=0)

    def _kill(self, name: str, number: int) -> None:
        process = self._seats[name].process
        process.kill()
        self._gone(self._specs[name], None, number)

    def _finished(self, spec: ActorSpec, task: asyncio.Task[int]) -> None:
        seat = self._seats.get(spec.name)
        if seat is None or self._tasks.get(spec.name) is not task:
            return
        failed = task.cancelled() or task.exception() is not None
        # The process ends with its first task; the kernel closes what that left open.
        seat.process.kill()
        self._gone(spec, 1 if failed else task.result(), None)

    def _gone(self, spec: ActorSpec, code: int | None, number: int | None) -> None:
        del self._seats[spec.name], self._tasks[spec.name], self._specs[spec.name]
        ended = Exit(name=spec.name, incarnation=spec.incarnation, pid=os.getpid(), code=code, signal=number)
        self._place.loop.call_later(EXIT_NEWS_S, self._ended, ended, context=self._context.copy())


def _entry(path: str) -> Entry:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise ConfigError(f"{path!r} names nothing that an actor could be started with")
    entry: Entry = found
    return entry
