"""An account's journal: what was intended before it was sent, and everything that came of it.

One SQLite file per account, written by its exchange actor alone. A commit is inline and is there when
:meth:`Journal.record` returns, however the process ends after that. What is committed one by one goes to the front log
(:mod:`engine.orders.front_log`) first and to the database with :meth:`Journal.flush`, many commits in one transaction;
every question brings the database up to date before it is asked, and so does whoever opens the file after a crash.

To outlive the machine as well a commit must be on disk: :meth:`Journal.sync` sees to that for every commit so far, on a
thread. Such a journal has no front log (``deferred`` False), and each commit is a transaction of its own.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final, Protocol

import msgspec

from engine.errors import JournalError
from engine.messages import Accepted, Refused
from engine.metrics import Histogram
from engine.orders.database import explained, transaction, verify
from engine.orders.front_log import FrontLog, front_of, read_front
from engine.orders.journal_past import JournalPast
from engine.orders.journal_reader import JournalReader
from engine.orders.journal_rows import INSERT_ORDER, Gathered, order_row
from engine.orders.records import Write, WriteEvent, WriteFill, WriteIntent, WriteOrder, WriteRefusal
from engine.orders.seen_ids import SeenIds
from engine.orders.wal import WriteAheadLog

SLOW_COMMIT_NS = 50_000_000
"""A commit, a flush or a sync that takes longer is counted as a stall."""

CHECKPOINT_COMMITS = 500
"""After so many transactions the log wants to be moved into the file (:meth:`Journal.checkpoint`)."""

LOG_MOST_COMMITS = 10_000
"""After so many the writer moves it itself, inline: whoever was to do it on a thread has not."""

CHECKED_AT_ONCE: Final = 64_000_000
"""A file of so many bytes is looked through as it is opened, in a quarter of a second; a larger one by its past."""

MOST_NS: Final = 2**63 - 1
"""The latest time that a row can have."""

MOST_PENDING: Final = 64
"""So many commits are not kept out of the database any longer, whether or not somebody flushes."""

_decode = msgspec.msgpack.Decoder(tuple[str, tuple[Write, ...]]).decode
_encode = msgspec.msgpack.Encoder().encode


LOCK_WAIT_S: Final = 0.2
"""How long its writer waits for whoever holds the file: a command that brings in a front log is done by then."""

Commit = tuple[str, Sequence[Write]]
"""The run in which it was made, and what it is made of."""


class JournalHeld(JournalError):
    """Another process writes the journal."""


class Clock(Protocol):
    """What the journal needs of a clock."""

    def time_ns(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class Journal(JournalReader):
    """The journal of one account, for its one writer.

    ``run_id`` names the engine's run; orders and refusals are kept with it. The file and its folder are made if they
    are missing. ``deferred``: commits go to the front log first. ``lock_wait_s``: how long to wait for whoever has it.
    Raises :class:`JournalError` if another process has it, if it belongs to another account, was written by a newer
    engine, or cannot be read.
    """

    copies: ClassVar[bool] = False
    """Whether its file may be the copy of a journal that is kept elsewhere."""

    def __init__(
        self,
        path: str | Path,
        connector: str,
        account: str,
        clock: Clock,
        run_id: str = "",
        *,
        deferred: bool = True,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self._clock = clock
        self._run_id = run_id
        self.commits = 0
        self.transactions = 0
        self.slow_commits = 0
        self.slow_syncs = 0
        self.commit_ns = Histogram()
        self.flush_ns = Histogram()
        self.sync_ns = Histogram()
        self._checkpointed = 0
        self._owner = (connector, account)
        self._pending: list[Commit] = []
        self._seen = SeenIds(self._newest_id)
        self._log = WriteAheadLog(Path(path))
        self._lock = _lock(Path(path), lock_wait_s)
        self._front: FrontLog | None = None
        try:
            self._open(Path(path))
            if deferred:
                self._front = FrontLog(front_of(self.path), self._incarnation)
        except BaseException:
            os.close(self._lock)
            self._lock = -1
            raise

    @staticmethod
    def open_readonly(path: str | Path) -> JournalReader:
        """For commands while no engine runs, or beside one.

        What a dead writer left in its front log is brought in first. A living one's are a few milliseconds of commits,
        and it will see to them itself.
        """
        reader = JournalReader(path)
        if read_front(front_of(reader.path), reader.front, reader.incarnation):
            owner = reader.owner
            reader.close()
            with suppress(JournalHeld):
                Journal(path, *owner, time, deferred=False, lock_wait_s=0.0).close()
            reader = JournalReader(path)
        return reader

    @property
    def incarnation(self) -> int:
        return self._incarnation

    def last(self) -> int:
        return self._last

    def record(self, writes: Sequence[Write]) -> None:
        """Commit all of them or none. Raises :class:`JournalError`; its caller cannot go on after that.

        A client order id that has an intent already and an event that does not follow the last one are refused. So is a
        fill that is known, by the database: with a front log that is when it is flushed.
        """
        started = self._clock.monotonic_ns()
        last = self._follows(writes)
        if self._front is None:
            self._transact([(self._run_id, writes)])
        else:
            self._number += 1
            self._front.append(self._number, _encode((self._run_id, writes)))
            self._pending.append((self._run_id, writes))
        self._last = last
        elapsed = self._clock.monotonic_ns() - started
        self.commits += 1
        self.slow_commits += elapsed > SLOW_COMMIT_NS
        self.commit_ns.record(elapsed)
        if len(self._pending) >= MOST_PENDING:
            self.flush()

    def past(self) -> JournalPast:
        """All that was committed so far, for a thread to read, which is to check it first if it is ``unchecked``."""
        self.flush()
        return JournalPast(self.path)

    @property
    def pending(self) -> bool:
        """Whether some commits are not in the database yet."""
        return bool(self._pending)

    def flush(self) -> None:
        """Bring the database up to date. Raises :class:`JournalError`; what is pending then stays so."""
        if not self._pending or self._front is None:
            return
        started = self._clock.monotonic_ns()
        pending, self._pending = self._pending, []
        try:
            self._transact(pending, self._number)
        except BaseException:
            self._pending = pending + self._pending
            raise
        self._front.rewind()
        elapsed = self._clock.monotonic_ns() - started
        self.slow_commits += elapsed > SLOW_COMMIT_NS
        self.flush_ns.record(elapsed)

    def fate(self, client_order_id: str) -> Accepted | Refused | None:
        return None if self._seen.is_new(client_order_id) else super().fate(client_order_id)

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
        return self.transactions - self._checkpointed >= CHECKPOINT_COMMITS

    def checkpoint(self) -> None:
        """Move the log into the file. For a thread: it waits for the disk."""
        self._checkpointed = self.transactions
        self._log.checkpoint()

    def delete(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Delete in one transaction what was moved to the archive."""
        self.flush()
        with explained(self.path), transaction(self._connection):
            self._connection.executemany(statement, rows)

    def close(self) -> None:
        """Bring the database up to date, close the file and let others write it. Safe more than once."""
        try:
            self.flush()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go of it all as the kernel does when a process is killed. Safe more than once."""
        self._pending = []
        if self._front is not None:
            self._front.close()
        super().close()
        self._log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open(self, path: Path) -> None:
        super().__init__(path, readonly=False)
        try:
            self.unchecked = self.path.stat().st_size > CHECKED_AT_ONCE
            if not self.unchecked:
                verify(self._connection, self.path)
            self._connection.execute("PRAGMA wal_autocheckpoint=0")
            self._claim(*self._owner)
            self._incarnation = super().incarnation
            self._bring_in()
            self._last = super().last()
        except BaseException:
            super().close()
            raise

    def _bring_in(self) -> None:
        """What the last writer left in its front log."""
        self._number = self.front
        front = front_of(self.path)
        left = read_front(front, self._number, self._incarnation)
        if left:
            with _fitting(front):
                self._transact([_decode(body) for _, body in left], left[-1][0])
            self._number = left[-1][0]
        with explained(front):
            front.unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------------------- writing

    def _follows(self, writes: Sequence[Write]) -> int:
        """The number of the last event when these are written."""
        last = self._last
        for write in writes:
            if isinstance(write, WriteEvent):
                number = write.event.number
                if number != last + 1:
                    raise JournalError(f"{self.path}: event {number} does not follow event {last}")
                last = number
            elif isinstance(write, WriteFill):
                if abs(write.fill.fill.time_ns) > MOST_NS:
                    raise JournalError(f"{self.path}: fill {write.fill.fill.trade_id} is of no time that can be kept")
            elif isinstance(write, WriteIntent):
                self._see(write.order.client_order_id)
            elif isinstance(write, WriteRefusal):
                self._see(write.refused.client_order_id)
        return last

    def _see(self, client_order_id: str) -> None:
        """An id is about to be taken for an order or a refusal, which each id is once."""
        if self.fate(client_order_id) is not None:
            raise JournalError(f"{self.path}: {client_order_id} has an intent or a refusal already")
        self._seen.saw(client_order_id)

    def _transact(self, commits: Sequence[Commit], number: int | None = None) -> None:
        """Put commits into the database, all or none. ``number``: of the last of them in the front log."""
        with explained(self.path), transaction(self._connection):
            self._put(commits)
            if number is not None:
                self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('front', ?)", (number,))
        self.transactions += 1
        if self.transactions - self._checkpointed >= LOG_MOST_COMMITS:
            self._checkpointed = self.transactions
            with explained(self.path):
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _put(self, commits: Sequence[Commit]) -> None:
        """In a transaction: all rows of these commits."""
        gathered = Gathered()
        for run_id, writes in commits:
            gathered.add(writes, run_id)
        for missing in gathered.write(self._connection):
            self._bring_back(missing)

    def _bring_back(self, write: WriteOrder) -> None:
        """Something was told of an order that is in the archive: from now on the journal has it again."""
        run = self._row("SELECT run_id FROM orders WHERE client_order_id = ?", write.order.client_order_id)
        if run is None:
            raise JournalError(
                f"{self.path}: order {write.order.client_order_id} was never journaled before it changed"
            )
        self._connection.execute(INSERT_ORDER, order_row(write, run[0]))

    def _newest_id(self, head: str) -> str:
        """The greatest client order id seen that begins so, "" if there is none."""
        bounds = (head, head + "\x7f")
        tables = [("main", "orders"), ("main", "refusals")]
        if self._both is not None:
            tables += [("archive", "orders"), ("archive", "refusals")]
        greatest = [
            self._one(
                f"SELECT ifnull(max(client_order_id), '') FROM {schema}.{table} "
                "WHERE client_order_id >= ? AND client_order_id < ?",
                *bounds,
            )[0]
            for schema, table in tables
        ]
        return str(max(greatest))

    def _settle(self) -> None:
        self.flush()

    def _claim(self, connector: str, account: str) -> None:
        """Note whose journal this is, or check it."""
        found = dict(self._all("SELECT key, value FROM main.meta"))
        if not found:
            rows = {
                "connector": connector,
                "account": account,
                "incarnation": self._clock.time_ns(),
                "created_ns": self._clock.time_ns(),
                "front": 0,
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


@contextmanager
def _fitting(front: Path) -> Iterator[None]:
    """What its journal cannot take of a front log, as a :class:`JournalError` that says what to do."""
    try:
        yield
    except (msgspec.MsgspecError, UnicodeError, OverflowError, JournalError) as error:
        if isinstance(error, JournalError) and not isinstance(error.__cause__, sqlite3.IntegrityError):
            raise
        raise JournalError(
            f"{front}: its journal cannot take what is in it ({error}); keep it elsewhere and start again: the account "
            "is then reconciled with the venue, and an order of the last moments that is open there is foreign"
        ) from error


def _lock(path: Path, wait_s: float) -> int:
    """Hold the journal for this process. A lock file, as SQLite's own locks on the journal end with any descriptor."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(wait_s / 20)
                continue
            os.close(descriptor)
            raise JournalHeld(f"{path}: another process writes this journal; stop that engine first") from None
        return descriptor
