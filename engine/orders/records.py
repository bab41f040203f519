"""What an account's core writes to its journal, and what it gets back from it."""

from __future__ import annotations

from typing import Protocol

import msgspec

from engine.messages import Accepted, Order, OrderEvent, OrderFill, Refused


class WriteIntent(msgspec.Struct, frozen=True, kw_only=True, tag="intent"):
    """A new order, before it is sent. ``send_by_ns``: the last instant at which its request may be signed."""

    order: Order
    send_by_ns: int


class WriteOrder(msgspec.Struct, frozen=True, kw_only=True, tag="order"):
    """An order's present state."""

    order: Order
    send_by_ns: int
    acknowledged: bool
    cancel_requested: bool


class WriteFill(msgspec.Struct, frozen=True, kw_only=True, tag="fill"):
    """A fill, once per (pair, trade id, order): a trade of the account with itself is one fill of each order."""

    fill: OrderFill


class WriteEvent(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """A numbered event of the account's stream."""

    event: OrderEvent


class WriteRefusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """A refused command, so that its client order id is never taken later."""

    refused: Refused
    strategy: str
    time_ns: int


Write = WriteIntent | WriteOrder | WriteFill | WriteEvent | WriteRefusal
"""What one commit is made of; encoded as MessagePack in a front log."""


class StoredOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the journal has it. ``trade_ids``: of the fills already known."""

    order: Order
    send_by_ns: int
    acknowledged: bool
    cancel_requested: bool
    trade_ids: frozenset[str] = frozenset()


class RecoveredState(msgspec.Struct, frozen=True, kw_only=True):
    """Where an account stood when its journal was last written.

    ``incarnation``: of the event stream, the same for the journal's whole life. ``orders``: those not ended.
    ``last_trade_ns``: the time of each pair's newest known fill.
    """

    incarnation: int
    last_number: int
    orders: list[StoredOrder]
    last_trade_ns: dict[str, int]


class OrderArchive(Protocol):
    """Orders that are no longer in memory. The journal is one."""

    def fate(self, client_order_id: str) -> Accepted | Refused | None:
        """What became of this id; None if it was never seen."""

    def order(self, client_order_id: str) -> StoredOrder | None:
        """The order with this client order id."""

    def order_by_exchange_id(self, pair: str, exchange_order_id: str) -> StoredOrder | None:
        """The order with this venue's id."""
