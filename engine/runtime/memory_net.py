"""TCP within one virtual loop: listeners, connections and transports, with a seam for everything that can go wrong.

Bytes keep their order within a direction, take as long as the :class:`Weather` says, and wait in the receiver's
"kernel" while it is stopped or reads slowly. A connection can be cut (both ends hear of it), frozen (a partition:
nothing passes until it is thawed) or left half open (frozen for ever). A process that is killed closes its ends as
the kernel would: what it had written still arrives, then the end of the stream.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import weakref
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, cast

from engine.runtime.virtual_loop import CURRENT, VirtualLoop, VirtualProcess, VirtualTimeError

READ_SIZE: Final = 64 * 1024
KERNEL_BUFFER: Final = 256 * 1024
"""What a direction takes before the sender's own buffer begins to fill."""
HIGH_WATER: Final = 64 * 1024
RETRY_NS: Final = 1_000_000_000
FIRST_PORT: Final = 40_000
Factory = Callable[[], asyncio.BaseProtocol]


class Weather:
    """How the network treats what is sent. This one is calm: everything takes ``latency_ns``."""

    def __init__(self, latency_ns: int = 500_000) -> None:
        self.latency_ns = latency_ns

    def answers(self, client: str, port: int) -> bool:
        """Whether packets between this process and that address pass now."""
        return True

    def delay_ns(self, connection: Connection, to_server: bool, data: bytes) -> int:
        """How long this write is under way. What was written before it never arrives after it."""
        return self.latency_ns


class _End(Enum):
    EOF = auto()
    RESET = auto()


class Connection:
    """A client's and a server's transport, and what lies between them."""

    def __init__(self, net: MemoryNet, number: int, client: MemoryTransport, server: MemoryTransport) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.port = server.port
        self.frozen = False
        self._net = net

    def cut(self) -> None:
        """Break it: both ends hear of a reset after the latency, and what is under way is lost."""
        for transport in (self.client, self.server):
            transport.outgoing.lose()
            transport.outgoing.send_end(_End.RESET)

    def freeze(self) -> None:
        """Let nothing pass any more, and tell nobody."""
        self.frozen = True

    def thaw(self) -> None:
        """What was held back arrives now, in its order."""
        self.frozen = False
        for transport in (self.client, self.server):
            transport.outgoing.book()

    def ended(self) -> None:
        """For a transport: one end is gone for good."""
        if self.client.lost and self.server.lost:
            self._net.connections.pop(self.number, None)


class Pipe:
    """One direction of a connection."""

    def __init__(self, loop: VirtualLoop, sender: MemoryTransport, receiver: MemoryTransport) -> None:
        self.unread = 0
        self._loop = loop
        self._sender = sender
        self._receiver = receiver
        self._segments: deque[tuple[int, bytes | _End]] = deque()
        self._last_ns = 0
        self._handle: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> None:
        """Write; it arrives when the weather lets it."""
        connection = self._sender.connection
        self.unread += len(data)
        self._put(data, connection.weather.delay_ns(connection.pair, self._sender.is_client, data))

    def send_end(self, end: _End) -> None:
        """No more follows what was sent."""
        connection = self._sender.connection
        self._put(end, connection.weather.latency_ns)

    def lose(self) -> None:
        """What is under way never arrives."""
        self._segments.clear()
        self.unread = 0
        self._last_ns = 0

    def book(self) -> None:
        """Deliver as soon as the first segment is there and the receiver takes it."""
        if self._handle is not None or not self._segments or self._sender.connection.pair.frozen:
            return
        arrival_ns, first = self._segments[0]
        if isinstance(first, bytes) and not (self._receiver.is_reading() or self._receiver.closed):
            return
        self._handle = self._loop.call_at_ns(arrival_ns, self._deliver, context=self._receiver.context)

    def _put(self, what: bytes | _End, delay_ns: int) -> None:
        self._last_ns = max(self._last_ns, self._loop.clock.monotonic_ns() + delay_ns)
        self._segments.append((self._last_ns, what))
        self.book()

    def _deliver(self) -> None:
        """One read of the receiver's: what has arrived, up to a read's size, or the end."""
        self._handle = None
        receiver = self._receiver
        if self._sender.connection.pair.frozen or not self._segments:
            return
        if receiver.closed:
            self._refuse()
            return
        first = self._segments[0][1]
        if isinstance(first, _End):
            self._segments.popleft()
            receiver.end_received(first is _End.RESET)
        elif receiver.is_reading():
            data = self._take()
            self.unread -= len(data)
            self._sender.drained()
            receiver.data_received(data)
        self.book()

    def _take(self) -> bytes:
        now_ns = self._loop.clock.monotonic_ns()
        parts: list[bytes] = []
        size = 0
        while self._segments and self._segments[0][0] <= now_ns and size < READ_SIZE:
            part = self._segments[0][1]
            if isinstance(part, _End):
                break
            self._segments.popleft()
            parts.append(part)
            size += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _refuse(self) -> None:
        """The receiver closed its end: data for it is answered with a reset."""
        has_data = any(isinstance(part, bytes) for _, part in self._segments)
        self.lose()
        if has_data:
            self._receiver.outgoing.send_end(_End.RESET)


class _Between:
    """What a transport knows of its connection: set once both ends exist."""

    __slots__ = ("pair", "weather")

    def __init__(self, pair: Connection, weather: Weather) -> None:
        self.pair = pair
        self.weather = weather


class MemoryTransport(asyncio.Transport):
    """One end of a connection. Its protocol is called in the context of the process that it belongs to."""

    connection: _Between
    outgoing: Pipe
    incoming: Pipe

    def __init__(
        self, loop: VirtualLoop, context: contextvars.Context, *, is_client: bool, port: int, address: tuple[str, int]
    ) -> None:
        super().__init__({"sockname": ("127.0.0.1", port), "peername": address})
        self.context = context
        self.process: VirtualProcess | None = context.get(CURRENT)
        self.is_client = is_client
        self.port = port
        self.closed = False
        self.lost = False
        self._loop = loop
        self._protocol: asyncio.Protocol | None = None
        self._reading = True
        self._eof_sent = False
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4
        self._writing_paused = False

    @property
    def owner(self) -> str:
        """The name of the process that it belongs to."""
        return self.process.name if self.process is not None else ""

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        """Give it to its protocol; what has arrived follows."""
        self._protocol = cast(asyncio.Protocol, protocol)
        protocol.connection_made(self)
        self.incoming.book()

    # ------------------------------------------------------------------------------------------- asyncio.Transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        if self._protocol is None:
            raise VirtualTimeError("the transport has no protocol yet")
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high
        self._low = self._high // 4 if low is None else low
        self._press()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return max(0, self.outgoing.unread - KERNEL_BUFFER)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.closed or not data:
            return
        if self._eof_sent:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.outgoing.send(bytes(data))
        self._press()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._eof_sent and not self.closed:
            self._eof_sent = True
            self.outgoing.send_end(_End.EOF)

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.incoming.book()

    def is_reading(self) -> bool:
        return self._reading and not self.closed and self._protocol is not None

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self._close(None)

    def abort(self) -> None:
        self._close(None)

    # ----------------------------------------------------------------------------------------------- for the network

    def die(self) -> None:
        """Its process is gone: the kernel closes it, and tells nobody here."""
        if not self.closed:
            self.closed = True
            self.write_end()
        self.lost = True
        self.connection.pair.ended()

    def write_end(self) -> None:
        """Say that no more follows, unless that was said."""
        if not self._eof_sent:
            self._eof_sent = True
            self.outgoing.send_end(_End.EOF)

    def data_received(self, data: bytes) -> None:
        """For the pipe: bytes have arrived."""
        assert self._protocol is not None
        try:
            self._protocol.data_received(data)
        except Exception as error:
            self._failed(error)

    def end_received(self, is_reset: bool) -> None:
        """For the pipe: the other end sends no more, or is gone."""
        if is_reset:
            self._close(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
            return
        try:
            keep_open = self._protocol.eof_received() if self._protocol is not None else False
        except Exception as error:
            self._failed(error)
        else:
            if not keep_open:
                self._close(None)

    def drained(self) -> None:
        """For the pipe: the other end has read."""
        if self._writing_paused and self.get_write_buffer_size() <= self._low and not self.closed:
            self._writing_paused = False
            self._loop.call_soon(self._resume_writing, context=self.context)

    def _press(self) -> None:
        if not self._writing_paused and self._protocol is not None and self.get_write_buffer_size() > self._high:
            self._writing_paused = True
            self._protocol.pause_writing()

    def _resume_writing(self) -> None:
        if not self._writing_paused and not self.closed and self._protocol is not None:
            self._protocol.resume_writing()

    def _failed(self, error: Exception) -> None:
        self._loop.call_exception_handler(
            {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
        )
        self._close(error)

    def _close(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        self.write_end()
        self._loop.call_soon(self._lose, error, context=self.context)

    def _lose(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        protocol, self._protocol = self._protocol, None
        self.connection.pair.ended()
        if protocol is not None:
            protocol.connection_lost(error)


class _Name:
    """What a server shows as its socket."""

    def __init__(self, host: str, port: int) -> None:
        self._name = (host, port)

    def getsockname(self) -> tuple[str, int]:
        return self._name


class MemoryServer(asyncio.AbstractServer):
    """A listener."""

    def __init__(self, net: MemoryNet, factory: Factory, host: str, port: int) -> None:
        self.context = contextvars.copy_context()
        self.process: VirtualProcess | None = CURRENT.get()
        self.factory = factory
        self.port = port
        self.sockets = [_Name(host, port)]
        self._net = net

    def close(self) -> None:
        self._net.forget(self)

    async def wait_closed(self) -> None:
        return

    async def __aenter__(self) -> MemoryServer:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._net.loop

    def is_serving(self) -> bool:
        return self._net.is_listening(self)

    async def start_serving(self) -> None:
        return

    async def serve_forever(self) -> None:
        await self._net.loop.create_future()


class MemoryNet:
    """All connections of one loop; addresses are known by their port alone."""

    def __init__(self, loop: VirtualLoop, weather: Weather | None = None) -> None:
        self.loop = loop
        self.weather = weather or Weather()
        self.connections: dict[int, Connection] = {}
        self._servers: dict[int, MemoryServer] = {}
        self._dialled: weakref.WeakKeyDictionary[Any, MemoryTransport] = weakref.WeakKeyDictionary()
        self._numbers = 0
        loop.network = self

    def listen(self, factory: Factory, host: str, port: int) -> MemoryServer:
        """Raises OSError (EADDRINUSE) where somebody listens already."""
        if port in self._servers:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        if not port:
            port = next(number for number in range(FIRST_PORT, 65_536) if number not in self._servers)
        server = self._servers[port] = MemoryServer(self, factory, host, port)
        return server

    async def connect(self, factory: Factory, host: str, port: int) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Raises ConnectionRefusedError when nobody listens there; hangs while nothing passes."""
        transport = await self._handshake(host, port)
        protocol = factory()
        transport.attach(protocol)
        return transport, protocol

    async def dial(self, sock: Any, host: str, port: int) -> None:
        """Connect first, and have the connection taken up by :meth:`answered`."""
        self._dialled[sock] = await self._handshake(host, port)

    def answered(self, factory: Factory, sock: Any) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        transport = self._dialled.pop(sock)
        sock.close()
        protocol = factory()
        transport.attach(protocol)
        return transport, protocol

    def kill(self, process: VirtualProcess) -> None:
        """Close all that belongs to a process, as the kernel does at its end."""
        for server in [server for server in self._servers.values() if server.process is process]:
            self.forget(server)
        for connection in list(self.connections.values()):
            for transport in (connection.client, connection.server):
                if transport.process is process:
                    transport.die()

    def forget(self, server: MemoryServer) -> None:
        """It listens no more."""
        if self._servers.get(server.port) is server:
            del self._servers[server.port]

    def is_listening(self, server: MemoryServer) -> bool:
        return self._servers.get(server.port) is server

    async def _handshake(self, host: str, port: int) -> MemoryTransport:
        process = CURRENT.get()
        name = process.name if process is not None else ""
        # Retried as a kernel repeats a SYN: nobody tells when packets pass again.
        while not self.weather.answers(name, port):  # noqa: ASYNC110
            await asyncio.sleep(RETRY_NS / 1e9)
        await self._passage()
        server = self._servers.get(port)
        if server is None:
            await self._passage()
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        transport = self._pair(server, host, port)
        await self._passage()
        return transport

    async def _passage(self) -> None:
        await asyncio.sleep(self.weather.latency_ns / 1e9)

    def _pair(self, server: MemoryServer, host: str, port: int) -> MemoryTransport:
        self._numbers += 1
        context = contextvars.copy_context()
        client = MemoryTransport(self.loop, context, is_client=True, port=port, address=(host, port))
        there = MemoryTransport(
            self.loop, server.context.copy(), is_client=False, port=port, address=("127.0.0.1", 30_000 + self._numbers)
        )
        connection = self.connections[self._numbers] = Connection(self, self._numbers, client, there)
        between = _Between(connection, self.weather)
        client.connection = there.connection = between
        client.outgoing = there.incoming = Pipe(self.loop, client, there)
        there.outgoing = client.incoming = Pipe(self.loop, there, client)
        self.loop.call_soon(_accept, server.factory, there, context=there.context)
        return client


def _accept(factory: Factory, transport: MemoryTransport) -> None:
    if not transport.closed:
        transport.attach(factory())
