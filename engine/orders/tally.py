"""How the orders of a run stand, counted as the journal is written: no query, however many orders there were."""

from __future__ import annotations

from collections import Counter
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


class Tally:
    """The counts of :meth:`engine.orders.journal_reader.JournalReader.counts`, kept up to date write by write.

    ``counts``: the journal's at the start. ``open_orders``: the run's orders that have not ended, by client order id,
    with their state and whether they are known to have reached the venue; orders of other runs are not counted.
    """

    def __init__(self, counts: Mapping[str, int], open_orders: Iterable[tuple[str, OrderState, bool]]) -> None:
        self._counts = Counter({name: counts.get(name, 0) for name in NAMES})
        self._open = {order_id: (state, acknowledged) for order_id, state, acknowledged in open_orders}

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
        before = self._open.get(order_id)
        if before is None:
            return
        self._counts[_NAMED[before[0]]] -= 1
        self._counts[_NAMED[state]] += 1
        self._counts["acknowledged"] += write.acknowledged and not before[1]
        if state.is_final and write.acknowledged:
            del self._open[order_id]
        else:
            self._open[order_id] = (state, write.acknowledged)
