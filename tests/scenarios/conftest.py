"""An account at a venue in a box, both in one process: the real connector over real sockets, a bus in memory.

Nothing moves at the venue unless the test moves it: its market is empty, and another account trades when told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from engine.actors import base as actor_base
from engine.actors import reconciler as reconciler_module
from engine.actors.base import Actor, ActorContext, ActorHost
from engine.actors.exchange import ExchangeActor
from engine.actors.settings import pack_settings
from engine.actors.user_stream import UserStreamActor
from engine.bus import Limits, MemoryBus, MemoryNetwork
from engine.clock import WallClock
from engine.connectors.base import ExchangeClient
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.logs import forget_secrets
from engine.messages import (
    Accepted,
    AccountSnapshot,
    BalanceEvent,
    CancelOrder,
    GetAccount,
    Message,
    Order,
    OrderEvent,
    OrderEventKind,
    OrderState,
    OrderType,
    PlaceOrder,
    Refused,
    Side,
    StopActor,
)
from engine.orders import account as account_module
from engine.orders.watch import Timing
from engine.runtime.base import ActorSpec
from engine.simulator import VenueBox
from engine.simulator.config import AccountConfig, BoxConfig, PairConfig
from engine.simulator.faults import Fault
from engine.simulator.orders import Order as VenueOrder

EXCHANGE = "exchange.box.main"
USER_STREAM = "user_stream.box.main"
PAIR = "BTC-USDT"
QUICK = Limits(backoff_min=0.001, backoff_max=0.01, tell_ttl=0.5)
KEYS = {name: (name.ljust(64, "k"), name.ljust(64, "s")) for name in ("main", "other")}
BALANCES = {
    "main": {"USDT": "20000000", "BTC": "500", "ETH": "30"},
    "other": {"USDT": "9000000", "BTC": "5000"},
}
HASTE = {"answer_within": 10**9, "cancel_within": 3 * 10**8, "fills_within": 10**8, "retry_first": 10**8}
"""Less patience than accounts have, in nanoseconds: what they wait for is the same."""
PAIRS = (
    PairConfig(pair=PAIR, price="10500", levels=0),
    PairConfig(pair="ETH-USDT", price="3000", size_increment="0.0001", levels=0),
)


async def until(condition: Callable[[], Any]) -> None:
    """Let the event loop turn until a condition without an event of its own holds."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


class Running:
    """One incarnation of an actor."""

    def __init__(self, actor: Any, host: ActorHost, bus: MemoryBus, network: MemoryNetwork) -> None:
        self.actor = actor
        self.task = asyncio.create_task(host.run(4242, 1.0))
        self._host, self._bus, self._network = host, bus, network

    async def kill(self) -> None:
        """End it as SIGKILL would: not a word to anyone."""
        self._network.kill(self._bus.name)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._release()

    async def stop(self, grace_s: float = 7.0) -> int:
        self._host.request_stop(StopActor(grace_ns=round(grace_s * 1e9)))
        code = await self.task
        await self._release()
        return code

    async def _release(self) -> None:
        for name in ("client", "socket"):
            if hasattr(self.actor, name):
                await getattr(self.actor, name).close()
        self.actor.abandon()
        await self._bus.close()


class Trader:
    """A strategy's place at the account: it asks, and keeps what it is told."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._ids = count(1)
        self.events: list[OrderEvent] = []
        self.balances: list[BalanceEvent] = []
        bus.subscribe(EXCHANGE, "orders", lambda event, number: self.events.append(event))
        bus.subscribe(EXCHANGE, "balances", lambda event, number: self.balances.append(event))

    async def ask(self, message: Message, timeout: float = 8.0) -> Any:
        return await self._bus.request(EXCHANGE, message, timeout=timeout)

    async def account(self) -> AccountSnapshot:
        found = await self.ask(GetAccount())
        assert isinstance(found, AccountSnapshot), found
        return found

    async def send(
        self, side: Side = Side.BUY, size: str = "100", price: str | None = "10000", **fields: Any
    ) -> Accepted | Refused:
        """An order; what the exchange actor answered."""
        command = PlaceOrder(
            client_order_id=fields.pop("client_order_id", f"e-{next(self._ids)}"),
            strategy="maker",
            pair=fields.pop("pair", PAIR),
            side=side,
            order_type=fields.pop("order_type", OrderType.LIMIT if price is not None else OrderType.MARKET),
            size=Decimal(size),
            price=None if price is None else Decimal(price),
        )
        assert not fields, fields
        answer = await self.ask(command)
        assert isinstance(answer, Accepted | Refused)
        return answer

    async def place(self, *args: Any, **fields: Any) -> str:
        """An order that is taken; its id."""
        answer = await self.send(*args, **fields)
        assert isinstance(answer, Accepted), answer
        return answer.client_order_id

    async def opened(self, *args: Any, **fields: Any) -> str:
        """An order that the venue has acknowledged; its id."""
        client_order_id = await self.place(*args, **fields)
        await until(lambda: self.kinds(client_order_id) == ["created"])
        return client_order_id

    async def cancel(self, client_order_id: str) -> Any:
        return await self.ask(CancelOrder(client_order_id=client_order_id))

    async def more_balances(self) -> None:
        """Wait for the next word on balances."""
        known = len(self.balances)
        await until(lambda: len(self.balances) > known)

    def of(self, client_order_id: str) -> list[OrderEvent]:
        return [event for event in self.events if event.order.client_order_id == client_order_id]

    def kinds(self, client_order_id: str) -> list[str]:
        return [event.kind.value for event in self.of(client_order_id)]

    def ended(self, client_order_id: str) -> bool:
        return bool(self.kinds(client_order_id)) and self.of(client_order_id)[-1].order.state.is_final

    def check(self) -> None:
        """What holds whatever happened: numbers without holes, one CREATED and one end an order, each trade once."""
        assert [event.number for event in self.events] == list(range(1, len(self.events) + 1))
        for client_order_id in {event.order.client_order_id for event in self.events}:
            kinds = self.kinds(client_order_id)
            assert kinds.count("created") <= 1, kinds
            assert sum(kinds.count(end) for end in ("completed", "cancelled", "expired", "failed")) <= 1, kinds
            trades = [e.fill.trade_id for e in self.of(client_order_id) if e.kind is OrderEventKind.FILL and e.fill]
            assert len(trades) == len(set(trades))


class VenueClock:
    """The venue's clock; the test sets how far it is ahead of ours."""

    ahead_s = 0.0

    def time_ns(self) -> int:
        return WallClock().time_ns() + round(self.ahead_s * 1e9)


class Stage:
    """A venue in a box, and what a test has on it."""

    kinds = OrderEventKind
    states = OrderState
    until = staticmethod(until)

    def __init__(self, folder: Path, box: VenueBox, venue_clock: VenueClock, info: Any) -> None:
        self.folder = folder
        self.box = box
        self.venue_clock = venue_clock
        self.info = info
        self.network = MemoryNetwork()
        self.clock = WallClock()
        self._incarnations = count(1000)
        self._closing: list[Callable[[], Awaitable[Any]]] = []
        self._running: list[Running] = []
        self._clients: dict[str, ExchangeClient] = {}

    # ------------------------------------------------------------------------------------------------ the engine's side

    def settings(self, account: str = "main", pairs: tuple[str, ...] = (PAIR,), **options: Any) -> ConnectorSettings:
        key, secret = KEYS[account]
        return ConnectorSettings(
            connector="box",
            venue="binance",
            pairs=pairs,
            endpoints=Endpoints(rest=self.info.rest, ws=self.info.ws, ws_api=self.info.ws_api),
            credentials=Credentials(api_key=key, api_secret=secret),
            options={"recv_window_ms": 400, "timeout_s": 1.0, **options},
        )

    async def client(self, account: str = "main") -> ExchangeClient:
        """The connector's client of an account, past the engine; one for each."""
        if account not in self._clients:
            client = self._clients[account] = create(self.settings(account)).exchange(self.clock)
            self._closing.append(client.close)
            await client.start()
        return self._clients[account]

    async def exchange(self, *, ready: bool = True, pairs: tuple[str, ...] = (PAIR,), **options: Any) -> Running:
        """The account's exchange actor; ``options`` are the connector's."""
        params = {
            "settings": pack_settings(self.settings(pairs=pairs, **options)),
            "account": "main",
            "user_stream": USER_STREAM,
            "run_id": str(self.clock.time_ns()),
            "id_prefix": "e-",
            "keep_orders": False,
        }
        running = await self._start(ExchangeActor, EXCHANGE, params)
        if ready:
            await until(lambda: running.actor.ready or running.task.done())
        return running

    async def user_stream(self, *, subscribed: bool = True) -> Running:
        """The account's user-stream actor; with ``subscribed`` until the exchange actor, if there is one, knows."""
        params = {"settings": pack_settings(self.settings())}
        running = await self._start(UserStreamActor, USER_STREAM, params)
        if subscribed:
            await until(lambda: running.actor.subscribed)
            accounts = [each.actor for each in self._running if isinstance(each.actor, ExchangeActor)]
            await until(lambda: not accounts or accounts[-1].reconciler.stream_up)
        return running

    async def trader(self) -> Trader:
        return Trader(await self._bus("strategy.maker"))

    async def trading(self, **options: Any) -> Trader:
        """Exchange and user-stream actor, both up, and a trader."""
        await self.exchange(**options)
        await self.user_stream()
        return await self.trader()

    # ----------------------------------------------------------------------------------------------- the venue's side

    def inflict(self, kind: str, **fields: Any) -> None:
        self.box.inflict([Fault(kind=kind, **fields)])

    def outage(self, count: int = 10_000) -> None:
        """No request is answered but with a server's error, until ``forgive``."""
        self.inflict("http_status", status=502, body="bad gateway", count=count)

    def forgive(self) -> None:
        self.box.faults.clear()

    def order(self, client_order_id: str) -> VenueOrder | None:
        """The order at the venue, None if it never came there."""
        found = [o for o in self.box.venue.orders.values() if o.client_order_id == client_order_id]
        assert len(found) <= 1, f"{client_order_id} came to the venue {len(found)} times"
        return found[0] if found else None

    async def hit(self, client_order_id: str, size: str) -> None:
        """The other account trades with a resting order, so much of its size."""
        theirs = self.order(client_order_id)
        assert theirs is not None
        side = Side.SELL if theirs.is_buy else Side.BUY
        other = await self.client("other")
        price = Decimal(theirs.price).scaleb(-8)
        await other.place(self.by_hand(f"o-{self.clock.time_ns()}", side, size, price), lambda _: None)

    @staticmethod
    def by_hand(client_order_id: str, side: Side, size: str, price: Decimal | None) -> Order:
        """An order that is placed past the engine."""
        return Order(
            client_order_id=client_order_id,
            strategy="by hand",
            pair=PAIR,
            side=side,
            order_type=OrderType.LIMIT if price is not None else OrderType.MARKET,
            size=Decimal(size),
            price=price,
            state=OrderState.PENDING_CREATE,
        )

    # ----------------------------------------------------------------------------------------------------- inside

    async def _bus(self, name: str) -> MemoryBus:
        bus = MemoryBus(self.network, name, next(self._incarnations), self.clock, limits=QUICK)
        self._closing.append(bus.close)
        await bus.start()
        return bus

    async def _start(self, actor_class: type[Actor], name: str, params: dict[str, Any]) -> Running:
        bus = await self._bus(name)
        for folder in ("run", "shm", "state"):
            (self.folder / folder).mkdir(exist_ok=True)
        spec = ActorSpec(
            name=name,
            kind=actor_class.kind,
            connector="box",
            incarnation=bus.incarnation,
            run_dir=str(self.folder / "run"),
            shm_dir=str(self.folder / "shm"),
            state_dir=str(self.folder / "state"),
            engine_id="",
            entry="",
            params=params,
        )
        actor = actor_class(ActorContext(spec, bus, self.clock, structlog.get_logger()))
        running = Running(actor, ActorHost(actor), bus, self.network)
        self._running.append(running)
        await until(lambda: running._host._ready or running.task.done())
        return running

    async def close(self) -> None:
        for running in reversed(self._running):
            if not running.task.done():
                await running.kill()
        for close in self._closing:
            await close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """``stage(body)``: ``await body(stage)`` with a venue in a box; gives the log. Nothing is left behind."""
    monkeypatch.setattr(actor_base, "STATS_INTERVAL_S", 0.05)
    monkeypatch.setattr(reconciler_module, "POLL_S", 0.05)
    monkeypatch.setattr(reconciler_module, "POLL_PAIR_S", 0.0)
    monkeypatch.setattr(account_module, "Timing", partial(Timing, **HASTE))

    @asynccontextmanager
    async def made() -> AsyncIterator[Stage]:
        accounts = [
            AccountConfig(name=name, api_key=key, api_secret=secret, balances=BALANCES[name])
            for name, (key, secret) in KEYS.items()
        ]
        config = BoxConfig(
            pairs=PAIRS, accounts=accounts, activity=0.0, state_dir=str(tmp_path / "venue"), enforce_limits=False
        )
        clock = VenueClock()
        box = VenueBox(config, clock.time_ns)
        stage = Stage(tmp_path, box, clock, await box.start())
        try:
            yield stage
        finally:
            await stage.close()
            await box.stop()

    def run(body: Callable[[Stage], Awaitable[None]], seconds: float = 15.0) -> list[dict[str, Any]]:
        async def main() -> None:
            async with asyncio.timeout(seconds):
                async with made() as made_stage:
                    await body(made_stage)
                others = asyncio.all_tasks() - {asyncio.current_task()}
                if others:
                    await asyncio.wait(others, timeout=1.0)
                left = {task for task in others if not task.done()}
                assert not left, f"left running: {left}"

        with structlog.testing.capture_logs() as logs:
            uvloop.run(main())
        return logs

    yield run
    forget_secrets()
