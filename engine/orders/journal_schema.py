"""The tables of an account's journal and of its archive, and the ways from older ones."""

from __future__ import annotations

import sqlite3

import msgspec

from engine.messages import OrderEvent
from engine.orders.database import Schema


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    """Events name their order; fills say whether their fee is estimated; an index less to write."""
    connection.execute("DROP INDEX orders_run")
    connection.execute("ALTER TABLE fills ADD COLUMN fee_estimated INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE events ADD COLUMN client_order_id TEXT NOT NULL DEFAULT ''")
    decoder = msgspec.msgpack.Decoder(OrderEvent)
    last = 0
    while rows := connection.execute(
        "SELECT number, body FROM events WHERE number > ? ORDER BY number LIMIT 1000", (last,)
    ).fetchall():
        named = [(decoder.decode(body).order.client_order_id, number) for number, body in rows]
        connection.executemany("UPDATE events SET client_order_id = ? WHERE number = ?", named)
        last = rows[-1][0]


def _from_2_to_3(connection: sqlite3.Connection) -> None:
    """There may be a front log, of which an older engine knows nothing."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('front', 0)")


_TABLES = """
    CREATE TABLE orders (
        client_order_id TEXT NOT NULL UNIQUE,
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
        detail TEXT NOT NULL,
        created_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        send_by_ns INTEGER NOT NULL,
        acknowledged INTEGER NOT NULL,
        cancel_requested INTEGER NOT NULL,
        is_open INTEGER NOT NULL,
        run_id TEXT NOT NULL
    );
    CREATE INDEX orders_open ON orders (is_open) WHERE is_open;
    CREATE INDEX orders_exchange_id ON orders (exchange_order_id) WHERE exchange_order_id <> '';
    CREATE INDEX orders_created ON orders (created_ns);
    CREATE TABLE fills (
        pair TEXT NOT NULL,
        trade_id TEXT NOT NULL,
        client_order_id TEXT NOT NULL,
        strategy TEXT NOT NULL,
        side TEXT NOT NULL,
        price TEXT NOT NULL,
        size TEXT NOT NULL,
        fee TEXT NOT NULL,
        fee_asset TEXT NOT NULL,
        is_maker INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        fee_estimated INTEGER NOT NULL DEFAULT 0,
        UNIQUE (pair, trade_id, client_order_id)
    );
    CREATE INDEX fills_order ON fills (client_order_id);
    CREATE INDEX fills_time ON fills (time_ns);
    CREATE INDEX fills_pair_time ON fills (pair, time_ns);
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        time_ns INTEGER NOT NULL,
        body BLOB NOT NULL,
        client_order_id TEXT NOT NULL DEFAULT ''
    );
    CREATE TABLE refusals (
        client_order_id TEXT PRIMARY KEY,
        strategy TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        time_ns INTEGER NOT NULL,
        run_id TEXT NOT NULL
    ) WITHOUT ROWID;
"""

SCHEMA = Schema(
    kind="an account's journal",
    application_id=0x656E676A,
    version=3,
    script=f"CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID; {_TABLES}",
    migrations={1: _from_1_to_2, 2: _from_2_to_3},
    page_size=1024,
)

ARCHIVE = Schema(
    kind="the archive of an account's journal",
    application_id=0x656E6772,
    version=1,
    script=f"{_TABLES} CREATE INDEX orders_run ON orders (run_id)",
)
"""What was moved out of the journal: the same tables. A row may be in both; then the journal's is the newer one."""
