"""The journal of an account that several hosts may trade: what its arbiter keeps, and how it is asked.

An arbiter is a database. It keeps the account's lease (:mod:`engine.orders.lease`) and its journal, and takes a commit
from nobody but the holder of the present epoch. Commits are numbered without a gap; each row carries the number of the
commit that wrote it last, so that a copy asks for what came after the commit that it has.

:mod:`engine.orders.postgres` is the real one, :mod:`engine.orders.memory_store` its twin on virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, Protocol

import msgspec

from engine.errors import JournalError
from engine.orders.lease import LeaseRow

Row = tuple[Any, ...]

ORDER_COLUMNS: Final = (
    "client_order_id", "strategy", "pair", "side", "order_type", "size", "price", "state", "filled", "cost",
    "exchange_order_id", "reason", "detail", "created_ns", "updated_ns", "send_by_ns", "acknowledged",
    "cancel_requested", "is_open", "run_id",
)  # fmt: skip
FILL_COLUMNS: Final = (
    "pair", "trade_id", "client_order_id", "strategy", "side", "price", "size", "fee", "fee_asset", "is_maker",
    "time_ns", "fee_estimated",
)  # fmt: skip
EVENT_COLUMNS: Final = ("number", "time_ns", "body", "client_order_id")
REFUSAL_COLUMNS: Final = ("client_order_id", "strategy", "reason", "detail", "time_ns", "run_id")

COLUMNS: Final = {
    "orders": ORDER_COLUMNS,
    "fills": FILL_COLUMNS,
    "events": EVENT_COLUMNS,
    "refusals": REFUSAL_COLUMNS,
}
"""The journal's tables, the same in its file and at the arbiter."""

KEYS: Final = {
    "orders": ("client_order_id",),
    "fills": ("pair", "trade_id", "client_order_id"),
    "events": ("number",),
    "refusals": ("client_order_id",),
}


class StoreLost(JournalError):
    """The arbiter cannot be reached, or did not answer in time: nothing is known of what was asked."""


class Superseded(JournalError):
    """Another epoch has begun: this holder may not write any more, ever."""


class Rows(msgspec.Struct, frozen=True):
    """Rows by table, each with the table's columns. Orders are replaced; the rest is only ever added."""

    orders: list[Row] = []
    fills: list[Row] = []
    events: list[Row] = []
    refusals: list[Row] = []

    def of(self, table: str) -> list[Row]:
        """The rows of a table."""
        rows: list[Row] = getattr(self, table)
        return rows

    def __len__(self) -> int:
        return len(self.orders) + len(self.fills) + len(self.events) + len(self.refusals)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an arbiter's journal stands. ``identity`` is made with it and never again; ``incarnation`` is the event
    stream's; ``commits`` the number of the newest commit, 0 when it has never had one.
    """

    identity: str
    incarnation: int
    epoch: int
    commits: int


class JournalStore(Protocol):
    """One account's journal and lease at its arbiter. Every method may raise :class:`StoreLost`."""

    async def open(self) -> None:
        """Connect, and make or bring up to date what is there. JournalError where that cannot be."""

    async def close(self) -> None:
        """Let go of it. Safe more than once."""

    async def look(self) -> LeaseRow:
        """The lease as it is."""

    async def take(self, seen: LeaseRow, holder: str, seat: str, ttl_ns: int) -> LeaseRow | None:
        """Begin the next epoch if epoch and beat are those that were seen; None if they are not."""

    async def renew(self, epoch: int) -> bool:
        """Raise the beat; False if the epoch is another."""

    async def release(self, epoch: int) -> None:
        """Make the lease nobody's, if the epoch is still that."""

    async def time_ms(self) -> int:
        """The arbiter's wall clock, in milliseconds: for reports alone, nothing is judged by it."""

    async def standing(self) -> Standing:
        """Where the journal stands."""

    async def follows(self, epoch: int, commits: int) -> bool:
        """Whether a copy that was written up to that commit by the holder of that epoch is a part of the journal."""

    async def commit(self, epoch: int, after: int, number: int, rows: Rows) -> None:
        """Write all of them or none, as commit ``number`` that follows ``after``; once, however often it is asked.

        Raises :class:`Superseded` if the epoch is over, and JournalError if the journal does not stand where it should.
        """

    async def hand_over(self, epoch: int, incarnation: int, chunks: Iterable[Rows]) -> None:
        """Fill an empty journal, as commit 1, with all that an account has had so far."""

    def changed(self, table: str, after: int) -> AsyncIterator[list[Row]]:
        """A table's rows of later commits, some at a time, in the order in which they were first written."""
