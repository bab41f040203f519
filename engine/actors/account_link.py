"""A strategy's side of one account: its events in order, its own open orders, and the commands it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from functools import partial

import msgspec

from engine.actors.base import ActorContext
from engine.bus import Down, Gap, SubscriptionState, Up
from engine.errors import BusError
from engine.messages import (
    Accepted,
    AccountSnapshot,
    Balance,
    BalanceEvent,
    CancelOrder,
    GetAccount,
    Message,
    Order,
    OrderEvent,
    OrderEventKind,
    OrderFate,
    OrderState,
    PlaceOrder,
    Reason,
    Refused,
    StreamPosition,
    TradingRule,
)

COMMAND_EXPIRY_S = 1.0
ANSWER_TIMEOUT_S = 1.5
RETRY_S = 0.05
RULES_AGAIN_NS = 1_000_000_000
_BY_RULE = frozenset(
    {
        Reason.OFF_INCREMENT,
        Reason.INVALID_PRICE,
        Reason.BELOW_MIN_SIZE,
        Reason.ABOVE_MAX_SIZE,
        Reason.BELOW_MIN_NOTIONAL,
        Reason.UNKNOWN_PAIR,
        Reason.NOT_TRADING,
    }
)
"""Refusals that say that the rules known here may be old ones."""


class AccountLink:
    """Follows one exchange actor for one strategy.

    Events arrive through ``deliver``, each once and in order from ``position`` on, over any restart of either side:
    the stream is the account's journal. A command without an answer is never sent anew; its fate is asked for.

    ``orders``: those that have not ended. One whose cancel was sent shows as PENDING_CANCEL until it ends or the cancel
    turns out not to have arrived; an accepted cancel is the exchange actor's to repeat. ``reachable``: the exchange
    actor is connected and has reached its venue.
    """

    def __init__(
        self,
        context: ActorContext,
        connector: str,
        exchange: str,
        strategy: str,
        position: StreamPosition | None,
        deliver: Callable[[OrderEvent], None],
        caught_up: Callable[[], None],
    ) -> None:
        self.context = context
        self.connector = connector
        self.exchange = exchange
        self.strategy = strategy
        self.position = position
        self.began: StreamPosition | None = None
        """What it was first given of the account's events follows this one."""
        self.orders: dict[str, Order] = {}
        self.balances: dict[str, Balance] = {}
        self.rules: dict[str, TradingRule] = {}
        self.reachable = False
        self.caught_up = False
        self._deliver = deliver
        self._on_caught_up = caught_up
        self._snapshot: StreamPosition | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._subscribed = False
        self._unanswered: dict[str, Order] = {}
        self._cancelling: dict[str, OrderState] = {}
        self._rules_asked_ns: int | None = None

    def start(self) -> None:
        """Begin to follow; ``caught_up`` is called once the past has been delivered."""
        self.context.bus.subscribe(self.exchange, "balances", self._on_balance, on_state=self._on_balances_state)
        self._ask_account()

    # -------------------------------------------------------------------------------------------------- commands

    def place(self, command: PlaceOrder) -> None:
        """Send an order; it counts as open at once, until its events say otherwise."""
        now_ns = self.context.clock.time_ns()
        order = Order(
            client_order_id=command.client_order_id,
            strategy=command.strategy,
            pair=command.pair,
            side=command.side,
            order_type=command.order_type,
            size=command.size,
            price=command.price,
            state=OrderState.PENDING_CREATE,
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        self.orders[order.client_order_id] = order
        self._unanswered[order.client_order_id] = order
        self._send_place(command)

    def cancel(self, client_order_id: str) -> None:
        """Send a cancel of an open order; asked again by the strategy's own logic if it is lost."""
        order = self.orders.get(client_order_id)
        if order is None or order.state is OrderState.PENDING_CANCEL:
            return
        self._cancelling[client_order_id] = order.state
        self.orders[client_order_id] = _with_state(order, OrderState.PENDING_CANCEL)
        self._send_cancel(client_order_id)

    def _send_cancel(self, client_order_id: str) -> None:
        self._command(
            CancelOrder(client_order_id=client_order_id),
            f"cancel:{client_order_id}",
            self.context.bus.peer_incarnation(self.exchange),
            partial(self._cancel_answered, client_order_id),
        )

    def _send_place(self, command: PlaceOrder) -> None:
        client_order_id = command.client_order_id
        answered = partial(self._place_answered, client_order_id)
        incarnation = self.context.bus.peer_incarnation(self.exchange)
        if incarnation is None:
            refused = Refused(client_order_id=client_order_id, reason=Reason.NOT_READY, detail="not connected")
            asyncio.get_running_loop().call_soon(answered, refused)
        else:
            self._command(command, client_order_id, incarnation, answered)

    def _command(
        self,
        message: Message,
        command_id: str,
        incarnation: int | None,
        answered: Callable[[Message | BusError], None],
    ) -> None:
        """In this call, so that it is on its way when the strategy goes on; ``answered`` is always called later."""
        try:
            self.context.bus.command_soon(
                self.exchange,
                message,
                answered,
                command_id=command_id,
                expires_in=COMMAND_EXPIRY_S,
                to_incarnation=incarnation,
                timeout=ANSWER_TIMEOUT_S,
            )
        except BusError as error:
            asyncio.get_running_loop().call_soon(answered, error)

    def _place_answered(self, client_order_id: str, reply: Message | BusError) -> None:
        if isinstance(reply, BusError):
            if self.context.leaving:
                return
            self.context.log.info("order without an answer: asking for its fate", id=client_order_id, error=str(reply))
            self.context.run(self._ask_fate(client_order_id), "fate")
        else:
            self._answered(client_order_id, reply)

    def _cancel_answered(self, client_order_id: str, reply: Message | BusError) -> None:
        if isinstance(reply, BusError):
            self.context.log.info("cancel without an answer", id=client_order_id, error=str(reply))
        if isinstance(reply, BusError | Refused):
            self._uncancel(client_order_id)

    async def _ask_fate(self, client_order_id: str) -> None:
        self._answered(client_order_id, await self._fate(client_order_id))

    def _uncancel(self, client_order_id: str) -> None:
        """The cancel did not arrive: the order shows as what its last event says, and may be cancelled again."""
        state = self._cancelling.pop(client_order_id, None)
        present = self.orders.get(client_order_id)
        if state is not None and present is not None:
            self.orders[client_order_id] = _with_state(present, state)

    async def _fate(self, client_order_id: str) -> Message:
        while True:
            try:
                return await self.context.bus.request(
                    self.exchange, OrderFate(client_order_id=client_order_id), timeout=ANSWER_TIMEOUT_S
                )
            except BusError:
                await asyncio.sleep(RETRY_S)

    def _answered(self, client_order_id: str, reply: Message) -> None:
        if isinstance(reply, Refused):
            self._refused(reply)
        elif isinstance(reply, Accepted):
            self._unanswered.pop(client_order_id, None)

    def _refused(self, reply: Refused) -> None:
        order = self._unanswered.pop(reply.client_order_id, None)
        if order is None:
            return
        self._forget(reply.client_order_id)
        if reply.reason in _BY_RULE:
            self._ask_rules()
        self.context.metrics.count(f"refused/{reply.reason.value}")
        self.context.log.warning(
            "order refused", id=reply.client_order_id, pair=order.pair, reason=reply.reason.value, detail=reply.detail
        )
        self._deliver(
            OrderEvent(
                number=0,
                connector=self.connector,
                account="",
                kind=OrderEventKind.FAILED,
                order=_with_state(order, OrderState.FAILED, reply.reason, reply.detail),
                time_ns=self.context.clock.time_ns(),
            )
        )

    # ---------------------------------------------------------------------------------------------- what happened

    def _ask_account(self) -> None:
        if self._refresh is None or self._refresh.done():
            self._refresh = self.context.run(self._get_account(), "account")

    def _ask_rules(self) -> None:
        """At most once a second: a strategy that is wrong by itself may be refused very often."""
        now_ns = self.context.clock.monotonic_ns()
        if self._rules_asked_ns is None or now_ns - self._rules_asked_ns >= RULES_AGAIN_NS:
            self._rules_asked_ns = now_ns
            self._ask_account()

    async def _get_account(self) -> None:
        while True:
            try:
                reply = await self.context.bus.request(self.exchange, GetAccount(), timeout=ANSWER_TIMEOUT_S)
            except BusError:
                await asyncio.sleep(RETRY_S)
                continue
            if isinstance(reply, AccountSnapshot):
                self._on_snapshot(reply)
                return
            await asyncio.sleep(RETRY_S)

    def _on_snapshot(self, snapshot: AccountSnapshot) -> None:
        self.reachable = True
        self.balances = dict(snapshot.balances)
        self.rules = dict(snapshot.rules)
        stands = StreamPosition(incarnation=snapshot.incarnation, number=snapshot.number)
        if self._snapshot is None:
            self._snapshot = stands
            self._cancelling.clear()
            self.orders = {
                order.client_order_id: order for order in snapshot.orders if order.strategy == self.strategy
            } | self._unanswered
        if not self._subscribed:
            self._subscribed = True
            if self.position is None:
                self.position = stands
            elif self.position.incarnation != stands.incarnation:
                self._lost("the account's journal is another one: what followed the checkpoint is not known")
                self.position = stands
            self.began = self.position
            self.context.bus.subscribe(
                self.exchange,
                "orders",
                self._on_event,
                position=self.position,
                on_state=self._on_orders_state,
            )
        self._check_caught_up()

    def _check_caught_up(self) -> None:
        if self.caught_up or self.position is None or self._snapshot is None:
            return
        if self.position.number >= self._snapshot.number:
            self.caught_up = True
            self._on_caught_up()

    def _on_event(self, message: Message, number: int) -> None:
        if not isinstance(message, OrderEvent) or self.position is None:
            return
        self.position = StreamPosition(incarnation=self.position.incarnation, number=number)
        if message.order.strategy == self.strategy:
            if self._snapshot is None or number > self._snapshot.number:
                self._fold(message.order)
            self._deliver(message)
        self._check_caught_up()

    def _fold(self, order: Order) -> None:
        self._unanswered.pop(order.client_order_id, None)
        if order.state.is_final:
            self._forget(order.client_order_id)
            return
        if order.client_order_id in self._cancelling:
            self._cancelling[order.client_order_id] = order.state
            order = _with_state(order, OrderState.PENDING_CANCEL)
        self.orders[order.client_order_id] = order

    def _forget(self, client_order_id: str) -> None:
        self.orders.pop(client_order_id, None)
        self._cancelling.pop(client_order_id, None)

    def _on_balance(self, message: Message, number: int) -> None:
        if isinstance(message, BalanceEvent):
            self.balances.update(message.balances)

    def _on_balances_state(self, state: SubscriptionState) -> None:
        if isinstance(state, Up):
            self._ask_account()
        elif isinstance(state, Down):
            self.reachable = False

    def _on_orders_state(self, state: SubscriptionState) -> None:
        if isinstance(state, Up) and (state.missed is not None or state.incarnation_changed):
            self._lost(f"missed: {state.missed}")
            self._snapshot = None
            self.position = state.start
            self._ask_account()
        elif isinstance(state, Up):
            # Who answers now may be another life of the account, on another host, that knows of no cancel: to ask twice
            # does no harm, and nobody else would ask again.
            for client_order_id in self._cancelling:
                self._send_cancel(client_order_id)
        elif isinstance(state, Gap):
            self.context.log.error("gap in the account's events", exchange=self.exchange, gap=str(state))

    def _lost(self, why: str) -> None:
        self.context.metrics.count("order_events_lost")
        self.context.log.error("order events were lost", exchange=self.exchange, reason=why)

    def balance(self, asset: str) -> Balance:
        """What the account holds of an asset; zeros if the venue named none."""
        return self.balances.get(asset, Balance(total=Decimal(0), available=Decimal(0)))


def _with_state(order: Order, state: OrderState, reason: Reason | None = None, detail: str = "") -> Order:
    return msgspec.structs.replace(
        order,
        state=state,
        reason=order.reason if reason is None else reason,
        detail=detail or order.detail,
    )
