"""The bus within one process: the same bytes over pairs of buffers, delivered by the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import random
from collections.abc import Callable
from typing import Any

from engine.bus.bus import Bus
from engine.bus.context import Limits
from engine.bus.endpoints import Endpoint, MemoryEndpoint, Watchers
from engine.bus.link import Link
from engine.clock import Clock, WallClock
from engine.errors import NameTaken

Between = Callable[[str, str], bool]
"""Whether a link is meant, by the names of its two ends, in either order."""
CHUNK = 64 * 1024
"""How many bytes one turn of the event loop delivers, as one read of a socket would."""


class MemoryNetwork:
    """The buses of one process, and their directory. ``stall`` makes one stop reading, as a stopped process
    does.

    ``latency``: gives the seconds that the next delivery takes, for a simulation; at once without it. What arrives is
    handled in the context in which its bus was made.
    """

    def __init__(self, latency: Callable[[], float] | None = None) -> None:
        self.latency = latency
        self._buses: dict[str, MemoryBus] = {}
        self._stalled: dict[str, None] = {}
        self._pipes: dict[MemoryTransport, None] = {}
        self._parted: list[Between] = []
        self._watchers = Watchers()

    def endpoint(self, name: str) -> MemoryEndpoint | None:
        return MemoryEndpoint(name) if name in self._buses else None

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self._watchers.add(callback)

    def stall(self, name: str) -> None:
        """What is sent to this bus stays in the pipes until :meth:`resume`."""
        self._stalled[name] = None

    def resume(self, name: str) -> None:
        self._stalled.pop(name, None)
        for pipe in list(self._pipes):
            pipe.book()

    def is_stalled(self, name: str) -> bool:
        return name in self._stalled

    def cut(self, between: Between) -> int:
        """Reset these links: both ends hear of it, and what is under way is lost. How many they are."""
        ends = [end for end in self._pipes if between(end.owner, end.peer.owner)]
        for end in ends:
            end.cut()
        return len({frozenset((id(end), id(end.peer))) for end in ends})

    def part(self, between: Between) -> Callable[[], None]:
        """From now on nothing passes on these links, new ones included, and nobody is told; returns the end of it."""
        self._parted.append(between)

        def heal() -> None:
            self._parted.remove(between)
            for pipe in list(self._pipes):
                pipe.book()

        return heal

    def is_parted(self, one: str, other: str) -> bool:
        """Whether nothing passes between these two."""
        return any(between(one, other) or between(other, one) for between in self._parted)

    def kill(self, name: str) -> None:
        """End a bus as its process's death would: nothing more is sent, and its peers see closed links."""
        self._buses.pop(name).lost()

    def join(self, bus: MemoryBus) -> None:
        """Raises NameTaken when the name is in use."""
        if bus.name in self._buses:
            raise NameTaken(f"{bus.name!r} is taken by incarnation {self._buses[bus.name].incarnation}")
        self._buses[bus.name] = bus
        self._watchers.changed(bus.name)

    def leave(self, bus: MemoryBus) -> None:
        if self._buses.get(bus.name) is bus:
            del self._buses[bus.name]

    def connect(self, caller: str, listener: str, make: Callable[[], Link]) -> Link:
        """Raises ConnectionRefusedError when nobody listens under that name."""
        bus = self._buses.get(listener)
        if bus is None:
            raise ConnectionRefusedError(f"nobody listens as {listener!r}")
        near, far = make(), bus.context.copy().run(bus.accept)
        here = MemoryTransport(self, caller, near, contextvars.copy_context())
        there = MemoryTransport(self, listener, far, bus.context.copy())
        here.peer, there.peer = there, here
        for transport in (here, there):
            self._pipes[transport] = None
        asyncio.get_running_loop().call_soon(far.connection_made, there, context=there.context)
        near.connection_made(here)
        return near

    def forget(self, transport: MemoryTransport) -> None:
        self._pipes.pop(transport, None)


class MemoryBus(Bus):
    """A bus whose peers are in the same process and on the same event loop."""

    def __init__(
        self,
        network: MemoryNetwork,
        name: str,
        incarnation: int,
        clock: Clock | None = None,
        *,
        engine_id: str = "",
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            name,
            incarnation,
            network,
            clock=clock if clock is not None else WallClock(),
            engine_id=engine_id,
            host="memory",
            limits=limits if limits is not None else Limits(),
            rng=random.Random(f"{name}/{incarnation}"),
        )
        self._network = network
        self.context = contextvars.copy_context()

    def accept(self) -> Link:
        """The link of a new caller, for the network."""
        return self._accept()

    def lost(self) -> None:
        """Its process is gone: nothing of it runs any more, and what it had not written is lost."""
        self._closed = True
        self._context.registry.silence()
        self._server.lost()
        if self._unwatch is not None:
            self._unwatch()
        for loop in self._peers.values():
            loop.lost()

    async def _listen(self) -> None:
        self._network.join(self)

    async def _stop_listening(self) -> None:
        self._network.leave(self)

    async def _release(self) -> None:
        return

    async def _connect(self, endpoint: Endpoint, make: Callable[[], Link]) -> Link:
        if not isinstance(endpoint, MemoryEndpoint):
            raise OSError(f"a memory bus cannot reach {endpoint}")
        return self._network.connect(self.name, endpoint.name, make)


class MemoryTransport(asyncio.Transport):
    """One end of a pipe. What it wrote waits in ``_buffer`` until the other end reads it."""

    def __init__(self, network: MemoryNetwork, owner: str, link: Link, context: contextvars.Context) -> None:
        super().__init__()
        self.owner = owner
        self.context = context
        self.peer: MemoryTransport = self
        self._network = network
        self._link = link
        self._buffer = bytearray()
        self._high = 64 * 1024
        self._low = 16 * 1024
        self._writing_paused = False
        self._reading = True
        self._ended = False
        self._lost = False
        self._booked = False

    # -------------------------------------------------------------------------------------- asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._ended:
            return
        self._buffer += data
        if len(self._buffer) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._link.pause_writing()
        self.book()

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.peer.book()

    def is_closing(self) -> bool:
        return self._ended

    def close(self) -> None:
        """The other end reads the rest, then both are closed."""
        self._ended = True
        self.book()

    def abort(self) -> None:
        """Closed here at once; the other end still reads what is in the pipe."""
        self._ended = True
        asyncio.get_running_loop().call_soon(self._lose, context=self.context)
        self.book()

    def cut(self) -> None:
        """Reset the link."""
        reset = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        for end in (self, self.peer):
            end._buffer.clear()
            end._ended = True
            self._network.forget(end)
            asyncio.get_running_loop().call_soon(end._lose, reset, context=end.context)

    # ----------------------------------------------------------------------------------------------- delivery

    def book(self) -> None:
        """Deliver, or end, in the event loop's next turn, or when it has come the way."""
        if self._booked or not (self._buffer or self._ended):
            return
        self._booked = True
        loop, latency = asyncio.get_running_loop(), self._network.latency
        if latency is None:
            loop.call_soon(self._deliver, context=self.peer.context)
        else:
            loop.call_later(latency(), self._deliver, context=self.peer.context)

    def _deliver(self) -> None:
        self._booked = False
        peer = self.peer
        if self._network.is_parted(self.owner, peer.owner):
            return
        if self._buffer and not peer._lost and not peer._ended:
            if not peer._reading or self._network.is_stalled(peer.owner):
                return
            chunk = bytes(self._buffer[:CHUNK])
            del self._buffer[:CHUNK]
            peer._link.data_received(chunk)
            if self._writing_paused and len(self._buffer) <= self._low and not self._lost:
                self._writing_paused = False
                self.context.copy().run(self._link.resume_writing)
        elif self._ended:
            self._buffer.clear()
            peer._ended = True
            peer._lose()
            asyncio.get_running_loop().call_soon(self._lose, context=self.context)
            self._network.forget(self)
            self._network.forget(peer)
            return
        self.book()

    def _lose(self, error: Exception | None = None) -> None:
        if not self._lost:
            self._lost = True
            self._link.connection_lost(error)
