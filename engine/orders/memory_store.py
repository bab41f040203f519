"""An arbiter in memory, for virtual time: the journal and the lease of one account, as long as the process lives.

It answers like PostgreSQL across a network that a test holds in its hands: late, or to some hosts not at all. It also
keeps what a test wants to know afterwards: when each epoch began, and which epoch first journaled each order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from engine.errors import ConfigError, JournalError
from engine.orders.lease import LeaseRow
from engine.orders.store import COLUMNS, KEYS, Row, Rows, Standing, StoreLost, Superseded

_LINES: dict[str, MemoryLine] = {}
_AT_ONCE = 1000
_TIMEOUT_S = 2.0


class MemoryStore:
    """The arbiter itself. ``now_ns`` dates the epochs. ``fenced`` False: it takes a commit of any epoch, which is what
    a test of the fence leaves out to see whether that is noticed.
    """

    def __init__(self, identity: str, now_ns: Callable[[], int], *, fenced: bool = True) -> None:
        self.row = LeaseRow()
        self.fenced = fenced
        self.epochs: dict[int, tuple[int, str, int]] = {}
        """By epoch: its first commit, its holder, and when it began."""
        self.journaled_by: dict[str, int] = {}
        """The epoch that journaled each order's intent."""
        self._now_ns = now_ns
        self._identity = identity
        self._incarnation = 0
        self._commits = 0
        self._tables: dict[str, dict[Row, tuple[int, Row]]] = {table: {} for table in COLUMNS}

    def look(self) -> LeaseRow:
        return self.row

    def take(self, seen: LeaseRow, holder: str, seat: str, ttl_ns: int) -> LeaseRow | None:
        if (self.row.epoch, self.row.beat) != (seen.epoch, seen.beat):
            return None
        self.row = LeaseRow(epoch=seen.epoch + 1, beat=0, holder=holder, seat=seat, ttl_ns=ttl_ns)
        self.epochs[self.row.epoch] = (self._commits + 1, holder, self._now_ns())
        return self.row

    def renew(self, epoch: int) -> bool:
        if self.row.epoch != epoch:
            return False
        self.row = msgspec.structs.replace(self.row, beat=self.row.beat + 1)
        return True

    def release(self, epoch: int) -> None:
        if self.row.epoch == epoch:
            self.row = msgspec.structs.replace(self.row, holder="", seat="")

    def standing(self) -> Standing:
        return Standing(
            identity=self._identity, incarnation=self._incarnation, epoch=self.row.epoch, commits=self._commits
        )

    def follows(self, epoch: int, commits: int) -> bool:
        if epoch not in self.epochs:
            return False
        later = [first for other, (first, _, _) in self.epochs.items() if other > epoch]
        return self.epochs[epoch][0] - 1 <= commits <= min([first - 1 for first in later], default=self._commits)

    def commit(self, epoch: int, after: int, number: int, rows: Rows) -> None:
        if self.fenced and epoch != self.row.epoch:
            raise Superseded(f"epoch {epoch} is over, {self.row.epoch} has begun")
        if self.fenced and self._commits == number:
            return
        if self.fenced and self._commits != after:
            raise JournalError(f"the arbiter is at commit {self._commits}, not at {after}: it has lost some")
        self._commits = max(number, self._commits)
        self._write(epoch, rows)

    def hand_over(self, epoch: int, incarnation: int, chunks: Iterable[Rows]) -> None:
        self.commit(epoch, 0, 1, Rows())
        self._incarnation = incarnation
        for rows in chunks:
            self._write(epoch, rows)

    def changed(self, table: str, after: int) -> list[Row]:
        return [row for number, row in self._tables[table].values() if number > after]

    def _write(self, epoch: int, rows: Rows) -> None:
        for table, columns in COLUMNS.items():
            places = [columns.index(key) for key in KEYS[table]]
            kept = self._tables[table]
            for row in rows.of(table):
                key = tuple(row[place] for place in places)
                if table != "orders" and key in kept and self.fenced:
                    raise JournalError(f"{table} has {key} already")
                if table == "orders":
                    self.journaled_by.setdefault(row[0], epoch)
                kept[key] = (self._commits, row)


class MemoryLine:
    """One host's line to a :class:`MemoryStore`: a :class:`~engine.orders.store.JournalStore`.

    ``delay``: seconds each way. ``cut``: while true nothing passes, in either direction; what was under way when it was
    cut may have been carried out.
    """

    def __init__(self, store: MemoryStore, delay: Callable[[], float] = lambda: 0.0) -> None:
        self.cut = False
        self._store = store
        self._delay = delay

    async def open(self) -> None:
        await self._there()

    async def close(self) -> None:
        return

    async def look(self) -> LeaseRow:
        await self._there()
        row = self._store.look()
        await self._back()
        return row

    async def take(self, seen: LeaseRow, holder: str, seat: str, ttl_ns: int) -> LeaseRow | None:
        await self._there()
        row = self._store.take(seen, holder, seat, ttl_ns)
        await self._back()
        return row

    async def renew(self, epoch: int) -> bool:
        await self._there()
        granted = self._store.renew(epoch)
        await self._back()
        return granted

    async def release(self, epoch: int) -> None:
        await self._there()
        self._store.release(epoch)
        await self._back()

    async def standing(self) -> Standing:
        await self._there()
        standing = self._store.standing()
        await self._back()
        return standing

    async def follows(self, epoch: int, commits: int) -> bool:
        await self._there()
        return self._store.follows(epoch, commits)

    async def commit(self, epoch: int, after: int, number: int, rows: Rows) -> None:
        await self._there()
        self._store.commit(epoch, after, number, rows)
        await self._back()

    async def hand_over(self, epoch: int, incarnation: int, chunks: Iterable[Rows]) -> None:
        await self._there()
        self._store.hand_over(epoch, incarnation, chunks)
        await self._back()

    async def changed(self, table: str, after: int) -> AsyncIterator[list[Row]]:
        await self._there()
        rows = self._store.changed(table, after)
        for start in range(0, len(rows), _AT_ONCE):
            yield rows[start : start + _AT_ONCE]

    async def _there(self) -> None:
        await self._pass()

    async def _back(self) -> None:
        await self._pass()

    async def _pass(self) -> None:
        await asyncio.sleep(self._delay())
        if self.cut:
            await asyncio.sleep(_TIMEOUT_S)
            raise StoreLost("the arbiter does not answer")


def name_line(name: str, line: MemoryLine) -> str:
    """Have a line be found under an address until :func:`forget_lines`; the address."""
    _LINES[name] = line
    return f"memory://{name}"


def line_of(name: str) -> MemoryLine:
    """The line that was named so; ConfigError if none was."""
    if name not in _LINES:
        raise ConfigError(f"there is no journal in memory named {name}")
    return _LINES[name]


def forget_lines() -> None:
    """Let go of every line."""
    _LINES.clear()
