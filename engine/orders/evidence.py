"""What evidence does to one order: acknowledgements, fills, ends, and the loss of its trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from engine.messages import FeeSchema, Fill, OrderEventKind, OrderState, Reason
from engine.orders.batch import Batch
from engine.orders.effects import SendCancel
from engine.orders.fees import Mids, with_fee
from engine.orders.order import END_EVENT, END_SIGNAL, Ending, Signal, TrackedOrder
from engine.orders.watch import Timing


class Evidence:
    """Folds evidence into orders. ``last_trade_ns``: of each pair's newest fill, kept up to date here.

    ``fees``: by pair, for fills whose fee the venue does not tell; ``mids`` gives the prices that a fee in an asset of
    its own is counted by.
    """

    def __init__(
        self,
        timing: Timing,
        counters: Counter[str],
        last_trade_ns: dict[str, int],
        fees: Mapping[str, FeeSchema],
        mids: Callable[[], Mids],
    ) -> None:
        self._timing = timing
        self._counters = counters
        self._last_trade_ns = last_trade_ns
        self._fees = fees
        self._mids = mids

    def acknowledge(self, batch: Batch, tracked: TrackedOrder) -> None:
        """The order is known to have reached the venue."""
        if tracked.acknowledged or tracked.ended:
            return
        tracked.acknowledged = True
        tracked.move(Signal.ACKNOWLEDGED, batch.now_ns)
        batch.event(tracked, OrderEventKind.CREATED)

    def take_fill(self, batch: Batch, tracked: TrackedOrder, fill: Fill) -> None:
        """One execution: counted once, in whatever state the order is. One of no size is none."""
        if not (fill.size.is_finite() and fill.size > 0):
            self._counters["fills_without_size"] += 1
            return
        if fill.trade_id in tracked.trade_ids:
            self._counters["fills_repeated"] += 1
            return
        self.acknowledge(batch, tracked)
        if not fill.fee_asset:
            fill = with_fee(fill, tracked.order, self._fees.get(tracked.order.pair), self._mids())
        tracked.add_fill(fill, batch.now_ns)
        tracked.move(Signal.FILL, batch.now_ns)
        pair = tracked.order.pair
        self._last_trade_ns[pair] = max(self._last_trade_ns.get(pair, 0), fill.time_ns)
        batch.fill(tracked, fill)
        if not tracked.ended:
            self._settle(batch, tracked)
            return
        self._counters["fills_after_end"] += 1
        if tracked.order.state is OrderState.FAILED and tracked.order.filled < tracked.order.size:
            self._suspect(tracked)

    def claim_end(self, batch: Batch, tracked: TrackedOrder, ending: Ending) -> None:
        """The venue says that the order ended. True however old it is: no order comes back from its end."""
        tracked.removal = False
        if tracked.ended:
            return
        if ending.state is not OrderState.FAILED:
            self.acknowledge(batch, tracked)
        elif not ending.reason:
            ending = Ending(OrderState.FAILED, Reason.VENUE_REFUSED, ending.detail)
        tracked.ending = tracked.ending or ending
        self._settle(batch, tracked)

    def claim_alive(self, batch: Batch, tracked: TrackedOrder, dated_ns: int) -> None:
        """The venue says that the order is open."""
        stale = dated_ns < tracked.dated_ns
        if tracked.order.state is OrderState.FAILED:
            self._suspect(tracked)
            if not stale:
                self._send_cancel(batch, tracked)
        elif stale or tracked.ended or tracked.ending is not None:
            self._counters["updates_stale"] += 1
        else:
            self.acknowledge(batch, tracked)
            self.press_cancel(batch, tracked)

    def request_cancel(self, batch: Batch, tracked: TrackedOrder) -> None:
        """Cancel the order, now or once it is known to live."""
        if tracked.ended or tracked.ending is not None:
            return
        if not tracked.cancel_requested:
            tracked.cancel_requested = True
            batch.changed(tracked)
        self.press_cancel(batch, tracked)

    def press_cancel(self, batch: Batch, tracked: TrackedOrder) -> None:
        """Send the cancel that was requested, if the order is known to live."""
        alive = tracked.acknowledged and not tracked.ended and tracked.ending is None
        if alive and tracked.cancel_requested:
            self._send_cancel(batch, tracked)

    def end(self, batch: Batch, tracked: TrackedOrder, ending: Ending) -> None:
        """The order ends here."""
        tracked.ending = ending
        if tracked.move(END_SIGNAL[ending.state], batch.now_ns, ending.reason, ending.detail):
            batch.event(tracked, END_EVENT[ending.state])

    def lose(self, batch: Batch, tracked: TrackedOrder, detail: str) -> None:
        """Whether the venue has the order is not known any more."""
        if tracked.move(Signal.LOST, batch.now_ns, detail=detail):
            batch.event(tracked, OrderEventKind.UNKNOWN)

    def _settle(self, batch: Batch, tracked: TrackedOrder) -> None:
        """End the order once its fills are complete."""
        if tracked.order.filled >= tracked.order.size:
            self.end(batch, tracked, Ending(OrderState.FILLED, Reason.NONE, ""))
        elif tracked.ending is not None and not tracked.lacks_fills:
            self.end(batch, tracked, tracked.ending)

    def _send_cancel(self, batch: Batch, tracked: TrackedOrder) -> None:
        """Unless one is under way."""
        if batch.now_ns - tracked.cancel_sent_ns < self._timing.cancel_within:
            return
        tracked.cancel_sent_ns = batch.now_ns
        if tracked.move(Signal.CANCEL_SENT, batch.now_ns):
            batch.changed(tracked)
        batch.action(SendCancel(tracked.order))

    def _suspect(self, tracked: TrackedOrder) -> None:
        """An order that was told as failed seems to live: it is to be asked about and removed."""
        if not tracked.removal:
            self._counters["orders_revived"] += 1
            tracked.removal = True
