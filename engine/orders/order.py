"""An order in memory, and the table of how its state may move."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto

import msgspec

from engine.messages import Fill, Order, OrderEventKind, OrderState, Reason
from engine.orders.records import StoredOrder
from engine.orders.rules import EXACT


class Signal(Enum):
    """What moves an order."""

    LOST = auto()
    """Nothing is known of its request any more."""
    ACKNOWLEDGED = auto()
    FILL = auto()
    CANCEL_SENT = auto()
    CANCEL_REFUSED = auto()
    FILLED = auto()
    CANCELLED = auto()
    EXPIRED = auto()
    FAILED = auto()


_ENDS = {
    Signal.FILLED: OrderState.FILLED,
    Signal.CANCELLED: OrderState.CANCELLED,
    Signal.EXPIRED: OrderState.EXPIRED,
    Signal.FAILED: OrderState.FAILED,
}

TRANSITIONS: dict[OrderState, dict[Signal, OrderState]] = {
    OrderState.PENDING_CREATE: {
        Signal.LOST: OrderState.UNKNOWN,
        Signal.ACKNOWLEDGED: OrderState.OPEN,
        Signal.FILL: OrderState.PARTIALLY_FILLED,
        **_ENDS,
    },
    OrderState.UNKNOWN: {
        Signal.ACKNOWLEDGED: OrderState.OPEN,
        Signal.FILL: OrderState.PARTIALLY_FILLED,
        **_ENDS,
    },
    OrderState.OPEN: {
        Signal.FILL: OrderState.PARTIALLY_FILLED,
        Signal.CANCEL_SENT: OrderState.PENDING_CANCEL,
        **_ENDS,
    },
    OrderState.PARTIALLY_FILLED: {Signal.CANCEL_SENT: OrderState.PENDING_CANCEL, **_ENDS},
    OrderState.PENDING_CANCEL: {Signal.CANCEL_REFUSED: OrderState.OPEN, **_ENDS},
    OrderState.FILLED: {},
    OrderState.CANCELLED: {},
    OrderState.EXPIRED: {},
    OrderState.FAILED: {},
}
"""What is not listed changes nothing; an ended order never moves again."""

END_SIGNAL = {state: signal for signal, state in _ENDS.items()}
END_EVENT = {
    OrderState.FILLED: OrderEventKind.COMPLETED,
    OrderState.CANCELLED: OrderEventKind.CANCELLED,
    OrderState.EXPIRED: OrderEventKind.EXPIRED,
    OrderState.FAILED: OrderEventKind.FAILED,
}


class Need(Enum):
    """What an order is watched for."""

    ANSWER = auto()
    """Its request is under way."""
    FATE = auto()
    """Its request's fate is unknown."""
    CANCEL = auto()
    """Its cancel has not been confirmed."""
    FILLS = auto()
    """The venue has told of more filled size than of fills."""
    REMOVAL = auto()
    """It was told as failed, but lives at the venue."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the venue says the order ended, kept until the fills that belong to it are here."""

    state: OrderState
    reason: Reason
    detail: str


@dataclass(slots=True, eq=False)
class TrackedOrder:
    """One order with what the engine must remember of it.

    ``dated_ns``: of the newest evidence. ``signed_ns``: when its request was signed, 0 while unknown. ``venue_filled``:
    the most that the venue said was filled. ``removal``: it was told as failed but lives at the venue.
    """

    order: Order
    send_by_ns: int
    acknowledged: bool = False
    cancel_requested: bool = False
    trade_ids: set[str] = field(default_factory=set)
    dated_ns: int = 0
    signed_ns: int = 0
    venue_filled: Decimal = Decimal(0)
    ending: Ending | None = None
    cancel_sent_ns: int = 0
    removal: bool = False
    need: Need | None = None
    attempts: int = 0

    @classmethod
    def from_stored(cls, stored: StoredOrder) -> TrackedOrder:
        """The order as the journal has it."""
        return cls(
            order=stored.order,
            send_by_ns=stored.send_by_ns,
            acknowledged=stored.acknowledged,
            cancel_requested=stored.cancel_requested,
            trade_ids=set(stored.trade_ids),
            venue_filled=stored.order.filled,
        )

    @property
    def id(self) -> str:
        return self.order.client_order_id

    @property
    def ended(self) -> bool:
        return self.order.state.is_final

    @property
    def lacks_fills(self) -> bool:
        return self.venue_filled > self.order.filled

    def last_acceptance_ns(self, horizon_ns: int) -> int:
        """The last instant at which the venue could still have accepted its request."""
        return (self.signed_ns or self.send_by_ns) + horizon_ns

    def present_need(self) -> Need | None:
        """What it has to be watched for now."""
        state = self.order.state
        if state is OrderState.PENDING_CREATE:
            return Need.ANSWER
        if state is OrderState.UNKNOWN:
            return Need.FATE
        if self.removal:
            return Need.REMOVAL
        if self.lacks_fills:
            return Need.FILLS
        if state is OrderState.PENDING_CANCEL or (self.cancel_requested and not self.ended):
            return Need.CANCEL
        return None

    def move(self, signal: Signal, now_ns: int, reason: Reason = Reason.NONE, detail: str = "") -> bool:
        """Move by the table; False if the signal changes nothing."""
        after = TRANSITIONS[self.order.state].get(signal)
        if after is None:
            return False
        if signal is Signal.CANCEL_REFUSED and self.order.filled:
            after = OrderState.PARTIALLY_FILLED
        self.order = msgspec.structs.replace(self.order, state=after, reason=reason, detail=detail, updated_ns=now_ns)
        return True

    def set_exchange_order_id(self, exchange_order_id: str) -> None:
        """The id that the venue gave it."""
        self.order = msgspec.structs.replace(self.order, exchange_order_id=exchange_order_id)

    def add_fill(self, fill: Fill, now_ns: int) -> bool:
        """Count a fill once; False if it is known."""
        if fill.trade_id in self.trade_ids:
            return False
        self.trade_ids.add(fill.trade_id)
        self.order = msgspec.structs.replace(
            self.order,
            filled=EXACT.add(self.order.filled, fill.size),
            cost=EXACT.fma(fill.price, fill.size, self.order.cost),
            updated_ns=now_ns,
        )
        return True
