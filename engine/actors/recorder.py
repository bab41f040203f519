"""The recorder actor: writes down what happens on every account, and never keeps anyone waiting."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.actors.base import Actor, ActorContext
from engine.bus import Gap, SubscriptionState, Up
from engine.bus.subscription import Subscription
from engine.errors import BusError
from engine.messages import (
    AccountSnapshot,
    Balance,
    BalanceEvent,
    GetAccount,
    Message,
    OrderEvent,
    StopActor,
    StreamPosition,
)
from engine.recorder_store import FILE_NAME, BalanceRow, Batch, RecorderStore
from engine.runtime.offload import offload

BEGINNING = StreamPosition(incarnation=0, number=0)
ASK_TIMEOUT_S = 2.0
RETRY_S = 0.5


class RecorderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``exchanges``: the exchange actors to listen to. ``flush_s``: how long something waits to be written at most.
    ``most_waiting``: with so many events unwritten an account is not listened to until they are.
    """

    exchanges: list[str]
    flush_s: float = 0.25
    most_waiting: int = 5000


class RecorderActor(Actor):
    """Records orders, fills, positions and balances in ``<state>/recorder.db``.

    Each account's events come from its journal, after the last one that is recorded, and their number is written with
    them in one transaction: a restart goes on there. Writing is in batches, on a thread. When it falls behind it stops
    listening and asks the journal again later, so that it holds a bounded amount and no exchange actor holds any of it.
    """

    kind: ClassVar[str] = "recorder"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.settings = msgspec.convert(context.params["recorder"], RecorderSettings)
        self.store = RecorderStore(Path(context.spec.state_dir) / FILE_NAME)
        self.reached = self.store.positions_reached()
        self._batch = Batch()
        self._orders: dict[str, Subscription] = {}
        self._filled = asyncio.Event()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        self._closed = False

    async def start(self) -> dict[str, Any]:
        for exchange in self.settings.exchanges:
            self._listen(exchange, self.reached.get(exchange, BEGINNING))
            self.bus.subscribe(
                exchange,
                "balances",
                partial(self._on_balance, exchange),
                on_state=partial(self._on_balances_state, exchange),
            )
        self.context.run(self._write_batches(), "write")
        return {}

    async def stop(self, order: StopActor) -> None:
        for subscription in self._orders.values():
            subscription.close()
        await self._write()
        async with self._writing:
            self._closed = True
            self.store.close()

    def abandon(self) -> None:
        self.store.close()

    def collect(self) -> None:
        self.metrics.gauges["waiting"] = len(self._batch)
        self.metrics.gauges["recorded"] = {exchange: at.number for exchange, at in self.reached.items()}

    # ------------------------------------------------------------------------------------------------- listening

    def _listen(self, exchange: str, after: StreamPosition) -> None:
        before = self._orders.pop(exchange, None)
        if before is not None:
            before.close()
        self.reached[exchange] = after
        self._orders[exchange] = self.bus.subscribe(
            exchange,
            "orders",
            partial(self._on_order, exchange),
            position=after,
            on_state=partial(self._on_orders_state, exchange),
        )

    def _on_order(self, exchange: str, message: Message, number: int) -> None:
        if not isinstance(message, OrderEvent) or exchange not in self._orders:
            return
        self._batch.events.append(message)
        position = StreamPosition(incarnation=self.reached[exchange].incarnation, number=number)
        self.reached[exchange] = position
        self._batch.reached[exchange] = (message.connector, message.account, position)
        self._filled.set()
        if len(self._batch) >= self.settings.most_waiting:
            self.metrics.count("paused")
            for subscription in self._orders.values():
                subscription.close()
            self._orders.clear()

    def _on_orders_state(self, exchange: str, state: SubscriptionState) -> None:
        if isinstance(state, Gap):
            self._listen(exchange, self.reached[exchange])
        if not isinstance(state, Up):
            return
        known = self.reached[exchange]
        if state.incarnation_changed and known.incarnation not in (0, state.start.incarnation):
            self.log.warning("the account's journal was replaced: recording from its beginning", about=exchange)
            self._listen(exchange, StreamPosition(incarnation=state.start.incarnation, number=0))
            return
        self.reached[exchange] = StreamPosition(incarnation=state.start.incarnation, number=known.number)
        if state.missed is not None:
            self.log.error("order events are not in the journal any more", about=exchange, missed=state.missed)

    def _on_balance(self, exchange: str, message: Message, number: int) -> None:
        if isinstance(message, BalanceEvent):
            self._keep_balances(message.connector, message.account, message.balances, message.time_ns)

    def _on_balances_state(self, exchange: str, state: SubscriptionState) -> None:
        asking = self._asking.get(exchange)
        if isinstance(state, Up) and (asking is None or asking.done()):
            self._asking[exchange] = self.context.run(self._ask_balances(exchange), "balances")

    async def _ask_balances(self, exchange: str) -> None:
        """What changed while nobody listened: the account as it stands."""
        while True:
            try:
                reply = await self.bus.request(exchange, GetAccount(), timeout=ASK_TIMEOUT_S)
            except BusError:
                await asyncio.sleep(RETRY_S)
                continue
            if isinstance(reply, AccountSnapshot):
                self._keep_balances(reply.connector, reply.account, reply.balances, self.clock.time_ns())
                return
            await asyncio.sleep(RETRY_S)

    def _keep_balances(self, connector: str, account: str, balances: dict[str, Balance], time_ns: int) -> None:
        """At most one row of an asset for each batch: the newest."""
        fresh = {
            (connector, account, asset): BalanceRow(
                connector=connector, account=account, asset=asset, time_ns=time_ns, balance=balance
            )
            for asset, balance in balances.items()
        }
        kept = [row for row in self._batch.balances if (row.connector, row.account, row.asset) not in fresh]
        self._batch.balances = [*kept, *fresh.values()]
        self._filled.set()

    # --------------------------------------------------------------------------------------------------- writing

    async def _write_batches(self) -> None:
        while True:
            await self._filled.wait()
            await asyncio.sleep(self.settings.flush_s)
            await self._write()
            for exchange in self.settings.exchanges:
                if exchange not in self._orders:
                    self._listen(exchange, self.reached.get(exchange, BEGINNING))

    async def _write(self) -> None:
        async with self._writing:
            batch, self._batch = self._batch, Batch()
            self._filled.clear()
            if batch and not self._closed:
                await offload(self.store.write, batch)
                self.metrics.count("batches")
                self.metrics.count("events", len(batch.events))
