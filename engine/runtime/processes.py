"""What Linux can say and do about processes beyond the standard library."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOKEN_VARIABLE: Final = "ENGINE_FORK_SERVER"
"""The environment variable that names the fork server from which a process was born."""

PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36
_COMM_BYTES: Final = 15
# Fields of /proc/<pid>/stat, counted from its third.
_STATE: Final = 0
_PARENT: Final = 1
_SESSION: Final = 3
_ARG_START: Final = 45
_ARG_END: Final = 46

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Status:
    """How a process ended: an exit code or the number of a signal."""

    code: int | None
    signal: int | None


def set_child_subreaper(enabled: bool) -> None:
    """Let this process become the parent of its descendants' orphans. Raises OSError."""
    _prctl(PR_SET_CHILD_SUBREAPER, int(enabled))


def set_title(title: str) -> None:
    """Show ``title`` as this process's name and, as far as there is room, in place of its command line."""
    _prctl(PR_SET_NAME, ctypes.create_string_buffer(title.encode()[:_COMM_BYTES]))
    fields = _stat_fields("self")
    if fields is None or len(fields) <= _ARG_END:
        return
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if end > start > 0:
        ctypes.memmove(start, title.encode()[: end - start - 1].ljust(end - start, b"\0"), end - start)


def reap(pidfd: int, options: int = 0) -> Status | None:
    """How the child of a pidfd ended; None while it runs. Raises ChildProcessError if it is not this one's
    child."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | options)
    if ended is None:
        return None
    if ended.si_code == os.CLD_EXITED:
        return Status(ended.si_status, None)
    return Status(None, ended.si_status)


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that ``pid``, not yet reaped, leads."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def unborn_title(token: str) -> str:
    """What a fork server's child is called until it is let run."""
    return f"unborn-{token[:8]}"


def adopted_children(token: str, finished: Collection[int]) -> list[int]:
    """This process's children, dead or alive, that were born of the fork server with this token.

    Alive, they have the token in the environment that they were born with. Dead, they have none: they are
    known by the title they bear until they are let run, or as those whose end, listed in ``finished``, is
    known already.
    """
    mark = f"{TOKEN_VARIABLE}={token}".encode()
    found = []
    for pid, fields in _own_children():
        comm = _read(f"/proc/{pid}/comm").decode(errors="replace").strip()
        dead = fields[_STATE] == "Z" and (comm == unborn_title(token) or pid in finished)
        if dead or mark in _read(f"/proc/{pid}/environ").split(b"\0"):
            found.append(pid)
    return found


def adopted_from(leader: int) -> list[int]:
    """This process's children, dead or alive, that belong to the session that the process ``leader`` led."""
    return [pid for pid, fields in _own_children() if fields[_SESSION] == str(leader)]


async def end_child(pid: int, timeout_s: float) -> bool:
    """Kill a child and reap it; whether it ended in time."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        in_time = await ended(pidfd, timeout_s)
        reap(pidfd)
    except (ProcessLookupError, ChildProcessError):
        return True
    finally:
        os.close(pidfd)
    return in_time


async def ended(pidfd: int, timeout_s: float) -> bool:
    """Wait for the end of a pidfd's process; whether it came in time."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def readable() -> None:
        loop.remove_reader(pidfd)
        if not done.done():
            done.set_result(None)

    loop.add_reader(pidfd, readable)
    try:
        async with asyncio.timeout(timeout_s):
            await done
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
    return True


def _prctl(option: int, value: object) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _own_children() -> Iterator[tuple[int, list[str]]]:
    own = str(os.getpid())
    for entry in os.listdir("/proc"):
        fields = _stat_fields(entry) if entry.isdecimal() else None
        if fields is not None and fields[_PARENT] == own:
            yield int(entry), fields


def _stat_fields(pid: str) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third (the state) on; None when the process is gone."""
    text = _read(f"/proc/{pid}/stat").decode(errors="replace")
    return text.rpartition(") ")[2].split() or None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
