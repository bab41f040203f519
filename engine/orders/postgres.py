"""PostgreSQL as the arbiter of an account: its journal and its lease in a schema of their own.

The schema is named ``connector.account``. Its tables are those of the journal's file, each row with the number of the
commit that wrote it last; ``lease`` is one row, and every write goes through it: a commit is one statement that changes
that row if epoch and commit number are what they should be, and writes its rows only if it did. One statement is one
round trip and one transaction, whatever the number of rows.

Times are not asked of the server: see :mod:`engine.orders.lease`. Every transaction waits for the server's disk
(``synchronous_commit``), a renewal too: a beat that a crash took back would shorten a candidate's wait.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Final

from engine.errors import JournalError
from engine.orders.lease import LeaseRow
from engine.orders.postgres_line import CONNECT_S, Line
from engine.orders.store import COLUMNS, Row, Rows, Standing, Superseded

if TYPE_CHECKING:
    import asyncpg

VERSION: Final = 1
LOAD_S: Final = 60.0
AT_ONCE: Final = 2000
"""Rows that are read at a time."""

_TABLES: Final = """
    CREATE TABLE meta (
        version integer NOT NULL, connector text NOT NULL, account text NOT NULL, identity text NOT NULL,
        incarnation bigint NOT NULL
    );
    CREATE TABLE lease (
        epoch bigint NOT NULL, beat bigint NOT NULL, holder text NOT NULL, seat text NOT NULL, ttl_ns bigint NOT NULL,
        commits bigint NOT NULL
    );
    CREATE TABLE epochs (
        epoch bigint PRIMARY KEY, first_commit bigint NOT NULL, holder text NOT NULL, began timestamptz NOT NULL
    );
    CREATE TABLE orders (
        client_order_id text PRIMARY KEY, strategy text NOT NULL, pair text NOT NULL, side text NOT NULL,
        order_type text NOT NULL, size text NOT NULL, price text, state text NOT NULL, filled text NOT NULL,
        cost text NOT NULL, exchange_order_id text NOT NULL, reason text NOT NULL, detail text NOT NULL,
        created_ns bigint NOT NULL, updated_ns bigint NOT NULL, send_by_ns bigint NOT NULL,
        acknowledged boolean NOT NULL, cancel_requested boolean NOT NULL, is_open boolean NOT NULL,
        run_id text NOT NULL, changed bigint NOT NULL
    );
    CREATE INDEX orders_changed ON orders (changed);
    CREATE INDEX orders_created ON orders (created_ns);
    CREATE TABLE fills (
        pair text NOT NULL, trade_id text NOT NULL, client_order_id text NOT NULL, strategy text NOT NULL,
        side text NOT NULL, price text NOT NULL, size text NOT NULL, fee text NOT NULL, fee_asset text NOT NULL,
        is_maker boolean NOT NULL, time_ns bigint NOT NULL, fee_estimated boolean NOT NULL, changed bigint NOT NULL,
        PRIMARY KEY (pair, trade_id, client_order_id)
    );
    CREATE INDEX fills_changed ON fills (changed);
    CREATE INDEX fills_time ON fills (time_ns);
    CREATE TABLE events (
        number bigint PRIMARY KEY, time_ns bigint NOT NULL, body bytea NOT NULL, client_order_id text NOT NULL,
        changed bigint NOT NULL
    );
    CREATE INDEX events_changed ON events (changed);
    CREATE TABLE refusals (
        client_order_id text PRIMARY KEY, strategy text NOT NULL, reason text NOT NULL, detail text NOT NULL,
        time_ns bigint NOT NULL, run_id text NOT NULL, changed bigint NOT NULL
    );
    CREATE INDEX refusals_changed ON refusals (changed);
"""
MIGRATIONS: Final[dict[int, str]] = {}
"""By version: the statements that take a schema of it to the next one."""

_FLAGS: Final = {
    "orders": tuple(COLUMNS["orders"].index(name) for name in ("acknowledged", "cancel_requested", "is_open")),
    "fills": tuple(COLUMNS["fills"].index(name) for name in ("is_maker", "fee_estimated")),
}
_ORDER_OF: Final = {
    "orders": "created_ns, client_order_id",
    "fills": "changed, time_ns, trade_id, client_order_id",
    "events": "number",
    "refusals": "changed, client_order_id",
}
_TAKE: Final = """
    WITH won AS (
        UPDATE lease SET epoch = epoch + 1, beat = 0, holder = $3, seat = $4, ttl_ns = $5
        WHERE epoch = $1 AND beat = $2 RETURNING epoch, commits
    ), noted AS (
        INSERT INTO epochs SELECT epoch, commits + 1, $3, clock_timestamp() FROM won
    )
    SELECT epoch FROM won
"""
_FOLLOWS: Final = """
    SELECT e.first_commit - 1 <= $2 AND $2 <= coalesce(
        (SELECT min(first_commit) - 1 FROM epochs WHERE epoch > $1), (SELECT commits FROM lease)
    ) FROM epochs e WHERE e.epoch = $1
"""


def _commit_statement() -> str:
    replaced = ", ".join(f"{name} = excluded.{name}" for name in (*COLUMNS["orders"][1:], "changed"))
    parts = []
    for position, table in enumerate(COLUMNS, start=4):
        instead = f" ON CONFLICT (client_order_id) DO UPDATE SET {replaced}" if table == "orders" else ""
        parts.append(
            f"{table}_written AS (INSERT INTO {table} SELECT r.* FROM unnest(${position}::{table}[]) AS r, fence"
            f" WHERE true{instead})"
        )
    return (
        "WITH fence AS (UPDATE lease SET commits = $3 WHERE epoch = $1 AND commits = $2 RETURNING epoch), "
        f"{', '.join(parts)} SELECT count(*) FROM fence"
    )


_COMMIT: Final = _commit_statement()


class PostgresStore:
    """One account at a PostgreSQL server: a :class:`~engine.orders.store.JournalStore`.

    ``address``: ``postgresql://…``, a secret if it has a password; no error shows it. Commits and the lease have a
    connection each, so that neither waits for the other's round trip; a connection that breaks is made anew by the
    next call.
    """

    def __init__(self, address: str, connector: str, account: str, incarnation: int) -> None:
        self._connector = connector
        self._account = account
        self._incarnation = incarnation
        schema = f"{connector}.{account}"
        self._journal = Line(address, schema)
        self._lease = Line(address, schema)

    async def open(self) -> None:
        await self._journal.call(self._prepare, CONNECT_S)

    async def close(self) -> None:
        await self._journal.close()
        await self._lease.close()

    # ----------------------------------------------------------------------------------------------------- the lease

    async def look(self) -> LeaseRow:
        row = await self._lease.row("SELECT epoch, beat, holder, seat, ttl_ns FROM lease")
        return LeaseRow(**dict(row))

    async def take(self, seen: LeaseRow, holder: str, seat: str, ttl_ns: int) -> LeaseRow | None:
        epoch = await self._lease.value(_TAKE, seen.epoch, seen.beat, holder, seat, ttl_ns)
        return None if epoch is None else LeaseRow(epoch=epoch, beat=0, holder=holder, seat=seat, ttl_ns=ttl_ns)

    async def renew(self, epoch: int) -> bool:
        beat = await self._lease.value("UPDATE lease SET beat = beat + 1 WHERE epoch = $1 RETURNING beat", epoch)
        return beat is not None

    async def release(self, epoch: int) -> None:
        await self._lease.value("UPDATE lease SET holder = '', seat = '' WHERE epoch = $1 RETURNING epoch", epoch)

    async def time_ms(self) -> int:
        return int(await self._lease.value("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"))

    # ---------------------------------------------------------------------------------------------------- the journal

    async def standing(self) -> Standing:
        row = await self._journal.row("SELECT identity, incarnation, epoch, commits FROM meta, lease")
        return Standing(**dict(row))

    async def follows(self, epoch: int, commits: int) -> bool:
        return bool(await self._journal.value(_FOLLOWS, epoch, commits))

    async def commit(self, epoch: int, after: int, number: int, rows: Rows) -> None:
        tables = [_numbered(table, rows.of(table), number) for table in COLUMNS]
        if not await self._journal.value(_COMMIT, epoch, after, number, *tables):
            await self._refused(epoch, number, await self.standing())

    async def hand_over(self, epoch: int, incarnation: int, chunks: Iterable[Rows]) -> None:
        await self._journal.call(lambda connection: self._fill(connection, epoch, incarnation, chunks), LOAD_S)

    async def changed(self, table: str, after: int) -> AsyncIterator[list[Row]]:
        columns = ", ".join(COLUMNS[table])
        query = f"SELECT {columns} FROM {table} WHERE changed > $1 ORDER BY {_ORDER_OF[table]}"
        async for rows in self._journal.batches(query, after, at_once=AT_ONCE, timeout_s=LOAD_S):
            yield rows

    # ---------------------------------------------------------------------------------------------------------- parts

    async def _refused(self, epoch: int, number: int, standing: Standing) -> None:
        """Say why a commit was not taken, unless it was: its first answer may have been lost."""
        if standing.epoch != epoch:
            raise Superseded(f"{self._name}: epoch {epoch} is over, {standing.epoch} has begun")
        if standing.commits != number:
            raise JournalError(
                f"{self._name}: the database is at commit {standing.commits}, {number} was to follow: it has lost "
                "commits, or was restored from a copy; what is open at the venue is reconciled after a restart"
            )

    async def _fill(self, connection: asyncpg.Connection, epoch: int, incarnation: int, chunks: Iterable[Rows]) -> None:
        async with connection.transaction():
            fence = "UPDATE lease SET commits = 1 WHERE epoch = $1 AND commits = 0 RETURNING epoch"
            if await connection.fetchval(fence, epoch) is None:
                raise Superseded(f"{self._name}: another holder has begun to write")
            await connection.execute("UPDATE meta SET incarnation = $1", incarnation)
            for rows in chunks:
                for table in COLUMNS:
                    insert = f"INSERT INTO {table} SELECT r.* FROM unnest($1::{table}[]) AS r"
                    await connection.execute(insert, _numbered(table, rows.of(table), 1))

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        """Make the schema, or bring it up to date, as one of all engines that may want to."""
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", self._name)
            version = await self._version(connection)
            if version > VERSION:
                raise JournalError(
                    f"{self._name}: written by a newer engine (schema {version}, this one knows {VERSION}); use that"
                )
            if not version:
                await self._create(connection)
            for step in range(version or VERSION, VERSION):
                await connection.execute(MIGRATIONS[step])
                await connection.execute("UPDATE meta SET version = $1", step + 1)
            found = tuple(await connection.fetchrow("SELECT connector, account FROM meta"))
        if found != (self._connector, self._account):
            raise JournalError(f"{self._name}: the journal of {'/'.join(found)}, not of {self._name}")

    async def _version(self, connection: asyncpg.Connection) -> int:
        """0 where there is no journal yet."""
        schema = f"{self._connector}.{self._account}"
        there = await connection.fetchval(
            "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'meta'", schema
        )
        return int(await connection.fetchval("SELECT version FROM meta")) if there else 0

    async def _create(self, connection: asyncpg.Connection) -> None:
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._connector}.{self._account}"')
        await connection.execute(_TABLES)
        await connection.execute(
            "INSERT INTO meta VALUES ($1, $2, $3, $4, $5)",
            VERSION,
            self._connector,
            self._account,
            uuid.uuid4().hex,
            self._incarnation,
        )
        await connection.execute("INSERT INTO lease VALUES (0, 0, '', '', 0, 0)")

    @property
    def _name(self) -> str:
        return f"{self._connector}/{self._account}"


def _numbered(table: str, rows: list[Row], number: int) -> list[Row]:
    """The rows as the table has them: flags as booleans, and the commit's number at the end."""
    flags = _FLAGS.get(table, ())
    if not flags:
        return [(*row, number) for row in rows]
    return [(*(bool(value) if place in flags else value for place, value in enumerate(row)), number) for row in rows]
