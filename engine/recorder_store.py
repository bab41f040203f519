"""The recorder's database: what happened on all accounts, for people and programs that look back.

Filled from the accounts' own journals and streams, so that losing it loses nothing that cannot be had again, but for
balances and funding, which no journal has. ``<state>/recorder.db``, written by the recorder actor alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from engine.messages import Balance, OrderEvent, Side, StreamPosition
from engine.orders.database import Schema, explained, open_database, transaction
from engine.orders.rules import EXACT

FILE_NAME = "recorder.db"

_SCHEMA = Schema(
    kind="a recorder's database",
    application_id=0x656E7263,
    version=1,
    script="""
        CREATE TABLE accounts (
            exchange TEXT PRIMARY KEY,
            connector TEXT NOT NULL,
            account TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            number INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE orders (
            connector TEXT NOT NULL,
            account TEXT NOT NULL,
            client_order_id TEXT NOT NULL,
            strategy TEXT NOT NULL,
            pair TEXT NOT NULL,
            side TEXT NOT NULL,
            order_type TEXT NOT NULL,
            size TEXT NOT NULL,
            price TEXT,
            state TEXT NOT NULL,
            filled TEXT NOT NULL,
            cost TEXT NOT NULL,
            exchange_order_id TEXT NOT NULL,
            reason TEXT NOT NULL,
            created_ns INTEGER NOT NULL,
            updated_ns INTEGER NOT NULL,
            PRIMARY KEY (connector, account, client_order_id)
        ) WITHOUT ROWID;
        CREATE INDEX orders_created ON orders (created_ns);
        CREATE TABLE fills (
            connector TEXT NOT NULL,
            account TEXT NOT NULL,
            pair TEXT NOT NULL,
            trade_id TEXT NOT NULL,
            client_order_id TEXT NOT NULL,
            strategy TEXT NOT NULL,
            side TEXT NOT NULL,
            price TEXT NOT NULL,
            size TEXT NOT NULL,
            fee TEXT NOT NULL,
            fee_asset TEXT NOT NULL,
            fee_estimated INTEGER NOT NULL,
            is_maker INTEGER NOT NULL,
            time_ns INTEGER NOT NULL,
            PRIMARY KEY (connector, account, pair, trade_id, client_order_id)
        ) WITHOUT ROWID;
        CREATE INDEX fills_time ON fills (time_ns);
        CREATE TABLE positions (
            id INTEGER PRIMARY KEY,
            connector TEXT NOT NULL,
            account TEXT NOT NULL,
            pair TEXT NOT NULL,
            time_ns INTEGER NOT NULL,
            number INTEGER NOT NULL,
            base TEXT NOT NULL
        );
        CREATE INDEX positions_of ON positions (connector, account, pair, id);
        CREATE INDEX positions_time ON positions (time_ns);
        CREATE TABLE balances (
            id INTEGER PRIMARY KEY,
            connector TEXT NOT NULL,
            account TEXT NOT NULL,
            asset TEXT NOT NULL,
            time_ns INTEGER NOT NULL,
            total TEXT NOT NULL,
            available TEXT NOT NULL
        );
        CREATE INDEX balances_of ON balances (connector, account, asset, id);
        CREATE INDEX balances_time ON balances (time_ns);
        CREATE TABLE funding_payments (
            connector TEXT NOT NULL,
            account TEXT NOT NULL,
            pair TEXT NOT NULL,
            time_ns INTEGER NOT NULL,
            payment_id TEXT NOT NULL,
            rate TEXT NOT NULL,
            amount TEXT NOT NULL,
            asset TEXT NOT NULL,
            PRIMARY KEY (connector, account, pair, time_ns, payment_id)
        ) WITHOUT ROWID;
    """,
)

_ORDER = f"INSERT OR REPLACE INTO orders VALUES ({', '.join('?' * 16)})"
_FILL = f"INSERT OR IGNORE INTO fills VALUES ({', '.join('?' * 14)})"
_POSITION = "INSERT INTO positions (connector, account, pair, time_ns, number, base) VALUES (?, ?, ?, ?, ?, ?)"
_BALANCE = "INSERT INTO balances (connector, account, asset, time_ns, total, available) VALUES (?, ?, ?, ?, ?, ?)"
_FUNDING = "INSERT OR IGNORE INTO funding_payments VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_ACCOUNT = "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?)"


class FundingPayment(msgspec.Struct, frozen=True, kw_only=True):
    """What a perpetual position paid (below zero) or was paid. ``payment_id`` tells two of one instant apart."""

    connector: str
    account: str
    pair: str
    time_ns: int
    payment_id: str
    rate: Decimal
    amount: Decimal
    asset: str


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """An asset's balance from an instant on."""

    connector: str
    account: str
    asset: str
    time_ns: int
    balance: Balance


class Batch(msgspec.Struct, kw_only=True):
    """What is written in one transaction. ``reached``: by exchange actor, the account and where its stream stands."""

    events: list[OrderEvent] = []
    balances: list[BalanceRow] = []
    funding: list[FundingPayment] = []
    reached: dict[str, tuple[str, str, StreamPosition]] = {}

    def __len__(self) -> int:
        return len(self.events) + len(self.balances) + len(self.funding)

    def __bool__(self) -> bool:
        return len(self) > 0 or bool(self.reached)


class RecorderStore:
    """The database, for its one writer; threads that use it take turns. Raises :class:`JournalError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection = open_database(path, _SCHEMA, shared=True)

    def positions_reached(self) -> dict[str, StreamPosition]:
        """The last event recorded of each exchange actor."""
        with self._lock, explained(self._path):
            rows = self._connection.execute("SELECT exchange, incarnation, number FROM accounts").fetchall()
        return {row[0]: StreamPosition(incarnation=row[1], number=row[2]) for row in rows}

    def write(self, batch: Batch) -> None:
        """All of it or nothing. What is recorded already is not recorded again."""
        with self._lock, explained(self._path), transaction(self._connection):
            for event in batch.events:
                self._event(event)
            for row in batch.balances:
                self._balance(row)
            self._connection.executemany(_FUNDING, map(_funding, batch.funding))
            self._connection.executemany(
                _ACCOUNT,
                [
                    (exchange, connector, account, position.incarnation, position.number)
                    for exchange, (connector, account, position) in batch.reached.items()
                ],
            )

    def close(self) -> None:
        """Close the file, after a write that is under way on another thread."""
        with self._lock:
            self._connection.close()

    def _event(self, event: OrderEvent) -> None:
        order, fill = event.order, event.fill
        key = (event.connector, event.account)
        values = (
            *(*key, order.client_order_id, order.strategy, order.pair, order.side.value, order.order_type.value),
            *(str(order.size), None if order.price is None else str(order.price), order.state.value),
            *(str(order.filled), str(order.cost), order.exchange_order_id, order.reason.value),
            *(order.created_ns, order.updated_ns),
        )
        self._connection.execute(_ORDER, values)
        if fill is None:
            return
        traded = (
            *(*key, order.pair, fill.trade_id, order.client_order_id, order.strategy, order.side.value),
            *(str(fill.price), str(fill.size), str(fill.fee), fill.fee_asset, fill.fee_estimated),
            *(fill.is_maker, fill.time_ns),
        )
        if self._connection.execute(_FILL, traded).rowcount != 1:
            return
        signed = fill.size if order.side is Side.BUY else fill.size.copy_negate()
        base = EXACT.add(self._base(*key, order.pair), signed)
        self._connection.execute(_POSITION, (*key, order.pair, fill.time_ns, event.number, str(base)))

    def _base(self, connector: str, account: str, pair: str) -> Decimal:
        row = self._connection.execute(
            "SELECT base FROM positions WHERE connector = ? AND account = ? AND pair = ? ORDER BY id DESC LIMIT 1",
            (connector, account, pair),
        ).fetchone()
        return Decimal(0) if row is None else Decimal(row[0])

    def _balance(self, row: BalanceRow) -> None:
        """A row for each change; a balance that is told again is none."""
        known = self._connection.execute(
            "SELECT total, available FROM balances WHERE connector = ? AND account = ? AND asset = ? "
            "ORDER BY id DESC LIMIT 1",
            (row.connector, row.account, row.asset),
        ).fetchone()
        if known is None or (Decimal(known[0]), Decimal(known[1])) != (row.balance.total, row.balance.available):
            amounts = (str(row.balance.total), str(row.balance.available))
            self._connection.execute(_BALANCE, (row.connector, row.account, row.asset, row.time_ns, *amounts))


class RecorderReader:
    """The database for commands, also while the recorder writes it. Rows are plain data, amounts decimal strings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_database(path, _SCHEMA, readonly=True)

    def __enter__(self) -> RecorderReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def positions(self, since_ns: int | None = None) -> list[dict[str, Any]]:
        """Base held by the engine's own fills, by account and pair: as it stands, or after each fill since a time."""
        where = (
            "id IN (SELECT max(id) FROM positions GROUP BY connector, account, pair)"
            if since_ns is None
            else "time_ns >= ?"
        )
        return self._rows(
            f"SELECT connector, account, pair, base, time_ns FROM positions WHERE {where} ORDER BY id DESC",
            () if since_ns is None else (since_ns,),
        )

    def balances(self, since_ns: int) -> list[dict[str, Any]]:
        """Every change of a balance since a time, newest first."""
        return self._rows(
            "SELECT connector, account, asset, total, available, time_ns FROM balances WHERE time_ns >= ? "
            "ORDER BY id DESC",
            (since_ns,),
        )

    def funding(self, since_ns: int = 0) -> list[dict[str, Any]]:
        """Funding payments since a time, newest first."""
        return self._rows(
            "SELECT * FROM funding_payments WHERE time_ns >= ? ORDER BY time_ns DESC, payment_id", (since_ns,)
        )

    def counts(self) -> Mapping[str, int]:
        """How many rows each table has."""
        tables = ("orders", "fills", "positions", "balances", "funding_payments")
        with explained(self._path):
            return {
                table: int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables
            }

    def _rows(self, query: str, values: Iterable[object]) -> list[dict[str, Any]]:
        with explained(self._path):
            cursor = self._connection.execute(query, tuple(values))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]


def _funding(payment: FundingPayment) -> tuple[object, ...]:
    return (
        payment.connector,
        payment.account,
        payment.pair,
        payment.time_ns,
        payment.payment_id,
        str(payment.rate),
        str(payment.amount),
        payment.asset,
    )
