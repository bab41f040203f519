"""The venue itself: accounts, books and the other traders as one pure state machine.

Requests and the time go in; changes of the order book, trades and client events come out of :attr:`Venue.outbox`, and
what must be on disk before any of them may be told comes out of :meth:`Venue.take_changes`. No I/O, no clock, no
randomness but the seeded flow's.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine.simulator import events
from engine.simulator.accounts import Account, InsufficientBalance
from engine.simulator.amounts import notional
from engine.simulator.config import Pair
from engine.simulator.history import History
from engine.simulator.market import Action, Flow, Pull, Quote, Take
from engine.simulator.matching import Book, Plan
from engine.simulator.orders import (
    OTHERS,
    Fill,
    NewOrder,
    Order,
    OrderType,
    Status,
    TimeInForce,
)

RESERVE = 1_000_000
"""Ids are reserved on disk in blocks of this many, so that a restarted venue never goes back."""


class OrderRefused(Exception):
    """The venue does not take the order; nothing has changed."""


class DuplicateClientId(OrderRefused):
    """An open order of the account has this client order id."""


class WouldTake(OrderRefused):
    """A LIMIT_MAKER order would match at once."""


class InsufficientFunds(OrderRefused):
    """The account lacks what the order would lock."""


@dataclass(slots=True)
class Counters:
    """The ids of a pair's public feed as far as they are reserved on disk, and its mid."""

    update_id: int
    trade_id: int
    aggregate_id: int
    mid: int


@dataclass(slots=True)
class Saved:
    """What a ledger holds of an earlier life."""

    orders: list[Order] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    counters: dict[str, Counters] = field(default_factory=dict)
    next_order_id: int = 1
    next_execution_id: int = 1
    lives: int = 0


@dataclass(slots=True)
class Changes:
    """What must be committed before anything that was decided on it is told."""

    orders: dict[int, Order] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)
    balances: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    next_execution_id: int = 1

    def __bool__(self) -> bool:
        return bool(self.orders or self.fills or self.balances or self.counters)


@dataclass(slots=True)
class Placed:
    """An accepted order and its immediate fills."""

    order: Order
    fills: list[Fill]


class Market:
    """One pair: its book, its flow, its last ids."""

    def __init__(self, pair: Pair, flow: Flow, counters: Counters) -> None:
        self.pair = pair
        self.flow = flow
        self.book = Book(pair.name, pair.step, counters.update_id)
        self.trade_id = counters.trade_id
        self.aggregate_id = counters.aggregate_id
        self.reserved = counters
        self.history = History()
        self.told: tuple[tuple[int, int], tuple[int, int]] | None = None

    @property
    def reserve_is_low(self) -> bool:
        half = RESERVE // 2
        reserved = self.reserved
        return (
            reserved.update_id - self.book.update_id < half
            or reserved.trade_id - self.trade_id < half
            or reserved.aggregate_id - self.aggregate_id < half
        )

    def renew_reserve(self) -> Counters:
        self.reserved = Counters(
            self.book.update_id + RESERVE, self.trade_id + RESERVE, self.aggregate_id + RESERVE, self.flow.anchor
        )
        return self.reserved


class Venue:
    """A spot venue. Times are nanoseconds since the Unix epoch and must not go back between calls."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        accounts: Sequence[Account],
        *,
        seed: int,
        activity: float,
        depth_interval_ns: int,
        start_ns: int,
        saved: Saved | None = None,
    ) -> None:
        saved = saved or Saved()
        self.accounts = {account.name: account for account in accounts}
        self.orders: dict[int, Order] = {}
        self.by_client_id: dict[tuple[str, str], Order] = {}
        self.pair_orders: dict[tuple[str, str], list[Order]] = defaultdict(list)
        self.pair_fills: dict[tuple[str, str], list[Fill]] = defaultdict(list)
        self.open_orders: dict[str, dict[int, Order]] = {name: {} for name in self.accounts}
        self.outbox: list[events.Event] = []
        self.markets: dict[str, Market] = {}
        self._depth_interval_ns = depth_interval_ns
        self._depth_at_ns = start_ns - start_ns % depth_interval_ns + depth_interval_ns
        self._next_order_id = saved.next_order_id
        self._next_execution_id = saved.next_execution_id
        self._changes = Changes()
        for order in saved.orders:
            self._index(order)
        for fill in saved.fills:
            self.pair_fills[fill.account, fill.pair].append(fill)
        for pair in pairs:
            self._open_market(pair, f"{seed}/{saved.lives}/{pair.name}", activity, start_ns, saved)
        self.outbox.clear()

    def _open_market(self, pair: Pair, seed: str, activity: float, now_ns: int, saved: Saved) -> None:
        counters = saved.counters.get(pair.name) or Counters(1000, 1000, 1000, pair.start_price)
        market = Market(pair, Flow(pair, seed, activity, counters.mid, now_ns), counters)
        self.markets[pair.name] = market
        for order in saved.orders:
            if order.pair == pair.name and order.status.is_open:
                market.book.rest(order)
                self.open_orders[order.account][order.order_id] = order
        self._apply(market, market.flow.populate(), now_ns)
        market.book.cut()
        self._changes.counters[pair.name] = market.renew_reserve()

    # -- requests

    def place(self, account_name: str, new: NewOrder, now_ns: int) -> Placed:
        """Take an order and match it; :class:`OrderRefused` when it cannot be taken."""
        account = self.accounts[account_name]
        market = self.markets[new.pair]
        self._refuse_duplicate(account_name, new.client_order_id)
        if new.type is OrderType.LIMIT_MAKER and market.book.would_take(new.is_buy, new.price):
            raise WouldTake(new.client_order_id)
        order = _order(account_name, new, now_ns)
        plan = market.book.plan(order)
        self._lock(account, market, order, plan)
        if not order.quantity:
            order.quantity = plan.filled
        order.order_id = self._next_order_id
        self._next_order_id += 1
        self._index(order)
        self.open_orders[account_name][order.order_id] = order
        first = len(self._changes.fills)
        self._tell_order(events.OrderEventKind.NEW, order, now_ns)
        self._match(market, order, plan, now_ns)
        self._settle_rest(market, order, plan, now_ns)
        self._tell_best(market)
        return Placed(order, [f for f in self._changes.fills[first:] if f.order_id == order.order_id])

    def check(self, account_name: str, new: NewOrder, now_ns: int) -> None:
        """Refuse what :meth:`place` would refuse for lack of funds or a duplicate id, and change nothing."""
        order = _order(account_name, new, now_ns)
        market = self.markets[new.pair]
        self._refuse_duplicate(account_name, new.client_order_id)
        asset, amount = _cost(market.pair, order, market.book.plan(order))
        if self.accounts[account_name].balance(asset).free < amount:
            raise InsufficientFunds(new.client_order_id)

    def cancel(self, order: Order, cancel_id: str, now_ns: int) -> None:
        """Take an open order off the book."""
        market = self.markets[order.pair]
        market.book.remove(order)
        self._end(market, order, Status.CANCELED, now_ns, cancel_id=cancel_id)
        self._tell_best(market)

    # -- time

    def advance(self, now_ns: int) -> None:
        """Let the other traders act up to now, and cut the depth windows that are over."""
        for market in self.markets.values():
            self._apply(market, market.flow.until(now_ns, market.book), now_ns)
            if market.reserve_is_low:
                self._changes.counters[market.pair.name] = market.renew_reserve()
        if now_ns >= self._depth_at_ns:
            self._depth_at_ns = now_ns - now_ns % self._depth_interval_ns + self._depth_interval_ns
            for market in self.markets.values():
                change = market.book.cut()
                if change is not None:
                    self.outbox.append(events.Depth(market.pair.name, change, now_ns))

    def sweep(self, pair: str, levels: int, now_ns: int) -> None:
        """The other traders take the best ``levels`` of both sides at once."""
        market = self.markets[pair]
        for is_buy in (True, False):
            size = sum(size for _, size in market.book.levels(not is_buy, levels))
            self._apply(market, [Take(is_buy, size, 0)], now_ns)

    def save_prices(self) -> None:
        """Have the next commit keep every mid."""
        for market in self.markets.values():
            self._changes.counters[market.pair.name] = market.renew_reserve()

    def take_changes(self) -> Changes:
        """What has changed since the last call; it must be on disk before the outbox is told."""
        changes = self._changes
        for account in self.accounts.values():
            for asset in account.dirty:
                balance = account.balances[asset]
                changes.balances[account.name, asset] = (balance.free, balance.locked)
            account.dirty.clear()
        changes.next_execution_id = self._next_execution_id
        self._changes = Changes()
        return changes

    # -- the other traders

    def _apply(self, market: Market, actions: Iterable[Action], now_ns: int) -> None:
        for action in actions:
            if isinstance(action, Quote):
                if not market.book.would_take(action.is_buy, action.price):
                    market.book.rest(Order(market.pair.name, OTHERS, action.is_buy, action.price, action.size))
            elif isinstance(action, Take):
                self._take(market, action, now_ns)
            elif isinstance(action, Pull) and action.size:
                market.book.reduce(action.order, action.size)
            else:
                market.book.remove(action.order)
            self._tell_best(market)

    def _take(self, market: Market, take: Take, now_ns: int) -> None:
        order_type = OrderType.LIMIT if take.price else OrderType.MARKET
        order = Order(market.pair.name, OTHERS, take.is_buy, take.price, take.size, order_type)
        self._match(market, order, market.book.plan(order), now_ns)

    # -- matching

    def _refuse_duplicate(self, account: str, client_order_id: str) -> None:
        known = self.by_client_id.get((account, client_order_id))
        if known is not None and known.status.is_open:
            raise DuplicateClientId(client_order_id)

    def _index(self, order: Order) -> None:
        self.orders[order.order_id] = order
        self.by_client_id[order.account, order.client_order_id] = order
        self.pair_orders[order.account, order.pair].append(order)

    def _lock(self, account: Account, market: Market, order: Order, plan: Plan) -> None:
        asset, amount = _cost(market.pair, order, plan)
        try:
            account.lock(asset, amount)
        except InsufficientBalance as error:
            raise InsufficientFunds(order.client_order_id) from error
        order.locked = amount

    def _match(self, market: Market, taker: Order, plan: Plan, now_ns: int) -> None:
        """Carry out a plan. A FOK order that would not fill whole does nothing."""
        if taker.time_in_force is TimeInForce.FOK and plan.filled < taker.quantity:
            return
        for maker in plan.expiring:
            market.book.remove(maker)
            maker.prevented_id = self._execution_id()
            self._end(market, maker, Status.EXPIRED_IN_MATCH, now_ns)
        run: list[events.Trade] = []
        for match in plan.matches:
            maker = match.maker
            market.book.fill(maker, match.size)
            taker.filled += match.size
            market.trade_id += 1
            trade = events.Trade(market.trade_id, market.pair.name, maker.price, match.size, maker.is_buy, now_ns)
            market.history.add(trade)
            self.outbox.append(trade)
            for order in (maker, taker):
                if order.is_client:
                    self._settle(market, order, trade, order is maker)
            if run and run[0].price != trade.price:
                self._aggregate(market, run)
                run = []
            run.append(trade)
        if run:
            self._aggregate(market, run)

    def _aggregate(self, market: Market, run: list[events.Trade]) -> None:
        market.aggregate_id += 1
        first, last = run[0], run[-1]
        size = sum(trade.size for trade in run)
        aggregate = events.AggregateTrade(
            market.aggregate_id,
            first.pair,
            first.price,
            size,
            first.trade_id,
            last.trade_id,
            first.buyer_is_maker,
            first.time_ns,
        )
        market.history.add_aggregate(aggregate)
        self.outbox.append(aggregate)

    def _settle(self, market: Market, order: Order, trade: events.Trade, is_maker: bool) -> None:
        """Move a client's money for one trade and tell it. ``order.filled`` already counts the trade."""
        account, pair = self.accounts[order.account], market.pair
        quote = notional(trade.price, trade.size)
        order.filled_quote += quote
        if order.is_buy:
            account.pay(pair.quote, quote)
            order.locked -= quote
            fee, fee_asset = account.receive(pair.base, trade.size, is_maker), pair.base
        else:
            account.pay(pair.base, trade.size)
            order.locked -= trade.size
            fee, fee_asset = account.receive(pair.quote, quote, is_maker), pair.quote
        self._release(account, pair, order, _still_needed(order))
        done = order.remaining == 0
        order.status = Status.FILLED if done else Status.PARTIALLY_FILLED
        order.updated_ns = trade.time_ns
        fill = Fill(
            trade.trade_id,
            pair.name,
            order.account,
            order.order_id,
            order.client_order_id,
            order.is_buy,
            is_maker,
            trade.price,
            trade.size,
            quote,
            fee,
            fee_asset,
            trade.time_ns,
        )
        self.pair_fills[fill.account, fill.pair].append(fill)
        self._changes.fills.append(fill)
        if done:
            self.open_orders[order.account].pop(order.order_id, None)
        self._tell_order(events.OrderEventKind.TRADE, order, trade.time_ns, fill=fill)

    def _settle_rest(self, market: Market, order: Order, plan: Plan, now_ns: int) -> None:
        """What becomes of an incoming order after matching: filled, on the book, or expired."""
        if order.quantity and not order.remaining:
            return
        if plan.taker_expires:
            order.prevented_id = self._execution_id()
            self._end(market, order, Status.EXPIRED_IN_MATCH, now_ns)
        elif order.type is OrderType.MARKET or order.time_in_force is not TimeInForce.GTC:
            self._end(market, order, Status.EXPIRED, now_ns)
        else:
            market.book.rest(order)

    def _end(self, market: Market, order: Order, status: Status, now_ns: int, cancel_id: str = "") -> None:
        """An order leaves with something unfilled: give back what it held and tell."""
        order.status = status
        order.updated_ns = now_ns
        self._release(self.accounts[order.account], market.pair, order, 0)
        self.open_orders[order.account].pop(order.order_id, None)
        kind = {
            Status.CANCELED: events.OrderEventKind.CANCELED,
            Status.EXPIRED: events.OrderEventKind.EXPIRED,
            Status.EXPIRED_IN_MATCH: events.OrderEventKind.TRADE_PREVENTION,
        }[status]
        self._tell_order(kind, order, now_ns, cancel_id=cancel_id)

    def _release(self, account: Account, pair: Pair, order: Order, keep: int) -> None:
        surplus = order.locked - keep
        if surplus > 0:
            account.release(pair.quote if order.is_buy else pair.base, surplus)
            order.locked = keep

    # -- telling

    def _execution_id(self) -> int:
        self._next_execution_id += 1
        return self._next_execution_id - 1

    def _tell_order(
        self,
        kind: events.OrderEventKind,
        order: Order,
        now_ns: int,
        fill: Fill | None = None,
        cancel_id: str = "",
    ) -> None:
        self._changes.orders[order.order_id] = order
        on_book = order.status.is_open and _may_rest(order)
        self.outbox.append(
            events.OrderEvent(kind, copy.copy(order), self._execution_id(), now_ns, on_book, fill, cancel_id)
        )
        account, pair = self.accounts[order.account], self.markets[order.pair].pair
        balances = {}
        for asset in (pair.base, pair.quote):
            balance = account.balance(asset)
            balances[asset] = (balance.free, balance.locked)
        self.outbox.append(events.BalanceEvent(order.account, balances, now_ns))

    def _tell_best(self, market: Market) -> None:
        best = (market.book.bids.best() or (0, 0), market.book.asks.best() or (0, 0))
        if best != market.told:
            market.told = best
            self.outbox.append(events.BestQuote(market.pair.name, market.book.update_id, *best))


def _order(account: str, new: NewOrder, now_ns: int) -> Order:
    return Order(
        pair=new.pair,
        account=account,
        is_buy=new.is_buy,
        price=new.price,
        quantity=new.quantity,
        type=new.type,
        time_in_force=new.time_in_force,
        self_trade=new.self_trade,
        quote_quantity=new.quote_quantity,
        client_order_id=new.client_order_id,
        created_ns=now_ns,
        updated_ns=now_ns,
    )


def _cost(pair: Pair, order: Order, plan: Plan) -> tuple[str, int]:
    """The asset and amount that an order must lock to be taken."""
    if not order.is_buy:
        return pair.base, order.quantity or plan.filled
    if order.type is not OrderType.MARKET:
        return pair.quote, notional(order.price, order.quantity)
    return pair.quote, order.quote_quantity or plan.quote


def _still_needed(order: Order) -> int:
    """What an order must go on holding for its unfilled part."""
    if not order.is_buy:
        return order.remaining
    if order.type is not OrderType.MARKET:
        return notional(order.price, order.remaining)
    return order.locked if order.remaining else 0


def _may_rest(order: Order) -> bool:
    return order.type is not OrderType.MARKET and order.time_in_force is TimeInForce.GTC
