"""The exchange actor of an account that several hosts may trade: a candidate until it has the lease.

It holds the copy of the journal on this host, waits for the lease, and is an
:class:`~engine.actors.exchange.ExchangeActor` from then on. Until then it refuses orders with ``no_lease`` and knows of
no others. A holder whose lease was taken by another ends; the supervisor starts it anew, as a candidate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.actors.base import Actor, ActorContext
from engine.actors.exchange import ExchangeActor, by_risk_alone
from engine.actors.journal_care import JournalSettings
from engine.actors.tenure import Tenure, open_store
from engine.bus import Caller
from engine.errors import BusError
from engine.logs import register_secret
from engine.messages import (
    ControlReply,
    GetAccount,
    Message,
    NetworkStatus,
    PlaceOrder,
    Reason,
    Refused,
    SetTrading,
    StopActor,
    TradingSet,
)
from engine.orders.replicated import ReplicatedJournal


class CandidateActor(Actor):
    """Waits for the lease of its account, then trades it. Params: an exchange actor's, ``journal.address`` among them.

    ``exchange`` is the account's actor from the lease on.
    """

    kind: ClassVar[str] = "exchange"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        params = context.params
        settings = msgspec.convert(params["journal"], JournalSettings)
        register_secret(settings.address)
        account = str(params["account"])
        folder = Path(context.spec.state_dir) / "accounts"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = open_store(settings.address, context.connector, account, self.clock.time_ns())
        journal = ReplicatedJournal(
            folder / f"{context.connector}.{account}.db",
            context.connector,
            account,
            self.clock,
            store,
            run_id=str(params["run_id"]),
        )
        self.journal = journal
        self.tenure = Tenure(context, journal, store, settings.lease)
        self.exchange: ExchangeActor | None = None
        self._trading: SetTrading | None = None
        self._stopping = False

    async def start(self) -> dict[str, Any]:
        self.metrics.network = NetworkStatus.CONNECTING
        self.context.run(self.tenure.keep(), "lease")
        self.context.run(self._become(), "candidate")
        self.context.run(self.tenure.measure_clock(), "host clock")
        return {"account": str(self.context.params["account"])}

    async def stop(self, order: StopActor) -> None:
        self._stopping = True
        if self.exchange is not None:
            await self.exchange.stop(order)
        await self.tenure.end()

    async def dead_man(self, grace_s: float) -> None:
        self._stopping = True
        if self.exchange is not None:
            deadline_ns = self.clock.monotonic_ns() + round(grace_s * 1e9)
            if await self.tenure.is_over(grace_s / 3):
                self.log.warning("another holds the account now: its open orders are left alone")
                self.exchange.keep_orders = True
            await self.exchange.dead_man((deadline_ns - self.clock.monotonic_ns()) / 1e9)
        await self.tenure.end()

    def abandon(self) -> None:
        self.journal.close()

    def on_message(self, caller: Caller, message: Message) -> Any:
        if self.exchange is not None:
            return self.exchange.on_message(caller, message)
        match message:
            case PlaceOrder():
                return Refused(client_order_id=message.client_order_id, reason=Reason.NO_LEASE, detail=self._waits_for)
            case SetTrading():
                by_risk_alone(caller)
                self._trading = message
                return TradingSet(state=message.state)
            case GetAccount():
                return ControlReply(ok=False, error=f"{self.context.name}: {self._waits_for}")
        raise BusError(f"{self.context.name}: {self._waits_for}")

    def collect(self) -> None:
        self.tenure.collect()
        if self.exchange is not None:
            self.exchange.collect()

    async def _become(self) -> None:
        rows = await self.tenure.begin()
        if self._stopping:
            return
        self.log.info("holding the account", epoch=self.tenure.lease.epoch, rows_fetched=rows)
        exchange = ExchangeActor(self.context, self.tenure)
        self.exchange = exchange
        if self._trading is not None:
            exchange.set_trading(self._trading)
        await exchange.start()

    @property
    def _waits_for(self) -> str:
        if self.tenure.lost:
            return "the journal's database is out of reach"
        return "another process holds the account's lease, or its end is being waited for"
