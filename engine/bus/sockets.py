"""The bus over sockets: Unix on a host, TCP (with mutual TLS) between hosts."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from engine.bus.bus import Bus
from engine.bus.context import Limits
from engine.bus.endpoints import Directory, Endpoint, TcpEndpoint, UnixEndpoint
from engine.bus.link import Link
from engine.bus.names import NameLock
from engine.bus.serving import ServerSession
from engine.clock import Clock, WallClock

BACKLOG: Final = 128
TCP_UNACKNOWLEDGED_MS: Final = 10_000
"""How long a TCP peer may leave data unacknowledged before its link counts as dead."""


class HostDirectory(Directory, Protocol):
    """A directory that also says where this host's actors hold their names."""

    def lock_path(self, name: str) -> str: ...

    def own_socket(self, name: str) -> UnixEndpoint: ...


class SocketBus(Bus):
    """A bus between processes.

    It listens on its directory's Unix socket for its name, and on ``tcp`` as well when that is given. With
    ``listen=False`` it takes no name and is not reached by others: for a command's short life.
    """

    def __init__(
        self,
        name: str,
        incarnation: int,
        directory: HostDirectory,
        *,
        clock: Clock | None = None,
        engine_id: str = "",
        limits: Limits | None = None,
        listen: bool = True,
        tcp: TcpEndpoint | None = None,
    ) -> None:
        super().__init__(
            name,
            incarnation,
            directory,
            clock=clock if clock is not None else WallClock(),
            engine_id=engine_id,
            host=host_id(),
            limits=limits if limits is not None else Limits(),
            rng=random.Random(),
        )
        self._host_directory = directory
        self._listens = listen
        self._tcp = tcp
        self._lock: NameLock | None = None
        self._socket_path: str | None = None
        self._servers: list[asyncio.AbstractServer] = []

    @property
    def addresses(self) -> tuple[str, str]:
        return self._socket_path or "", f"{self._tcp.host}:{self._tcp.port}" if self._tcp is not None else ""

    @property
    def tcp_endpoint(self) -> TcpEndpoint | None:
        """Where it listens for other hosts, with the real port."""
        return self._tcp

    async def _listen(self) -> None:
        if not self._listens:
            return
        endpoint = self._host_directory.own_socket(self.name)
        lock = NameLock(self._host_directory.lock_path(self.name))
        lock.take()
        self._lock = lock
        try:
            await self._listen_unix(endpoint.path)
            if self._tcp is not None:
                await self._listen_tcp(self._tcp)
        except BaseException:
            await self._stop_listening()
            await self._release()
            raise

    async def _listen_unix(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(path)
            self._socket_path = path
            os.chmod(path, 0o600)
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_unix_server(self._accept, sock=listener, backlog=BACKLOG))
        except BaseException:
            listener.close()
            raise

    async def _listen_tcp(self, endpoint: TcpEndpoint) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Link(ServerSession(self._server), self._context, self._track_far),
            endpoint.host,
            endpoint.port,
            ssl=endpoint.ssl,
            ssl_handshake_timeout=None if endpoint.ssl is None else self._context.limits.handshake,
            backlog=BACKLOG,
        )
        self._servers.append(server)
        port = server.sockets[0].getsockname()[1]
        self._tcp = TcpEndpoint(endpoint.host, port, endpoint.ssl, endpoint.server_hostname)

    def _track_far(self, link: Link) -> None:
        _notice_dead_peers(link)
        self._track(link)

    async def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._socket_path is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._socket_path)
            self._socket_path = None

    async def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _connect(self, endpoint: Endpoint, make: Callable[[], Link]) -> Link:
        loop = asyncio.get_running_loop()
        if isinstance(endpoint, UnixEndpoint):
            _, link = await loop.create_unix_connection(make, endpoint.path)
        elif isinstance(endpoint, TcpEndpoint):
            async with asyncio.timeout(self._context.limits.handshake):
                _, link = await loop.create_connection(
                    make, endpoint.host, endpoint.port, ssl=endpoint.ssl, server_hostname=endpoint.server_hostname
                )
            _notice_dead_peers(link)
        else:
            raise OSError(f"a socket bus cannot reach {endpoint}")
        return link


@functools.cache
def host_id() -> str:
    """Names this boot of the host, whose processes share a monotonic clock; "" where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _notice_dead_peers(link: Link) -> None:
    """Small frames go at once, and a host that vanished without a word is noticed in seconds, at either end."""
    if link.transport is None:
        return
    sock = link.transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_UNACKNOWLEDGED_MS)
