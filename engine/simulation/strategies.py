"""The strategies of a simulated engine: busy, of mixed habits, and keeping count of every event."""

from __future__ import annotations

import random
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from engine.messages import Order, OrderEvent, OrderEventKind, OrderType, Side, Tick
from engine.strategies.base import BookView, Strategy

BASIS_POINT = Decimal("0.0001")
LARGE = 40
NUMBERED_ENDS = frozenset(
    {OrderEventKind.COMPLETED, OrderEventKind.CANCELLED, OrderEventKind.EXPIRED, OrderEventKind.FAILED}
)


def empty_state() -> dict[str, Any]:
    """A state into which no event was folded."""
    return {"events": 0, "fills": 0, "ended": 0, "repeated": 0, "last": {}, "position": {}, "cash": {}}


def fold(state: dict[str, Any], event: OrderEvent) -> None:
    """Fold one of an account's numbered events into a strategy's state."""
    last = state["last"].get(event.connector, 0)
    state["repeated"] += event.number <= last
    state["last"][event.connector] = event.number
    state["events"] += 1
    state["ended"] += event.kind in NUMBERED_ENDS
    if event.kind is OrderEventKind.FILL and event.fill is not None:
        pair = f"{event.connector}/{event.order.pair}"
        signed = event.fill.size if event.order.side is Side.BUY else -event.fill.size
        state["fills"] += 1
        state["position"][pair] = str(Decimal(state["position"].get(pair, "0")) + signed)
        state["cash"][pair] = str(Decimal(state["cash"].get(pair, "0")) - signed * event.fill.price)


def folded(events: Iterable[OrderEvent]) -> dict[str, Any]:
    """The state that these events amount to."""
    state = empty_state()
    for event in events:
        fold(state, event)
    return state


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states are equal, amounts by value."""

    def exact(state: dict[str, Any]) -> dict[str, Any]:
        sums = {key: {pair: Decimal(amount) for pair, amount in state[key].items()} for key in ("position", "cash")}
        return {**state, **sums}

    return exact(one) == exact(other)


class Busy(Strategy):
    """Quotes, takes and cancels at random until ``until_ns``, then cancels what is open and places nothing more.

    Params: ``seed``, ``until_ns``, ``size`` (base, by pair), ``checkpoint_every`` (events; 0: never), ``takes`` (the
    share of actions that take), ``acts`` (how likely it acts on a pair at a tick).
    """

    def on_load(self) -> None:
        self.rng = random.Random(f"{self.params['seed']}/{self.name}/{self.now_ns}")
        self.until_ns = int(self.params["until_ns"])
        self.takes = float(self.params["takes"])
        self.acts = float(self.params["acts"])
        self.checkpoint_every = int(self.params["checkpoint_every"])
        self.unsaved = 0
        self.heard: list[tuple[str, int]] = []
        """Connector and number of every event in this life."""
        for key, value in empty_state().items():
            self.state.setdefault(key, value)

    def on_start(self) -> None:
        if self.checkpoint_every:
            self.checkpoint()

    def on_stop(self) -> None:
        if self.checkpoint_every:
            self.checkpoint()

    def on_order(self, event: OrderEvent) -> None:
        if not event.number:
            return  # refused before it reached the account: no event of the account's
        self.heard.append((event.connector, event.number))
        fold(self.state, event)
        self.unsaved += 1
        if self.checkpoint_every and self.unsaved >= self.checkpoint_every:
            self.unsaved = 0
            self.checkpoint()

    def on_tick(self, tick: Tick) -> None:
        if self.now_ns >= self.until_ns:
            for order in self.open_orders():
                self.cancel(order.client_order_id)
            return
        for pair in self.pairs:
            if self.rng.random() < self.acts:
                self.act(pair)

    def act(self, pair: str) -> None:
        """One thing to do on a pair."""
        book = self.book(pair)
        if not book.fresh or not self.ready(pair):
            return
        resting = self.open_orders(pair)
        if len(resting) >= 3 or (resting and self.rng.random() < 0.35):
            self.cancel(self.rng.choice(resting).client_order_id)
        if len(resting) < 4:
            self.place(pair, book, resting)

    def place(self, pair: str, book: BookView, resting: list[Order]) -> None:
        """An order of some kind; not all of them can be taken by the venue, and that is as it should be."""
        assert book.bid is not None
        assert book.ask is not None
        base, quote = pair.partition("/")[2].split("-")
        side = self.rng.choice((Side.BUY, Side.SELL))
        size = Decimal(self.params["size"][pair]) * self.rng.randint(1, 4)
        price = book.ask if side is Side.BUY else book.bid
        if self.balance(pair, quote if side is Side.BUY else base).available < size * (
            price if side is Side.BUY else 1
        ):
            return
        place = self.buy if side is Side.BUY else self.sell
        draw = self.rng.random()
        if draw < self.takes / 3:
            place(pair, size)
        elif draw < self.takes:
            slack = 1 + 5 * BASIS_POINT if side is Side.BUY else 1 - 5 * BASIS_POINT
            place(pair, size, price * slack, OrderType.LIMIT)
        else:
            away = self.rng.randint(0, 4) * BASIS_POINT / 4
            near = book.bid if side is Side.BUY else book.ask
            kind = OrderType.LIMIT_MAKER if self.rng.random() < 0.7 else OrderType.LIMIT
            if self.rng.random() < 0.3:
                size *= LARGE  # so that it is filled in parts
            place(pair, size, near * (1 - away if side is Side.BUY else 1 + away), kind)
