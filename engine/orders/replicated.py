"""The journal of an account that several hosts may trade: kept at an arbiter, read from a copy on this host.

The copy is a journal file like any other, and everything is read from it: no question waits for the network, and the
event loop never does. A commit goes to the copy first and to the arbiter by :meth:`ReplicatedJournal.push`, together
with all others that came meanwhile; whoever waits for a commit to count waits for that (:mod:`engine.actors.
journal_care`). What the copy has and the arbiter does not has therefore never been told to anybody.

The copy says in its own transactions which commit of which epoch it has. If the arbiter's journal goes on from there,
only what is newer is fetched; otherwise (its last commits were never taken, another's were) it is made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from engine.errors import JournalError
from engine.orders.database import explained, transaction
from engine.orders.journal import Clock, Commit, Journal
from engine.orders.journal_reader import archive_of, fill_values, refusal_values
from engine.orders.journal_rows import event_row
from engine.orders.records import Write, WriteEvent, WriteFill, WriteIntent, WriteOrder, WriteRefusal
from engine.orders.store import COLUMNS, KEYS, JournalStore, Row, Rows, Standing

HAND_OVER_ROWS = 5000
_FILES = ("", "-wal", "-shm")


class _Mark(msgspec.Struct, frozen=True):
    """Which commit of which epoch the copy has, of which journal."""

    store: str
    epoch: int
    commits: int


class _Unsent(msgspec.Struct):
    """What the arbiter does not have yet. Orders by id: as the copy has them when they are sent."""

    orders: dict[str, None] = msgspec.field(default_factory=dict)
    fills: list[Row] = msgspec.field(default_factory=list)
    events: list[Row] = msgspec.field(default_factory=list)
    refusals: list[Row] = msgspec.field(default_factory=list)


class ReplicatedJournal(Journal):
    """The journal of one account at ``store``, for the holder of its lease, with a copy at ``path``.

    Before it is used, :meth:`catch_up` has to have returned. Raises :class:`~engine.errors.JournalError` as a journal.
    """

    copies: ClassVar[bool] = True

    def __init__(
        self, path: str | Path, connector: str, account: str, clock: Clock, store: JournalStore, run_id: str = ""
    ) -> None:
        self._store = store
        self._epoch = 0
        self._base = 0
        self._taken = 0
        self._unsent = _Unsent()
        self._under_way: tuple[int, Rows] | None = None
        super().__init__(path, connector, account, clock, run_id, deferred=False)

    async def catch_up(self, epoch: int) -> int:
        """Bring the copy to where the arbiter's journal stands, for the holder of ``epoch``; the rows that came.

        A journal that was kept on this host alone is handed over to an arbiter that has none. Raises StoreLost, and
        JournalError where both have one.
        """
        standing = await self._store.standing()
        mark = self._mark()
        if mark is None and not standing.commits:
            await self._hand_over(epoch)
            standing = await self._store.standing()
            mark = _Mark(standing.identity, epoch, standing.commits)
        elif mark is None:
            mark = self._adopted(standing)
        elif mark.store != standing.identity or not await self._store.follows(mark.epoch, mark.commits):
            self._begin_anew()
            mark = _Mark(standing.identity, 0, 0)
        self._set_mark(mark)
        loaded = await self._load(mark.commits)
        self._set_mark(_Mark(standing.identity, epoch, standing.commits), standing.incarnation)
        self._incarnation = standing.incarnation
        self._last = int(self._one("SELECT ifnull(max(number), 0) FROM main.events")[0])
        self._seen.forget()
        self.archive_changed()
        self._epoch = epoch
        self._base = standing.commits - self.commits
        self._taken = standing.commits
        return loaded

    @property
    def unsent(self) -> int:
        """Commits that the arbiter does not have yet."""
        return self._base + self.commits - self._taken

    async def push(self) -> int:
        """Have the arbiter take every commit so far; how many commits of this process that are.

        Raises StoreLost, after which it may be called again: what was under way is then sent as it was. Superseded is
        for good.
        """
        if self._under_way is None:
            if not self.unsent:
                return self.commits
            self._under_way = (self._base + self.commits, self._take_unsent())
        number, rows = self._under_way
        started = self._clock.monotonic_ns()
        await self._store.commit(self._epoch, self._taken, number, rows)
        self._under_way = None
        self._taken = number
        self.sync_ns.record(self._clock.monotonic_ns() - started)
        return number - self._base

    # -------------------------------------------------------------------------------------------------------- writing

    def _transact(self, commits: Sequence[Commit], number: int | None = None) -> None:
        super()._transact(commits, number)
        for _, writes in commits:
            for write in writes:
                self._note(write)

    def _put(self, commits: Sequence[Commit]) -> None:
        super()._put(commits)
        self._connection.execute(
            "UPDATE meta SET value = ? WHERE key = 'commits'", (self._base + self.commits + len(commits),)
        )

    def _note(self, write: Write) -> None:
        unsent = self._unsent
        match write:
            case WriteIntent() | WriteOrder():
                unsent.orders[write.order.client_order_id] = None
            case WriteFill():
                unsent.fills.append(fill_values(write))
            case WriteEvent():
                unsent.events.append(event_row(write))
            case WriteRefusal():
                unsent.refusals.append(refusal_values(write, self._run_id))

    def _take_unsent(self) -> Rows:
        unsent, self._unsent = self._unsent, _Unsent()
        query = f"SELECT {', '.join(COLUMNS['orders'])} FROM main.orders WHERE client_order_id = ?"
        with explained(self.path):
            orders = [self._connection.execute(query, (id_,)).fetchone() for id_ in unsent.orders]
        return Rows(orders, unsent.fills, unsent.events, unsent.refusals)

    # ------------------------------------------------------------------------------------------------------- the copy

    def _mark(self) -> _Mark | None:
        found = dict(self._all("SELECT key, value FROM main.meta"))
        return _Mark(found["store"], int(found["epoch"]), int(found["commits"])) if "store" in found else None

    def _set_mark(self, mark: _Mark, incarnation: int | None = None) -> None:
        rows: list[tuple[str, object]] = [("store", mark.store), ("epoch", mark.epoch), ("commits", mark.commits)]
        if incarnation is not None:
            rows.append(("incarnation", incarnation))
        with explained(self.path), transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def _adopted(self, standing: Standing) -> _Mark:
        """The mark for a file that is nobody's copy yet, at an arbiter that has a journal."""
        has_any = self._one("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM refusals)")[0]
        if not has_any or (standing.commits == 1 and standing.incarnation == self._incarnation):
            return _Mark(standing.identity, 0, 0)
        raise JournalError(
            f"{self.path}: a journal of its own, and PostgreSQL has another for this account; move the file and its "
            "archive away to go on with PostgreSQL's"
        )

    def _begin_anew(self) -> None:
        """Forget the copy: what is in it and nowhere else never counted."""
        super(Journal, self).close()
        self._log.close()
        for path in (self.path, archive_of(self.path)):
            for ending in _FILES:
                path.with_name(path.name + ending).unlink(missing_ok=True)
        self._open(self.path)

    async def _load(self, after: int) -> int:
        loaded = 0
        for table, columns in COLUMNS.items():
            keys = KEYS[table]
            replaced = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
            insert = (
                f"INSERT INTO main.{table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
                f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {replaced}"
            )
            async for rows in self._store.changed(table, after):
                with explained(self.path), transaction(self._connection):
                    self._connection.executemany(insert, rows)
                loaded += len(rows)
        return loaded

    async def _hand_over(self, epoch: int) -> None:
        await self._store.hand_over(epoch, self._incarnation, self._chunks())

    def _chunks(self) -> Iterator[Rows]:
        """All rows of the file and its archive, some at a time."""
        for table, columns in COLUMNS.items():
            key = ", ".join(KEYS[table])
            start = 0
            query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {key} LIMIT ? OFFSET ?"
            while rows := self._all(query, HAND_OVER_ROWS, start):
                start += len(rows)
                yield Rows(**{table: rows})
