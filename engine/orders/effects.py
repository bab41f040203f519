"""What an account's core asks its shell to do.

The shell carries out a list from first to last. A :class:`JournalWrite` is committed before anything after it is done,
and before the core is given its next input; if it fails, the process must end and recover, since the core has moved on.
"""

from __future__ import annotations

import msgspec

from engine.messages import BalanceEvent, Order, OrderEvent
from engine.orders.records import Write


class JournalWrite(msgspec.Struct, frozen=True):
    """Commit these in one transaction."""

    writes: tuple[Write, ...]


class Publish(msgspec.Struct, frozen=True):
    """Put this event on the account's ``orders`` stream under its number."""

    event: OrderEvent


class PublishBalance(msgspec.Struct, frozen=True):
    """Put this event on the account's ``balances`` stream."""

    event: BalanceEvent


class Send(msgspec.Struct, frozen=True):
    """Send this order, once. If it is not signed by ``send_by_ns`` it must be given up as not sent."""

    order: Order
    send_by_ns: int


class SendCancel(msgspec.Struct, frozen=True):
    """Ask the venue to cancel this order. May be sent again: a cancel is idempotent."""

    order: Order


class Query(msgspec.Struct, frozen=True):
    """Ask the venue what this order's state is, by its client order id."""

    order: Order


class FetchFills(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the venue for the account's trades of a pair since a time; of one order, where ``order`` names it."""

    pair: str
    since_ns: int
    order: Order | None = None


class FetchOpenOrders(msgspec.Struct, frozen=True):
    """Ask the venue for the account's open orders."""


Effect = JournalWrite | Publish | PublishBalance | Send | SendCancel | Query | FetchFills | FetchOpenOrders
