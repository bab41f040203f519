"""Where actors listen, and the directory that says who is where."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from engine.errors import ConfigError

UNIX_PATH_LIMIT: Final = 107
"""The longest path, in bytes, that a Unix socket address can hold."""


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A Unix stream socket on this host."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A TCP address, with TLS when ``ssl`` is given. Port 0 listens on any free port."""

    host: str
    port: int
    ssl: ssl.SSLContext | None = None
    server_hostname: str | None = None

    def __str__(self) -> str:
        return f"tcp:{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MemoryEndpoint:
    """A bus in this process, by name."""

    name: str

    def __str__(self) -> str:
        return f"memory:{self.name}"


Endpoint = UnixEndpoint | TcpEndpoint | MemoryEndpoint


class Directory(Protocol):
    """Who is where."""

    def endpoint(self, name: str) -> Endpoint | None:
        """Where ``name`` listens. None: nobody is there, and a watch callback follows when that changes.

        Raises ConfigError for a name that can never be reached.
        """

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call ``callback(name)`` whenever that actor moved or came back; the returned function ends it."""


class Watchers:
    """The callbacks of a directory."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[str], None]] = {}

    def add(self, callback: Callable[[str], None]) -> Callable[[], None]:
        key = object()
        self._callbacks[key] = callback

        def remove() -> None:
            self._callbacks.pop(key, None)

        return remove

    def changed(self, name: str) -> None:
        for callback in list(self._callbacks.values()):
            callback(name)


class RunDirectory:
    """The actors of one host: ``<name>.sock`` and ``<name>.lock`` in the engine's run folder."""

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.run_dir = Path(run_dir)
        self._watchers = Watchers()

    def endpoint(self, name: str) -> Endpoint:
        """Raises ConfigError like :meth:`own_socket`."""
        return self.own_socket(name)

    def own_socket(self, name: str) -> UnixEndpoint:
        """Where an actor of that name listens when it runs here.

        Raises ConfigError when the name cannot be a file's name or the path is too long for a socket.
        """
        path = self._path(name, ".sock")
        size = len(os.fsencode(path))
        if size > UNIX_PATH_LIMIT:
            raise ConfigError(
                f"the socket path {path} has {size} bytes, and a Unix socket's path ends at {UNIX_PATH_LIMIT}"
                f": use a shorter run folder or a shorter name than {name!r}"
            )
        return UnixEndpoint(path)

    def lock_path(self, name: str) -> str:
        """The file whose lock the actor holds for life. Raises ConfigError like :meth:`endpoint`."""
        return self._path(name, ".lock")

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        return self._watchers.add(callback)

    def changed(self, name: str) -> None:
        """To be called by whoever hears that an actor (re)started: its peers then connect at once."""
        self._watchers.changed(name)

    def _path(self, name: str, suffix: str) -> str:
        if not name or "/" in name or "\0" in name:
            raise ConfigError(f"{name!r} cannot name an actor: it must not be empty or hold '/' or NUL")
        return os.path.join(self.run_dir, name + suffix)
