"""What an order is at the venue, and what may become of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

OTHERS = ""
"""The account name of the market's other traders; client accounts have non-empty names."""


class OrderType(StrEnum):
    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class SelfTrade(StrEnum):
    """What happens when an order meets one of its own account; the mode of the incoming order decides."""

    NONE = "NONE"
    EXPIRE_TAKER = "EXPIRE_TAKER"
    EXPIRE_MAKER = "EXPIRE_MAKER"
    EXPIRE_BOTH = "EXPIRE_BOTH"


class Status(StrEnum):
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"

    @property
    def is_open(self) -> bool:
        return self is Status.NEW or self is Status.PARTIALLY_FILLED


@dataclass(slots=True, eq=False)
class Order:
    """An order. Prices and sizes in units of 10^-8; a MARKET order by quote has ``quantity`` 0 until it is planned."""

    pair: str
    account: str
    is_buy: bool
    price: int
    quantity: int
    type: OrderType = OrderType.LIMIT
    time_in_force: TimeInForce = TimeInForce.GTC
    self_trade: SelfTrade = SelfTrade.NONE
    quote_quantity: int = 0
    order_id: int = 0
    client_order_id: str = ""
    status: Status = Status.NEW
    filled: int = 0
    filled_quote: int = 0
    locked: int = 0
    created_ns: int = 0
    updated_ns: int = 0
    prevented_id: int = 0
    rank: int = 0

    @property
    def remaining(self) -> int:
        return self.quantity - self.filled

    @property
    def is_client(self) -> bool:
        return self.account != OTHERS


@dataclass(slots=True, frozen=True)
class NewOrder:
    """A request to place an order, already checked against the pair's rules."""

    pair: str
    is_buy: bool
    type: OrderType
    time_in_force: TimeInForce
    price: int
    quantity: int
    quote_quantity: int
    client_order_id: str
    self_trade: SelfTrade


@dataclass(slots=True, frozen=True)
class Fill:
    """One execution of a client's order, as the ledger keeps it. ``fee`` is in units of 10^-8 of ``fee_asset``."""

    trade_id: int
    pair: str
    account: str
    order_id: int
    client_order_id: str
    is_buy: bool
    is_maker: bool
    price: int
    size: int
    quote: int
    fee: int
    fee_asset: str
    time_ns: int
