"""What an account's core writes as rows of its journal: many commits at once are one row an order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import msgspec

from engine.orders.journal_reader import fill_values, order_values, refusal_values
from engine.orders.records import Write, WriteEvent, WriteFill, WriteIntent, WriteOrder, WriteRefusal

Row = tuple[Any, ...]

INSERT_ORDER: Final = f"INSERT INTO orders VALUES ({', '.join('?' * 20)})"
UPDATE_ORDER: Final = (
    "UPDATE orders SET state = ?, filled = ?, cost = ?, exchange_order_id = ?, reason = ?, detail = ?, "
    "updated_ns = ?, send_by_ns = ?, acknowledged = ?, cancel_requested = ?, is_open = ? WHERE client_order_id = ?"
)
INSERT_FILL: Final = f"INSERT INTO fills VALUES ({', '.join('?' * 12)})"
INSERT_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?)"
INSERT_REFUSAL: Final = "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?)"

_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Gathered:
    """The rows of some commits, each order as it stands after the last of them.

    ``placed``: orders that had no row before. ``changed``: those that have one, in the journal or its archive.
    """

    placed: dict[str, Row] = field(default_factory=dict)
    changed: dict[str, WriteOrder] = field(default_factory=dict)
    fills: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    refusals: list[Row] = field(default_factory=list)

    def add(self, writes: Iterable[Write], run_id: str) -> None:
        """The next commit, made in that run."""
        for write in writes:
            match write:
                case WriteIntent(order=order):
                    self.placed[order.client_order_id] = intent_row(write, run_id)
                case WriteOrder(order=order):
                    placed = self.placed.get(order.client_order_id)
                    if placed is None:
                        self.changed[order.client_order_id] = write
                    else:
                        self.placed[order.client_order_id] = order_row(write, placed[-1])
                case WriteFill():
                    self.fills.append(fill_values(write))
                case WriteEvent():
                    self.events.append(event_row(write))
                case WriteRefusal():
                    self.refusals.append(refusal_values(write, run_id))
                case _:
                    assert_never(write)

    def write(self, connection: sqlite3.Connection) -> list[WriteOrder]:
        """Put them into the tables; the changed orders whose row is not there.

        An order that has a row, a fill and an event that are known are refused (``sqlite3.IntegrityError``).
        """
        if self.placed:
            connection.executemany(INSERT_ORDER, self.placed.values())
        missing = [
            write for write in self.changed.values() if connection.execute(UPDATE_ORDER, _changes(write)).rowcount != 1
        ]
        for statement, rows in (
            (INSERT_FILL, self.fills),
            (INSERT_EVENT, self.events),
            (INSERT_REFUSAL, self.refusals),
        ):
            if rows:
                connection.executemany(statement, rows)
        return missing


def intent_row(write: WriteIntent, run_id: str) -> Row:
    """The row of an order that was never sent yet."""
    return (*order_values(write.order), write.send_by_ns, False, False, True, run_id)


def order_row(write: WriteOrder, run_id: str) -> Row:
    """The row of an order as it stands."""
    is_open = not write.order.state.is_final
    return (*order_values(write.order), write.send_by_ns, write.acknowledged, write.cancel_requested, is_open, run_id)


def event_row(write: WriteEvent) -> Row:
    """The row of an event."""
    event = write.event
    return (event.number, event.time_ns, _encode(event), event.order.client_order_id)


def _changes(write: WriteOrder) -> Row:
    order = write.order
    return (
        order.state.value,
        str(order.filled),
        str(order.cost),
        order.exchange_order_id,
        order.reason.value,
        order.detail,
        order.updated_ns,
        write.send_by_ns,
        write.acknowledged,
        write.cancel_requested,
        not order.state.is_final,
        order.client_order_id,
    )
