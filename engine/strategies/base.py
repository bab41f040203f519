"""The strategy interface: subclass :class:`Strategy`, override what you care about.

A strategy runs in a process of its own. Its handlers are plain functions, called one at a time; a slow one delays
nobody else. Prices, sizes and balances are ``Decimal``; pairs are named ``connector/BASE-QUOTE``, as in the
configuration::

    class OneBid(Strategy):
        def on_tick(self, tick):
            pair = self.pairs[0]
            book = self.book(pair)
            if book.fresh and not self.open_orders(pair):
                self.buy(pair, size=self.params["size"], price=book.bid * Decimal("0.999"))
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

import msgspec
import structlog

from engine.book.views import Execution, TopView, Volume
from engine.messages import Balance, Order, OrderEvent, OrderType, Side, Tick, Trade, TradingRule


class BookView(msgspec.Struct, frozen=True, kw_only=True):
    """The best of a book, read from shared memory at the moment of asking.

    ``fresh`` is the one thing to look at before acting: it is false while the book is out of sync, when its actor is
    gone or silent (``status`` says which), and before the first update. Prices and sizes are None on an empty side.
    """

    pair: str
    status: str
    bid: Decimal | None = None
    bid_size: Decimal | None = None
    ask: Decimal | None = None
    ask_size: Decimal | None = None
    update_id: int = 0
    age_ns: int = 0

    @property
    def fresh(self) -> bool:
        """In sync, alive, and both sides quoted."""
        return self.status == "fresh" and self.bid is not None and self.ask is not None

    @property
    def mid(self) -> Decimal | None:
        """Half way between best bid and best ask; None when a side is empty."""
        if self.bid is None or self.ask is None:
            return None
        return (self.bid + self.ask) / 2

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid; None when a side is empty."""
        if self.bid is None or self.ask is None:
            return None
        return self.ask - self.bid


class Desk(Protocol):
    """What the engine does for a strategy. The strategy actor implements it; tests may bring their own."""

    @property
    def now_ns(self) -> int: ...
    def place(self, pair: str, side: Side, size: Decimal, price: Decimal | None, order_type: OrderType) -> str: ...
    def cancel(self, client_order_id: str) -> None: ...
    def book(self, pair: str) -> BookView: ...
    def depth(self, pair: str, levels: int) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]: ...
    def top(self, pair: str, levels: int | None) -> TopView: ...
    def fill(self, pair: str, side: Side, size: Decimal) -> Execution: ...
    def fill_quote(self, pair: str, side: Side, quote: Decimal) -> Execution: ...
    def volume(self, pair: str, side: Side, price: Decimal) -> Volume: ...
    def balance(self, pair: str, asset: str) -> Balance: ...
    def open_orders(self, pair: str | None) -> list[Order]: ...
    def rule(self, pair: str) -> TradingRule | None: ...
    def ready(self, pair: str) -> bool: ...
    def checkpoint(self, state: dict[str, Any]) -> None: ...


class Strategy:
    """Base of all strategies.

    ``state`` is yours to fill with anything that MessagePack can hold; :meth:`checkpoint` saves it together with the
    number of the last order event that went into it, in one transaction. After a crash the strategy starts with the
    saved ``state`` and is given every later event, in order, each once.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        name: str,
        pairs: list[str],
        params: Mapping[str, Any],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.__desk = desk
        self.name = name
        self.pairs = pairs
        self.params = params
        self.log = log
        self.state: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------- yours to override

    def on_load(self) -> None:
        """Once, before anything else: ``params`` and the saved ``state`` are there, events are not yet."""

    def on_start(self) -> None:
        """Once, when the accounts are known and all events since the checkpoint have been delivered."""

    def on_stop(self) -> None:
        """Once, before a polite end. Open orders are cancelled or kept as the configuration says."""

    def on_tick(self, tick: Tick) -> None:
        """The clock's beat; a strategy that was busy is given the newest tick only."""

    def on_book(self, pair: str) -> None:
        """The book of a pair changed; read it with :meth:`book`. Changes while busy are merged into one call."""

    def on_trade(self, trade: Trade) -> None:
        """A public trade on one of your pairs."""

    def on_order(self, event: OrderEvent) -> None:
        """Something happened to one of your orders: created, fill, completed, cancelled, expired, failed, unknown."""

    # ------------------------------------------------------------------------------------------------ yours to call

    def buy(
        self,
        pair: str,
        size: Decimal | str | int,
        price: Decimal | str | int | None = None,
        order_type: OrderType | None = None,
    ) -> str:
        """Send a buy order; returns its client order id at once, what comes of it arrives in :meth:`on_order`.

        Without a price it is a market order, with one a limit order, unless ``order_type`` says otherwise. Price and
        size are floored to the venue's increments.
        """
        return self.__place(pair, Side.BUY, size, price, order_type)

    def sell(
        self,
        pair: str,
        size: Decimal | str | int,
        price: Decimal | str | int | None = None,
        order_type: OrderType | None = None,
    ) -> str:
        """Send a sell order; see :meth:`buy`."""
        return self.__place(pair, Side.SELL, size, price, order_type)

    def cancel(self, client_order_id: str) -> None:
        """Ask for one of your orders to be cancelled; what comes of it arrives in :meth:`on_order`."""
        self.__desk.cancel(client_order_id)

    def book(self, pair: str) -> BookView:
        """The best of the book right now, from shared memory: no message, about a microsecond."""
        return self.__desk.book(pair)

    def depth(self, pair: str, levels: int = 10) -> tuple[list[tuple[Decimal, Decimal]], list[tuple[Decimal, Decimal]]]:
        """The best levels a side, best first, as (price, size); empty unless the book is fresh."""
        return self.__desk.depth(pair, levels)

    def top(self, pair: str, levels: int | None = None) -> TopView:
        """The best levels as numpy arrays of whole numbers, for reckoning; look at its ``status``."""
        return self.__desk.top(pair, levels)

    def fill(self, pair: str, side: Side, size: Decimal | str | int) -> Execution:
        """What a market order of ``size`` would get of the book as it is: size, cost, average and worst price.

        Look at ``fresh`` and ``complete``. BookError where more levels would be needed than are published.
        """
        return self.__desk.fill(pair, side, _exact(size))

    def fill_quote(self, pair: str, side: Side, quote: Decimal | str | int) -> Execution:
        """The same of an order that spends, or is to bring, an amount of the quote asset."""
        return self.__desk.fill_quote(pair, side, _exact(quote))

    def volume(self, pair: str, side: Side, price: Decimal | str | int) -> Volume:
        """What a taker finds at ``price`` or better, in the base and in the quote asset; look at ``fresh``."""
        return self.__desk.volume(pair, side, _exact(price))

    def balance(self, pair: str, asset: str) -> Balance:
        """What the account behind a pair holds of an asset; zeros when the venue named none."""
        return self.__desk.balance(pair, asset)

    def open_orders(self, pair: str | None = None) -> list[Order]:
        """Your own orders that have not ended, oldest first."""
        return self.__desk.open_orders(pair)

    def rule(self, pair: str) -> TradingRule | None:
        """What the venue accepts for the pair; None until the account is known."""
        return self.__desk.rule(pair)

    def ready(self, pair: str) -> bool:
        """Whether the account behind the pair is reachable and takes orders."""
        return self.__desk.ready(pair)

    def checkpoint(self) -> None:
        """Save ``state`` with the number of the last event folded into it, in one transaction."""
        self.__desk.checkpoint(self.state)

    @property
    def now_ns(self) -> int:
        """Time since the epoch in nanoseconds, on the engine's clock (virtual in simulations)."""
        return self.__desk.now_ns

    def __place(
        self,
        pair: str,
        side: Side,
        size: Decimal | str | int,
        price: Decimal | str | int | None,
        order_type: OrderType | None,
    ) -> str:
        if order_type is None:
            order_type = OrderType.MARKET if price is None else OrderType.LIMIT
        return self.__desk.place(pair, side, _exact(size), None if price is None else _exact(price), order_type)


def _exact(number: Decimal | str | int) -> Decimal:
    if isinstance(number, float):
        raise TypeError(f"prices and sizes are Decimal, str or int, not the float {number!r}")
    try:
        return Decimal(number)
    except InvalidOperation:
        raise ValueError(f"{number!r} is no number: a price or a size is a Decimal, a str or an int") from None
