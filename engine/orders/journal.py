"""An account's journal: what was intended before it was sent, and everything that came of it.

One SQLite file per account, written by its exchange actor alone. A commit is inline and is there when
:meth:`Journal.record` returns, however the process ends after that. To outlive the machine as well it must be on disk:
:meth:`Journal.sync` sees to that for every commit so far, on a thread.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol, assert_never

import msgspec

from engine.errors import JournalError
from engine.metrics import Histogram
from engine.orders.database import explained, transaction, verify
from engine.orders.journal_reader import JournalReader, fill_values, order_values, refusal_values
from engine.orders.records import (
    Write,
    WriteEvent,
    WriteFill,
    WriteIntent,
    WriteOrder,
    WriteRefusal,
)
from engine.orders.wal import WriteAheadLog

SLOW_COMMIT_NS = 50_000_000
"""A commit or a sync that takes longer is counted as a stall."""

CHECKPOINT_COMMITS = 500
"""After so many commits the log wants to be moved into the file (:meth:`Journal.checkpoint`)."""

LOG_MOST_COMMITS = 10_000
"""After so many the writer moves it itself, inline: whoever was to do it on a thread has not."""

_INSERT_ORDER = f"INSERT INTO orders VALUES ({', '.join('?' * 20)})"
_UPDATE_ORDER = (
    "UPDATE orders SET state = ?, filled = ?, cost = ?, exchange_order_id = ?, reason = ?, detail = ?, "
    "updated_ns = ?, send_by_ns = ?, acknowledged = ?, cancel_requested = ?, is_open = ? WHERE client_order_id = ?"
)
_INSERT_FILL = f"INSERT INTO fills VALUES ({', '.join('?' * 12)})"
_INSERT_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?)"
_INSERT_REFUSAL = "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?)"


class Clock(Protocol):
    """What the journal needs of a clock."""

    def time_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class Journal(JournalReader):
    """The journal of one account, for its one writer.

    ``run_id`` names the engine's run; orders and refusals are kept with it. The file and its folder are made if they
    are missing. Raises :class:`JournalError` if another process has it, if it belongs to another account, was written
    by a newer engine, or cannot be read.
    """

    copies: ClassVar[bool] = False
    """Whether its file may be the copy of a journal that is kept elsewhere."""

    def __init__(self, path: str | Path, connector: str, account: str, clock: Clock, run_id: str = "") -> None:
        self._clock = clock
        self._run_id = run_id
        self._encoder = msgspec.msgpack.Encoder()
        self.commits = 0
        self.slow_commits = 0
        self.slow_syncs = 0
        self.commit_ns = Histogram()
        self.sync_ns = Histogram()
        self._checkpointed = 0
        self._owner = (connector, account)
        self._log = WriteAheadLog(Path(path))
        self._lock = _lock(Path(path))
        try:
            self._open(Path(path))
        except BaseException:
            os.close(self._lock)
            self._lock = -1
            raise

    @staticmethod
    def open_readonly(path: str | Path) -> JournalReader:
        """For commands while no engine runs, or beside one."""
        return JournalReader(path)

    @property
    def incarnation(self) -> int:
        return self._incarnation

    def last(self) -> int:
        return self._last

    def record(self, writes: Sequence[Write]) -> None:
        """Commit all of them or none. Raises :class:`JournalError`; its caller cannot go on after that.

        A client order id that has an intent already, a fill that is known, and an event that does not follow the last
        one are refused.
        """
        started = self._clock.monotonic_ns()
        with explained(self.path):
            self._last = self._commit(writes)
        elapsed = self._clock.monotonic_ns() - started
        self.commits += 1
        self.slow_commits += elapsed > SLOW_COMMIT_NS
        self.commit_ns.record(elapsed)
        if self.commits - self._checkpointed >= LOG_MOST_COMMITS:
            self._checkpointed = self.commits
            with explained(self.path):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def sync(self) -> int:
        """Put every commit so far on disk; how many commits that are. For a thread: it waits for the disk."""
        reached = self.commits
        started = self._clock.monotonic_ns()
        self._log.sync()
        elapsed = self._clock.monotonic_ns() - started
        self.slow_syncs += elapsed > SLOW_COMMIT_NS
        self.sync_ns.record(elapsed)
        return reached

    @property
    def wants_checkpoint(self) -> bool:
        """Whether the log has grown so far that it should be moved into the file."""
        return self.commits - self._checkpointed >= CHECKPOINT_COMMITS

    def checkpoint(self) -> None:
        """Move the log into the file. For a thread: it waits for the disk."""
        self._checkpointed = self.commits
        self._log.checkpoint()

    def delete(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Delete in one transaction what was moved to the archive."""
        with explained(self.path), transaction(self._connection):
            self._connection.executemany(statement, rows)

    def close(self) -> None:
        """Close the file and let others write it. Safe more than once."""
        super().close()
        self._log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open(self, path: Path) -> None:
        super().__init__(path, readonly=False)
        try:
            verify(self._connection, self.path)
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
            self._claim(*self._owner)
            self._incarnation = super().incarnation
            self._last = super().last()
        except BaseException:
            super().close()
            raise

    def _commit(self, writes: Sequence[Write]) -> int:
        """Write all of them or none; the number of the last event since."""
        if len(writes) == 1 and isinstance(writes[0], WriteIntent | WriteRefusal):
            self._write(writes[0])
            return self._last
        with transaction(self._connection):
            return self._write_all(writes)

    def _write_all(self, writes: Sequence[Write]) -> int:
        last = self._last
        for write in writes:
            if isinstance(write, WriteEvent):
                last = self._event(write, last)
            else:
                self._write(write)
        return last

    def _write(self, write: WriteIntent | WriteOrder | WriteFill | WriteRefusal) -> None:
        match write:
            case WriteIntent():
                self._intent(write)
            case WriteOrder():
                self._order(write)
            case WriteFill():
                self._fill(write)
            case WriteRefusal():
                self._connection.execute(_INSERT_REFUSAL, refusal_values(write, self._run_id))
            case _:
                assert_never(write)

    def _intent(self, write: WriteIntent) -> None:
        values = (*order_values(write.order), write.send_by_ns, False, False, True, self._run_id)
        self._connection.execute(_INSERT_ORDER, values)

    def _order(self, write: WriteOrder) -> None:
        order = write.order
        cursor = self._connection.execute(
            _UPDATE_ORDER,
            (
                order.state.value,
                str(order.filled),
                str(order.cost),
                order.exchange_order_id,
                order.reason.value,
                order.detail,
                order.updated_ns,
                write.send_by_ns,
                write.acknowledged,
                write.cancel_requested,
                not order.state.is_final,
                order.client_order_id,
            ),
        )
        if cursor.rowcount != 1:
            self._bring_back(write)

    def _bring_back(self, write: WriteOrder) -> None:
        """Something was told of an order that is in the archive: from now on the journal has it again."""
        run = self._row("SELECT run_id FROM orders WHERE client_order_id = ?", write.order.client_order_id)
        if run is None:
            raise JournalError(
                f"{self.path}: order {write.order.client_order_id} was never journaled before it changed"
            )
        flags = (write.send_by_ns, write.acknowledged, write.cancel_requested, not write.order.state.is_final)
        self._connection.execute(_INSERT_ORDER, (*order_values(write.order), *flags, run[0]))

    def _fill(self, write: WriteFill) -> None:
        self._connection.execute(_INSERT_FILL, fill_values(write))

    def _event(self, write: WriteEvent, last: int) -> int:
        number = write.event.number
        if number != last + 1:
            raise JournalError(f"{self.path}: event {number} does not follow event {last}")
        body = self._encoder.encode(write.event)
        self._connection.execute(_INSERT_EVENT, (number, write.event.time_ns, body, write.event.order.client_order_id))
        return number

    def _claim(self, connector: str, account: str) -> None:
        """Note whose journal this is, or check it."""
        found = dict(self._all("SELECT key, value FROM main.meta"))
        if not found:
            rows = {
                "connector": connector,
                "account": account,
                "incarnation": self._clock.time_ns(),
                "created_ns": self._clock.time_ns(),
            }
            with explained(self.path), transaction(self._connection):
                self._connection.executemany("INSERT INTO meta VALUES (?, ?)", rows.items())
            return
        if (found["connector"], found["account"]) != (connector, account):
            raise JournalError(
                f"{self.path}: the journal of {found['connector']}/{found['account']}, not of {connector}/{account}"
            )
        if "store" in found and not self.copies:
            raise JournalError(
                f"{self.path}: a copy of a journal in PostgreSQL, which another host may be writing; give its "
                "connector `journal:` again, or move the file and its archive away to begin anew"
            )


def _lock(path: Path) -> int:
    """Hold the journal for this process. A lock file, as SQLite's own locks on the journal end with any descriptor."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JournalError(f"{path}: another process writes this journal; stop that engine first") from None
    return descriptor
