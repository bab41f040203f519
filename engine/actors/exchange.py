"""The exchange actor: the one writer of an account's orders, balances and journal.

What the account's core decides is carried out here, in order; requests to the venue are made by
:mod:`engine.actors.venue_requests`, what is asked of the venue at the start and from then on by
:mod:`engine.actors.reconciler`, the end by :mod:`engine.actors.departure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.actors.account_numbers import AccountNumbers
from engine.actors.account_past import check, read_exposure, read_run
from engine.actors.base import RISK, Actor, ActorContext
from engine.actors.departure import AUDIT_TIMEOUT_S, Departure
from engine.actors.desk import Desk
from engine.actors.exposure import Exposure
from engine.actors.journal_care import JournalCare, JournalSettings
from engine.actors.mids import Mids
from engine.actors.reconciler import RECONCILE_S, Reconciler
from engine.actors.settings import connector_of
from engine.actors.tenure import Tenure
from engine.actors.venue_requests import VenueRequests
from engine.bus import Caller, Overload
from engine.errors import BusError, JournalError
from engine.messages import (
    AccountSnapshot,
    BalanceEvent,
    CancelAll,
    CancelOrder,
    ControlReply,
    Fills,
    GetAccount,
    GetFills,
    GetOrders,
    Message,
    OrderEvent,
    OrderFate,
    Orders,
    OrderType,
    PlaceOrder,
    Reason,
    Refused,
    SetTrading,
    StopActor,
    TradingSet,
    UserStreamState,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)
from engine.orders.account import Account, Decision
from engine.orders.effects import (
    Effect,
    FetchFills,
    FetchOpenOrders,
    JournalWrite,
    Publish,
    PublishBalance,
    Query,
    Send,
    SendCancel,
)
from engine.orders.estimated import BalanceView
from engine.orders.halt import Trading, read_trading
from engine.orders.journal import Journal
from engine.orders.journal_past import JournalPast
from engine.orders.risk import RiskGate, RiskLimits, TradingState
from engine.orders.rules import Violation
from engine.runtime.offload import offload

Answer = Message | Awaitable[Message]

MOST_ROWS = 10_000
LEARN_LAST_S = 0.5
"""How long a report waits for what the run had before this life of the actor."""


class ExchangeActor(Actor):
    """Carries out what the account's core decides: journal first, then the venue, then the streams.

    Streams: ``orders`` (:class:`OrderEvent`, numbered by the journal and replayed from it) and ``balances``. Commands:
    :class:`PlaceOrder`, :class:`CancelOrder`, :class:`CancelAll`; queries: :class:`OrderFate`, :class:`GetAccount`,
    :class:`GetOrders`, :class:`GetFills`.

    Params: ``settings``, ``account``, ``user_stream``, ``run_id``, ``id_prefix``, ``keep_orders``, ``risk`` (a
    :class:`~engine.orders.risk.RiskLimits`), ``halt_cancels``, ``stale_after_ns``, ``reconcile_s``, ``journal`` (a
    :class:`~engine.actors.journal_care.JournalSettings`), ``check_balance``, ``balance_limits`` (by asset).

    ``tenure``: of an account that several hosts may trade, held by this process; orders are taken as long as its lease
    allows, cancels always.
    """

    kind: ClassVar[str] = "exchange"

    def __init__(self, context: ActorContext, tenure: Tenure | None = None) -> None:
        super().__init__(context)
        params = context.params
        self.tenure = tenure
        name, account = context.connector, str(params["account"])
        state = Path(context.spec.state_dir)
        self.account_name = account
        self.run_id = str(params["run_id"])
        self.keep_orders = bool(params["keep_orders"])
        self.user_stream = str(params["user_stream"])
        self.check_balance = bool(params.get("check_balance", True))
        self.halt_cancels = bool(params.get("halt_cancels", True))
        self.stopping = False
        connector = connector_of(params)
        pairs = list(connector.settings.pairs)
        self.client = connector.exchange(self.clock)
        settings = msgspec.convert(params.get("journal", {}), JournalSettings)
        self.journal = tenure.journal if tenure is not None else self._own_journal(state, settings)
        recovered = self.journal.recover()
        self.shown = BalanceView(
            estimating=not connector.real_time_balances,
            limits={asset: Decimal(limit) for asset, limit in params.get("balance_limits", {}).items()},
        )
        self.core = Account(
            name,
            account,
            {},
            str(params["id_prefix"]),
            self.client.acceptance_horizon_ns,
            recovered,
            self.journal,
            view=self.shown,
            mids=lambda: self.exposure.mids(),
        )
        self.core.set_fees(dict.fromkeys(pairs, connector.fees))
        self.orders = context.bus.open_stream(
            "orders", overload=Overload.CLOSE, history=self.journal, incarnation=recovered.incarnation
        )
        self.balances = context.bus.open_stream("balances", overload=Overload.MERGE)
        trading = read_trading(state)
        if halted := params.get("halted"):
            # Of an engine on several hosts, whose file is on another.
            trading = Trading(state=TradingState.HALTED, reason=str(halted))
        self.gate = RiskGate(msgspec.convert(params.get("risk", {}), RiskLimits), trading.state, trading.reason)
        mids = Mids(Path(context.spec.shm_dir), {name: pairs}, int(params.get("stale_after_ns", 500_000_000)))
        self.exposure = Exposure(name, pairs, self.core, self.journal, mids, self.clock, self.client.time.now_ns)
        self.numbers = AccountNumbers(name, self.core, self.journal, self.run_id, recovered)
        self.care = JournalCare(context, self.journal, settings, self._do_one, tenure)
        desk = Desk(context, self.client, self.core, self.journal, pairs, self._do)
        self.reconciler = Reconciler(desk, float(params.get("reconcile_s", RECONCILE_S)))
        self.requests = VenueRequests(desk, self.care, self.gate, self.reconciler.soon, tenure)
        self.departure = Departure(desk, self.reconciler)
        self._now = desk.now
        self._learned = asyncio.Event()
        self._lives: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def _own_journal(self, state: Path, settings: JournalSettings) -> Journal:
        connector, account = self.context.connector, self.account_name
        path = state / "accounts" / f"{connector}.{account}.db"
        return Journal(path, connector, account, self.clock, self.run_id, deferred=settings.durability == "process")

    @property
    def ready(self) -> bool:
        """Whether the venue was reached and the account is known."""
        return self.reconciler.up

    @property
    def _lacks(self) -> str:
        """What has to be known before orders are taken; empty once it is."""
        if not self.ready:
            return "the venue was not reached yet"
        if self.journal.unchecked:
            return "the journal is still being checked"
        known = (self.exposure.known or self.gate.idle) and self.shown.known
        return "" if known else "what was traded so far is still being added up"

    async def start(self) -> dict[str, Any]:
        self.context.run(self._learn_past(self.journal.past()), "past")
        self.context.run(self.reconciler.run(), "venue")
        self.care.start()
        self.bus.subscribe(self.user_stream, "events", self._on_user_event, on_state=self.reconciler.on_link)
        return {"account": self.account_name}

    async def stop(self, order: StopActor) -> None:
        self.stopping = True
        try:
            await self.departure.leave(order.grace_ns / 1e9 - AUDIT_TIMEOUT_S - 1.0, keep=order.keep_orders)
            if self.ready:
                await self.departure.audit(self.run_id)
            await self.care.settled()
            with suppress(TimeoutError):
                async with asyncio.timeout(LEARN_LAST_S):
                    await self._learned.wait()
        finally:
            await self.client.close()

    async def dead_man(self, grace_s: float) -> None:
        self.stopping = True
        try:
            await self.departure.leave(grace_s, keep=self.keep_orders)
            await self.care.settled()
        finally:
            await self.client.close()

    async def _learn_past(self, past: JournalPast) -> None:
        """First what orders are judged by, then what is only told."""
        try:
            if self.journal.unchecked:
                await offload(check, past)
                self.journal.unchecked = False
            self.exposure.learn(*await offload(read_exposure, past, self.exposure.since_ns))
            counts, takings = await offload(read_run, past, self.run_id)
            self.shown.learn(takings.brought())
            self.numbers.learn(counts, takings)
        except asyncio.CancelledError:
            past.give_up()
            raise
        self._learned.set()

    def abandon(self) -> None:
        self.journal.abandon()

    # --------------------------------------------------------------------------------------------- commands, queries

    def on_message(self, caller: Caller, message: Message) -> Any:
        if self.context.failed.done():
            raise JournalError("the journal could not be written: ask for the fate after the restart")
        match message:
            case PlaceOrder():
                return self._place(caller, message)
            case CancelOrder():
                return self._cancel(message)
            case CancelAll():
                return self.departure.cancel_all(message)
            case OrderFate():
                return self._answer(self.core.fate(message.client_order_id, self._now()))
            case SetTrading():
                by_risk_alone(caller)
                return self.set_trading(message)
            case GetAccount():
                if lacks := self._lacks:
                    return ControlReply(ok=False, error=f"{self.context.name}: {lacks}")
                snapshot = self.core.snapshot()
                return self._account_when_durable(snapshot) if self.care.behind else snapshot
            case GetOrders():
                rows = self.journal.orders(message.since_ns, message.open_only, _most(message.limit), message.offset)
                return Orders(orders=rows)
            case GetFills():
                return Fills(fills=self.journal.fills(message.since_ns, _most(message.limit), message.offset))
        return super().on_message(caller, message)

    def _place(self, caller: Caller, command: PlaceOrder) -> Answer:
        now_ns = self._now()
        newest = self._lives[caller.name] = max(caller.incarnation, self._lives.get(caller.name, 0))
        if caller.incarnation < newest:
            # A strategy that was started anew elsewhere while the host of this life was cut off.
            detail = f"a later life of {caller.name} is at work"
            return self._answer(self.core.refuse(command, Reason.OTHER_INCARNATION, detail, now_ns))
        if self.stopping:
            return self._answer(self.core.refuse(command, Reason.STOPPING, "the engine is stopping", now_ns))
        if lacks := self._lacks:
            return self._answer(self.core.refuse(command, Reason.NOT_READY, lacks, now_ns))
        if self.tenure is not None and (lacking := self.tenure.refusal(self.client.acceptance_horizon_ns)):
            return self._no_lease(command, lacking)
        violation = None if self.gate.idle else self._violation(command)
        if violation is not None:
            return self._answer(self.core.refuse(command, violation.reason, violation.detail, now_ns))
        reference_price = self.exposure.mid(command.pair) if command.order_type is OrderType.MARKET else None
        decision = self.core.place(
            command,
            now_ns,
            reference_price=reference_price,
            check_balance=self.check_balance and self.reconciler.stream_up,
        )
        if any(isinstance(effect, Send) for effect in decision.effects):
            # Of a strategy on another host that is another clock's.
            self.requests.created(command.client_order_id, command.created_mono_ns if caller.same_host else 0)
        elif not self.gate.idle:
            self.gate.take_back(command)
        return self._answer(decision)

    def _violation(self, command: PlaceOrder) -> Violation | None:
        return self.gate.check(command, self.exposure.view(command.pair), self.clock.monotonic_ns())

    def _no_lease(self, command: PlaceOrder, lacking: str) -> Answer:
        """Refused, and not journaled: that would have to wait for what is lacking. Its sender never sends it again."""
        known = self.core.known(command.client_order_id)
        if known is not None:
            return self._when_durable(known)
        self.metrics.count(f"refused/{Reason.NO_LEASE.value}")
        return Refused(client_order_id=command.client_order_id, reason=Reason.NO_LEASE, detail=lacking)

    def _cancel(self, command: CancelOrder) -> Answer:
        """Done and answered at once if the journal's database is out of reach: a cancel needs no journal."""
        decision = self.core.cancel(command, self._now())
        if self.tenure is None or not self.tenure.lost:
            return self._answer(decision)
        self._do(decision.effects)
        return decision.answer

    def set_trading(self, message: SetTrading) -> TradingSet:
        """From here on nothing is placed against it: an order that is not on the wire yet is given up."""
        state = TradingState(message.state)
        if state is not self.gate.state:
            self.log.warning("trading state", state=message.state, reason=message.reason)
        self.gate.state, self.gate.reason = state, message.reason
        if self.gate.state is TradingState.HALTED and self.halt_cancels:
            _, effects = self.core.cancel_all(CancelAll(), self._now())
            self._do(effects)
        return TradingSet(state=message.state)

    def _answer(self, decision: Decision) -> Answer:
        """The answer, once its effects are in the journal. JournalError if they are not: then nobody may count on it,
        and the caller asks for the fate.
        """
        self._do(decision.effects)
        if self.context.failed.done():
            raise JournalError(f"not journaled: {self.context.failed.result()}")
        return self._when_durable(decision.answer)

    def _when_durable(self, message: Message) -> Answer:
        """A message that speaks of commits is not given before they are durable.

        What it answers is done: it is a task, since a coroutine is something that the bus may leave undone if its
        command has expired meanwhile.
        """
        return asyncio.ensure_future(self._answer_durable(message)) if self.care.behind else message

    async def _answer_durable(self, message: Message) -> Message:
        await self.care.durable()
        return message

    async def _account_when_durable(self, snapshot: AccountSnapshot) -> Message:
        """The account as of its durable commits; but balances as of now, since the stream may have told of these, and
        what is told last counts.
        """
        await self.care.durable()
        return msgspec.structs.replace(snapshot, balances=self.core.snapshot().balances)

    def _on_user_event(self, message: Message, number: int) -> None:
        match message:
            case VenueOrderUpdate():
                self._take(self.core.venue_update, message, message.venue_time_ns, self._now())
            case VenueBalanceUpdate():
                self._take(self.core.balances, message.balances, message.venue_time_ns, self._now())
            case UserStreamState():
                self.reconciler.on_stream(message)

    # ---------------------------------------------------------------------------------------------------- effects

    def _do(self, effects: Iterable[Effect]) -> None:
        """Carry out effects in order. A journal that cannot be written ends the actor: what follows is never done."""
        if self.context.failed.done():
            return
        try:
            self.care.take(effects)
        except Exception as error:
            self.context.fail(error)
        self.departure.changed()
        self._arm()

    def _do_one(self, effect: Effect) -> None:
        match effect:
            case JournalWrite(writes):
                self.journal.record(writes)
                self.numbers.wrote(writes)
                self.exposure.wrote(writes)
            case Publish(event):
                self._publish(event)
            case PublishBalance(event):
                for asset, balance in event.balances.items():
                    self.balances.publish(_one_asset(event, asset, balance), key=asset)
            case Send(order, send_by_ns):
                self.requests.place(order, send_by_ns)
            case SendCancel(order):
                self.requests.cancel(order)
            case Query(order):
                self.requests.query(order)
            case FetchFills():
                self.requests.fetch_fills(effect)
            case FetchOpenOrders():
                self.requests.fetch_open_orders()

    def _publish(self, event: OrderEvent) -> None:
        self.orders.publish(event, number=event.number)
        self.metrics.count("order_events")
        self.numbers.add(event)
        if event.order.reason:
            self.log.info(
                "order ended",
                id=event.order.client_order_id,
                kind=event.kind.value,
                reason=event.order.reason.value,
                detail=event.order.detail,
            )

    def _arm(self) -> None:
        due_ns = self.core.next_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_ns is not None and self.ready:
            delay = max(0.001, (due_ns - self._now()) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay, self._ask_due)

    def _ask_due(self) -> None:
        self._timer = None
        self._take(self.core.due, self._now())

    def _take(self, news: Callable[..., list[Effect]], *arguments: Any) -> None:
        """Give the core what came from outside of any task. If it fails at it, it may know half of it: start anew."""
        try:
            effects = news(*arguments)
        except Exception as error:
            self.context.fail(error)
        else:
            self._do(effects)

    def collect(self) -> None:
        self.metrics.gauges["trading"] = self.gate.state.value
        self.care.collect(self.metrics.counters, self.metrics.gauges)
        self.numbers.collect(self.metrics)
        self.metrics.counters["orders_unreadable"] = self.client.unreadable


def by_risk_alone(caller: Caller) -> None:
    """A trading state is on disk before any account hears of it; whoever else sets one would undo a halt unseen."""
    if caller.name != RISK:
        raise BusError(f"only the risk actor sets the trading state, not {caller.name}")


def _most(limit: int) -> int:
    """How many rows one question is answered with: a message holds no more, and nobody else shall wait for long."""
    return max(0, min(limit, MOST_ROWS))


def _one_asset(event: BalanceEvent, asset: str, balance: Any) -> BalanceEvent:
    return msgspec.structs.replace(event, balances={asset: balance})
