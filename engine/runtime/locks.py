"""Locks on files: a lock that is held means that a process lives; a lock file alone means nothing.

Each actor holds the lock on ``<run folder>/<name>.lock`` for life, and its process id is the file's text. The
fork server does the same. A lock is asked about with a shared lock, held for an instant, so that askers never
disturb each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from dataclasses import dataclass
from pathlib import Path

LOCK_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock that a living process holds. ``pid``: what the file says, None if it says nothing."""

    path: Path
    pid: int | None

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(LOCK_SUFFIX)

    def send_signal(self, number: int) -> bool:
        """Signal the holder, if the process that the file names is one that has the file open; whether it was
        sent."""
        if self.pid is None:
            return False
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not (_has_open(self.pid, self.path) and is_held(self.path)):
                return False
            signal.pidfd_send_signal(pidfd, number)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(pidfd)
        return True


def take_lock(path: Path) -> int | None:
    """Lock a file for as long as the returned descriptor is open, and write the process id into it.

    None when another process holds the lock.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """False when the file's last holder removed it between the opening and the lock."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock on this file; False if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_pid(path: Path) -> int | None:
    """The process id written in a lock file, None if there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return None
    return int(text[0]) if text and text[0].isdecimal() and int(text[0]) > 0 else None


def held_locks(run_dir: Path) -> list[HeldLock]:
    """The locks in a run folder that living processes hold, this one's own left out."""
    try:
        paths = sorted(path for path in run_dir.iterdir() if path.suffix == LOCK_SUFFIX)
    except FileNotFoundError:
        return []
    found = [HeldLock(path, read_pid(path)) for path in paths if is_held(path)]
    return [lock for lock in found if lock.pid != os.getpid()]


def _has_open(pid: int, path: Path) -> bool:
    try:
        wanted = path.stat()
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            found = os.stat(f"/proc/{pid}/fd/{descriptor}")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ESRCH):
                raise
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
