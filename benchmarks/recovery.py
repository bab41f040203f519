"""From ``kill -9`` of each kind of actor to the moment at which it does its work again.

What "again" means, seen from outside, by another process:

=============  =====================================================================================
order_book     a reader of shared memory finds the book FRESH, under another incarnation
user_stream    the new incarnation says on its stream that the venue has taken its subscription; a listener that
               comes a moment later than that hears it with the next tick (here 0.1 s)
exchange       the new incarnation takes an order (into its journal, on its way to the venue)
venue          an order placed after the kill is acknowledged by the venue
strategy       the strategy's ``on_start``: its checkpoint loaded, every event caught up with
clock          a tick of the new incarnation; at worst an interval (here 0.1 s) of it is waiting for the beat
fork_server    a new one is ready, as the supervisor says
=============  =====================================================================================
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import NO_LIMITS, Engine, all_running, config
from engine.book import BookReader, ReadStatus
from engine.bus import Bus, RunDirectory, SocketBus, SubscriptionState, Up
from engine.errors import BusError
from engine.messages import (
    Accepted,
    CancelAll,
    ControlReply,
    ControlRequest,
    Message,
    OrderEvent,
    OrderEventKind,
    OrderType,
    PlaceOrder,
    Side,
    Tick,
    UserStreamState,
)
from engine.runtime.local import SERVER_NAME

PAIR = "BTC-USDT"
EXCHANGE, ORDER_BOOK, USER_STREAM = "exchange.binance.main", "order_book.binance.0", "user_stream.binance.main"
POLL_S = 0.001
TIMEOUT_S = 30.0
CALM_S = 2.0
"""Between two kills: longer than the window in which restarts count, so that each is an actor's first."""
PRICE, SIZE = Decimal("50000"), Decimal("0.001")


class Watch:
    """Looks at a running engine from outside, as an actor of its bus and a reader of its books."""

    def __init__(self, engine: Engine, beacon: socket.socket) -> None:
        info = engine.paths.read_run_json()
        if info is None:
            raise RuntimeError("the engine does not say where it runs")
        self.engine = engine
        self.bus: Bus = SocketBus(
            "watch", time.time_ns() // 1000, RunDirectory(info.run_dir), engine_id=info.engine_id, listen=False
        )
        self.beacon = beacon
        self.reader = BookReader(engine.paths.shm / f"binance.{PAIR}.book")
        self.ticks: asyncio.Queue[int] = asyncio.Queue()
        self.subscribed: asyncio.Queue[int] = asyncio.Queue()
        self.created: dict[str, int] = {}
        self._numbers = itertools.count()
        self._ids = f"bench-{time.time_ns() // 1_000_000:x}"
        self._stream_incarnation = 0
        self._clock_incarnation = 0
        self._killed = 0

    async def start(self) -> None:
        await self.bus.start()
        self.bus.subscribe("clock", "tick", self._on_tick, on_state=self._on_clock)
        self.bus.subscribe(USER_STREAM, "events", self._on_user_event, on_state=self._on_user_stream)
        self.bus.subscribe(EXCHANGE, "orders", self._on_order)
        await self.ticks.get()

    # ------------------------------------------------------------------------------------------ what is back, and when

    async def order_book(self) -> int:
        self.reader.read_raw()
        before = self.reader.incarnation
        while True:
            status = self.reader.read_raw()[0]
            if status is ReadStatus.FRESH and self.reader.incarnation != before:
                return time.monotonic_ns()
            await asyncio.sleep(POLL_S)

    async def user_stream(self) -> int:
        _drain(self.subscribed)
        before = self._stream_incarnation
        while True:
            at_ns = await self.subscribed.get()
            if self._stream_incarnation > before:
                return at_ns

    async def clock(self) -> int:
        _drain(self.ticks)
        before = self._clock_incarnation
        while True:
            at_ns = await self.ticks.get()
            if self._clock_incarnation > before:
                return at_ns

    async def exchange(self) -> int:
        before = self.bus.peer_incarnation(EXCHANGE)
        while True:
            incarnation = self.bus.peer_incarnation(EXCHANGE)
            if incarnation not in (None, before) and await self._place(incarnation) is not None:
                return time.monotonic_ns()
            await asyncio.sleep(POLL_S)

    async def venue(self) -> int:
        self.created.clear()
        while not self.created:
            await self._place(self.bus.peer_incarnation(EXCHANGE))
            await asyncio.sleep(0.01)
        return min(self.created.values())

    async def strategy(self) -> int:
        return int(await asyncio.get_running_loop().sock_recv(self.beacon, 64))

    async def fork_server(self) -> int:
        while True:
            status = await self._ask("status")
            if any(str(self._killed) == str(event["fields"].get("old_pid")) for event in status["events"]):
                return time.monotonic_ns()
            await asyncio.sleep(POLL_S)

    # -------------------------------------------------------------------------------------------------------- killing

    async def once(self, kind: str, actor: str) -> float:
        """Kill it; the seconds until it is back."""
        pid = await self._pid(actor)
        self._killed = pid
        waits: Callable[[], Awaitable[int]] = getattr(self, kind)
        began_ns = time.monotonic_ns()
        back = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(TIMEOUT_S):
            took = (await back - began_ns) / 1e9
        await self._settle()
        return took

    async def _settle(self) -> None:
        """Until all is as it was before, and the restart is forgotten."""
        await asyncio.sleep(CALM_S)
        async with asyncio.timeout(TIMEOUT_S):
            while not all_running(await self._ask("status")):  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.05)
            await self.bus.request(EXCHANGE, CancelAll(), timeout=15.0)

    async def _pid(self, actor: str) -> int:
        if actor == SERVER_NAME:
            found = self.engine.fork_server()
            if found is None:
                raise RuntimeError("there is no fork server")
            return found
        return next(int(row["pid"]) for row in (await self._ask("status"))["actors"] if row["name"] == actor)

    async def _ask(self, verb: str) -> dict[str, Any]:
        reply = await self.bus.request("supervisor", ControlRequest(verb=verb), timeout=10.0)
        if not isinstance(reply, ControlReply) or not reply.ok:
            raise RuntimeError(f"the engine refused {verb}: {reply}")
        return dict(reply.data)

    async def _place(self, incarnation: int | None) -> str | None:
        """Place one order that will rest; its id if it was taken."""
        client_order_id = f"{self._ids}-{next(self._numbers)}"
        order = PlaceOrder(
            client_order_id=client_order_id,
            strategy="watch",
            pair=PAIR,
            side=Side.BUY,
            order_type=OrderType.LIMIT_MAKER,
            size=SIZE,
            price=PRICE,
        )
        try:
            reply = await self.bus.command(
                EXCHANGE, order, command_id=client_order_id, expires_in=1.0, to_incarnation=incarnation, timeout=0.5
            )
        except BusError:
            return None
        return client_order_id if isinstance(reply, Accepted) else None

    # ------------------------------------------------------------------------------------------------ what is heard

    def _on_tick(self, message: Message, number: int) -> None:
        if isinstance(message, Tick):
            self.ticks.put_nowait(time.monotonic_ns())

    def _on_clock(self, state: SubscriptionState) -> None:
        if isinstance(state, Up):
            self._clock_incarnation = state.start.incarnation

    def _on_user_event(self, message: Message, number: int) -> None:
        if isinstance(message, UserStreamState) and message.connected:
            self.subscribed.put_nowait(time.monotonic_ns())

    def _on_user_stream(self, state: SubscriptionState) -> None:
        if isinstance(state, Up):
            self._stream_incarnation = state.start.incarnation

    def _on_order(self, message: Message, number: int) -> None:
        if isinstance(message, OrderEvent) and message.kind is OrderEventKind.CREATED:
            self.created[message.order.client_order_id] = time.monotonic_ns()


KINDS = {
    "order_book": ORDER_BOOK,
    "user_stream": USER_STREAM,
    "exchange": EXCHANGE,
    "strategy": "strategy.beacon",
    "clock": "clock",
    "venue": "venue",
    "fork_server": SERVER_NAME,
}


def run(options: Options) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = str(Path(folder) / "beacon")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as beacon:
            beacon.bind(path)
            settings = config(
                {"name": "Beacon", "params": {"socket": path}},
                interval=0.1,
                supervision={"budget": 1000, "window": CALM_S / 2},
            )
            with Engine(settings, box=NO_LIMITS) as engine:
                engine.wait_running()
                found = uvloop.run(_measure(engine, beacon, options.times(5)))
    for kind, times in found.items():
        yield line(
            "recovery",
            round(median(times), 4),
            "s",
            case=kind,
            fastest=round(min(times), 4),
            slowest=round(max(times), 4),
            runs=len(times),
        )


async def _measure(engine: Engine, beacon: socket.socket, runs: int) -> dict[str, list[float]]:
    watch = Watch(engine, beacon)
    await watch.start()
    await watch.strategy()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    try:
        for number in range(runs):
            for kind, actor in KINDS.items():
                found[kind].append(await watch.once(kind, actor))
                say(f"recovery: run {number + 1}, {kind} {found[kind][-1]:.3f} s")
    finally:
        await watch.bus.close()
    return found


def _drain(queue: asyncio.Queue[int]) -> None:
    while not queue.empty():
        queue.get_nowait()
