"""What an account's journal had when its exchange actor began: read beside the event loop, some at a time.

A run may go on for weeks, and what its fills add up to takes as long to find out as there are fills: seconds for each
million. An actor that waited for that would be taken for one that hangs, each time it is started anew.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from engine.errors import JournalError
from engine.messages import OrderFill
from engine.orders.database import explained, verify
from engine.orders.journal_reader import FILL, JournalReader, read_fill

AT_ONCE: Final = 500
"""So many rows are some milliseconds of Python, after which the event loop has its turn for half as long."""


class JournalPast(JournalReader):
    """A journal and its archive as they were at one instant, whatever is written to them since.

    For a thread, one at a time; whoever reads it closes it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, shared=True)
        self._given_up = False
        try:
            with explained(self.path):
                connection = self._both or self._connection
                connection.execute("BEGIN")
                # What is read first fixes the instant, of both files.
                connection.execute("SELECT 1 FROM orders LIMIT 1").fetchall()
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """JournalError for a file whose pages do not fit together. Takes seconds for each gigabyte."""
        verify(self._connection, self.path)

    def give_up(self) -> None:
        """From any thread: nobody waits for it any more. Whoever reads it gets a JournalError soon."""
        self._given_up = True
        for connection in filter(None, (self._connection, self._both)):
            with suppress(sqlite3.ProgrammingError):  # closed: it was read to its end
                connection.interrupt()

    def each_run_fill(self, run_id: str) -> Iterator[OrderFill]:
        """All fills of a run's orders, in no order."""
        query = f"SELECT {FILL} FROM fills f JOIN orders o USING (client_order_id) WHERE o.run_id = ?"
        yield from map(read_fill, self._slowly(query, run_id))

    def each_fill_since(self, since_ns: int) -> Iterator[OrderFill]:
        """All fills since a venue time, in no order."""
        yield from map(read_fill, self._slowly(f"SELECT {FILL} FROM fills f WHERE f.time_ns >= ?", since_ns))

    def each_size(self) -> Iterator[tuple[str, str, str]]:
        """Pair, side and size of every fill."""
        yield from self._slowly("SELECT pair, side, size FROM fills")

    def _slowly(self, query: str, *values: object) -> Iterator[Any]:
        with explained(self.path):
            cursor = (self._both or self._connection).execute(query, values)
            began = time.monotonic()
            while rows := cursor.fetchmany(AT_ONCE):
                yield from rows
                if self._given_up:
                    raise JournalError(f"{self.path}: not read to its end")
                if len(rows) == AT_ONCE:
                    time.sleep((time.monotonic() - began) / 2)
                    began = time.monotonic()
