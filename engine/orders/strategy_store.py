"""Where a strategy keeps its state: with the number of the last event folded into it, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from engine.errors import JournalError
from engine.messages import StreamPosition
from engine.orders.database import Schema, explained, open_database

_UNREADABLE = (msgspec.DecodeError, UnicodeError, TypeError)
"""What comes of decoding what is no MessagePack, or not even bytes."""

_SCHEMA = Schema(
    kind="a strategy's store",
    application_id=0x656E7374,
    version=1,
    script="""
        CREATE TABLE checkpoint (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            saved_ns INTEGER NOT NULL,
            state BLOB NOT NULL,
            positions BLOB NOT NULL,
            open_orders BLOB NOT NULL
        );
    """,
)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved.

    ``state``: the strategy's own. ``positions``: for each account (``connector.account``) the last event folded into
    the state. ``open_orders``: the client order ids that the strategy had open.
    """

    state: Any
    positions: dict[str, StreamPosition]
    open_orders: list[str]
    saved_ns: int


class StrategyStore:
    """One strategy's checkpoint, written by its actor alone."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._connection = open_database(self._path, _SCHEMA)

    def __enter__(self) -> StrategyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def load(self) -> Checkpoint | None:
        """The newest checkpoint; None if there is none. Raises :class:`JournalError` for one that is unreadable."""
        with explained(self._path):
            row = self._connection.execute(
                "SELECT state, positions, open_orders, saved_ns FROM checkpoint WHERE id = 1"
            ).fetchone()
        return None if row is None else decode_checkpoint(f"{self._path}", *row)

    def save(
        self,
        state: Any,
        positions: Mapping[str, StreamPosition],
        open_orders: Iterable[str] = (),
        saved_ns: int = 0,
    ) -> None:
        """Replace the checkpoint, whole or not at all.

        ``state``: what MessagePack can hold (maps, lists, strings, numbers, bytes, None, structs); a ``Decimal`` comes
        back as a string, a tuple as a list. Raises :class:`JournalError` if it cannot be encoded or written.
        """
        row = encode_checkpoint(f"{self._path}", state, positions, open_orders, saved_ns)
        with explained(self._path):
            self._connection.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?, ?, ?, ?)", row)

    def clear(self) -> None:
        """Forget the checkpoint."""
        with explained(self._path):
            self._connection.execute("DELETE FROM checkpoint")

    def close(self) -> None:
        self._connection.close()


def encode_checkpoint(
    where: str, state: Any, positions: Mapping[str, StreamPosition], open_orders: Iterable[str], saved_ns: int
) -> tuple[int, bytes, bytes, bytes]:
    """``saved_ns``, state, positions and open orders as stored. JournalError, naming where, if they cannot be."""
    try:
        blob = msgspec.msgpack.encode(state)
    except (TypeError, ValueError, OverflowError) as error:
        raise JournalError(f"{where}: the strategy's state cannot be saved: {error}") from error
    return saved_ns, blob, msgspec.msgpack.encode(dict(positions)), msgspec.msgpack.encode(list(open_orders))


def decode_checkpoint(where: str, state: bytes, positions: bytes, open_orders: bytes, saved_ns: int) -> Checkpoint:
    """A checkpoint from what is stored. JournalError, naming where, for one that is unreadable."""
    try:
        return Checkpoint(
            state=msgspec.msgpack.decode(state),
            positions=msgspec.msgpack.decode(positions, type=dict[str, StreamPosition]),
            open_orders=msgspec.msgpack.decode(open_orders, type=list[str]),
            saved_ns=saved_ns,
        )
    except _UNREADABLE as error:
        raise JournalError(f"{where}: unreadable checkpoint: {error}; move it away") from error


def read_positions(path: Path) -> dict[str, StreamPosition]:
    """The last events that a strategy's checkpoint has folded, by account; empty without one.

    For whoever is not that strategy, at any time. Raises :class:`JournalError`.
    """
    connection = open_database(path, _SCHEMA, readonly=True, shared=True)
    try:
        with explained(path):
            row = connection.execute("SELECT positions FROM checkpoint WHERE id = 1").fetchone()
    finally:
        connection.close()
    try:
        return {} if row is None else msgspec.msgpack.decode(row[0], type=dict[str, StreamPosition])
    except _UNREADABLE as error:
        raise JournalError(f"{path}: unreadable checkpoint: {error}") from error
