"""The care of a journal's write-ahead log, for threads beside its writer: put it on disk, and move it into the file.

A commit is a few writes to the log, and neither waits for the disk. Both methods here do, and are therefore called off
the event loop; they may run while the writer commits.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from engine.errors import JournalError
from engine.orders.database import BUSY_S, explained

_PASSES = 10


class WriteAheadLog:
    """The log of one journal. One thread at a time may call :meth:`sync`, and one :meth:`checkpoint`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = -1

    def sync(self) -> None:
        """Return once everything that was committed before the call is on disk. Raises :class:`JournalError`."""
        with explained(self._path):
            if self._log < 0:
                # Its own descriptor: SQLite holds no lock on the log, so that closing this one ends none.
                self._log = os.open(f"{self._path}-wal", os.O_RDWR)
                _sync_folder(self._path.parent)
            os.fdatasync(self._log)

    def checkpoint(self) -> bool:
        """Move what is in the log into the file, so that the log begins anew; False if something was left.

        Writers and readers go on meanwhile. What they add is moved by a further, shorter pass, until there is nothing.
        """
        with explained(self._path):
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S)
            try:
                for _ in range(_PASSES):
                    busy, frames, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    if not busy and frames == moved:
                        return True
            finally:
                connection.close()
        return False

    def close(self) -> None:
        """Give the descriptor back. Safe more than once."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


def _sync_folder(folder: Path) -> None:
    """Make new files' names last."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise JournalError(f"{folder}: {error.strerror}; check the disk") from error
    finally:
        os.close(descriptor)
