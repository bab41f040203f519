"""A journal that an exchange actor keeps in memory alone: to see what writing the real one costs, never to trade by.

It answers what the account's core and its streams ask while a run lasts, and writes nothing to its file.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.messages import Accepted, Refused
from engine.orders.journal import Clock, Journal
from engine.orders.records import StoredOrder, Write, WriteEvent, WriteIntent, WriteOrder, WriteRefusal

_encode = msgspec.msgpack.Encoder().encode


class MemoryJournal(Journal):
    """One account's journal; all of it is gone with the process. Fills are kept in their events alone."""

    def __init__(
        self, path: str | Path, connector: str, account: str, clock: Clock, run_id: str = "", **_: object
    ) -> None:
        super().__init__(path, connector, account, clock, run_id, deferred=False)
        self._refused: dict[str, Refused] = {}
        self._kept: dict[str, StoredOrder] = {}
        self._bodies: list[bytes] = []

    def record(self, writes: Sequence[Write]) -> None:
        """Keep them."""
        for write in writes:
            if isinstance(write, WriteIntent):
                self._keep(write, acknowledged=False, cancel_requested=False)
            elif isinstance(write, WriteOrder):
                self._keep(write, write.acknowledged, write.cancel_requested)
            elif isinstance(write, WriteRefusal):
                self._refused[write.refused.client_order_id] = write.refused
            elif isinstance(write, WriteEvent):
                self._bodies.append(_encode(write.event))
                self._last = write.event.number
        self.commits += 1

    def fate(self, client_order_id: str) -> Accepted | Refused | None:
        stored = self._kept.get(client_order_id)
        if stored is not None:
            return Accepted(client_order_id=client_order_id, state=stored.order.state)
        return self._refused.get(client_order_id)

    def order(self, client_order_id: str) -> StoredOrder | None:
        return self._kept.get(client_order_id)

    def order_by_exchange_id(self, pair: str, exchange_order_id: str) -> StoredOrder | None:
        named = (stored for stored in self._kept.values() if stored.order.exchange_order_id == exchange_order_id)
        return next((stored for stored in named if stored.order.pair == pair), None)

    def first(self) -> int:
        return 1

    def since(self, number: int, limit: int) -> list[tuple[int, bytes]]:
        return list(enumerate(self._bodies[number : number + limit], number + 1))

    def _keep(self, write: WriteIntent | WriteOrder, acknowledged: bool, cancel_requested: bool) -> None:
        self._kept[write.order.client_order_id] = StoredOrder(
            order=write.order,
            send_by_ns=write.send_by_ns,
            acknowledged=acknowledged,
            cancel_requested=cancel_requested,
        )


def install() -> None:
    """Have exchange actors of this process keep their journal in memory."""
    importlib.import_module("engine.actors.exchange").Journal = MemoryJournal  # type: ignore[attr-defined]
