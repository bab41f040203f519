"""Where an engine keeps its files: what must last, and what lives only as long as the engine does.

=============  ===========================================  =========================================
state folder   as given (``--state``)                       lock, run.json, logs/, databases
run folder     /tmp/engine-<uid>/<8 hex of the state path>  sockets and locks of the actors
shm folder     /dev/shm/engine-<uid>-<same 8 hex>           order books in shared memory
=============  ===========================================  =========================================

All are their owner's alone (0700). The run folder is short because a Unix socket's path ends at 107 bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from engine.errors import ConfigError
from engine.runtime.locks import is_held, read_pid, take_lock

SOCKET_PATH_LIMIT: Final = 107
"""The longest path, in bytes, that a Unix socket address can hold."""
LOCK_WAIT_S: Final = 0.5
"""For how long a taken state lock is asked for again: a fork server that tidies up holds it for a moment."""


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json`` of the state folder: where the running engine can be reached. ``started``: ns since the epoch.

    ``node``: this host's, of an engine on several; then the supervisor is where the directory in the run folder says.
    """

    engine_id: str
    run_dir: str
    shm_dir: str
    pid: int
    started: int
    node: str = ""


class StateLock:
    """The state folder is this engine's while this is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Give the state folder free. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class EnginePaths:
    """The three folders of one engine. Nothing is created before :meth:`lock_state` and :meth:`create`."""

    state: Path
    run: Path
    shm: Path
    cell: str = ""

    @classmethod
    def for_state(cls, state_dir: str | os.PathLike[str], cell: str = "") -> EnginePaths:
        """The folders that belong to a state folder, wherever it was named from. A cell has its own run folder, and
        shares its books with the other cells of its host.
        """
        state = Path(state_dir).resolve()
        short = hashlib.sha256(os.fsencode(state)).hexdigest()[:8]
        uid = os.geteuid()
        run = Path(f"/tmp/engine-{uid}/{short}{f'.{cell}' if cell else ''}")
        return cls(state, run, Path(f"/dev/shm/engine-{uid}-{short}"), cell)

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run_json(self) -> Path:
        return self.state / "run.json"

    @property
    def state_lock(self) -> Path:
        return self.state / "lock"

    def socket(self, name: str) -> Path:
        """Where that actor listens. Raises ConfigError when the path is too long for a socket."""
        path = self.run / f"{name}.sock"
        size = len(os.fsencode(path))
        if size > SOCKET_PATH_LIMIT:
            raise ConfigError(
                f"the socket path {path} has {size} bytes and a Unix socket takes {SOCKET_PATH_LIMIT}:"
                f" choose a shorter name than {name!r}"
            )
        return path

    def lock(self, name: str) -> Path:
        """The file whose lock that actor holds for life."""
        return self.run / f"{name}.lock"

    def output(self, name: str) -> Path:
        """Where standard output and error of that actor's process go."""
        return self.logs / f"{name}.out"

    def create_state(self) -> None:
        """Make the state folder and its logs. Raises ConfigError when it is not ours to read and write."""
        _own_folder(self.state, "state folder", shared_parent=False)
        _own_folder(self.logs, "folder for logs", shared_parent=False)

    def create(self) -> None:
        """Make all folders that do not exist. Raises ConfigError when one is not ours to read and write."""
        self.create_state()
        _own_folder(self.run.parent, "folder for run folders", shared_parent=True)
        _own_folder(self.run, "run folder", shared_parent=True)
        _own_folder(self.shm, "shared-memory folder", shared_parent=True)

    def lock_state(self) -> StateLock:
        """Take the state folder for this engine.

        Raises ConfigError when another engine runs on it, or when it cannot be read and written.
        """
        self.create_state()
        deadline = time.monotonic() + LOCK_WAIT_S
        while (descriptor := take_lock(self.state_lock)) is None:
            if time.monotonic() > deadline:
                holder = read_pid(self.state_lock) or "unknown"
                raise ConfigError(
                    f"the state folder {self.state} is in use by pid {holder}:"
                    " stop that engine first, or give this one another --state"
                )
            time.sleep(0.02)
        return StateLock(descriptor)

    def write_run_json(self, engine_id: str, node: str = "") -> RunInfo:
        """Say where this engine can be reached; the file is replaced at once, never seen half written."""
        info = RunInfo(
            engine_id=engine_id,
            run_dir=str(self.run),
            shm_dir=str(self.shm),
            pid=os.getpid(),
            started=time.time_ns(),
            node=node,
        )
        draft = self.state / f".run.json.{os.getpid()}"
        draft.write_bytes(msgspec.json.encode(info) + b"\n")
        draft.chmod(0o600)
        draft.replace(self.run_json)
        return info

    def read_run_json(self) -> RunInfo | None:
        """What the last engine on this state folder wrote; None when it has left. It may be dead: see its
        lock.

        Raises ConfigError for a file that is not ours to read, or cannot be understood.
        """
        try:
            return msgspec.json.decode(self.run_json.read_bytes(), type=RunInfo)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise ConfigError(
                f"{self.run_json} cannot be read by user {os.geteuid()}: run as the owner of {self.state}"
            ) from error
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{self.run_json} cannot be read ({error}): remove it") from error

    def remove(self) -> None:
        """Remove what lives only as long as the engine: the run and shm folders, and run.json but for a cell."""
        if not self.cell:
            self.run_json.unlink(missing_ok=True)
        if not self.others_live():
            remove_tree(self.shm)
        remove_tree(self.run)

    @property
    def cell_lock(self) -> Path:
        """The file whose lock this cell holds for life."""
        return self.state / f"cell.{self.cell}.lock"

    def others_live(self) -> bool:
        """Whether another cell lives on this host, whose books are in the same folder."""
        return any(path != self.cell_lock and is_held(path) for path in self.state.glob("cell.*.lock"))


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, also when others remove from it at the same time."""
    for _ in range(5):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not os.path.lexists(folder):
                return
        else:
            return
    shutil.rmtree(folder)


def _own_folder(folder: Path, what: str, *, shared_parent: bool) -> None:
    """Make a folder with mode 0700, or check that it is ours. In a shared parent a link is nobody's
    folder."""
    try:
        folder.mkdir(mode=0o700, parents=not shared_parent, exist_ok=True)
        found = folder.lstat() if shared_parent else folder.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"the {what} {folder} is not a folder: remove it")
        if found.st_uid != os.geteuid():
            raise ConfigError(
                f"the {what} {folder} belongs to user {found.st_uid}, and this is user {os.geteuid()}:"
                " run as its owner or name another --state"
            )
        if shared_parent and stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"the {what} {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"the {what} {folder} cannot be read and written by user {os.geteuid()}")
