"""Moving what is old out of an account's journal into its archive, so that the journal stays small.

What moves: events of ended orders that are older than ``keep_ns`` and that every strategy with a checkpoint has folded
already; orders that ended before that, with their fills; refusals as old. The newest event and the newest order always
stay. :meth:`Rotation.copy` writes to the archive, on disk before it returns, on a thread and by connections of its own;
:meth:`Rotation.deletions` then deletes a few rows at a time by the journal's writer. A crash between the two leaves
rows in both, which reads count once and the next rotation moves again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from engine.errors import JournalError
from engine.orders.database import explained, open_database, transaction
from engine.orders.journal import Journal
from engine.orders.journal_reader import archive_of
from engine.orders.journal_schema import ARCHIVE, SCHEMA
from engine.orders.strategy_store import read_positions

AT_ONCE = 20_000
"""Rows of a table that one pass copies at most."""

DELETED_AT_ONCE = 50
"""Rows that one step deletes: about a millisecond of the writer's time."""

_EVENTS = """
    SELECT e.number, e.time_ns, e.body, e.client_order_id FROM events AS e
    LEFT JOIN orders AS o ON o.client_order_id = e.client_order_id
    WHERE e.number <= ?1 AND e.time_ns < ?2 AND (o.is_open IS NULL OR NOT o.is_open)
        AND e.number < (SELECT max(number) FROM events)
    ORDER BY e.number LIMIT ?3
"""
_ORDERS = """
    SELECT rowid, * FROM orders WHERE created_ns < ?1 AND updated_ns < ?1 AND NOT is_open
        AND rowid < (SELECT max(rowid) FROM orders)
    ORDER BY created_ns LIMIT ?2
"""
_REFUSALS = "SELECT * FROM refusals WHERE time_ns < ?1 LIMIT ?2"
_FILLS = "SELECT * FROM fills WHERE client_order_id = ?"

_DELETE_EVENT = "DELETE FROM events WHERE number = ?"
_DELETE_REFUSAL = "DELETE FROM refusals WHERE client_order_id = ?"
_DELETE_ORDER = (
    "DELETE FROM orders WHERE client_order_id = ? AND updated_ns = ? AND exchange_order_id = ? AND NOT is_open"
)
_DELETE_FILLS = (
    "DELETE FROM fills WHERE client_order_id = ?1 "
    "AND NOT EXISTS (SELECT 1 FROM orders AS o WHERE o.client_order_id = ?1)"
)

_Step = tuple[str, list[tuple[object, ...]]]


class Rotation:
    """One journal's rotation. ``keep_ns``: how long things stay in the journal after they ended."""

    def __init__(self, journal: Journal, keep_ns: int) -> None:
        self._journal = journal
        self._keep_ns = keep_ns
        self._steps: list[_Step] = []

    def copy(self, now_ns: int, folded: int) -> int:
        """Copy what is to move into the archive; the number of rows. For a thread.

        ``folded``: the number of the last event that nobody asks for any more. Raises :class:`JournalError`.
        """
        path, before_ns = self._journal.path, now_ns - self._keep_ns
        source = open_database(path, SCHEMA, readonly=True, shared=True)
        try:
            with explained(path):
                events = source.execute(_EVENTS, (folded, before_ns, AT_ONCE)).fetchall()
                orders = source.execute(_ORDERS, (before_ns, AT_ONCE)).fetchall()
                refusals = source.execute(_REFUSALS, (before_ns, AT_ONCE)).fetchall()
                fills = [row for order in orders for row in source.execute(_FILLS, (order[1],))]
        finally:
            source.close()
        if not (events or orders or refusals):
            return 0
        archive = open_database(archive_of(path), ARCHIVE, shared=True, full_sync=True)
        try:
            with explained(archive_of(path)), transaction(archive):
                _insert(archive, "events (number, time_ns, body, client_order_id)", events)
                _insert(archive, f"orders ({_columns(archive, 'orders')})", [order[1:] for order in orders])
                _insert(archive, "fills", fills)
                _insert(archive, "refusals", refusals)
        finally:
            archive.close()
        self._steps = [
            *_steps(_DELETE_EVENT, ((event[0],) for event in events)),
            *_steps(_DELETE_ORDER, ((order[1], order[15], order[11]) for order in orders)),
            *_steps(_DELETE_FILLS, ((order[1],) for order in orders)),
            *_steps(_DELETE_REFUSAL, ((refusal[0],) for refusal in refusals)),
        ]
        return len(events) + len(orders) + len(fills) + len(refusals)

    def deletions(self) -> Iterator[int]:
        """Delete what was copied, a few rows at each step; yields how many. For the journal's writer.

        An order that something was told of since it was copied stays.
        """
        self._journal.archive_changed()
        for statement, rows in self._steps:
            self._journal.delete(statement, rows)
            yield len(rows)
        self._steps = []


def folded_by_all(strategies: Path, exchange: str, incarnation: int, last: int) -> int:
    """The last event that every strategy's checkpoint in a folder has folded; ``last`` where none says otherwise.

    ``exchange``: the account's actor. A strategy without a checkpoint begins with a snapshot and asks for no past; one
    whose file cannot be read may ask for all of it.
    """
    folded = last
    for path in sorted(strategies.glob("*.db")):
        try:
            position = read_positions(path).get(exchange)
        except JournalError:
            return 0
        if position is not None and position.incarnation == incarnation:
            folded = min(folded, position.number)
    return folded


def _columns(connection: sqlite3.Connection, table: str) -> str:
    return ", ".join(str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})"))


def _insert(connection: sqlite3.Connection, target: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT OR REPLACE INTO {target} VALUES ({marks})", rows)


def _steps(statement: str, rows: Iterable[tuple[object, ...]]) -> list[_Step]:
    found = list(rows)
    return [(statement, found[at : at + DELETED_AT_ONCE]) for at in range(0, len(found), DELETED_AT_ONCE)]
