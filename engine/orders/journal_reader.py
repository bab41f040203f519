"""Reading an account's journal: its events, orders and fills, and those that were moved to its archive."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import JournalError
from engine.messages import (
    Accepted,
    Fill,
    Order,
    OrderFill,
    OrderState,
    OrderType,
    Reason,
    Refused,
    Side,
)
from engine.orders.database import BUSY_S, DAMAGED, explained, open_database
from engine.orders.journal_schema import ARCHIVE, SCHEMA
from engine.orders.records import RecoveredState, StoredOrder, WriteFill, WriteRefusal

_ORDER = (
    "client_order_id, strategy, pair, side, order_type, size, price, state, filled, cost, exchange_order_id, "
    "reason, detail, created_ns, updated_ns"
)
_STORED = f"{_ORDER}, send_by_ns, acknowledged, cancel_requested"
FILL = (
    "f.client_order_id, f.strategy, f.pair, f.side, f.trade_id, f.price, f.size, f.fee, f.fee_asset, f.is_maker, "
    "f.time_ns, f.fee_estimated"
)
_COUNTED_OPEN = (
    OrderState.PENDING_CREATE,
    OrderState.OPEN,
    OrderState.PARTIALLY_FILLED,
    OrderState.PENDING_CANCEL,
)


_FATE = """
    SELECT state, NULL, NULL FROM orders WHERE client_order_id = ?1
    UNION ALL SELECT NULL, reason, detail FROM refusals WHERE client_order_id = ?1
    LIMIT 1
"""


_BOTH = """
    CREATE TEMP VIEW orders AS
        SELECT rowid, * FROM main.orders
        UNION ALL SELECT rowid, * FROM archive.orders AS a
        WHERE NOT EXISTS (SELECT 1 FROM main.orders AS h WHERE h.client_order_id = a.client_order_id);
    CREATE TEMP VIEW fills AS
        SELECT rowid, * FROM main.fills
        UNION ALL SELECT rowid, * FROM archive.fills AS a
        WHERE NOT EXISTS (SELECT 1 FROM main.fills AS h WHERE h.pair = a.pair AND h.trade_id = a.trade_id
            AND h.client_order_id = a.client_order_id);
    CREATE TEMP VIEW events AS
        SELECT number, time_ns, body, client_order_id FROM main.events
        UNION ALL SELECT number, time_ns, body, client_order_id FROM archive.events AS a
        WHERE NOT EXISTS (SELECT 1 FROM main.events AS h WHERE h.number = a.number);
    CREATE TEMP VIEW refusals AS
        SELECT * FROM main.refusals
        UNION ALL SELECT * FROM archive.refusals AS a
        WHERE NOT EXISTS (SELECT 1 FROM main.refusals AS h WHERE h.client_order_id = a.client_order_id);
"""
"""The tables with the archive's rows; one that is in both is there once, as the journal has it."""

_SAME = {
    "orders": "h.client_order_id = f.client_order_id",
    "fills": "h.pair = f.pair AND h.trade_id = f.trade_id AND h.client_order_id = f.client_order_id",
}
"""When a row ``h`` of the journal is the same as a row ``f`` of the archive."""


class JournalReader:
    """A journal opened for reading only, also while an engine writes it. Errors are :class:`JournalError`.

    What was moved to the archive is read like the rest, by a second connection on both files.
    """

    def __init__(self, path: str | Path, *, readonly: bool = True, shared: bool = False) -> None:
        self.path = Path(path)
        self._shared = shared
        self._connection = open_database(self.path, SCHEMA, readonly=readonly, shared=shared)
        self._both: sqlite3.Connection | None = None
        self._archived_last = self._archived_order_ns = self._archived_fill_ns = -1
        try:
            self.archive_changed()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._both is not None:
            self._both.close()
            self._both = None
        self._connection.close()

    @property
    def _schemas(self) -> tuple[str, ...]:
        """Where rows are; asked one by one, each is answered from its index."""
        return ("main",) if self._both is None else ("main", "archive")

    def archive_changed(self) -> None:
        """Look at the archive anew: something was moved there."""
        archive = archive_of(self.path)
        if self._both is None and archive.is_file():
            self._both = _open_both(self.path, archive, self._shared)
        if self._both is not None:
            with explained(archive):
                self._archived_last = _newest(self._both, "number", "events")
                self._archived_order_ns = _newest(self._both, "created_ns", "orders")
                self._archived_fill_ns = _newest(self._both, "time_ns", "fills")

    # ------------------------------------------------------------------------------------------------------ events

    @property
    def incarnation(self) -> int:
        """Of the event stream: the same for the journal's whole life."""
        return int(self._one("SELECT value FROM meta WHERE key = 'incarnation'")[0])

    @property
    def front(self) -> int:
        """How much of its front log the database has."""
        return int(self._one("SELECT ifnull((SELECT value FROM main.meta WHERE key = 'front'), 0)")[0])

    @property
    def owner(self) -> tuple[str, str]:
        """The connector and the account whose journal it is."""
        found = dict(self._all("SELECT key, value FROM main.meta"))
        return str(found["connector"]), str(found["account"])

    def first(self) -> int:
        """The oldest event's number; when there is none, the number that comes next."""
        found = [self._one(f"SELECT min(number) FROM {at}.events")[0] for at in self._schemas]
        return min((int(number) for number in found if number is not None), default=1)

    def last(self) -> int:
        """The newest event's number; 0 when there was never any."""
        return int(self._one("SELECT ifnull(max(number), 0) FROM main.events")[0])

    def since(self, number: int, limit: int) -> list[tuple[int, bytes]]:
        """At most ``limit`` events after ``number``, ascending: each its number and the encoded OrderEvent."""
        table = "events" if number < self._archived_last else "main.events"
        query = f"SELECT number, body FROM {table} WHERE number > ? ORDER BY number LIMIT ?"
        return [(int(row[0]), bytes(row[1])) for row in self._all(query, number, limit)]

    # ------------------------------------------------------------------------------------------------------ orders

    def orders(self, since_ns: int = 0, open_only: bool = False, limit: int = 1000, offset: int = 0) -> list[Order]:
        """Orders created since a time, newest first, after the newest ``offset`` of them."""
        if open_only:
            query = f"SELECT {_ORDER} FROM main.orders INDEXED BY orders_open WHERE is_open AND created_ns >= ?1"
            query += " ORDER BY created_ns DESC, rowid DESC LIMIT ?2 OFFSET ?3"
            rows = self._all(query, since_ns, limit, offset)
        else:
            archived = since_ns <= self._archived_order_ns
            rows = self._newest_first("orders", _ORDER, "created_ns", archived, since_ns, limit, offset)
        return [_order(row) for row in rows]

    def fills(self, since_ns: int = 0, limit: int = 1000, offset: int = 0) -> list[OrderFill]:
        """Fills since a venue time, newest first, after the newest ``offset`` of them."""
        archived = since_ns <= self._archived_fill_ns
        rows = self._newest_first("fills f", FILL, "time_ns", archived, since_ns, limit, offset)
        return [read_fill(row) for row in rows]

    def _newest_first(
        self, table: str, columns: str, at: str, archived: bool, since_ns: int, limit: int, offset: int
    ) -> list[tuple[Any, ...]]:
        """Rows by time and the order of their writing, the newest first, each table's by its index: what a question
        costs does not grow with what else is there. Without ``archived`` no row of the archive is of such a time.
        """
        part = f"SELECT {columns}, {at} AS at, rowid AS row FROM {{}} WHERE {at} >= ?1 ORDER BY {at} DESC, rowid DESC"
        if not archived or self._both is None:
            return self._all(f"{part.format(f'main.{table}')} LIMIT ?2 OFFSET ?3", since_ns, limit, offset)
        name = table.partition(" ")[0]
        once = f"AND NOT EXISTS (SELECT 1 FROM main.{name} AS h WHERE {_SAME[name]}) ORDER BY"
        here = f"{part.format(f'main.{table}')} LIMIT ?2 + ?3"
        moved = f"{part.format(f'archive.{name} AS f').replace('ORDER BY', once)} LIMIT ?2 + ?3"
        query = f"SELECT * FROM (SELECT * FROM ({here}) UNION ALL SELECT * FROM ({moved}))"
        return self._all(f"{query} ORDER BY at DESC, row DESC LIMIT ?2 OFFSET ?3", since_ns, limit, offset)

    def run_open(self, run_id: str) -> set[str]:
        """The client order ids of a run's orders that have not ended."""
        rows = self._all("SELECT client_order_id FROM main.orders WHERE is_open AND run_id = ?", run_id)
        return {str(row[0]) for row in rows}

    def run_orders(self, run_id: str) -> list[Order]:
        """All orders placed in a run, in the order of their placing."""
        query = f"SELECT {_ORDER} FROM orders WHERE run_id = ? ORDER BY rowid"
        return [_order(row) for row in self._all(query, run_id)]

    def run_fills(self, run_id: str) -> list[OrderFill]:
        """All fills of the orders placed in a run."""
        query = f"SELECT {FILL} FROM fills f JOIN orders o USING (client_order_id) WHERE o.run_id = ? ORDER BY f.rowid"
        return [read_fill(row) for row in self._all(query, run_id)]

    def counts(self, run_id: str) -> dict[str, int]:
        """A run's orders: each placed one is in exactly one of filled, cancelled, expired, failed, unknown, open.

        ``acknowledged``: those known to have reached the venue. ``refused``: commands that never became orders.
        """
        rows = self._all(
            "SELECT state, count(*), sum(acknowledged) FROM orders WHERE run_id = ? GROUP BY state", run_id
        )
        states = {OrderState(row[0]): int(row[1]) for row in rows}
        refused = self._one("SELECT count(*) FROM refusals WHERE run_id = ?", run_id)[0]
        return {
            "placed": sum(states.values()),
            "acknowledged": sum(int(row[2]) for row in rows),
            "refused": int(refused),
            "filled": states.get(OrderState.FILLED, 0),
            "cancelled": states.get(OrderState.CANCELLED, 0),
            "expired": states.get(OrderState.EXPIRED, 0),
            "failed": states.get(OrderState.FAILED, 0),
            "unknown": states.get(OrderState.UNKNOWN, 0),
            "open": sum(states.get(state, 0) for state in _COUNTED_OPEN),
        }

    # ----------------------------------------------------------------------------------------------------- archive

    def fate(self, client_order_id: str) -> Accepted | Refused | None:
        """What became of an id; None if it was never seen."""
        row = self._row(_FATE, client_order_id)
        if row is None:
            return None
        state, reason, detail = row
        if state is not None:
            return Accepted(client_order_id=client_order_id, state=OrderState(state))
        return Refused(client_order_id=client_order_id, reason=Reason(reason), detail=detail)

    def order(self, client_order_id: str) -> StoredOrder | None:
        """An order with the trade ids of its fills."""
        return self._stored(f"SELECT {_STORED} FROM orders WHERE client_order_id = ?", client_order_id)

    def order_by_exchange_id(self, pair: str, exchange_order_id: str) -> StoredOrder | None:
        """An order by the venue's id."""
        return self._stored(
            f"SELECT {_STORED} FROM orders WHERE exchange_order_id = ? AND exchange_order_id <> '' AND pair = ?",
            exchange_order_id,
            pair,
        )

    def recover(self) -> RecoveredState:
        """Where the account stood when the journal was last written."""
        opened = self._all(f"SELECT {_STORED} FROM main.orders INDEXED BY orders_open WHERE is_open ORDER BY rowid")
        pairs = sorted({row[2] for row in opened})
        last_trade_ns = {}
        for pair in pairs:
            found = [self._one(f"SELECT max(time_ns) FROM {at}.fills WHERE pair = ?", pair)[0] for at in self._schemas]
            if newest := [at_ns for at_ns in found if at_ns is not None]:
                last_trade_ns[pair] = int(max(newest))
        return RecoveredState(
            incarnation=self.incarnation,
            last_number=self.last(),
            orders=[self._with_trades(row) for row in opened],
            last_trade_ns=last_trade_ns,
        )

    def _stored(self, query: str, *values: object) -> StoredOrder | None:
        row = self._row(query, *values)
        return None if row is None else self._with_trades(row)

    def _with_trades(self, row: tuple[Any, ...]) -> StoredOrder:
        trades = self._all("SELECT trade_id FROM fills WHERE client_order_id = ?", row[0])
        return StoredOrder(
            order=_order(row[:15]),
            send_by_ns=row[15],
            acknowledged=bool(row[16]),
            cancel_requested=bool(row[17]),
            trade_ids=frozenset(trade[0] for trade in trades),
        )

    # ----------------------------------------------------------------------------------------------------- queries

    def _settle(self) -> None:
        """Before each question: what is to be in the tables by now."""

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        self._settle()
        with explained(self.path):
            return (self._both or self._connection).execute(query, values).fetchall()

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        """The first row, of the journal itself or, if it has none, of the archive."""
        self._settle()
        with explained(self.path):
            row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
            if row is None and self._both is not None:
                row = self._both.execute(query, values).fetchone()
            return row

    def _one(self, query: str, *values: object) -> tuple[Any, ...]:
        """The row of a query that always has one, over the archive as well."""
        self._settle()
        with explained(self.path):
            row: tuple[Any, ...] | None = (self._both or self._connection).execute(query, values).fetchone()
        if row is None:
            raise JournalError(f"{self.path}: incomplete; {DAMAGED}")
        return row


def archive_of(path: Path) -> Path:
    """Where a journal's archive is, if it has one."""
    return path.parent / "archive" / path.name


def order_values(order: Order) -> Iterable[object]:
    """An order's columns, in the order in which rows are read."""
    return (
        order.client_order_id,
        order.strategy,
        order.pair,
        order.side.value,
        order.order_type.value,
        str(order.size),
        None if order.price is None else str(order.price),
        order.state.value,
        str(order.filled),
        str(order.cost),
        order.exchange_order_id,
        order.reason.value,
        order.detail,
        order.created_ns,
        order.updated_ns,
    )


def fill_values(write: WriteFill) -> tuple[object, ...]:
    """A fill's columns."""
    of, fill = write.fill, write.fill.fill
    return (
        of.pair,
        fill.trade_id,
        of.client_order_id,
        of.strategy,
        of.side.value,
        str(fill.price),
        str(fill.size),
        str(fill.fee),
        fill.fee_asset,
        fill.is_maker,
        fill.time_ns,
        fill.fee_estimated,
    )


def refusal_values(write: WriteRefusal, run_id: str) -> tuple[object, ...]:
    """A refusal's columns."""
    refused = write.refused
    return (refused.client_order_id, write.strategy, refused.reason.value, refused.detail, write.time_ns, run_id)


def _newest(both: sqlite3.Connection, column: str, table: str) -> int:
    """The greatest of a column in the archive; -1 where that is empty."""
    return int(both.execute(f"SELECT ifnull(max({column}), -1) FROM archive.{table}").fetchone()[0])


def _open_both(path: Path, archive: Path, shared: bool) -> sqlite3.Connection:
    """A connection for reading over a journal and its archive."""
    open_database(archive, ARCHIVE, readonly=True).close()
    with explained(archive):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S, check_same_thread=not shared
        )
        try:
            connection.execute("ATTACH ? AS archive", (f"{archive.absolute().as_uri()}?mode=ro",))
            connection.executescript(_BOTH)
        except BaseException:
            connection.close()
            raise
    return connection


def _order(row: tuple[Any, ...]) -> Order:
    return Order(
        client_order_id=row[0],
        strategy=row[1],
        pair=row[2],
        side=Side(row[3]),
        order_type=OrderType(row[4]),
        size=Decimal(row[5]),
        price=None if row[6] is None else Decimal(row[6]),
        state=OrderState(row[7]),
        filled=Decimal(row[8]),
        cost=Decimal(row[9]),
        exchange_order_id=row[10],
        reason=Reason(row[11]),
        detail=row[12],
        created_ns=row[13],
        updated_ns=row[14],
    )


def read_fill(row: tuple[Any, ...]) -> OrderFill:
    """A fill, of the columns :data:`FILL`."""
    return OrderFill(
        client_order_id=row[0],
        strategy=row[1],
        pair=row[2],
        side=Side(row[3]),
        fill=Fill(
            trade_id=row[4],
            price=Decimal(row[5]),
            size=Decimal(row[6]),
            fee=Decimal(row[7]),
            fee_asset=row[8],
            is_maker=bool(row[9]),
            time_ns=row[10],
            fee_estimated=bool(row[11]),
        ),
    )
