"""An engine to be asked by commands: a stand-in on a real bus."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.bus import Caller, RunDirectory, SocketBus
from engine.clock import WallClock
from engine.errors import EngineError
from engine.messages import (
    ControlReply,
    ControlRequest,
    LogLine,
    Message,
    Order,
    OrderState,
    OrderType,
    Side,
)
from engine.report import ActorRecord, build_status
from engine.runtime.paths import EnginePaths

Answer = Callable[[dict[str, Any]], Any]


class StandIn:
    """Answers control requests for a state folder, from a thread with its own event loop."""

    def __init__(self, state: Path) -> None:
        self.paths = EnginePaths.for_state(state)
        self.answers: dict[str, Answer] = {"stop": lambda _: self._loop.call_later(0.1, self._ended.set)}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> StandIn:
        self.paths.create()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.paths.remove()

    def end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        bus = SocketBus("supervisor", 1, RunDirectory(self.paths.run), clock=WallClock(), engine_id="id-1")
        bus.serve(self._answer)
        await bus.start()
        self.paths.write_run_json("id-1")
        self._ready.set()
        await self._ended.wait()
        await bus.close()

    def _answer(self, caller: Caller, request: Message) -> Message:
        assert isinstance(request, ControlRequest)
        self.asked.append((request.verb, request.args))
        answer = self.answers.get(request.verb)
        if answer is None:
            return ControlReply(ok=False, error=f"no {request.verb} here; try another")
        try:
            data = answer(request.args)
        except EngineError as error:
            return ControlReply(ok=False, error=str(error))
        return ControlReply(ok=True, data=None if request.verb == "stop" else data)


def some_status() -> dict[str, Any]:
    clock = ActorRecord("clock", "clock", pid=7, host="h", state="running")
    book = ActorRecord("order_book.binance.0", "order_book", "binance", pid=8, host="h", state="stale", restarts=1)
    event = LogLine(actor="clock", level="warning", event="late", time_ns=1)
    return build_status([clock, book], engine="demo", runtime="local", seconds=12.5, events=[event])


def some_order(number: int, order_state: OrderState = OrderState.OPEN) -> Order:
    return Order(
        client_order_id=f"demo-{number}",
        strategy="maker",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal("0.10"),
        price=Decimal("60000.1"),
        state=order_state,
        created_ns=number * 10**9,
        updated_ns=number * 10**9,
    )
