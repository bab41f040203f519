"""Any order of losses, repetitions, delays and crashes: what must hold of an account's orders, always.

A truthful venue takes, fills and cancels orders; what it says may be lost, repeated, delayed and reordered; the engine
may die between any two effects. After each step the journal is consistent; once everything has been asked for and
answered, it agrees with the venue.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from engine.messages import CancelOrder, Fill, Order, OrderEvent, OrderEventKind, OrderState, Reason
from engine.orders.account import Failure
from engine.orders.effects import Effect, FetchFills, FetchOpenOrders, Query, Send, SendCancel

FINAL = {
    OrderEventKind.COMPLETED: OrderState.FILLED,
    OrderEventKind.CANCELLED: OrderState.CANCELLED,
    OrderEventKind.EXPIRED: OrderState.EXPIRED,
    OrderEventKind.FAILED: OrderState.FAILED,
}
News = Callable[[], Iterable[Effect]]
pick = st.integers(0, 10_000)
outcomes = st.sampled_from(["answered", "on its way", "lost", "refused", "not sent", "late answer"])


@dataclass
class AtVenue:
    """An order as the venue has it."""

    state: OrderState = OrderState.OPEN
    fills: list[Fill] = field(default_factory=list)

    @property
    def filled(self) -> Decimal:
        return sum((fill.size for fill in self.fills), Decimal(0))


class Interleavings(RuleBasedStateMachine):
    make_desk: Callable[[Path], Any]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="interleavings"))
        self.desk = type(self).make_desk(self.folder / "main.db")
        self.venue: dict[str, AtVenue] = {}
        self.arrived: Counter[str] = Counter()
        self.under_way: list[tuple[Send, int]] = []
        self.floating: list[tuple[str, int]] = []
        self.questions: list[tuple[Effect, int]] = []
        self.news: list[News] = []
        self.names = 0
        self.trades = 0
        self.crash_after: int | None = None

    def teardown(self) -> None:
        try:
            self.settle()
        finally:
            self.desk.journal.close()
            shutil.rmtree(self.folder)

    # ------------------------------------------------------------------------------------------------- the shell

    def do(self, effects: Iterable[Effect]) -> None:
        """Carry out effects; if a crash is planned, only the first so many, and then come back."""
        self.desk.clock.advance(1000)
        most, self.crash_after = self.crash_after, None
        effects = list(effects)
        self.desk.do(effects, most)
        self.collect()
        if most is not None:
            self.come_back()

    def come_back(self) -> None:
        """The process died: what it was about to send may have left, unnoticed."""
        now = self.desk.now
        self.floating += [(send.order.client_order_id, now) for send, _ in self.under_way if now <= send.send_by_ns]
        self.under_way.clear()
        self.questions.clear()
        self.desk.crash()
        self.do(self.desk.account.recover(self.desk.now))

    def collect(self) -> None:
        """Requests that the core asked for begin now."""
        desk = self.desk
        self.under_way += [(send, desk.now) for send in desk.sends]
        self.questions += [(SendCancel(order), desk.now) for order in desk.cancels]
        self.questions += [(Query(order), desk.now) for order in desk.queries]
        self.questions += [(effect, desk.now) for effect in (*desk.fetches, *desk.others)]
        for asked in (desk.sends, desk.cancels, desk.queries, desk.fetches, desk.others):
            asked.clear()

    def update(self, name: str, fill: Fill | None = None) -> Any:
        order = self.venue[name]
        state = order.state
        if state is OrderState.OPEN and order.fills:
            state = OrderState.PARTIALLY_FILLED
        return self.desk.update(name, state, str(order.filled), fill)

    def stream(self, name: str, fill: Fill | None = None) -> None:
        """The venue's stream tells of an order: sometime, any number of times."""
        update, at = self.update(name, fill), self.desk.now
        self.news.append(lambda: self.desk.account.venue_update(update, at, self.desk.now))

    # ------------------------------------------------------------------------------------------------- commands

    @rule()
    def place(self) -> None:
        self.names += 1
        self.do(self.desk.account.place(self.desk.command(f"e-{self.names}"), self.desk.now).effects)

    @rule(outcome=outcomes)
    def place_and_send(self, outcome: str) -> None:
        self.place()
        if self.under_way:
            self.send(len(self.under_way) - 1, outcome)

    @precondition(lambda self: self.names)
    @rule(which=pick)
    def repeat_place(self, which: int) -> None:
        self.do(self.desk.account.place(self.desk.command(f"e-{1 + which % self.names}"), self.desk.now).effects)

    @precondition(lambda self: self.names)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        command = CancelOrder(client_order_id=f"e-{1 + which % self.names}")
        self.do(self.desk.account.cancel(command, self.desk.now).effects)

    # ------------------------------------------------------------------------------------------------- requests

    @precondition(lambda self: self.under_way)
    @rule(which=pick, outcome=outcomes)
    def send(self, which: int, outcome: str) -> None:
        desk, (send, _) = self.desk, self.under_way.pop(which % len(self.under_way))
        name = send.order.client_order_id
        if outcome == "not sent" or desk.now > send.send_by_ns:
            self.do(desk.account.place_failed(name, Failure.NOT_SENT, Reason.NONE, "", desk.now))
            return
        signed = desk.now
        self.do(desk.account.sent(name, signed, desk.now))
        if outcome == "refused":
            self.arrived[name] += 1
            self.do(desk.account.place_failed(name, Failure.REFUSED, Reason.WOULD_CROSS, "", desk.now))
        elif outcome in ("on its way", "lost"):
            if outcome == "on its way":
                self.floating.append((name, signed))
            self.do(desk.account.place_failed(name, Failure.UNKNOWN, Reason.NONE, "timeout", desk.now))
        else:
            update = self.accept(name)
            if outcome == "answered":
                self.do(desk.account.placed(update, (), signed, desk.now))
            else:
                self.news.append(lambda: desk.account.placed(update, (), signed, desk.now))

    def accept(self, name: str) -> Any:
        self.arrived[name] += 1
        self.venue[name] = AtVenue()
        self.stream(name)
        return self.update(name)

    @precondition(lambda self: self.floating)
    @rule(which=pick)
    def arrive(self, which: int) -> None:
        name, signed = self.floating.pop(which % len(self.floating))
        if self.desk.now <= signed + self.desk.horizon:
            self.accept(name)

    @precondition(lambda self: self.questions)
    @rule(which=pick, lost=st.booleans(), delayed=st.booleans())
    def answer(self, which: int, lost: bool, delayed: bool) -> None:
        effect, asked = self.questions.pop(which % len(self.questions))
        if lost:
            if isinstance(effect, SendCancel):
                name, now = effect.order.client_order_id, self.desk.now
                self.do(self.desk.account.cancel_failed(name, Failure.UNKNOWN, Reason.NONE, "timeout", now))
            return
        found = self.ask(effect, asked)
        if delayed:
            self.news += found
        else:
            for news in found:
                self.do(news())

    def ask(self, effect: Effect, asked: int) -> list[News]:
        """What the venue answers, as of now."""
        desk = self.desk
        match effect:
            case Query(order):
                return [self.query(order, asked)]
            case SendCancel(order):
                return [self.cancel_at_venue(order, asked)]
            case FetchFills(order=order):
                names = list(self.venue) if order is None else [order.client_order_id]
                return [
                    lambda fill=fill, name=name: desk.account.venue_fill(
                        desk.pair, fill, desk.now, exchange_order_id=f"x{name}"
                    )
                    for name in names
                    if name in self.venue
                    for fill in self.venue[name].fills
                ]
            case FetchOpenOrders():
                updates = [self.update(name) for name, order in self.venue.items() if not order.state.is_final]
                return [lambda: desk.account.open_orders_snapshot(updates, asked, desk.now)]
        raise AssertionError(effect)

    def query(self, order: Order, asked: int) -> News:
        desk, name = self.desk, order.client_order_id
        if name in self.venue:
            update = self.update(name)
            return lambda: desk.account.venue_update(update, asked, desk.now)
        return lambda: desk.account.order_not_found(name, asked, desk.now)

    def cancel_at_venue(self, order: Order, asked: int) -> News:
        desk, name = self.desk, order.client_order_id
        if name not in self.venue or self.venue[name].state.is_final:
            return lambda: desk.account.cancel_failed(name, Failure.NOT_FOUND, Reason.NOT_FOUND, "", desk.now)
        self.venue[name].state = OrderState.CANCELLED
        self.stream(name)
        update = self.update(name)
        return lambda: desk.account.cancel_result(name, update, asked, desk.now)

    # ------------------------------------------------------------------------------------------------ the venue

    def open_at_venue(self) -> list[str]:
        return [name for name, order in self.venue.items() if not order.state.is_final]

    @precondition(lambda self: self.open_at_venue())
    @rule(which=pick, tenths=st.integers(1, 10))
    def trade(self, which: int, tenths: int) -> None:
        names = self.open_at_venue()
        name = names[which % len(names)]
        order = self.venue[name]
        self.trades += 1
        fill = self.desk.fill(f"t{self.trades}", str(min(Decimal(tenths) / 10, 1 - order.filled)))
        order.fills.append(fill)
        if order.filled == 1:
            order.state = OrderState.FILLED
        self.stream(name, fill)

    @precondition(lambda self: self.open_at_venue())
    @rule(which=pick)
    def expire(self, which: int) -> None:
        names = self.open_at_venue()
        name = names[which % len(names)]
        self.venue[name].state = OrderState.EXPIRED
        self.stream(name)

    @precondition(lambda self: self.news)
    @rule(which=pick, keep=st.booleans())
    def deliver(self, which: int, keep: bool) -> None:
        news = self.news[which % len(self.news)]
        if not keep:
            self.news.remove(news)
        self.do(news())

    @precondition(lambda self: self.news)
    @rule(which=pick)
    def lose(self, which: int) -> None:
        self.news.pop(which % len(self.news))

    # ----------------------------------------------------------------------------------------- time and crashes

    @rule(milliseconds=st.sampled_from([1, 1_000, 4_000, 20_000]), answered=st.booleans())
    def wait(self, milliseconds: int, answered: bool) -> None:
        self.desk.wait(milliseconds / 1000)
        self.do(self.desk.account.due(self.desk.now))
        while answered and self.questions:
            self.answer(0, False, False)

    @rule(after=st.integers(0, 3))
    def crash_at_next_effects(self, after: int) -> None:
        self.crash_after = after

    @rule()
    def crash(self) -> None:
        self.come_back()

    # --------------------------------------------------------------------------------------------- what must hold

    def events(self) -> list[OrderEvent]:
        bodies = self.desk.journal.since(0, 100_000)
        assert [number for number, _ in bodies] == list(range(1, len(bodies) + 1))
        return [msgspec.msgpack.decode(body, type=OrderEvent) for _, body in bodies]

    @invariant()
    def nothing_arrives_twice(self) -> None:
        assert all(count == 1 for count in self.arrived.values())

    @invariant()
    def what_was_published_is_in_the_journal(self) -> None:
        kept = dict(self.desk.journal.since(0, 100_000))
        for event in self.desk.published:
            assert kept[event.number] == msgspec.msgpack.encode(event)

    @invariant()
    def events_are_whole_and_orders_never_move_back(self) -> None:
        ended: dict[str, OrderState] = {}
        created: set[str] = set()
        fills: Counter[tuple[str, str]] = Counter()
        for event in self.events():
            name = event.order.client_order_id
            if event.kind is OrderEventKind.CREATED:
                assert name not in created
                created.add(name)
            elif event.kind is OrderEventKind.FILL:
                fills[name, event.fill.trade_id] += 1
            elif event.kind is OrderEventKind.UNKNOWN:
                assert name not in created
            else:
                assert name not in ended
                ended[name] = FINAL[event.kind]
            assert name not in ended or event.order.state is ended[name]
        assert all(count == 1 for count in fills.values())
        for order in self.desk.account.open_orders():
            assert order.client_order_id not in ended
        stored = {(fill.client_order_id, fill.fill.trade_id) for fill in self.desk.journal.fills(limit=100_000)}
        assert stored == set(fills)

    def settle(self) -> None:
        """Let everything be asked and answered; then the journal and the venue agree."""
        self.crash_after = None
        for news in self.news:
            self.do(news())
        while self.under_way:
            self.send(0, "not sent")
        self.come_back()
        for _ in range(200):
            while self.questions:
                for news in self.ask(*self.questions.pop(0)):
                    self.do(news())
            due = self.desk.account.next_due()
            if due is None:
                break
            self.desk.clock.advance_to(max(due, self.desk.now))
            self.do(self.desk.account.due(self.desk.now))
        else:
            raise AssertionError(f"still waiting: {self.desk.account.open_orders()}")
        self.events_are_whole_and_orders_never_move_back()
        self.compare()

    def compare(self) -> None:
        journal = {order.client_order_id: order for order in self.desk.journal.run_orders("run")}
        for name, at_venue in self.venue.items():
            order = journal[name]
            assert order.filled == at_venue.filled
            expected = at_venue.state
            if expected is OrderState.OPEN and at_venue.fills:
                expected = OrderState.PARTIALLY_FILLED
            assert order.state is expected, (name, order, at_venue)
        for name in journal.keys() - self.venue.keys():
            assert journal[name].state is OrderState.FAILED
        assert len(self.desk.journal.fills(limit=100_000)) == sum(len(order.fills) for order in self.venue.values())
        assert self.desk.account.counters["orders_revived"] == 0


@pytest.mark.parametrize(("examples", "steps"), [(80, 40)])
def test_W1_W7_W9_any_interleaving_keeps_orders_fills_and_numbers(
    make_desk: Callable[[Path], Any], examples: int, steps: int
) -> None:
    Interleavings.make_desk = staticmethod(make_desk)
    run_state_machine_as_test(
        Interleavings,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
