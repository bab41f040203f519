"""The checkpoint of a strategy that may run on several hosts: one row in PostgreSQL, of the latest life that came.

State, positions and open orders are replaced in one statement, whole or not at all, as in the file of a strategy that
stays (:mod:`engine.orders.strategy_store`). A life of the strategy begins by putting its incarnation into the row, and
writes only as long as no later one has: two hosts that both run the strategy for a while, with a cut between them,
cannot overwrite each other. The newest checkpoint is sent from a task; one that did not arrive was never made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from engine.errors import JournalError
from engine.messages import StreamPosition
from engine.orders.postgres_line import CONNECT_S, Line
from engine.orders.store import StoreLost, Superseded
from engine.orders.strategy_store import Checkpoint, decode_checkpoint, encode_checkpoint

if TYPE_CHECKING:
    import asyncpg

AGAIN_S: Final = 0.25
LAST_S: Final = 2.0
"""How long the end waits for the last checkpoint to arrive."""

_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS checkpoint (
        id integer PRIMARY KEY CHECK (id = 1), incarnation bigint NOT NULL, saved_ns bigint NOT NULL,
        state bytea, positions bytea, open_orders bytea
    );
    INSERT INTO checkpoint VALUES (1, 0, 0, NULL, NULL, NULL) ON CONFLICT (id) DO NOTHING;
"""
_BEGIN: Final = """
    UPDATE checkpoint SET incarnation = $1 WHERE incarnation <= $1
    RETURNING state, positions, open_orders, saved_ns
"""
_SAVE: Final = """
    UPDATE checkpoint SET saved_ns = $2, state = $3, positions = $4, open_orders = $5 WHERE incarnation = $1
    RETURNING id
"""


class SharedStrategyStore:
    """One life's hold on the strategy's checkpoint. ``address``: PostgreSQL's, a secret if it has a password.

    ``schema``: names the strategy there. :meth:`begin` comes first, :meth:`keep` runs for as long as the life does.
    """

    def __init__(self, address: str, schema: str, incarnation: int) -> None:
        self._schema = schema
        self._incarnation = incarnation
        self._line = Line(address, schema)
        self._newest: tuple[int, bytes, bytes, bytes] | None = None
        self._unsent = asyncio.Event()
        self._sent = asyncio.Event()
        self._sent.set()

    async def begin(self) -> Checkpoint | None:
        """Begin this life: from here on no earlier one saves anything. The newest checkpoint; None if there is none.

        Raises StoreLost, after which it may be called again; Superseded if a later life has begun; JournalError for a
        checkpoint that is unreadable.
        """
        await self._line.call(self._prepare, CONNECT_S)
        row = await self._line.call(lambda connection: connection.fetchrow(_BEGIN, self._incarnation))
        if row is None:
            raise self._superseded()
        return None if row["state"] is None else decode_checkpoint(self._schema, *row)

    def save(
        self,
        state: Any,
        positions: Mapping[str, StreamPosition],
        open_orders: Iterable[str] = (),
        saved_ns: int = 0,
    ) -> None:
        """Replace the checkpoint soon. Raises :class:`JournalError` if it cannot be encoded."""
        self._newest = encode_checkpoint(self._schema, state, positions, open_orders, saved_ns)
        self._sent.clear()
        self._unsent.set()

    async def keep(self) -> None:
        """Send what is saved, the newest first and alone. Raises Superseded once a later life has begun."""
        while True:
            await self._unsent.wait()
            self._unsent.clear()
            newest = self._newest
            try:
                if await self._line.value(_SAVE, self._incarnation, *(newest or ())) is None:
                    raise self._superseded()
            except StoreLost:
                self._unsent.set()
                await asyncio.sleep(AGAIN_S)
            else:
                if newest is self._newest:
                    self._sent.set()

    async def close(self) -> bool:
        """Wait a moment for the last checkpoint to arrive, and let go; whether it did."""
        try:
            async with asyncio.timeout(LAST_S):
                await self._sent.wait()
        except TimeoutError:
            return False
        finally:
            await self._line.close()
        return True

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", self._schema)
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
            await connection.execute(_TABLE)

    def _superseded(self) -> JournalError:
        return Superseded(f"{self._schema}: a later life of this strategy has begun, on another host")
