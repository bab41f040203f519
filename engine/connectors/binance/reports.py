"""What Binance says of orders, fills and balances, by REST and by its private stream, in the engine's words.

Sources: "Trading endpoints", "Account endpoints" and "User Data Streams" of the Spot API documentation
(2026).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal

import msgspec

from engine.connectors.base import VenueFill
from engine.connectors.binance.errors import reject_reason
from engine.connectors.decoding import Millis, require_amounts
from engine.connectors.errors import MalformedReply
from engine.connectors.symbols import SymbolMap
from engine.messages import Balance, Fill, OrderState, OrderType, Reason, Side, VenueOrderUpdate

MS = 1_000_000
_NOTHING = Decimal(0)
_EXACT = Context(prec=100)
"""Wide enough for the sum of any two amounts of 40 digits each way."""

_STATES = {
    "NEW": OrderState.OPEN,
    "PENDING_NEW": OrderState.OPEN,
    "PARTIALLY_FILLED": OrderState.PARTIALLY_FILLED,
    "FILLED": OrderState.FILLED,
    "CANCELED": OrderState.CANCELLED,
    "PENDING_CANCEL": OrderState.PENDING_CANCEL,
    "REJECTED": OrderState.FAILED,
    "EXPIRED": OrderState.EXPIRED,
    "EXPIRED_IN_MATCH": OrderState.EXPIRED,
}
_TYPES = {
    "LIMIT": OrderType.LIMIT,
    "LIMIT_MAKER": OrderType.LIMIT_MAKER,
    "MARKET": OrderType.MARKET,
    "STOP_LOSS": OrderType.MARKET,
    "STOP_LOSS_LIMIT": OrderType.LIMIT,
    "TAKE_PROFIT": OrderType.MARKET,
    "TAKE_PROFIT_LIMIT": OrderType.LIMIT,
}
_SIDES = {"BUY": Side.BUY, "SELL": Side.SELL}


class ImmediateFill(msgspec.Struct, rename="camel"):
    """One entry of a placed order's ``fills``."""

    price: Decimal
    qty: Decimal
    commission: Decimal
    commission_asset: str | None
    trade_id: int

    def __post_init__(self) -> None:
        require_amounts(self.price, self.qty, self.commission)


class OrderReport(msgspec.Struct, rename="camel"):
    """An order in a REST reply: placed, cancelled, queried or listed."""

    symbol: str
    order_id: int
    client_order_id: str
    price: Decimal
    orig_qty: Decimal
    executed_qty: Decimal
    status: str
    type: str
    side: str
    orig_client_order_id: str = ""
    transact_time: Millis = 0
    update_time: Millis = 0
    time: Millis = 0
    fills: list[ImmediateFill] = []

    def __post_init__(self) -> None:
        require_amounts(self.price, self.orig_qty, self.executed_qty)


class OrderListReport(msgspec.Struct, rename="camel"):
    """An order list in the reply to a cancel of all, by the reports of its orders; none for a single
    order.
    """

    order_reports: list[OrderReport] = []


class TradeReport(msgspec.Struct, rename="camel"):
    """An entry of ``myTrades``."""

    symbol: str
    id: int
    order_id: int
    price: Decimal
    qty: Decimal
    commission: Decimal
    commission_asset: str | None
    time: Millis
    is_buyer: bool
    is_maker: bool

    def __post_init__(self) -> None:
        require_amounts(self.price, self.qty, self.commission)


class AssetReport(msgspec.Struct):
    asset: str
    free: Decimal
    locked: Decimal

    def __post_init__(self) -> None:
        require_amounts(self.free, self.locked)


class AccountReport(msgspec.Struct, rename="camel"):
    balances: list[AssetReport]


class ExecutionReport(msgspec.Struct):
    """The private stream's ``executionReport``, of whose fields only these are used."""

    E: Millis
    s: str
    c: str
    S: str
    o: str
    q: Decimal
    p: Decimal
    x: str
    X: str
    i: int
    l: Decimal  # noqa: E741 - the venue's name
    z: Decimal
    L: Decimal
    T: Millis = 0
    t: int = -1
    C: str = ""
    r: str = "NONE"
    n: Decimal | None = None
    N: str | None = None
    m: bool = False

    def __post_init__(self) -> None:
        require_amounts(self.q, self.p, self.l, self.z, self.L, self.n or _NOTHING)


class _StreamAsset(msgspec.Struct):
    a: str
    f: Decimal
    l: Decimal  # noqa: E741 - the venue's name

    def __post_init__(self) -> None:
        require_amounts(self.f, self.l)


class AccountPosition(msgspec.Struct):
    """The private stream's ``outboundAccountPosition``."""

    E: Millis
    B: list[_StreamAsset]
    u: Millis = 0


def order_update(report: OrderReport, symbols: SymbolMap, *, client_order_id: str = "") -> VenueOrderUpdate:
    """An order of a REST reply. ``client_order_id``: the one that was asked about, where the reply may
    differ.
    """
    kind = _order_type(report.type)
    return VenueOrderUpdate(
        client_order_id=client_order_id or report.orig_client_order_id or report.client_order_id,
        exchange_order_id=str(report.order_id),
        pair=symbols.pair(report.symbol) or report.symbol,
        side=_side(report.side),
        order_type=kind,
        size=report.orig_qty,
        price=_price(kind, report.price),
        state=order_state(report.status),
        filled=report.executed_qty,
        venue_time_ns=(report.update_time or report.transact_time or report.time) * MS,
        reason=Reason.VENUE_REFUSED if report.status == "REJECTED" else Reason.NONE,
        detail=_detail(report.status, report.type),
    )


def immediate_fills(report: OrderReport, pair: str) -> tuple[Fill, ...]:
    """What a new order took at once. All of it as taker, at the time of the transaction."""
    return tuple(
        Fill(
            trade_id=str(fill.trade_id),
            price=fill.price,
            size=fill.qty,
            fee=fill.commission,
            fee_asset=_fee_asset(fill.commission_asset, fill.commission, pair),
            is_maker=False,
            time_ns=report.transact_time * MS,
        )
        for fill in report.fills
    )


def venue_fill(trade: TradeReport, pair: str) -> VenueFill:
    """An entry of ``myTrades``."""
    return VenueFill(
        pair=pair,
        side=Side.BUY if trade.is_buyer else Side.SELL,
        exchange_order_id=str(trade.order_id),
        fill=Fill(
            trade_id=str(trade.id),
            price=trade.price,
            size=trade.qty,
            fee=trade.commission,
            fee_asset=_fee_asset(trade.commission_asset, trade.commission, pair),
            is_maker=trade.is_maker,
            time_ns=trade.time * MS,
        ),
    )


def stream_update(report: ExecutionReport, symbols: SymbolMap) -> VenueOrderUpdate:
    """An ``executionReport``. When an order is cancelled, ``C`` is its client order id and ``c`` the
    cancel's.
    """
    kind = _order_type(report.o)
    at_ns = (report.T or report.E) * MS
    pair = symbols.pair(report.s) or report.s
    return VenueOrderUpdate(
        client_order_id=report.C or report.c,
        exchange_order_id=str(report.i),
        pair=pair,
        side=_side(report.S),
        order_type=kind,
        size=report.q,
        price=_price(kind, report.p),
        state=order_state(report.X),
        filled=report.z,
        venue_time_ns=at_ns,
        fill=_stream_fill(report, pair, at_ns) if report.x == "TRADE" else None,
        reason=reject_reason(report.r) if report.X == "REJECTED" else Reason.NONE,
        detail=report.r if report.X == "REJECTED" else _detail(report.X, report.o),
    )


def balances(assets: Iterable[tuple[str, Decimal, Decimal]]) -> dict[str, Balance]:
    """Balances by asset, of (asset, free, locked)."""
    return {asset: Balance(total=_EXACT.add(free, locked), available=free) for asset, free, locked in assets}


def order_state(status: str) -> OrderState:
    """The state of a status; MalformedReply for one that is not documented, rather than a guess."""
    state = _STATES.get(status)
    if state is None:
        raise MalformedReply(f"unknown order status {status!r}")
    return state


def _stream_fill(report: ExecutionReport, pair: str, at_ns: int) -> Fill:
    return Fill(
        trade_id=str(report.t),
        price=report.L,
        size=report.l,
        fee=report.n or _NOTHING,
        fee_asset=_fee_asset(report.N, report.n, pair),
        is_maker=report.m,
        time_ns=at_ns,
    )


def _fee_asset(named: str | None, commission: Decimal | None, pair: str) -> str:
    """Of a commission of nothing it does not matter which, and the venue may name none: that it is nothing is told, and
    must not be taken for a commission that is not. "" for such a one.
    """
    if named or commission is None or commission:
        return named or ""
    return pair.partition("-")[2]


def _order_type(name: str) -> OrderType:
    kind = _TYPES.get(name)
    if kind is None:
        raise MalformedReply(f"unknown order type {name!r}")
    return kind


def _side(name: str) -> Side:
    side = _SIDES.get(name)
    if side is None:
        raise MalformedReply(f"unknown side {name!r}")
    return side


def _price(kind: OrderType, price: Decimal) -> Decimal | None:
    return None if kind is OrderType.MARKET else price


def _detail(status: str, kind: str) -> str:
    """What the engine's own words lose."""
    lost = [word for word in (status, kind) if word in ("EXPIRED_IN_MATCH", "PENDING_NEW")]
    if kind.startswith(("STOP", "TAKE")):
        lost.append(kind)
    return " ".join(lost)
