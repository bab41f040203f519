"""How the orders of a run stand, counted as the journal is written: no query, however many orders there were."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping

from engine.messages import OrderState
from engine.orders.records import Write, WriteIntent, WriteOrder, WriteRefusal

_OPEN = (OrderState.PENDING_CREATE, OrderState.OPEN, OrderState.PARTIALLY_FILLED, OrderState.PENDING_CANCEL)
_NAMED = {
    OrderState.FILLED: "filled",
    OrderState.CANCELLED: "cancelled",
    OrderState.EXPIRED: "expired",
    OrderState.FAILED: "failed",
    OrderState.UNKNOWN: "unknown",
    **dict.fromkeys(_OPEN, "open"),
}
NAMES = ("placed", "acknowledged", "refused", "filled", "cancelled", "expired", "failed", "unknown", "open")

KEPT_FAILED = 1000
"""Failed orders never known to have reached the venue that are still looked for, as one may turn up after all."""


class Tally:
    """The counts of :meth:`engine.orders.journal_reader.JournalReader.counts`, kept up to date write by write.

    ``counts``: the journal's at the start, or :meth:`add` them later. ``open_orders``: the run's orders that have not
    ended then, by client order id, with their state and whether they are known to have reached the venue; orders of
    other runs are not counted.
    """

    def __init__(self, counts: Mapping[str, int], open_orders: Iterable[tuple[str, OrderState, bool]]) -> None:
        self._counts: Counter[str] = Counter()
        self.add(counts)
        self._open = {order_id: (state, acknowledged) for order_id, state, acknowledged in open_orders}
        self._failed: OrderedDict[str, OrderState] = OrderedDict()

    def __len__(self) -> int:
        """How many orders it keeps in mind."""
        return len(self._open) + len(self._failed)

    def add(self, counts: Mapping[str, int]) -> None:
        """The journal's counts of the start, where they were not known then."""
        for name in NAMES:
            self._counts[name] += counts.get(name, 0)

    def note(self, writes: Iterable[Write]) -> None:
        """Count what was just committed."""
        for write in writes:
            if isinstance(write, WriteIntent):
                self._open[write.order.client_order_id] = (write.order.state, False)
                self._counts["placed"] += 1
                self._counts[_NAMED[write.order.state]] += 1
            elif isinstance(write, WriteOrder):
                self._moved(write)
            elif isinstance(write, WriteRefusal):
                self._counts["refused"] += 1

    def counts(self) -> dict[str, int]:
        """By name; each placed order is in exactly one of filled, cancelled, expired, failed, unknown, open."""
        return {name: self._counts[name] for name in NAMES}

    def _moved(self, write: WriteOrder) -> None:
        order_id, state = write.order.client_order_id, write.order.state
        before = self._open.get(order_id) or self._turned_up(order_id)
        if before is None:
            return
        self._counts[_NAMED[before[0]]] -= 1
        self._counts[_NAMED[state]] += 1
        self._counts["acknowledged"] += write.acknowledged and not before[1]
        if not state.is_final:
            self._open[order_id] = (state, write.acknowledged)
            return
        self._open.pop(order_id, None)
        if not write.acknowledged:
            self._failed[order_id] = state
            if len(self._failed) > KEPT_FAILED:
                self._failed.popitem(last=False)

    def _turned_up(self, order_id: str) -> tuple[OrderState, bool] | None:
        state = self._failed.pop(order_id, None)
        return None if state is None else (state, False)
