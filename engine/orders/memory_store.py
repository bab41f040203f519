"""An arbiter in memory, for virtual time: the journal and the lease of one account, as long as the process lives.

It answers like PostgreSQL across a network that a test holds in its hands: late, or to some hosts not at all. It also
keeps what a test wants to know afterwards: when each epoch began, and which epoch first journaled each order.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from engine.errors import ConfigError, JournalError
from engine.orders.lease import LeaseRow
from engine.orders.store import COLUMNS, KEYS, Row, Rows, Standing, StoreLost, Superseded

T = TypeVar("T")

_LINES: dict[str, MemoryLine] = {}
_AT_ONCE = 1000
_TIMEOUT_S = 2.0


class Epoch(NamedTuple):
    """One holder's time: its first commit, who it was, on which seat, and when it began."""

    first_commit: int
    holder: str
    seat: str
    began_ns: int


class MemoryStore:
    """The arbiter itself. ``now_ns`` dates the epochs. ``fenced`` False: it takes commits and renewals of any
    epoch, which is what a test of the fence leaves out to see whether that is noticed.
    """

    def __init__(self, identity: str, now_ns: Callable[[], int], *, fenced: bool = True) -> None:
        self.row = LeaseRow()
        self.fenced = fenced
        self.epochs: dict[int, Epoch] = {}
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
        self.epochs[self.row.epoch] = Epoch(self._commits + 1, holder, seat, self._now_ns())
        return self.row

    def renew(self, epoch: int) -> bool:
        if self.row.epoch != epoch:
            return not self.fenced
        self.row = msgspec.structs.replace(self.row, beat=self.row.beat + 1)
        return True

    def release(self, epoch: int) -> None:
        if self.row.epoch == epoch:
            self.row = msgspec.structs.replace(self.row, holder="", seat="")

    def time_ms(self) -> int:
        return self._now_ns() // 1_000_000

    def standing(self) -> Standing:
        return Standing(
            identity=self._identity, incarnation=self._incarnation, epoch=self.row.epoch, commits=self._commits
        )

    def follows(self, epoch: int, commits: int) -> bool:
        if epoch not in self.epochs:
            return False
        later = [other.first_commit for number, other in self.epochs.items() if number > epoch]
        last = min(later) - 1 if later else self._commits
        return self.epochs[epoch].first_commit - 1 <= commits <= last

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

    ``delay``: seconds each way. ``cut``: while true nothing passes, in either direction; what had arrived is carried
    out, whether or not whoever asked lives to hear of it. ``heard`` is told of each kind of question that arrives.
    """

    def __init__(self, store: MemoryStore, delay: Callable[[], float] = lambda: 0.0) -> None:
        self.cut = False
        self.heard: Callable[[str], None] = lambda kind: None
        self._store = store
        self._delay = delay

    async def open(self) -> None:
        await self._ask("open", lambda: None)

    async def close(self) -> None:
        return

    async def look(self) -> LeaseRow:
        return await self._ask("look", self._store.look)

    async def take(self, seen: LeaseRow, holder: str, seat: str, ttl_ns: int) -> LeaseRow | None:
        return await self._ask("take", lambda: self._store.take(seen, holder, seat, ttl_ns))

    async def renew(self, epoch: int) -> bool:
        return await self._ask("renew", lambda: self._store.renew(epoch))

    async def release(self, epoch: int) -> None:
        await self._ask("release", lambda: self._store.release(epoch))

    async def time_ms(self) -> int:
        return await self._ask("time", self._store.time_ms)

    async def standing(self) -> Standing:
        return await self._ask("standing", self._store.standing)

    async def follows(self, epoch: int, commits: int) -> bool:
        return await self._ask("follows", lambda: self._store.follows(epoch, commits))

    async def commit(self, epoch: int, after: int, number: int, rows: Rows) -> None:
        await self._ask("commit", lambda: self._store.commit(epoch, after, number, rows))

    async def hand_over(self, epoch: int, incarnation: int, chunks: Iterable[Rows]) -> None:
        rows = list(chunks)
        await self._ask("hand_over", lambda: self._store.hand_over(epoch, incarnation, rows))

    async def changed(self, table: str, after: int) -> AsyncIterator[list[Row]]:
        rows = await self._ask("changed", lambda: self._store.changed(table, after))
        for start in range(0, len(rows), _AT_ONCE):
            yield rows[start : start + _AT_ONCE]

    async def _ask(self, kind: str, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def arrive() -> None:
            if self.cut:
                return
            self.heard(kind)
            try:
                told = partial(_told, answer, work(), None)
            except JournalError as error:
                told = partial(_told, answer, None, error)
            loop.call_later(self._delay(), leave, told, context=contextvars.Context())

        def leave(told: Callable[[], None]) -> None:
            if not self.cut:
                told()

        # Nobody's context: what is on the network arrives whether or not its sender is stopped or dead.
        loop.call_later(self._delay(), arrive, context=contextvars.Context())
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise StoreLost("the arbiter does not answer") from None


def _told(answer: asyncio.Future[Any], value: Any, error: JournalError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


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
