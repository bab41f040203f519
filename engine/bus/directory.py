"""The directory of an engine on several hosts: one file on each, which says where every actor listens.

The supervisor learns where an actor listens when it has started, and has the table written on every host. A bus
looks at the file whenever it connects, and a few times a second for as long as it has peers: a peer that moved is
followed within that time, also by whoever still holds a connection to where it was.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from engine.bus.endpoints import Endpoint, RunDirectory, TcpEndpoint, UnixEndpoint
from engine.bus.tls import PEER_NAME

FILE: Final = "directory.json"
POLL_S: Final = 0.2

log = structlog.get_logger("engine.bus")


class Listens(msgspec.Struct, frozen=True, kw_only=True):
    """Where one actor listens: on ``node`` by the socket file ``unix``, for others at ``host`` and ``port``."""

    node: str
    unix: str
    host: str
    port: int


Table = Mapping[str, Listens]


def encode_table(table: Table) -> bytes:
    """The table as its file holds it."""
    return msgspec.json.encode(table)


def write_table(run_dir: Path, encoded: bytes) -> None:
    """Put the table of :func:`encode_table` where this host's actors read it, whole or not at all.

    Its time is above the last one's: a kernel may stamp files of the same few milliseconds alike, and use a file's
    number again at once, so that a reader would take the newer for the one that it knows.
    """
    path = run_dir / FILE
    draft = run_dir / f".{FILE}.{os.getpid()}"
    draft.write_bytes(encoded)
    try:
        above_ns = path.stat().st_mtime_ns + 1
    except FileNotFoundError:
        above_ns = 0
    stamp_ns = max(draft.stat().st_mtime_ns, above_ns)
    os.utime(draft, ns=(stamp_ns, stamp_ns))
    draft.replace(path)


def read_table(run_dir: Path) -> dict[str, Listens]:
    """The table that was last written there; empty if none was."""
    try:
        return msgspec.json.decode((run_dir / FILE).read_bytes(), type=dict[str, Listens])
    except FileNotFoundError:
        return {}


class FileDirectory(RunDirectory):
    """Who is where, by the file in the run folder; an actor that it does not name is looked for in this run folder.

    ``tls`` is what connections to other hosts are made with.
    """

    def __init__(self, run_dir: str | os.PathLike[str], node: str, tls: ssl.SSLContext) -> None:
        super().__init__(run_dir)
        self.node = node
        self._tls = tls
        self._file = Path(run_dir) / FILE
        self._stamp: tuple[int, int] | None = None
        self._table: dict[str, Listens] = {}
        self._watches = 0
        self._watching: asyncio.Task[None] | None = None

    def endpoint(self, name: str) -> Endpoint:
        """Raises ConfigError like :meth:`RunDirectory.own_socket`."""
        here = self.own_socket(name)
        self._refresh()
        found = self._table.get(name)
        if found is None:
            return here
        if found.node == self.node:
            return UnixEndpoint(found.unix)
        return TcpEndpoint(found.host, found.port, self._tls, PEER_NAME)

    def watch(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Also looks at the file from now on, on the running event loop."""
        remove = super().watch(callback)
        self._watches += 1
        if self._watching is None:
            self._refresh()
            self._watching = asyncio.get_running_loop().create_task(self._poll())

        def end() -> None:
            remove()
            self._watches -= 1
            if not self._watches and self._watching is not None:
                self._watching.cancel()
                self._watching = None

        return end

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            before = self._table
            if self._refresh():
                for name, listens in self._table.items():
                    if before.get(name) != listens:
                        self.changed(name)

    def _refresh(self) -> bool:
        """Read the file if it is another than last time; whether it was."""
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._stamp:
                return False
            table = msgspec.json.decode(self._file.read_bytes(), type=dict[str, Listens])
        except FileNotFoundError:
            return False
        except (OSError, msgspec.MsgspecError) as error:
            log.error("directory_unreadable", path=str(self._file), detail=str(error))
            return False
        self._stamp, self._table = stamp, table
        return True
