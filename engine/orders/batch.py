"""Gathers what one input to an account's core brings about, in the order in which it must be done."""

from __future__ import annotations

from engine.messages import Fill, OrderEvent, OrderEventKind, OrderFill, Refused
from engine.orders.effects import Effect, JournalWrite, Publish
from engine.orders.order import TrackedOrder
from engine.orders.records import Write, WriteEvent, WriteFill, WriteIntent, WriteOrder, WriteRefusal


class EventNumbers:
    """The numbers of an account's events, without a hole."""

    def __init__(self, last: int) -> None:
        self.last = last

    def next(self) -> int:
        self.last += 1
        return self.last


class Batch:
    """One input's writes, events and actions."""

    def __init__(self, connector: str, account: str, numbers: EventNumbers, now_ns: int) -> None:
        self.now_ns = now_ns
        self._connector = connector
        self._account = account
        self._numbers = numbers
        self._first: list[Write] = []
        self._then: list[Write] = []
        self._changed: dict[str, TrackedOrder] = {}
        self._published: list[Effect] = []
        self.fills: list[OrderFill] = []
        self._actions: list[Effect] = []

    def intent(self, tracked: TrackedOrder) -> None:
        """A new order."""
        self._first.append(WriteIntent(order=tracked.order, send_by_ns=tracked.send_by_ns))

    def refusal(self, refused: Refused, strategy: str) -> None:
        """A refused command."""
        self._first.append(WriteRefusal(refused=refused, strategy=strategy, time_ns=self.now_ns))

    def changed(self, tracked: TrackedOrder) -> None:
        """The order's row is to be written as it stands at the end of the input."""
        self._changed[tracked.id] = tracked

    def fill(self, tracked: TrackedOrder, fill: Fill) -> None:
        """A new fill, and its event."""
        order = tracked.order
        of = OrderFill(
            client_order_id=order.client_order_id,
            strategy=order.strategy,
            pair=order.pair,
            side=order.side,
            fill=fill,
        )
        self.fills.append(of)
        self._then.append(WriteFill(fill=of))
        self.event(tracked, OrderEventKind.FILL, fill)

    def event(self, tracked: TrackedOrder, kind: OrderEventKind, fill: Fill | None = None) -> None:
        """A numbered event with the order as it stands now."""
        event = OrderEvent(
            number=self._numbers.next(),
            connector=self._connector,
            account=self._account,
            kind=kind,
            order=tracked.order,
            fill=fill,
            time_ns=self.now_ns,
        )
        self.changed(tracked)
        self._then.append(WriteEvent(event=event))
        self._published.append(Publish(event))

    def action(self, effect: Effect) -> None:
        """Something to do after the writes are committed."""
        self._actions.append(effect)

    def effects(self) -> list[Effect]:
        """The transaction, then the events, then the actions."""
        rows = [
            WriteOrder(
                order=tracked.order,
                send_by_ns=tracked.send_by_ns,
                acknowledged=tracked.acknowledged,
                cancel_requested=tracked.cancel_requested,
            )
            for tracked in self._changed.values()
        ]
        writes = (*self._first, *rows, *self._then)
        return [*([JournalWrite(writes)] if writes else []), *self._published, *self._actions]
