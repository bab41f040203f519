"""The orders that an account has in memory: the open ones, the newest ended ones, and what is not its own."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from engine.messages import Accepted, Fill, Refused, VenueOrderUpdate
from engine.orders.ids import is_own
from engine.orders.order import TrackedOrder
from engine.orders.records import OrderArchive
from engine.orders.watch import Watch

KEPT_ENDED = 1000
"""Ended orders that stay in memory; older ones come back from the archive when something is told of them."""

KEPT_ORPHANS = 1000
"""Venue order ids whose fills are kept until an order is known to have that id."""


class HeldOrders:
    """Finds an order by either id; thaws it from the archive if it ended long ago.

    Foreign orders, those without the engine's id prefix, are kept as the venue told them and never touched.
    """

    def __init__(self, archive: OrderArchive, id_prefix: str, watch: Watch, counters: Counter[str]) -> None:
        self.active: dict[str, TrackedOrder] = {}
        self.foreign: dict[tuple[str, str], VenueOrderUpdate] = {}
        self._archive = archive
        self._prefix = id_prefix
        self._watch = watch
        self._counters = counters
        self._ended: OrderedDict[str, TrackedOrder] = OrderedDict()
        self._by_exchange_id: dict[tuple[str, str], TrackedOrder] = {}
        self._orphans: OrderedDict[tuple[str, str], dict[str, Fill]] = OrderedDict()

    @property
    def ended_count(self) -> int:
        return len(self._ended)

    def hold(self, tracked: TrackedOrder) -> None:
        """Take up an order."""
        if tracked.ended:
            self.retire(tracked)
        else:
            self.active[tracked.id] = tracked
        self.index(tracked)

    def index(self, tracked: TrackedOrder) -> None:
        """Find it by the venue's id from now on."""
        if tracked.order.exchange_order_id:
            self._by_exchange_id[tracked.order.pair, tracked.order.exchange_order_id] = tracked

    def retire(self, tracked: TrackedOrder) -> None:
        """An order has ended. The longest ended one is let go, unless something is still awaited of it."""
        self.active.pop(tracked.id, None)
        self._ended[tracked.id] = tracked
        while len(self._ended) > KEPT_ENDED:
            oldest = next((t for key, t in self._ended.items() if key not in self._watch and t is not tracked), None)
            if oldest is None:
                return
            del self._ended[oldest.id]
            self._by_exchange_id.pop((oldest.order.pair, oldest.order.exchange_order_id), None)

    def open(self, strategy: str | None, pair: str | None) -> list[TrackedOrder]:
        """The orders that have not ended, oldest first."""
        return [
            tracked
            for tracked in self.active.values()
            if strategy in (None, tracked.order.strategy) and pair in (None, tracked.order.pair)
        ]

    def undate(self) -> None:
        """What the dates of evidence say is not true any more."""
        for tracked in (*self.active.values(), *self._ended.values()):
            tracked.dated_ns = tracked.cancel_sent_ns = 0

    def find(self, client_order_id: str, pair: str = "", exchange_order_id: str = "") -> TrackedOrder | None:
        """An own order by its client order id, otherwise by the venue's id."""
        tracked = self.active.get(client_order_id) or self._ended.get(client_order_id)
        if tracked is None and exchange_order_id:
            tracked = self._by_exchange_id.get((pair, exchange_order_id))
        return tracked or self._thaw(client_order_id, pair, exchange_order_id)

    def fate(self, client_order_id: str) -> Accepted | Refused | None:
        """What became of an id; None if it was never seen."""
        tracked = self.active.get(client_order_id) or self._ended.get(client_order_id)
        if tracked is not None:
            return Accepted(client_order_id=client_order_id, state=tracked.order.state)
        return self._archive.fate(client_order_id)

    def _thaw(self, client_order_id: str, pair: str, exchange_order_id: str) -> TrackedOrder | None:
        stored = self._archive.order(client_order_id) if is_own(client_order_id, self._prefix) else None
        if stored is None and exchange_order_id:
            stored = self._archive.order_by_exchange_id(pair, exchange_order_id)
        if stored is None:
            return None
        tracked = TrackedOrder.from_stored(stored)
        self.hold(tracked)
        return tracked

    # ------------------------------------------------------------------------------------------ what has no order

    def keep_orphan(self, pair: str, exchange_order_id: str, fill: Fill) -> None:
        """A fill of a venue's order id that no known order has yet: a foreign order's, or one not acknowledged."""
        self._counters["fills_unattributed"] += 1
        if not exchange_order_id:
            return
        self._orphans.setdefault((pair, exchange_order_id), {})[fill.trade_id] = fill
        while len(self._orphans) > KEPT_ORPHANS:
            self._orphans.popitem(last=False)

    def claim_orphans(self, tracked: TrackedOrder) -> Iterable[Fill]:
        """The fills that came before the order's venue id was known."""
        return self._orphans.pop((tracked.order.pair, tracked.order.exchange_order_id), {}).values()

    def note_foreign(self, update: VenueOrderUpdate) -> None:
        """An order that this account's journal does not have."""
        key = (update.pair, update.exchange_order_id or update.client_order_id)
        if update.state.is_final:
            self.foreign.pop(key, None)
            return
        if key not in self.foreign:
            own = is_own(update.client_order_id, self._prefix)
            self._counters["own_orders_unknown" if own else "foreign_orders"] += 1
        self.foreign[key] = update

    def keep_foreign(self, listed: Iterable[VenueOrderUpdate], pairs: frozenset[str] | None) -> None:
        """Forget the foreign orders (of these pairs) that are not listed as open."""
        keys = {(update.pair, update.exchange_order_id or update.client_order_id) for update in listed}
        for key in list(self.foreign):
            if key not in keys and (pairs is None or key[0] in pairs):
                del self.foreign[key]
