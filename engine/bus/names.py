"""An actor's hold on its name: a lock on a file, kept for life and gone with the process."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from engine.errors import NameTaken


class NameLock:
    """A lock file that holds its owner's pid. The kernel drops the lock when the process dies, however it
    dies.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> None:
        """Raises NameTaken when a living process holds it."""
        while self._fd < 0:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._lock(fd)
                if self._is_current(fd):
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                    self._fd, fd = fd, -1
            finally:
                if fd >= 0:
                    os.close(fd)

    def release(self) -> None:
        """Remove the file and let the name go. Idempotent."""
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1

    def _lock(self, fd: int) -> None:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise NameTaken(f"{self.path} is locked by process {holder}: stop that one first") from None

    def _is_current(self, fd: int) -> bool:
        """False when its last owner removed the file between the opening and the lock."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        here = os.fstat(fd)
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
