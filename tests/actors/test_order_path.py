"""An exchange actor and a strategy's link to it, on one event loop, at a venue in a box whose clock can be set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from engine.actors.account_link import AccountLink
from engine.actors.base import ActorContext
from engine.actors.exchange import ExchangeActor
from engine.actors.strategy import StrategyActor
from engine.actors.user_stream import UserStreamActor
from engine.bus import Bus, Caller, MemoryBus, MemoryNetwork, Overload
from engine.clock import WallClock
from engine.connectors.errors import RateLimited
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.errors import JournalError
from engine.messages import (
    Accepted,
    AccountSnapshot,
    CancelOrder,
    GetAccount,
    Message,
    Order,
    OrderEvent,
    OrderEventKind,
    OrderFate,
    OrderState,
    OrderType,
    PlaceOrder,
    Reason,
    Side,
    StopActor,
    Tick,
)
from engine.runtime.base import ActorSpec
from engine.simulator.box import VenueBox
from engine.simulator.config import AccountConfig, BoxConfig
from engine.strategies import Strategy

K, S = OrderEventKind, OrderState
EXCHANGE, USER_STREAM, STRATEGY = "exchange.binance.main", "user_stream.binance.main", "strategy.puppet"
SECOND = 1_000_000_000
TICK = Tick(n=1, time_ns=0, interval_ns=SECOND, sent_mono_ns=0)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for is the state of another actor
        await asyncio.sleep(0.005)


class World:
    """A venue in a box, a user stream, an exchange actor that can be put to death, and a strategy's link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.shift_ns = 0
        self.life = 1
        self.events: list[OrderEvent] = []
        self.box: VenueBox
        self.exchange: ExchangeActor
        self.link: AccountLink
        self._contexts: list[ActorContext] = []
        self._stream: UserStreamActor
        self._made = 0

    async def open(self, venue: bool = True) -> None:
        config = BoxConfig(state_dir=str(self.folder / "venue"), accounts=(AccountConfig(name="main"),))
        self.box = VenueBox(config, clock=lambda: time.time_ns() + self.shift_ns)
        info = await self.box.start()
        settings = ConnectorSettings(
            connector="binance",
            venue="binance",
            domain="",
            account="main",
            pairs=("BTC-USDT",),
            credentials=Credentials(api_key=info.api_key, api_secret=info.api_secret),
            options={},
            endpoints=Endpoints(rest=info.rest, ws=info.ws, ws_api=info.ws_api),
        )
        self.params = {
            "settings": msgspec.to_builtins(settings),
            "account": "main",
            "user_stream": USER_STREAM,
            "run_id": str(time.time_ns()),
            "id_prefix": "t-",
            "keep_orders": False,
        }
        if not venue:
            await self.box.stop()
        self._stream = UserStreamActor(await self.context(USER_STREAM))
        await self._stream.start()
        await self.new_exchange()
        self.link = AccountLink(
            await self.context(STRATEGY), "binance", EXCHANGE, "puppet", None, self.events.append, lambda: None
        )
        self.link.start()

    async def context(self, name: str) -> ActorContext:
        bus = MemoryBus(self.network, name, self.life)
        await bus.start()
        spec = ActorSpec(
            name=name,
            kind=name.partition(".")[0],
            connector="binance",
            incarnation=self.life,
            run_dir="",
            shm_dir=str(self.folder),
            state_dir=str(self.folder),
            engine_id="",
            entry="",
            params=self.params,
        )
        context = ActorContext(spec, bus, WallClock(), structlog.get_logger())
        self._contexts.append(context)
        return context

    async def new_exchange(self) -> None:
        self.life += 1
        self.exchange = ExchangeActor(await self.context(EXCHANGE))
        self.exchange.bus.serve(self.exchange.on_message)
        await self.exchange.start()

    async def kill_exchange(self) -> None:
        """Nothing of it runs any more; only its journal is left."""
        context = self.exchange.context
        self.network.kill(EXCHANGE)
        await context.cancel_tasks()
        await self.exchange.client.close()
        self.exchange.journal.close()
        self._contexts.remove(context)

    async def close(self) -> None:
        await self._stream.stop(StopActor(grace_ns=0))
        await self.exchange.client.close()
        for context in self._contexts:
            await context.cancel_tasks()
            await context.bus.close()
        self.exchange.journal.close()
        await self.box.stop()

    def place(self, price: str = "30000", size: str = "0.01") -> str:
        self._made += 1
        client_order_id = f"t-{self._made}"
        self.link.place(command(client_order_id, price, size))
        return client_order_id

    def kinds(self, client_order_id: str) -> list[OrderEventKind]:
        return [event.kind for event in self.events if event.order.client_order_id == client_order_id]

    def at_venue(self) -> list[str]:
        return [order.client_order_id for order in self.box.venue.orders.values()]

    async def up(self) -> None:
        await until(lambda: self.link.reachable and self.link.caught_up and self._heard_stream())

    def _heard_stream(self) -> bool:
        self._stream.on_tick(TICK)  # what the clock brings about in an engine: the state is told again
        return self.exchange.reconciler.stream_up


def command(client_order_id: str, price: str = "30000", size: str = "0.01") -> PlaceOrder:
    return PlaceOrder(
        client_order_id=client_order_id,
        strategy="puppet",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal(size),
        price=Decimal(price),
    )


@asynccontextmanager
async def world(folder: Path, venue: bool = True) -> AsyncIterator[World]:
    found = World(folder)
    await found.open(venue)
    try:
        if venue:
            await found.up()
        yield found
    finally:
        await found.close()


def test_what_could_not_be_journaled_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:

            def full(writes: object) -> None:
                raise JournalError("database or disk is full")

            monkeypatch.setattr(w.exchange.journal, "record", full)
            first = w.place()
            await until(w.exchange.context.failed.done)
            second = w.place()
            with pytest.raises(JournalError):
                w.exchange.on_message(Caller("x", 1), OrderFate(client_order_id=first))
            assert w.events == []
            assert w.at_venue() == []
            await w.kill_exchange()
            await w.new_exchange()
            await until(lambda: w.kinds(first) and w.kinds(second))
            assert w.kinds(first) == w.kinds(second) == [K.FAILED]
            assert {event.order.reason for event in w.events} <= {Reason.UNKNOWN_ORDER, Reason.NOT_READY}
            assert w.link.orders == {}
            await w.up()
            third = w.place()
            await until(lambda: w.kinds(third) == [K.CREATED])

    run(play())


@pytest.mark.parametrize("shift_s", [5.5, -5.5])
def test_the_venues_clock_is_set_while_trading(tmp_path: Path, shift_s: float) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:
            resting = w.place()
            await until(lambda: w.kinds(resting) == [K.CREATED])
            w.shift_ns = round(shift_s * SECOND)
            refused = w.place()
            await until(lambda: w.kinds(refused) == [K.FAILED])
            await until(lambda: w.exchange.client.time.is_synced)
            placed = w.place("90000")
            await until(lambda: w.kinds(placed)[-1:] == [K.COMPLETED])
            w.link.cancel(resting)
            await until(lambda: w.kinds(resting) == [K.CREATED, K.CANCELLED])
            assert w.at_venue() == [resting, placed]
            await w.exchange.departure.audit(w.exchange.run_id)
            assert w.exchange.metrics.gauges["fills_missed"] == w.exchange.metrics.gauges["fills_duplicated"] == 0

    run(play())


@pytest.mark.parametrize("way", ["place", "place_now"])
def test_an_order_that_waited_too_long_for_a_connection_does_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:
            place = getattr(w.exchange.client, way)

            def late(order: Order, on_sent: Callable[[int], None], more: Any) -> Any:
                return place(order, lambda mono_ns: on_sent(mono_ns + 3 * SECOND), more)

            monkeypatch.setattr(w.exchange.client, "place_now", lambda *_: False)
            monkeypatch.setattr(w.exchange.client, way, late)
            name = w.place()
            await until(lambda: w.kinds(name))
            assert w.kinds(name) == [K.FAILED]
            assert w.events[0].order.reason is Reason.NOT_SENT
            monkeypatch.undo()
            name = w.place()
            await until(lambda: w.kinds(name) == [K.CREATED])
            assert w.at_venue() == [name]

    run(play())


def test_one_question_is_not_asked_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:
            under_way, most, asked = 0, 0, 0
            answer = asyncio.Event()

            async def slow() -> None:
                nonlocal under_way, most, asked
                under_way, asked = under_way + 1, asked + 1
                most = max(most, under_way)
                await answer.wait()
                under_way -= 1

            for _ in range(5):
                w.exchange.requests.ask("question", slow)
                await asyncio.sleep(0)
            answer.set()
            await until(lambda: asked == 2 and under_way == 0)
            assert most == 1
            assert w.exchange.requests.idle

    run(play())


def test_cancelling_against_a_venue_that_wants_silence_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:
            name = w.place()
            await until(lambda: w.kinds(name) == [K.CREATED])
            cancel = w.exchange.client.cancel
            refusals = 2

            async def silent(order: Order) -> Any:
                nonlocal refusals
                if refusals:
                    refusals -= 1
                    raise RateLimited(-1003, "too much", 1.0)
                return await cancel(order)

            monkeypatch.setattr(w.exchange.client, "cancel", silent)
            await w.exchange.stop(StopActor(grace_ns=15 * SECOND))
            assert not w.exchange.core.open_orders()
            assert w.exchange.metrics.gauges["fills_missed"] == 0

    run(play())


def test_a_stop_before_the_venue_is_reached_is_bounded_and_says_so(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path, venue=False) as w:
            began = time.monotonic()
            await w.exchange.stop(StopActor(grace_ns=15 * SECOND))
            assert time.monotonic() - began < 4
            assert "fills_missed" not in w.exchange.metrics.gauges

    run(play())


def test_a_stop_soon_after_a_start_cancels_what_the_last_life_left_open(tmp_path: Path) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:
            names = [w.place(), w.place()]
            await until(lambda: all(w.kinds(name) == [K.CREATED] for name in names))
            await w.kill_exchange()
            await w.new_exchange()
            assert not w.exchange.ready
            await w.exchange.stop(StopActor(grace_ns=15 * SECOND))
            assert not w.exchange.core.open_orders()
            assert not [order for order in w.box.venue.orders.values() if order.status.is_open]
            await until(lambda: all(w.kinds(name) == [K.CREATED, K.CANCELLED] for name in names))

    run(play())


def test_without_the_stream_the_venue_is_asked_at_a_measured_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        async with world(tmp_path) as w:
            passes: list[bool] = []
            make = w.exchange.reconciler.make_pass

            async def counted(full: bool = True) -> None:
                passes.append(full)
                await make(full)

            monkeypatch.setattr(w.exchange.reconciler, "make_pass", counted)
            await w._stream.stop(StopActor(grace_ns=0))
            w.network.kill(USER_STREAM)
            name = w.place("90000")
            await until(lambda: w.kinds(name)[-1:] == [K.COMPLETED])
            await until(lambda: len(passes) >= 3)
            began = time.monotonic()
            await until(lambda: len(passes) >= 5)
            assert time.monotonic() - began > 1.5
            assert passes[1:] == [False] * 4

    run(play())


# ------------------------------------------------------------------------------------------- a strategy's side alone


class DeafExchange:
    """Answers what a strategy asks, but no cancel until it is told to."""

    def __init__(self, bus: Bus) -> None:
        self.orders = bus.open_stream("orders", overload=Overload.CLOSE)
        self.balances = bus.open_stream("balances", overload=Overload.CLOSE)
        self.cancels = 0
        self.hears = False
        bus.serve(self.answer)

    def answer(self, caller: Caller, message: Message) -> Message | Awaitable[Message]:
        match message:
            case GetAccount():
                at = self.orders.position
                return AccountSnapshot(
                    connector="binance",
                    account="main",
                    incarnation=at.incarnation,
                    number=at.number,
                    orders=[],
                    balances={},
                )
            case PlaceOrder():
                return Accepted(client_order_id=message.client_order_id, state=S.PENDING_CREATE)
            case CancelOrder():
                self.cancels += 1
                if self.hears:
                    return Accepted(client_order_id=message.client_order_id, state=S.PENDING_CANCEL)
                return asyncio.get_running_loop().create_future()
        raise AssertionError(message)

    def tell(self, kind: OrderEventKind, order: Order) -> None:
        self.orders.publish(
            OrderEvent(
                number=self.orders.last + 1, connector="binance", account="main", kind=kind, order=order, time_ns=1
            )
        )


def test_a_cancel_that_nobody_answered_shows_what_the_order_has_become(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.actors.account_link.ANSWER_TIMEOUT_S", 0.2)

    async def play() -> None:
        w = World(tmp_path)
        w.params = {}
        exchange = DeafExchange((await w.context(EXCHANGE)).bus)
        link = AccountLink(
            await w.context(STRATEGY), "binance", EXCHANGE, "puppet", None, w.events.append, lambda: None
        )
        link.start()
        await until(lambda: link.reachable and link.caught_up)
        link.place(command("t-1"))
        order = link.orders["t-1"]
        link.cancel("t-1")
        assert link.orders["t-1"].state is S.PENDING_CANCEL
        await until(lambda: exchange.cancels == 1)
        exchange.tell(K.CREATED, msgspec.structs.replace(order, state=S.OPEN))
        await until(lambda: w.events)
        assert link.orders["t-1"].state is S.PENDING_CANCEL
        await until(lambda: link.orders["t-1"].state is S.OPEN)
        exchange.hears = True
        link.cancel("t-1")
        link.cancel("t-1")
        await until(lambda: exchange.cancels == 2)
        exchange.tell(K.CANCELLED, msgspec.structs.replace(order, state=S.CANCELLED))
        await until(lambda: not link.orders)
        link.cancel("t-1")
        await asyncio.sleep(0)
        assert exchange.cancels == 2
        for context in w._contexts:
            await context.cancel_tasks()
            await context.bus.close()

    run(play())


class FailsAtStart(Strategy):
    def on_start(self) -> None:
        raise RuntimeError("on purpose")


def test_a_strategy_that_fails_at_its_start_ends_whoever_brought_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.actors.strategy.load_strategy", lambda path: FailsAtStart)

    async def play() -> None:
        w = World(tmp_path)
        w.params = {
            "strategy": {
                "name": "puppet",
                "strategy": "a:B",
                "pairs": ["binance/BTC-USDT"],
                "markets": {"binance": {"order_book": "order_book.binance.0", "exchange": EXCHANGE}},
                "id_prefix": "t-",
            }
        }
        DeafExchange((await w.context(EXCHANGE)).bus)
        actor = StrategyActor(await w.context(STRATEGY))
        await actor.start()
        error = await actor.context.failed
        assert "on purpose" in str(error)
        for context in w._contexts:
            await context.cancel_tasks()
            await context.bus.close()
        actor.store.close()

    run(play())
