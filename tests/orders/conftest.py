"""A desk for the tests of an account: its core, its journal, and what the core asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from engine.clock import VirtualClock
from engine.messages import (
    Accepted,
    Balance,
    Fill,
    Order,
    OrderEvent,
    OrderEventKind,
    OrderState,
    OrderType,
    PlaceOrder,
    Refused,
    Side,
    TradingRule,
    VenueOrderUpdate,
)
from engine.orders.account import Account, Decision
from engine.orders.effects import (
    Effect,
    FetchFills,
    FetchOpenOrders,
    JournalWrite,
    Publish,
    Query,
    Send,
    SendCancel,
)
from engine.orders.journal import Journal
from engine.orders.lease import LeaseRow
from engine.orders.postgres import PostgresStore
from engine.orders.records import Write
from engine.orders.replicated import ReplicatedJournal

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
HORIZON = 5 * SECOND
PAIR = "BTC-USDT"
RULE = TradingRule(
    pair=PAIR,
    symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    price_increment=Decimal("0.01"),
    size_increment=Decimal("0.001"),
    min_size=Decimal("0.001"),
    min_notional=Decimal(5),
)


def balance(total: str) -> Balance:
    return Balance(total=Decimal(total), available=Decimal(total))


class Desk:
    """One account on one journal, driven by hand. ``do`` carries out effects as a shell would."""

    second = SECOND
    horizon = HORIZON
    pair = PAIR

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = VirtualClock(START)
        self.sends: list[Send] = []
        self.cancels: list[Order] = []
        self.queries: list[Order] = []
        self.fetches: list[FetchFills] = []
        self.published: list[OrderEvent] = []
        self.others: list[Effect] = []
        self.journal = self.open()
        self.account = self._recover()

    def open(self) -> Journal:
        return Journal(self.path, "binance", "main", self.clock, run_id="run")

    def _recover(self) -> Account:
        return Account("binance", "main", {PAIR: RULE}, "e-", HORIZON, self.journal.recover(), self.journal)

    def close(self) -> None:
        self.journal.close()

    @property
    def now(self) -> int:
        return self.clock.time_ns()

    def wait(self, seconds: float) -> None:
        self.clock.advance(round(seconds * SECOND))

    def do(self, effects: Iterable[Effect], most: int | None = None) -> None:
        """Carry out effects, or only the first of them."""
        for effect in list(effects)[:most]:
            match effect:
                case JournalWrite(writes):
                    self.journal.record(writes)
                case Publish(event):
                    self.published.append(event)
                case Send():
                    self.sends.append(effect)
                case SendCancel(order):
                    self.cancels.append(order)
                case Query(order):
                    self.queries.append(order)
                case FetchFills():
                    self.fetches.append(effect)
                case _:
                    self.others.append(effect)

    def decide(self, decision: Decision) -> Accepted | Refused:
        self.do(decision.effects)
        return decision.answer

    def crash(self) -> None:
        """The process dies and comes back; the first thing that it does is to recover."""
        self.journal.abandon()
        self.journal = self.open()
        self.account = self._recover()

    def restart(self) -> None:
        self.crash()
        self.do(self.account.recover(self.now))

    def place(self, name: str = "e-1", size: str = "1", price: str | None = "100") -> Accepted | Refused:
        return self.decide(self.account.place(self.command(name, size, price), self.now))

    def placed(self, name: str = "e-1") -> None:
        """Place an order that the venue acknowledges."""
        self.place(name)
        self.do(self.account.sent(name, self.now, self.now))
        self.do(self.account.placed(self.update(name, OrderState.OPEN), (), self.now, self.now))

    def command(self, name: str, size: str = "1", price: str | None = "100") -> PlaceOrder:
        return PlaceOrder(
            client_order_id=name,
            strategy="maker",
            pair=PAIR,
            side=Side.BUY,
            order_type=OrderType.MARKET if price is None else OrderType.LIMIT,
            size=Decimal(size),
            price=None if price is None else Decimal(price),
        )

    def update(
        self, name: str, state: OrderState, filled: str = "0", fill: Fill | None = None, exchange_id: str | None = None
    ) -> VenueOrderUpdate:
        return VenueOrderUpdate(
            client_order_id=name,
            exchange_order_id=f"x{name}" if exchange_id is None else exchange_id,
            pair=PAIR,
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            size=Decimal(1),
            price=Decimal(100),
            state=state,
            filled=Decimal(filled),
            venue_time_ns=self.now,
            fill=fill,
        )

    def fill(self, trade_id: str = "t1", size: str = "1", price: str = "100") -> Fill:
        return Fill(
            trade_id=trade_id,
            price=Decimal(price),
            size=Decimal(size),
            fee=Decimal("0.1"),
            fee_asset="USDT",
            is_maker=True,
            time_ns=self.now,
        )

    def tell(self, name: str, state: OrderState, filled: str = "0", fill: Fill | None = None, at: int = 0) -> None:
        """The venue's stream tells of an order."""
        self.do(self.account.venue_update(self.update(name, state, filled, fill), at or self.now, self.now))

    def due(self) -> None:
        self.do(self.account.due(self.now))

    def state(self, name: str = "e-1") -> OrderState:
        order = self.account.order(name)
        assert order is not None
        return order.state

    @property
    def kinds(self) -> list[OrderEventKind]:
        return [event.kind for event in self.published]

    @property
    def reconciled(self) -> bool:
        return any(isinstance(effect, FetchOpenOrders) for effect in self.others)


class PushedJournal(ReplicatedJournal):
    """A journal at PostgreSQL whose every commit is there when ``record`` returns."""

    def __init__(self, path: Path, clock: VirtualClock, store: PostgresStore, runner: asyncio.Runner) -> None:
        self.runner = runner
        super().__init__(path, "binance", "main", clock, store, run_id="run")

    def record(self, writes: Sequence[Write]) -> None:
        super().record(writes)
        assert self.runner.run(self.push()) == self.commits


class PostgresDesk(Desk):
    """A desk whose journal is at PostgreSQL; each crash is a new epoch."""

    def __init__(self, path: Path, address: str) -> None:
        self.address = address
        self.runner = asyncio.Runner()
        self.stores: list[PostgresStore] = []
        super().__init__(path)

    def open(self) -> Journal:
        store = PostgresStore(self.address, "binance", "main", self.clock.time_ns())
        self.stores.append(store)
        journal = PushedJournal(self.path, self.clock, store, self.runner)
        try:
            self.runner.run(self._take(store, journal))
        except BaseException:
            journal.close()
            raise
        return journal

    async def _take(self, store: PostgresStore, journal: ReplicatedJournal) -> None:
        await store.open()
        row: LeaseRow | None = await store.look()
        assert row is not None
        row = await store.take(row, f"holder-{len(self.stores)}", "seat", SECOND)
        assert row is not None
        await journal.catch_up(row.epoch)

    def close(self) -> None:
        for store in self.stores:
            self.runner.run(store.close())
        self.runner.close()
        super().close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module that lists ``STORES`` has its tests of a desk run on each of them."""
    if "desk" in metafunc.fixturenames:
        stores = getattr(metafunc.module, "STORES", ("sqlite",))
        only = metafunc.definition.get_closest_marker("stores")
        metafunc.parametrize("desk", only.args if only else stores, indirect=True)


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    if request.param == "postgres":
        desk: Desk = PostgresDesk(tmp_path / "main.db", request.getfixturevalue("database"))
    else:
        desk = Desk(tmp_path / "main.db")
    yield desk
    desk.close()


@pytest.fixture
def rule() -> TradingRule:
    return RULE


@pytest.fixture(scope="session")
def make_desk() -> Callable[[Path], Desk]:
    return Desk


@pytest.fixture(scope="session")
def make_postgres_desk() -> Callable[[Path, str], PostgresDesk]:
    return PostgresDesk
