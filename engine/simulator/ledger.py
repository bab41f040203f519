"""The venue's memory on disk: one SQLite file, committed before anything is told.

Write-ahead logging with ``synchronous=NORMAL``: what is committed survives any kill of the process. A flock on the
state folder keeps two boxes from serving the same ledger.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.errors import ConfigError
from engine.simulator.accounts import Account, Balance
from engine.simulator.orders import Fill, Order, OrderType, SelfTrade, Status, TimeInForce
from engine.simulator.venue import Changes, Counters, Saved

FORMAT = "1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, api_key TEXT NOT NULL, api_secret TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS balances (
    account TEXT NOT NULL, asset TEXT NOT NULL, free INTEGER NOT NULL, locked INTEGER NOT NULL,
    PRIMARY KEY (account, asset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counters (
    pair TEXT PRIMARY KEY, update_id INTEGER NOT NULL, trade_id INTEGER NOT NULL, aggregate_id INTEGER NOT NULL,
    mid INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    order_id INTEGER PRIMARY KEY, pair TEXT NOT NULL, account TEXT NOT NULL, client_order_id TEXT NOT NULL,
    is_buy INTEGER NOT NULL, type TEXT NOT NULL, time_in_force TEXT NOT NULL, self_trade TEXT NOT NULL,
    price INTEGER NOT NULL, quantity INTEGER NOT NULL, quote_quantity INTEGER NOT NULL, status TEXT NOT NULL,
    filled INTEGER NOT NULL, filled_quote INTEGER NOT NULL, locked INTEGER NOT NULL, created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL, prevented_id INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS fills (
    row INTEGER PRIMARY KEY, trade_id INTEGER NOT NULL, pair TEXT NOT NULL, account TEXT NOT NULL,
    order_id INTEGER NOT NULL, client_order_id TEXT NOT NULL, is_buy INTEGER NOT NULL, is_maker INTEGER NOT NULL,
    price INTEGER NOT NULL, size INTEGER NOT NULL, quote INTEGER NOT NULL, fee INTEGER NOT NULL,
    fee_asset TEXT NOT NULL, time_ns INTEGER NOT NULL);
"""

_ORDER_COLUMNS = (
    "order_id, pair, account, client_order_id, is_buy, type, time_in_force, self_trade, price, quantity, "
    "quote_quantity, status, filled, filled_quote, locked, created_ns, updated_ns, prevented_id"
)
_FILL_COLUMNS = (
    "trade_id, pair, account, order_id, client_order_id, is_buy, is_maker, price, size, quote, fee, fee_asset, time_ns"
)
_PUT_ORDER = f"INSERT OR REPLACE INTO orders ({_ORDER_COLUMNS}) VALUES ({','.join('?' * 18)})"
_PUT_FILL = f"INSERT INTO fills ({_FILL_COLUMNS}) VALUES ({','.join('?' * 13)})"


class Ledger:
    """The ledger in a state folder, which is made when absent. :class:`ConfigError` when another box holds it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(f"state folder {folder} is in use by another venue: stop it or name another") from error
        self._db = sqlite3.connect(folder / "ledger.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        written = self.get("format", FORMAT)
        if written != FORMAT:
            self.close()
            raise ConfigError(f"ledger in {folder} has format {written}; this version reads {FORMAT}")
        self.put("format", FORMAT)

    def close(self) -> None:
        """Let others have it. Safe more than once."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- small facts

    def get(self, key: str, default: str = "") -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else default

    def put(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # -- accounts

    def accounts(self, maker_fee: int, taker_fee: int) -> list[Account]:
        """All accounts with their balances, in the order in which they were opened."""
        found = []
        rows = self._db.execute("SELECT name, api_key, api_secret FROM accounts ORDER BY rowid").fetchall()
        for name, key, secret in rows:
            account = Account(name, key, secret, maker_fee, taker_fee)
            balances = self._db.execute("SELECT asset, free, locked FROM balances WHERE account = ?", (name,))
            account.balances = {asset: Balance(free, locked) for asset, free, locked in balances}
            found.append(account)
        return found

    def open_account(self, name: str, api_key: str, api_secret: str, balances: Iterable[tuple[str, int]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("INSERT INTO accounts VALUES (?, ?, ?)", (name, api_key, api_secret))
        rows = [(name, asset, free, 0) for asset, free in balances]
        self._db.executemany("INSERT INTO balances VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    # -- the venue's state

    def load(self) -> Saved:
        """Everything of earlier lives, and count this one."""
        saved = Saved()
        for row in self._db.execute(f"SELECT {_ORDER_COLUMNS} FROM orders ORDER BY order_id"):
            saved.orders.append(_order(row))
        for row in self._db.execute(f"SELECT {_FILL_COLUMNS} FROM fills ORDER BY row"):
            saved.fills.append(_fill(row))
        for pair, *counters in self._db.execute("SELECT * FROM counters"):
            saved.counters[pair] = Counters(*counters)
        saved.next_order_id = saved.orders[-1].order_id + 1 if saved.orders else 1
        saved.next_execution_id = int(self.get("next_execution_id", "1"))
        saved.lives = int(self.get("lives", "0"))
        self.put("lives", str(saved.lives + 1))
        return saved

    def commit(self, changes: Changes) -> None:
        """Write all of it or nothing; when this returns it survives a kill."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(_PUT_ORDER, [_order_row(order) for order in changes.orders.values()])
            db.executemany(_PUT_FILL, [_fill_row(fill) for fill in changes.fills])
            db.executemany(
                "INSERT OR REPLACE INTO balances VALUES (?, ?, ?, ?)",
                [(*key, *amounts) for key, amounts in changes.balances.items()],
            )
            db.executemany(
                "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)",
                [(pair, c.update_id, c.trade_id, c.aggregate_id, c.mid) for pair, c in changes.counters.items()],
            )
            if changes.orders:
                self.put("next_execution_id", str(changes.next_execution_id))
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def _order(row: Sequence[object]) -> Order:
    (order_id, pair, account, client_id, is_buy, kind, tif, self_trade, price, quantity, quote_quantity) = row[:11]
    status, filled, filled_quote, locked, created_ns, updated_ns, prevented_id = row[11:]
    return Order(
        pair=str(pair),
        account=str(account),
        is_buy=bool(is_buy),
        price=_int(price),
        quantity=_int(quantity),
        type=OrderType(str(kind)),
        time_in_force=TimeInForce(str(tif)),
        self_trade=SelfTrade(str(self_trade)),
        quote_quantity=_int(quote_quantity),
        order_id=_int(order_id),
        client_order_id=str(client_id),
        status=Status(str(status)),
        filled=_int(filled),
        filled_quote=_int(filled_quote),
        locked=_int(locked),
        created_ns=_int(created_ns),
        updated_ns=_int(updated_ns),
        prevented_id=_int(prevented_id),
    )


def _fill(row: Sequence[object]) -> Fill:
    trade_id, pair, account, order_id, client_id, is_buy, is_maker, price, size, quote, fee, asset, time_ns = row
    return Fill(
        trade_id=_int(trade_id),
        pair=str(pair),
        account=str(account),
        order_id=_int(order_id),
        client_order_id=str(client_id),
        is_buy=bool(is_buy),
        is_maker=bool(is_maker),
        price=_int(price),
        size=_int(size),
        quote=_int(quote),
        fee=_int(fee),
        fee_asset=str(asset),
        time_ns=_int(time_ns),
    )


def _int(value: object) -> int:
    if not isinstance(value, int):
        raise ConfigError(f"the ledger holds {value!r} where an integer belongs; it is damaged")
    return value


def _order_row(o: Order) -> tuple[object, ...]:
    return (
        o.order_id,
        o.pair,
        o.account,
        o.client_order_id,
        o.is_buy,
        o.type.value,
        o.time_in_force.value,
        o.self_trade.value,
        o.price,
        o.quantity,
        o.quote_quantity,
        o.status.value,
        o.filled,
        o.filled_quote,
        o.locked,
        o.created_ns,
        o.updated_ns,
        o.prevented_id,
    )


def _fill_row(f: Fill) -> tuple[object, ...]:
    return (
        f.trade_id,
        f.pair,
        f.account,
        f.order_id,
        f.client_order_id,
        f.is_buy,
        f.is_maker,
        f.price,
        f.size,
        f.quote,
        f.fee,
        f.fee_asset,
        f.time_ns,
    )
