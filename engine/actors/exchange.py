"""The exchange actor: the one writer of an account's orders, balances and journal."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.actors.base import Actor, ActorContext
from engine.actors.journal_care import JournalCare, JournalSettings
from engine.actors.mids import Mids
from engine.actors.settings import connector_of
from engine.actors.takings import Takings
from engine.bus import Caller, Down, Overload, SubscriptionState
from engine.connectors.backoff import Backoff
from engine.connectors.base import Dated, VenueFill
from engine.connectors.errors import OrderNotFound, TransportError, VenueRefused
from engine.errors import JournalError, VenueError
from engine.messages import (
    BalanceEvent,
    CancelAll,
    CancelAllResult,
    CancelOrder,
    ControlReply,
    Fill,
    Fills,
    GetAccount,
    GetFills,
    GetOrders,
    Message,
    NetworkStatus,
    Order,
    OrderEvent,
    OrderFate,
    OrderFill,
    Orders,
    OrderType,
    PlaceOrder,
    Reason,
    SetTrading,
    Side,
    StopActor,
    TradingSet,
    UserStreamState,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)
from engine.orders.account import Account, Decision, Failure
from engine.orders.audit import audit
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
from engine.orders.halt import read_trading
from engine.orders.journal import Journal
from engine.orders.records import RecoveredState
from engine.orders.risk import RiskGate, RiskLimits, RiskView, TradingState
from engine.orders.tally import Tally

DAY_NS = 86_400_000_000_000
RECONCILE_S = 30.0
POLL_S = 1.0
POLL_PAIR_S = 0.2
"""Without the user stream a pass is made every ``POLL_S`` and so much more for each pair: open orders are asked for by
pair, and venues count."""
RETRY_MOST_S = 2.0
RECENT_FILLS = 20
CANCEL_ALL_TIMEOUT_S = 10.0
AUDIT_TIMEOUT_S = 4.0

Answer = Message | Awaitable[Message]


class ExchangeActor(Actor):
    """Carries out what the account's core decides: journal first, then the venue, then the streams.

    Streams: ``orders`` (:class:`OrderEvent`, numbered by the journal and replayed from it) and ``balances``. Commands:
    :class:`PlaceOrder`, :class:`CancelOrder`, :class:`CancelAll`; queries: :class:`OrderFate`, :class:`GetAccount`,
    :class:`GetOrders`, :class:`GetFills`.

    Params: ``settings``, ``account``, ``user_stream``, ``run_id``, ``id_prefix``, ``keep_orders``, ``risk`` (a
    :class:`~engine.orders.risk.RiskLimits`), ``halt_cancels``, ``stale_after_ns``, ``reconcile_s``, ``journal`` (a
    :class:`~engine.actors.journal_care.JournalSettings`), ``check_balance``, ``balance_limits`` (by asset).
    """

    kind: ClassVar[str] = "exchange"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        params = context.params
        self.account_name = str(params["account"])
        self.run_id = str(params["run_id"])
        self.keep_orders = bool(params["keep_orders"])
        self.user_stream = str(params["user_stream"])
        self.reconcile_s = float(params.get("reconcile_s", RECONCILE_S))
        self.connector = connector_of(params)
        self.pairs = list(self.connector.settings.pairs)
        self.client = self.connector.exchange(self.clock)
        folder = Path(context.spec.state_dir) / "accounts"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.journal = Journal(
            folder / f"{context.connector}.{self.account_name}.db",
            context.connector,
            self.account_name,
            self.clock,
            run_id=self.run_id,
        )
        recovered = self.journal.recover()
        self.core = Account(
            context.connector,
            self.account_name,
            {},
            str(params["id_prefix"]),
            self.client.acceptance_horizon_ns,
            recovered,
            self.journal,
            view=BalanceView(
                estimating=not self.connector.real_time_balances,
                limits={asset: Decimal(limit) for asset, limit in params.get("balance_limits", {}).items()},
            ),
        )
        self.core.set_fees(dict.fromkeys(self.pairs, self.connector.fees))
        self.check_balance = bool(params.get("check_balance", True))
        self.care = JournalCare(
            context, self.journal, msgspec.convert(params.get("journal", {}), JournalSettings), self._do_one
        )
        self.orders = context.bus.open_stream(
            "orders", overload=Overload.CLOSE, history=self.journal, incarnation=recovered.incarnation
        )
        self.balances = context.bus.open_stream("balances", overload=Overload.MERGE)
        self.takings = Takings(self.journal.run_fills(self.run_id))
        self.tally = self._count_run(recovered)
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT_FILLS)
        trading = read_trading(Path(context.spec.state_dir))
        self.gate = RiskGate(msgspec.convert(params.get("risk", {}), RiskLimits), trading.state, trading.reason)
        self.halt_cancels = bool(params.get("halt_cancels", True))
        self.mids = Mids(
            Path(context.spec.shm_dir), {context.connector: self.pairs}, int(params.get("stale_after_ns", 500_000_000))
        )
        self.day_takings = Takings()
        self._day = 0
        self._begin_day()
        self._positions: dict[str, Decimal] | None = None
        self.stopping = False
        self._up = asyncio.Event()
        self._session = 0
        self._stream_up = False
        self._created_mono: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._reconcile = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: dict[Hashable, bool] = {}
        self._orders_dirty = True

    def _count_run(self, recovered: RecoveredState) -> Tally:
        """How this run's orders stood when the journal was last written."""
        of_run = {order.client_order_id for order in self.journal.run_orders(self.run_id)}
        still_open = [
            (stored.order.client_order_id, stored.order.state, stored.acknowledged)
            for stored in recovered.orders
            if stored.order.client_order_id in of_run
        ]
        return Tally(self.journal.counts(self.run_id), still_open)

    @property
    def ready(self) -> bool:
        """Whether the venue was reached and the account is known: from here on orders are taken."""
        return self._up.is_set()

    async def start(self) -> dict[str, Any]:
        self.metrics.network = NetworkStatus.CONNECTING
        self.context.run(self._come_up(), "venue")
        self.care.start()
        self.bus.subscribe(self.user_stream, "events", self._on_user_event, on_state=self._on_user_stream)
        return {"account": self.account_name}

    async def stop(self, order: StopActor) -> None:
        self.stopping = True
        try:
            await self._leave(order.grace_ns / 1e9 - AUDIT_TIMEOUT_S - 1.0, keep=order.keep_orders)
            if self.ready:
                await self._audit()
            await self.care.durable()
        finally:
            await self.client.close()

    async def dead_man(self, grace_s: float) -> None:
        self.stopping = True
        try:
            await self._leave(grace_s, keep=self.keep_orders)
            await self.care.durable()
        finally:
            await self.client.close()

    def abandon(self) -> None:
        self.journal.close()

    # --------------------------------------------------------------------------------------------- commands, queries

    def on_message(self, caller: Caller, message: Message) -> Any:
        if self.context.failed.done():
            raise JournalError("the journal could not be written: ask for the fate after the restart")
        match message:
            case PlaceOrder():
                return self._place(message)
            case CancelOrder():
                return self._answer(self.core.cancel(message, self._now()))
            case CancelAll():
                return self._cancel_all(message)
            case OrderFate():
                return self._answer(self.core.fate(message.client_order_id, self._now()))
            case SetTrading():
                return self._set_trading(message)
            case GetAccount():
                if not self.ready:
                    return ControlReply(ok=False, error=f"{self.context.name} has not reached its venue yet")
                return self._when_durable(self.core.snapshot())
            case GetOrders():
                return Orders(orders=self.journal.orders(message.since_ns, message.open_only, message.limit))
            case GetFills():
                return Fills(fills=self.journal.fills(message.since_ns, message.limit))
        return super().on_message(caller, message)

    def _place(self, command: PlaceOrder) -> Answer:
        now_ns = self._now()
        if self.stopping:
            return self._answer(self.core.refuse(command, Reason.STOPPING, "the engine is stopping", now_ns))
        if not self.ready:
            detail = "the venue has not been reached yet"
            return self._answer(self.core.refuse(command, Reason.NOT_READY, detail, now_ns))
        violation = None if self.gate.idle else self.gate.check(command, self._risk_view(command.pair), now_ns)
        if violation is not None:
            return self._answer(self.core.refuse(command, violation.reason, violation.detail, now_ns))
        reference_price = None
        if command.order_type is OrderType.MARKET:
            reference_price = self.mids.mid(self.context.connector, command.pair, self.clock.monotonic_ns())
        decision = self.core.place(
            command,
            now_ns,
            reference_price=reference_price,
            check_balance=self.check_balance and self._stream_up,
        )
        if any(isinstance(effect, Send) for effect in decision.effects):
            self._created_mono[command.client_order_id] = command.created_mono_ns
        return self._answer(decision)

    def _risk_view(self, pair: str) -> RiskView:
        """What the risk checks look at; positions are summed up from the journal when they are first needed."""
        if self._positions is None:
            self._positions = self.journal.positions()
        self._begin_day()
        now_mono_ns = self.clock.monotonic_ns()
        mids = {name: self.mids.mid(self.context.connector, name, now_mono_ns) for name in self.pairs}
        return RiskView(
            mid=mids.get(pair),
            position=self._positions.get(pair, Decimal(0)),
            open_orders=self.core.open_orders(),
            daily_loss={quote: -gain for quote, gain in self.day_takings.gains(mids).items()},
        )

    def _begin_day(self) -> None:
        day = self.clock.time_ns() // DAY_NS
        if day != self._day:
            self._day = day
            self.day_takings = Takings(self.journal.fills(day * DAY_NS, limit=1_000_000))

    def _set_trading(self, message: SetTrading) -> TradingSet:
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
        """A message that speaks of commits is not given before they are durable."""
        return self._answer_durable(message) if self.care.behind else message

    async def _answer_durable(self, message: Message) -> Message:
        await self.care.durable()
        return message

    async def _cancel_all(self, command: CancelAll) -> CancelAllResult:
        ids, effects = self.core.cancel_all(command, self._now())
        self._do(effects)
        await self._until_ended(ids, CANCEL_ALL_TIMEOUT_S)
        open_now = {order.client_order_id: order.state.value for order in self.core.open_orders()}
        return CancelAllResult(
            cancelled=[id_ for id_ in ids if id_ not in open_now],
            failed={id_: open_now[id_] for id_ in ids if id_ in open_now},
        )

    # ---------------------------------------------------------------------------------------------------- effects

    def _do(self, effects: Iterable[Effect]) -> None:
        """Carry out effects in order. A journal that cannot be written ends the actor: what follows is never done."""
        if self.context.failed.done():
            return
        try:
            self.care.take(effects)
        except Exception as error:
            self.context.fail(error)
        self._changed.set()
        self._arm()

    def _do_one(self, effect: Effect) -> None:
        match effect:
            case JournalWrite(writes):
                self.journal.record(writes)
                self.tally.note(writes)
                self._orders_dirty = True
            case Publish(event):
                self._published(event)
            case PublishBalance(event):
                for asset, balance in event.balances.items():
                    self.balances.publish(_one_asset(event, asset, balance), key=asset)
            case Send(order, send_by_ns):
                within_ns = send_by_ns - self._now()
                self._spawn(self._send(order, self.clock.monotonic_ns() + within_ns))
            case SendCancel(order):
                self._spawn(self._send_cancel(order))
            case Query(order):
                self._ask(("query", order.client_order_id), partial(self._query, order))
            case FetchFills(pair=pair, since_ns=since_ns, order=order):
                of = order.client_order_id if order is not None else ""
                self._ask(("fills", pair, of), partial(self._fetch_fills, pair, since_ns, order))
            case FetchOpenOrders():
                self._ask(("open",), self._fetch_open_orders)

    def _published(self, event: OrderEvent) -> None:
        self.orders.publish(event, number=event.number)
        self.metrics.count("order_events")
        if event.fill is not None:
            order = event.order
            self.takings.add(order.strategy, order.pair, order.side, event.fill)
            self.day_takings.add(order.strategy, order.pair, order.side, event.fill)
            if self._positions is not None:
                signed = event.fill.size if order.side is Side.BUY else event.fill.size.copy_negate()
                self._positions[order.pair] = self._positions.get(order.pair, Decimal(0)) + signed
            self.recent.append(_fill_row(self.context.connector, event.order, event.fill))
        if event.order.reason:
            self.log.info(
                "order ended",
                id=event.order.client_order_id,
                kind=event.kind.value,
                reason=event.order.reason.value,
                detail=event.order.detail,
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.context.run(work, "request")

    def _ask(self, key: Hashable, question: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ask the venue; while the same question is under way, once more after its answer and not beside it."""
        if key in self._asking:
            self._asking[key] = True
            return
        self._asking[key] = False
        self._spawn(self._asked(key, question))

    async def _asked(self, key: Hashable, question: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await question()
        finally:
            again = self._asking.pop(key)
        if again:
            self._ask(key, question)

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

    # ---------------------------------------------------------------------------------------------- to the venue

    async def _send(self, order: Order, until_mono_ns: int) -> None:
        client_order_id = order.client_order_id
        created_mono_ns = self._created_mono.pop(client_order_id, 0)
        sent_mono_ns = 0

        def on_sent(mono_ns: int) -> None:
            nonlocal sent_mono_ns
            if mono_ns > until_mono_ns:
                raise TransportError("it waited too long for a connection", sent=False)
            if self.gate.state is TradingState.HALTED:
                raise TransportError("trading was halted before it was sent", sent=False)
            sent_mono_ns = mono_ns
            if created_mono_ns:
                self.metrics.histogram("strategy_to_wire_ns").record(mono_ns - created_mono_ns)
            late = self.core.sent(client_order_id, self._now(), self._now())
            self._do(late)
            if late:
                self.care.sync_now()

        if self.clock.monotonic_ns() > until_mono_ns:
            self._failed(order, Failure.NOT_SENT, Reason.NOT_SENT, "it waited too long to be sent")
            return
        try:
            result = await self.client.place(order, on_sent, until_mono_ns)
        except VenueRefused as error:
            self._failed(order, Failure.REFUSED, error.reason, str(error))
        except TransportError as error:
            failure = Failure.UNKNOWN if error.sent else Failure.NOT_SENT
            self._failed(order, failure, Reason.NONE if error.sent else Reason.NOT_SENT, str(error))
        except VenueError as error:
            self._failed(order, Failure.UNKNOWN, Reason.NONE, str(error))
        else:
            if sent_mono_ns:
                self.metrics.histogram("wire_to_ack_ns").record(self.clock.monotonic_ns() - sent_mono_ns)
            self._do(self.core.placed(result.update, result.fills, result.venue_ns, self._now()))

    def _failed(self, order: Order, failure: Failure, reason: Reason, detail: str) -> None:
        self.metrics.count(f"place_failed/{failure.value}")
        if failure is Failure.UNKNOWN:
            self.log.warning("order of unknown fate: asking the venue", id=order.client_order_id, error=detail)
        self._do(self.core.place_failed(order.client_order_id, failure, reason, detail, self._now()))

    async def _send_cancel(self, order: Order) -> None:
        client_order_id = order.client_order_id
        try:
            result = await self.client.cancel(order)
        except OrderNotFound as error:
            failed = (Failure.NOT_FOUND, Reason.NOT_FOUND, str(error))
        except VenueRefused as error:
            failed = (Failure.REFUSED, error.reason, str(error))
        except VenueError as error:
            failed = (Failure.UNKNOWN, Reason.NONE, str(error))
        else:
            self._do(self.core.cancel_result(client_order_id, result.value, result.venue_ns, self._now()))
            return
        self._do(self.core.cancel_failed(client_order_id, *failed, self._now()))

    async def _query(self, order: Order) -> None:
        asked_ns = self._now()
        try:
            result = await self.client.query(order.pair, order.client_order_id)
        except OrderNotFound:
            self._do(self.core.order_not_found(order.client_order_id, asked_ns, self._now()))
        except VenueError as error:
            self.log.info("could not ask for an order", id=order.client_order_id, error=str(error))
        else:
            self._do(self.core.venue_update(result.value, result.venue_ns, self._now()))

    async def _fetch_fills(self, pair: str, since_ns: int, order: Order | None) -> None:
        exchange_order_id = order.exchange_order_id if order is not None else ""
        try:
            result = await self.client.fills(pair, since_ns=since_ns, exchange_order_id=exchange_order_id or None)
        except VenueError as error:
            self.log.info("could not ask for fills", pair=pair, error=str(error))
            return
        for found in result.value:
            self._take_fill(found)

    def _take_fill(self, found: VenueFill) -> None:
        self._do(
            self.core.venue_fill(found.pair, found.fill, self._now(), found.client_order_id, found.exchange_order_id)
        )

    async def _fetch_open_orders(self) -> None:
        try:
            result = await self.client.open_orders(self.pairs)
        except VenueError as error:
            self.log.info("could not ask for open orders", error=str(error))
            self._reconcile_later()
            return
        self._do(self.core.open_orders_snapshot(result.value, result.venue_ns, self._now(), self.pairs))

    # -------------------------------------------------------------------------------------- recovery, reconciliation

    async def _come_up(self) -> None:
        """Reach the venue, learn its rules, and find out what became of everything; again after each failure."""
        backoff = Backoff()
        while True:
            try:
                await self.client.start()
                rules = await self.client.trading_rules(self.pairs)
                balances = await self.client.balances()
            except VenueError as error:
                self.metrics.network = NetworkStatus.DOWN
                delay = backoff.next()
                self.log.warning("the venue is out of reach", error=str(error), again_in_s=round(delay, 2))
                await asyncio.sleep(delay)
            else:
                break
        missing = [pair for pair in self.pairs if pair not in rules]
        if missing:
            self.log.error("the venue does not list these pairs", pairs=missing)
        self.core.rules = rules
        self.core.set_horizon(self.client.acceptance_horizon_ns)
        self.metrics.network = NetworkStatus.CONNECTED
        self._take_balances(balances, self.core.open_orders())
        self._up.set()
        self.log.info("ready", open_orders=len(self.core.open_orders()), last_event=self.core.last_number)
        self._do(self.core.recover(self._now()))
        self.context.run(self._learn_fees(), "fees")
        await self._keep_reconciled()

    async def _keep_reconciled(self) -> None:
        """One pass at a time: after each change of the user stream, at a slow beat always, and at a fast one without
        the stream. A fast pass leaves out the fills: they are asked for of the orders that turn out to have some.
        """
        backoff = Backoff(base_s=POLL_S / 4, max_s=RETRY_MOST_S)
        full_by = 0.0
        while True:
            full = await self._until_next_pass(full_by)
            try:
                await self._pass(full)
            except VenueError as error:
                self.metrics.network = NetworkStatus.DOWN
                self.log.info("reconciliation will be tried again", error=str(error))
                full_by = 0.0 if full else full_by
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self.core.set_horizon(self.client.acceptance_horizon_ns)
            full_by = asyncio.get_running_loop().time() + self.reconcile_s if full else full_by
            self.metrics.network = NetworkStatus.CONNECTED
            self.metrics.count("reconciliations")

    async def _until_next_pass(self, full_by: float) -> bool:
        """Wait until it is time; whether the pass is to be a full one."""
        wait_s = full_by - asyncio.get_running_loop().time()
        if not self._stream_up:
            wait_s = min(wait_s, POLL_S + POLL_PAIR_S * len(self.pairs))
        try:
            async with asyncio.timeout(wait_s):
                await self._reconcile.wait()
        except TimeoutError:
            return asyncio.get_running_loop().time() >= full_by
        self._reconcile.clear()
        return True

    async def _pass(self, full: bool = True) -> None:
        open_orders = await self.client.open_orders(self.pairs)
        self._do(self.core.open_orders_snapshot(open_orders.value, open_orders.venue_ns, self._now(), self.pairs))
        for effect in self.core.fills_wanted(self._now()) if full else ():
            fills = await self.client.fills(effect.pair, since_ns=effect.since_ns)
            for found in fills.value:
                self._take_fill(found)
        orders = self.core.open_orders()
        self._take_balances(await self.client.balances(), orders)

    def _take_balances(self, told: Dated[VenueBalanceUpdate], orders: list[Order]) -> None:
        """The venue's whole answer. ``orders``: those that were open when its request began."""
        self._do(self.core.balances(told.value.balances, told.venue_ns, self._now(), complete=True, orders=orders))

    async def _learn_fees(self) -> None:
        """The account's own rates; until they are known, and where the venue does not tell, its list's."""
        try:
            rates = await self.client.fee_rates(self.pairs)
        except VenueError as error:
            self.log.info("the account's fees are taken from the venue's list", error=str(error))
        else:
            self.core.set_fees(rates)

    def _reconcile_later(self) -> None:
        asyncio.get_running_loop().call_later(POLL_S / 4, self._reconcile.set)

    def _on_user_stream(self, state: SubscriptionState) -> None:
        if isinstance(state, Down):
            self._stream_up = False
        self._reconcile.set()

    def _on_user_event(self, message: Message, number: int) -> None:
        match message:
            case VenueOrderUpdate():
                self._take(self.core.venue_update, message, message.venue_time_ns, self._now())
            case VenueBalanceUpdate():
                self._take(self.core.balances, message.balances, message.venue_time_ns, self._now())
            case UserStreamState():
                if (message.connected, message.session) != (self._stream_up, self._session):
                    self._reconcile.set()
                self._stream_up, self._session = message.connected, message.session

    # --------------------------------------------------------------------------------------------------- the end

    async def _leave(self, within_s: float, keep: bool) -> None:
        """Cancel what is open, unless it is to be kept. An account that has not reached its venue yet goes on trying,
        for as long as it may if there are orders to cancel.
        """
        deadline = self.clock.monotonic_ns() + round(within_s * 1e9)
        cancel = not keep and bool(self.core.open_orders())
        if not self.ready:
            self.log.info("stopping before the venue was reached", open_orders=len(self.core.open_orders()))
            try:
                async with asyncio.timeout(within_s if cancel else min(within_s, AUDIT_TIMEOUT_S / 2)):
                    await self._up.wait()
            except TimeoutError:
                level = self.log.error if cancel else self.log.warning
                level("the venue was not reached", left_open=[o.client_order_id for o in self.core.open_orders()])
                return
        if not keep:
            await self._cancel_everything(deadline)

    async def _cancel_everything(self, deadline: int) -> None:
        while self.core.open_orders() and self.clock.monotonic_ns() < deadline:
            ids, effects = self.core.cancel_all(CancelAll(), self._now())
            self._do(effects)
            await self._until_ended(ids, min(1.0, (deadline - self.clock.monotonic_ns()) / 1e9))
        left = [order.client_order_id for order in self.core.open_orders()]
        if left:
            self.log.error("orders may still be open at the venue", orders=left)

    async def _until_ended(self, ids: list[str], timeout_s: float) -> None:
        wanted = set(ids)
        try:
            async with asyncio.timeout(timeout_s):
                while wanted & {order.client_order_id for order in self.core.open_orders()}:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return

    async def _audit(self) -> None:
        """Ask the venue for the trades of this run's orders and compare them with the journal."""
        orders = self.journal.run_orders(self.run_id)
        pairs = sorted({order.pair for order in orders})
        since_ns = int(self.run_id) + self.client.time.lead_ns - 60_000_000_000
        try:
            async with asyncio.timeout(AUDIT_TIMEOUT_S):
                if self.core.open_orders():
                    await self._pass()
                found = [fill for pair in pairs for fill in (await self.client.fills(pair, since_ns=since_ns)).value]
        except (VenueError, TimeoutError) as error:
            self.log.warning("the venue could not be asked for this run's trades", error=str(error))
            return
        ours = {(order.pair, order.exchange_order_id): order for order in orders if order.exchange_order_id}
        told = [
            OrderFill(
                client_order_id=order.client_order_id,
                strategy=order.strategy,
                pair=fill.pair,
                side=fill.side,
                fill=fill.fill,
            )
            for fill in found
            if (order := ours.get((fill.pair, fill.exchange_order_id))) is not None
        ]
        missed, duplicated = audit(self.journal.run_fills(self.run_id), told)
        self.metrics.gauges["fills_missed"] = len(missed)
        self.metrics.gauges["fills_duplicated"] = len(duplicated)
        if missed or duplicated:
            self.log.error(
                "the journal and the venue disagree on fills",
                missed=[fill.fill.trade_id for fill in missed],
                duplicated=[fill.fill.trade_id for fill in duplicated],
            )

    def collect(self) -> None:
        gauges = self.metrics.gauges
        if self._orders_dirty:
            self._orders_dirty = False
            gauges["orders"] = self.tally.counts()
            gauges["fills"] = self.takings.fills
            gauges["takings"] = self.takings.table()
            gauges["recent_fills"] = list(self.recent)
        snapshot = self.core.snapshot()
        gauges["trading"] = self.gate.state.value
        self.care.collect(self.metrics.counters, gauges)
        gauges["open_orders"] = [_order_row(self.context.connector, order) for order in snapshot.orders]
        gauges["balances"] = msgspec.to_builtins(snapshot.balances)
        gauges.update(self.core.gauges())
        for name, count in self.core.counters.items():
            self.metrics.counters[name] = count

    def _now(self) -> int:
        """The venue's present time, as well as it is known: orders and their evidence are dated on its clock."""
        return self.client.time.now_ns()


def _one_asset(event: BalanceEvent, asset: str, balance: Any) -> BalanceEvent:
    return msgspec.structs.replace(event, balances={asset: balance})


def _order_row(connector: str, order: Order) -> dict[str, Any]:
    return {"connector": connector, **msgspec.to_builtins(order)}


def _fill_row(connector: str, order: Order, fill: Fill) -> dict[str, Any]:
    return {
        "connector": connector,
        "strategy": order.strategy,
        "pair": order.pair,
        "side": order.side.value,
        "client_order_id": order.client_order_id,
        **msgspec.to_builtins(fill),
    }
