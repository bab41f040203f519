"""An account's numbers for the report and for who watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from engine.actors.base import Metrics
from engine.actors.takings import Takings
from engine.messages import Fill, Order, OrderEvent, OrderState
from engine.orders.account import Account
from engine.orders.journal import Journal
from engine.orders.records import RecoveredState, Write
from engine.orders.tally import Tally

RECENT_FILLS = 20


class AccountNumbers:
    """How this run's orders and fills stand: by what the journal had at the start, which is learned later, and by what
    is written since.
    """

    def __init__(self, connector: str, core: Account, journal: Journal, run_id: str, recovered: RecoveredState) -> None:
        self._connector = connector
        self._core = core
        self._takings = Takings()
        self._tally = Tally({}, _open_of_run(journal, run_id, recovered))
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_FILLS)
        self._known = False
        self._dirty = True

    def learn(self, counts: Mapping[str, int], takings: Takings) -> None:
        """How the run stood when this was made; until that is known the sums are not shown."""
        self._tally.add(counts)
        self._takings.merge(takings)
        self._known = self._dirty = True

    def wrote(self, writes: Iterable[Write]) -> None:
        """Count what the journal took."""
        self._tally.note(writes)
        self._dirty = True

    def add(self, event: OrderEvent) -> None:
        """Count an event's fill, if it has one."""
        if event.fill is not None:
            order = event.order
            self._takings.add(order.strategy, order.pair, order.side, event.fill)
            self._recent.append(_fill_row(self._connector, order, event.fill))

    def collect(self, metrics: Metrics) -> None:
        """Bring the gauges up to date."""
        gauges = metrics.gauges
        if self._dirty and self._known:
            self._dirty = False
            gauges["orders"] = self._tally.counts()
            gauges["fills"] = self._takings.fills
            gauges["takings"] = self._takings.table()
            gauges["recent_fills"] = list(self._recent)
        snapshot = self._core.snapshot()
        gauges["open_orders"] = [_order_row(self._connector, order) for order in snapshot.orders]
        gauges["balances"] = msgspec.to_builtins(snapshot.balances)
        gauges.update(self._core.gauges())
        for name, count in self._core.counters.items():
            metrics.counters[name] = count


def _open_of_run(journal: Journal, run_id: str, recovered: RecoveredState) -> Iterator[tuple[str, OrderState, bool]]:
    """The open orders of this run, as the journal has them."""
    of_run = journal.run_open(run_id)
    for stored in recovered.orders:
        if stored.order.client_order_id in of_run:
            yield stored.order.client_order_id, stored.order.state, stored.acknowledged


def _order_row(connector: str, order: Order) -> dict[str, Any]:
    return {"connector": connector, **msgspec.to_builtins(order)}


def _fill_row(connector: str, order: Order, fill: Fill) -> dict[str, Any]:
    return {
        "connector": connector,
        "strategy": order.strategy,
        "pair": order.pair,
        "side": order.side.value,
        "client_order_id": order.client_order_id,
        **msgspec.to_builtins(fill),
    }
