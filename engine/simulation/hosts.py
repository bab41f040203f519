"""The hosts of a simulated run of one account that two of them may trade: a clock, a bus, and a few actors on each."""

from __future__ import annotations

import asyncio
import contextvars
import random
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.actors.base import SUPERVISOR
from engine.actors.plan import PlannedActor
from engine.bus import Bus, Caller, MemoryBus
from engine.clock import Clock
from engine.errors import BusError
from engine.messages import (
    CancelAll,
    CancelOrder,
    ControlReply,
    Message,
    OrderEvent,
    OrderType,
    PlaceOrder,
    Side,
)
from engine.orders.ids import ClientOrderIds
from engine.orders.memory_store import MemoryLine, name_line
from engine.runtime.base import ActorSpec, Exit
from engine.runtime.inline import InlineRuntime, Place, Seat
from engine.runtime.virtual_loop import VirtualProcess

RESTART_S: Final = 0.4
PAIR: Final = "BTC-USDT"
ORDER_EVERY_S: Final = 0.25
CANCEL_ALL_EVERY_S: Final = 2.0
LEASE: Final = {
    "ttl_ns": 10_000_000_000,
    "renew_ns": 1_000_000_000,
    "clock_error_ns": 250_000_000,
    "look_ns": 500_000_000,
}


class HostClock:
    """A host's own clocks: its wall clock is wrong, its monotonic one began at its own start and runs a little off."""

    def __init__(self, true: Clock, rng: random.Random) -> None:
        self._true = true
        self._wall_ns = rng.randrange(-3600, 3600) * 1_000_000_000
        self._began_ns = rng.randrange(10**15)
        self._parts_per_million = rng.randint(-50, 50)

    def time_ns(self) -> int:
        return self._true.time_ns() + self._wall_ns

    def monotonic_ns(self) -> int:
        true_ns = self._true.monotonic_ns()
        return self._began_ns + true_ns + true_ns * self._parts_per_million // 1_000_000


class Host:
    """One machine: the account's exchange actor and its user stream, a trader, and somebody who restarts what ends."""

    def __init__(
        self,
        name: str,
        place: Place,
        folder: Path,
        line: MemoryLine,
        planned: list[PlannedActor],
        rng: random.Random,
        tell: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.line = line
        self.folder = folder
        self.exchange = ""
        self.place = place.neighbour(HostClock(place.clock, rng))
        self.runtime = InlineRuntime(self.place)
        self.runtime.on_exit = self._ended
        self._tell = tell
        self._stopping = False
        self._incarnation = 1000
        self._processes: list[VirtualProcess] = []
        self._actors = {actor.name: actor for actor in self._own(planned)}
        self._rng = rng
        self.trader: Trader | None = None

    @property
    def journal_path(self) -> Path:
        """This host's copy of the journal."""
        return self.folder / "state" / "accounts" / "binance.main.db"

    async def start(self, until_s: Callable[[], bool]) -> None:
        """Bring everything up. The trader places orders while ``until_s`` says so, and cancels from then on."""
        for part in ("state", "run", "shm"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        for name in (SUPERVISOR, "clock"):
            bus = await self._bus(name)
            bus.serve(_yes)
        bus = await self._bus("strategy.trader")
        self.trader = Trader(bus, self.exchange, self.place.clock, self._rng, until_s)
        self.place.start(self._processes[-1], self.trader.live())
        for name in self._actors:
            await self._spawn(name)

    def seat(self) -> Seat | None:
        """Where the exchange actor runs, if it does."""
        return self.runtime.seat(self.exchange)

    def stop_for(self, seconds: float) -> None:
        """SIGSTOP the exchange actor now, and SIGCONT it later."""
        seat = self.seat()
        if seat is None or seat.process.is_stopped:
            return
        self._tell(self.name, f"stopped for {seconds:g} s")
        self.runtime.send_signal(self.exchange, signal.SIGSTOP)
        # Nobody's context: what is stopped does not wake itself.
        self.place.loop.call_later(seconds, self._go_on, seat, context=contextvars.Context())

    def kill(self) -> None:
        """Nothing of the host lives on."""
        self._stopping = True
        for name in self.runtime.residents:
            self.runtime.send_signal(name, signal.SIGKILL)
        for process in self._processes:
            process.kill()

    def _go_on(self, seat: Seat) -> None:
        if self.seat() is seat:
            self._tell(self.name, "goes on")
            self.runtime.send_signal(self.exchange, signal.SIGCONT)

    def _own(self, planned: list[PlannedActor]) -> list[PlannedActor]:
        """The actors under this host's names: what is written to a venue shows whose it is."""
        own = []
        address = name_line(self.name, self.line)
        for actor in planned:
            name = f"{actor.name}-{self.name}"
            params: dict[str, Any] = dict(actor.params)
            if actor.kind == "exchange":
                self.exchange = name
                params |= {"journal": {"address": address, "lease": LEASE}, "reconcile_s": 3.0, "keep_orders": True}
                params["user_stream"] = f"{params['user_stream']}-{self.name}"
            own.append(PlannedActor(name, actor.kind, actor.connector, "", params))
        return own

    async def _bus(self, name: str) -> Bus:
        process = self.place.process(name)
        self._processes.append(process)
        bus = MemoryBus(self.place.buses, name, 1, self.place.clock, engine_id=self.name)
        await self.place.start(process, bus.start())
        return bus

    async def _spawn(self, name: str) -> None:
        actor = self._actors[name]
        self._incarnation += 1
        state, run, shm = (str(self.folder / part) for part in ("state", "run", "shm"))
        await self.runtime.spawn(
            ActorSpec(
                name=name,
                kind=actor.kind,
                connector=actor.connector,
                incarnation=self._incarnation,
                run_dir=run,
                shm_dir=shm,
                state_dir=state,
                engine_id=self.name,
                entry="engine.actors.inline:run_actor",
                params=actor.params,
            )
        )

    def _ended(self, ended: Exit) -> None:
        if self._stopping:
            return
        self._tell(self.name, f"{ended.name} ended: {ended.reason}")
        process = self.place.process("init")
        self._processes.append(process)
        self.place.start(process, self._again(ended.name))

    async def _again(self, name: str) -> None:
        await asyncio.sleep(RESTART_S)
        if not self._stopping and name not in self.runtime.residents:
            await self._spawn(name)


def _yes(caller: Caller, message: Message) -> ControlReply:
    return ControlReply(ok=True)


class Trader:
    """Orders at random, near and far from the market, some of which it cancels; it does not ask whether it may."""

    def __init__(
        self, bus: Bus, exchange: str, clock: Clock, rng: random.Random, may_trade: Callable[[], bool]
    ) -> None:
        self._bus = bus
        self._exchange = exchange
        self._rng = rng
        self._may_trade = may_trade
        self._ids = ClientOrderIds("sim-", exchange, 1, clock)
        self._open: dict[str, None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.answers: dict[str, int] = {}

    async def live(self) -> None:
        """Trade while it may, then cancel what is open, again and again."""
        self._bus.subscribe(self._exchange, "orders", self._on_event)
        while self._may_trade():
            await asyncio.sleep(self._rng.expovariate(1 / ORDER_EVERY_S))
            if self._open and self._rng.random() < 0.4:
                self._do(CancelOrder(client_order_id=self._rng.choice(list(self._open))))
            else:
                self._do(self._order())
        while True:
            self._do(CancelAll())
            await asyncio.sleep(CANCEL_ALL_EVERY_S)

    def _order(self) -> PlaceOrder:
        side = self._rng.choice((Side.BUY, Side.SELL))
        away = Decimal(self._rng.choice((-200, -20, 20, 300))) * (1 if side is Side.SELL else -1)
        return PlaceOrder(
            client_order_id=self._ids.next(),
            strategy="trader",
            pair=PAIR,
            side=side,
            order_type=OrderType.LIMIT,
            size=Decimal("0.001"),
            price=Decimal(60_000) + away,
        )

    def _do(self, message: Message) -> None:
        task = asyncio.create_task(self._send(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, message: Message) -> None:
        incarnation = self._bus.peer_incarnation(self._exchange)
        if incarnation is None:
            return
        name = f"{type(message).__name__}:{self._rng.random()}"
        try:
            reply = await self._bus.command(
                self._exchange, message, command_id=name, expires_in=1.0, to_incarnation=incarnation, timeout=1.5
            )
        except BusError as error:
            self._count(type(error).__name__)
        else:
            self._count(str(msgspec.to_builtins(reply).get("reason") or type(reply).__name__))

    def _count(self, what: str) -> None:
        self.answers[what] = self.answers.get(what, 0) + 1

    def _on_event(self, message: Message, number: int) -> None:
        if isinstance(message, OrderEvent):
            if message.order.state.is_final:
                self._open.pop(message.order.client_order_id, None)
            else:
                self._open[message.order.client_order_id] = None
