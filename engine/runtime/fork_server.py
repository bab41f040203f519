"""The fork server: a small process with everything imported, of which actors' processes are copies.

``python -m engine.runtime.fork_server COMMAND_FD SUPERVISOR_PIDFD``. It has one thread, no event loop and no
socket but its command link, so that a copy of it is clean. It owns the children, reports their ends before it
reaps them, and never reads a spec. When the supervisor dies it waits for what is left of the engine, ends it
after the grace time, and removes the engine's folders. Its own death harms nobody: the supervisor adopts the
children and starts another.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.errors import RuntimeFailure
from engine.runtime.child import Birth, become
from engine.runtime.locks import HeldLock, held_locks, is_held, take_lock
from engine.runtime.paths import EnginePaths
from engine.runtime.processes import kill_group, reap, set_title
from engine.runtime.protocol import (
    Configure,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Ready,
    Shutdown,
    ToRuntime,
    receive_command,
    send,
)

NAME: Final = "fork_server"
HEAVY: Final = (
    "aiohttp",
    "encodings.idna",
    "msgpack",
    "msgspec",
    "sqlite3",
    "structlog",
    "uvloop",
    "websockets.asyncio.client",
    "websockets.asyncio.server",
)
LOCK_POLL_S: Final = 0.05
TERM_S: Final = 1.0
KILL_S: Final = 5.0
NODE_ENDS_S: Final = 20.0
"""How long all of a host's part in a cluster takes to end when its Ray node has."""


@dataclass(frozen=True, slots=True)
class _Child:
    ticket: int
    pid: int


class ForkServer:
    """The server's loop over its command link, its children's pidfds and the supervisor's."""

    def __init__(self, link: socket.socket, supervisor: int, configured: Configure) -> None:
        self._link = link
        self._supervisor = supervisor
        self._grace_s = configured.grace_s
        self._paths = EnginePaths(
            Path(configured.state_dir), Path(configured.run_dir), Path(configured.shm_dir), configured.cell
        )
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        self._poll.register(supervisor, select.POLLIN)
        self._leaving = False

    def serve(self) -> None:
        """Live until told to leave or until the supervisor is dead and all that was its is gone."""
        self._report(Ready())
        while not self._leaving:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            if self._supervisor in ready:
                self._outlive()
                return
            for descriptor in ready & self._children.keys():
                self._child_ended(descriptor)
            if self._link.fileno() in ready:
                self._obey()

    def _obey(self) -> None:
        received = receive_command(self._link)
        if received is None:
            # The supervisor is dying: its descriptors close a moment before its pidfd says so.
            self._poll.unregister(self._link)
            return
        command, descriptors = received
        if isinstance(command, Fork):
            self._fork(command, *descriptors)
        elif isinstance(command, Shutdown):
            self._leaving = True

    def _fork(self, command: Fork, spec: int, gate: int) -> None:
        birth = Birth(command.name, self._paths.output(command.name), spec, gate, self._supervisor)
        try:
            if threading.active_count() != 1:
                raise RuntimeFailure(f"threads run in the fork server: {threading.enumerate()}")
            pid, pidfd = _copy(birth)
        except (OSError, RuntimeFailure) as error:
            self._report(ForkFailed(command.ticket, str(error)))
            return
        finally:
            os.close(spec)
            os.close(gate)
        self._children[pidfd] = _Child(command.ticket, pid)
        self._poll.register(pidfd, select.POLLIN)
        self._report(Forked(command.ticket, pid), (pidfd,))

    def _child_ended(self, pidfd: int) -> None:
        status = reap(pidfd, os.WNOWAIT)
        if status is None:
            return
        child = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        self._report(Exited(child.ticket, status.code, status.signal))
        kill_group(child.pid)
        reap(pidfd)
        os.close(pidfd)

    def _report(self, message: ToRuntime, descriptors: tuple[int, ...] = ()) -> None:
        try:
            send(self._link, message, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            # Nobody listens any more; the supervisor's pidfd says what that means.
            return

    # -------------------------------------------------------------------------- after the supervisor's death

    def _outlive(self) -> None:
        if not self._wait_for_all(self._grace_s):
            self._signal_all(signal.SIGTERM)
            if not self._wait_for_all(TERM_S):
                self._signal_all(signal.SIGKILL)
                self._wait_for_all(KILL_S)
        if self._nobody_follows():
            self._paths.remove()
            whole = EnginePaths.for_state(self._paths.state)
            if self._paths.cell and not whole.others_live():
                whole.remove()

    def _nobody_follows(self) -> bool:
        """Whether the state folder is free: another engine that holds it has taken over what is left.

        A cell's may be held by a supervisor that is ending with the cell's node, and is waited for; one that lives
        makes another cell.
        """
        until = time.monotonic() + (NODE_ENDS_S if self._paths.cell else 0.0)
        while take_lock(self._paths.state_lock) is None:
            if time.monotonic() >= until or is_held(self._paths.cell_lock):
                return False
            time.sleep(LOCK_POLL_S)
        return True

    def _others(self) -> list[HeldLock]:
        return held_locks(self._paths.run)

    def _wait_for_all(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        for pidfd in self._children:
            poll.register(pidfd, select.POLLIN)
        while self._children or self._others():
            if time.monotonic() >= deadline:
                return False
            for pidfd, _ in poll.poll(LOCK_POLL_S * 1000):
                poll.unregister(pidfd)
                self._child_ended(pidfd)
        return True

    def _signal_all(self, number: int) -> None:
        for pidfd in self._children:
            signal.pidfd_send_signal(pidfd, number)
        for lock in self._others():
            lock.send_signal(number)


def _copy(birth: Birth) -> tuple[int, int]:
    """Make the child; its pid and pidfd. Raises OSError, with no child left."""
    pid = os.fork()
    if pid == 0:
        become(birth)
    try:
        return pid, os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def main() -> int:
    """Import everything, then serve; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    supervisor = int(sys.argv[2])
    link.set_inheritable(False)
    os.set_inheritable(supervisor, False)
    set_title(NAME)
    received = receive_command(link)
    if received is None or not isinstance(received[0], Configure):
        return 1
    configured = received[0]
    for module in (*HEAVY, *configured.preload):
        importlib.import_module(module)
    if not _take_own_lock(Path(configured.run_dir)):
        print("another fork server of this engine lives", file=sys.stderr)
        return 1
    server = ForkServer(link, supervisor, configured)
    gc.collect()
    gc.disable()
    gc.freeze()
    server.serve()
    return 0


def _take_own_lock(run_dir: Path, timeout_s: float = 2.0) -> bool:
    """Hold the fork server's lock for life; a dead one's last child may hold it for a moment longer."""
    deadline = time.monotonic() + timeout_s
    while take_lock(run_dir / f"{NAME}.lock") is None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


if __name__ == "__main__":
    sys.exit(main())
