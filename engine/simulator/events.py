"""What a venue tells the world and its clients: the events that come out of :class:`~engine.simulator.venue.Venue`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from engine.simulator.matching import DepthChange
from engine.simulator.orders import Fill, Order


class OrderEventKind(StrEnum):
    NEW = "NEW"
    TRADE = "TRADE"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    TRADE_PREVENTION = "TRADE_PREVENTION"


@dataclass(slots=True, frozen=True)
class BestQuote:
    """The best bid and ask, as (price, size), at ``update_id``; (0, 0) where a side is empty."""

    pair: str
    update_id: int
    bid: tuple[int, int]
    ask: tuple[int, int]


@dataclass(slots=True, frozen=True)
class Depth:
    """The levels that changed within a window."""

    pair: str
    change: DepthChange
    time_ns: int


@dataclass(slots=True, frozen=True)
class Trade:
    trade_id: int
    pair: str
    price: int
    size: int
    buyer_is_maker: bool
    time_ns: int


@dataclass(slots=True, frozen=True)
class AggregateTrade:
    """The trades ``first``..``last`` of one incoming order at one price."""

    aggregate_id: int
    pair: str
    price: int
    size: int
    first: int
    last: int
    buyer_is_maker: bool
    time_ns: int


@dataclass(slots=True, frozen=True)
class OrderEvent:
    """Something happened to a client's order; ``order`` is a copy as of that moment.

    ``cancel_id`` is the client's id of the cancel request; ``fill`` is there for a TRADE.
    """

    kind: OrderEventKind
    order: Order
    execution_id: int
    time_ns: int
    on_book: bool
    fill: Fill | None = None
    cancel_id: str = ""


@dataclass(slots=True, frozen=True)
class BalanceEvent:
    """The balances that an order event may have changed: asset → (free, locked)."""

    account: str
    balances: dict[str, tuple[int, int]]
    time_ns: int


Event = BestQuote | Depth | Trade | AggregateTrade | OrderEvent | BalanceEvent
MarketEvent = BestQuote | Depth | Trade | AggregateTrade
UserEvent = OrderEvent | BalanceEvent
