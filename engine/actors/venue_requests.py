"""An account's requests to its venue: each carried out once, and what came of it given to the core."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from engine.actors.desk import Desk
from engine.actors.journal_care import JournalCare
from engine.actors.tenure import Tenure
from engine.connectors.base import Dated, PlaceResult
from engine.connectors.errors import ClockError, OrderNotFound, TransportError, VenueRefused
from engine.errors import VenueError
from engine.messages import Order, Reason, VenueOrderUpdate
from engine.orders.account import Failure
from engine.orders.effects import FetchFills
from engine.orders.risk import RiskGate, TradingState

Question = Callable[[], Coroutine[Any, Any, None]]


class VenueRequests:
    """Places and cancels in the call that decided on it, where nothing has to be waited for; the rest, and all
    questions, each in a task of its own.

    ``again_later``: called when the list of open orders could not be had. ``tenure``: an order that is not signed early
    enough for the venue to be done with it before the lease's end is given up.
    """

    def __init__(
        self,
        desk: Desk,
        care: JournalCare,
        gate: RiskGate,
        again_later: Callable[[], None],
        tenure: Tenure | None = None,
    ) -> None:
        self._desk = desk
        self._client = desk.client
        self._core = desk.core
        self._clock = desk.context.clock
        self._log = desk.context.log
        self._metrics = desk.context.metrics
        self._care = care
        self._gate = gate
        self._again_later = again_later
        self._tenure = tenure
        self._created_mono: dict[str, int] = {}
        self._asking: dict[Hashable, bool] = {}

    @property
    def idle(self) -> bool:
        """Whether no question is under way and no order waits to be sent."""
        return not self._asking and not self._created_mono

    def created(self, client_order_id: str, mono_ns: int) -> None:
        """When the strategy made an order that is about to be sent, by the host's monotonic clock; 0: not known."""
        self._created_mono[client_order_id] = mono_ns

    def place(self, order: Order, send_by_ns: int) -> None:
        """Send an order, once, if that can be done by then."""
        until_mono_ns = self._clock.monotonic_ns() + send_by_ns - self._desk.now()
        if self._tenure is not None:
            until_mono_ns = min(until_mono_ns, self._tenure.sign_by(self._client.acceptance_horizon_ns))
        placing = _Placing(order, until_mono_ns, self._created_mono.pop(order.client_order_id, 0), self._on_sent)
        if not self._client.place_now(order, placing.on_sent, partial(self._place_done, placing)):
            self._spawn(self._place(placing))

    def cancel(self, order: Order) -> None:
        """Ask for an order's end."""
        if not self._client.cancel_now(order, partial(self._cancel_done, order)):
            self._spawn(self._cancel(order))

    def query(self, order: Order) -> None:
        """Ask what became of an order."""
        self.ask(("query", order.client_order_id), partial(self._query, order))

    def fetch_fills(self, wanted: FetchFills) -> None:
        """Ask for executions."""
        of = wanted.order.client_order_id if wanted.order is not None else ""
        self.ask(("fills", wanted.pair, of), partial(self._fetch_fills, wanted))

    def fetch_open_orders(self) -> None:
        """Ask which orders are open."""
        self.ask(("open",), self._fetch_open_orders)

    def ask(self, key: Hashable, question: Question) -> None:
        """Ask the venue; while the same question is under way, once more after its answer and not beside it."""
        if key in self._asking:
            self._asking[key] = True
            return
        self._asking[key] = False
        self._spawn(self._asked(key, question))

    async def _asked(self, key: Hashable, question: Question) -> None:
        try:
            await question()
        finally:
            again = self._asking.pop(key)
        if again:
            self.ask(key, question)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._desk.context.run(work, "request")

    async def _place(self, placing: _Placing) -> None:
        """The same, after what has to be waited for."""
        if self._clock.monotonic_ns() > placing.until_mono_ns:
            self._place_failed(placing.order, Failure.NOT_SENT, Reason.NOT_SENT, "it waited too long to be sent")
            return
        try:
            result = await self._client.place(placing.order, placing.on_sent, placing.until_mono_ns)
        except VenueError as error:
            self._not_placed(placing.order, error)
        else:
            self._placed(placing, result)

    def _on_sent(self, placing: _Placing, mono_ns: int) -> None:
        """Right before its first byte. What is raised here keeps it from being sent."""
        if mono_ns > placing.until_mono_ns:
            raise TransportError("it waited too long for a connection", sent=False)
        if self._gate.state is TradingState.HALTED:
            raise TransportError("trading was halted before it was sent", sent=False)
        placing.sent_mono_ns = mono_ns
        if placing.created_mono_ns:
            self._metrics.histogram("strategy_to_wire_ns").record(mono_ns - placing.created_mono_ns)
        now_ns = self._desk.now()
        late = self._core.sent(placing.order.client_order_id, now_ns, now_ns)
        if late:
            self._desk.do(late)
            self._care.sync_now()

    def _place_done(self, placing: _Placing, outcome: PlaceResult | VenueError) -> None:
        with self._failing():
            if isinstance(outcome, VenueError):
                self._not_placed(placing.order, outcome)
            else:
                self._placed(placing, outcome)

    def _placed(self, placing: _Placing, result: PlaceResult) -> None:
        if placing.sent_mono_ns:
            self._metrics.histogram("wire_to_ack_ns").record(self._clock.monotonic_ns() - placing.sent_mono_ns)
        self._desk.do(self._core.placed(result.update, result.fills, result.venue_ns, self._desk.now()))

    def _not_placed(self, order: Order, error: VenueError) -> None:
        if isinstance(error, VenueRefused):
            self._place_failed(order, Failure.REFUSED, error.reason, str(error))
        elif isinstance(error, TransportError) and not error.sent:
            self._place_failed(order, Failure.NOT_SENT, Reason.NOT_SENT, str(error))
        else:
            self._place_failed(order, Failure.UNKNOWN, Reason.NONE, str(error))

    def _place_failed(self, order: Order, failure: Failure, reason: Reason, detail: str) -> None:
        self._metrics.count(f"place_failed/{failure.value}")
        if failure is Failure.UNKNOWN:
            self._log.warning("order of unknown fate: asking the venue", id=order.client_order_id, error=detail)
        self._desk.do(self._core.place_failed(order.client_order_id, failure, reason, detail, self._desk.now()))

    async def _cancel(self, order: Order) -> None:
        """The same, after what has to be waited for."""
        try:
            result = await self._client.cancel(order)
        except VenueError as error:
            self._not_cancelled(order, error)
        else:
            self._cancelled(order, result)

    def _cancel_done(self, order: Order, outcome: Dated[VenueOrderUpdate] | VenueError) -> None:
        with self._failing():
            if isinstance(outcome, ClockError):
                self._spawn(self._cancel(order))
            elif isinstance(outcome, VenueError):
                self._not_cancelled(order, outcome)
            else:
                self._cancelled(order, outcome)

    def _cancelled(self, order: Order, result: Dated[VenueOrderUpdate]) -> None:
        now_ns = self._desk.now()
        self._desk.do(self._core.cancel_result(order.client_order_id, result.value, result.venue_ns, now_ns))

    def _not_cancelled(self, order: Order, error: VenueError) -> None:
        if isinstance(error, OrderNotFound):
            failed = (Failure.NOT_FOUND, Reason.NOT_FOUND, str(error))
        elif isinstance(error, VenueRefused):
            failed = (Failure.REFUSED, error.reason, str(error))
        else:
            failed = (Failure.UNKNOWN, Reason.NONE, str(error))
        self._desk.do(self._core.cancel_failed(order.client_order_id, *failed, self._desk.now()))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """An error in what is called from the connection's reading ends the actor, not the connection."""
        try:
            yield
        except Exception as error:
            self._desk.context.fail(error)

    async def _query(self, order: Order) -> None:
        asked_ns, asked_mono_ns = self._desk.now(), self._clock.monotonic_ns()
        try:
            result = await self._client.query(order)
        except OrderNotFound:
            # The venue's clock may be known otherwise than when it was asked: the earlier instant counts.
            asked_ns = min(asked_ns, self._client.time.at(asked_mono_ns))
            self._core.set_horizon(self._client.acceptance_horizon_ns)
            self._desk.do(self._core.order_not_found(order.client_order_id, asked_ns, self._desk.now()))
        except VenueError as error:
            self._log.info("could not ask for an order", id=order.client_order_id, error=str(error))
        else:
            self._desk.do(self._core.venue_update(result.value, result.venue_ns, self._desk.now()))

    async def _fetch_fills(self, wanted: FetchFills) -> None:
        exchange_order_id = wanted.order.exchange_order_id if wanted.order is not None else ""
        try:
            result = await self._client.fills(
                wanted.pair, since_ns=wanted.since_ns, exchange_order_id=exchange_order_id or None
            )
        except VenueError as error:
            self._log.info("could not ask for fills", pair=wanted.pair, error=str(error))
            return
        for found in result.value:
            self._desk.take_fill(found)

    async def _fetch_open_orders(self) -> None:
        pairs = self._desk.listed
        try:
            result = await self._client.open_orders(pairs)
        except VenueError as error:
            self._log.info("could not ask for open orders", error=str(error))
            self._again_later()
            return
        now_ns = self._desk.now()
        self._desk.do(self._core.open_orders_snapshot(result.value, result.venue_ns, now_ns, pairs))


class _Placing:
    """An order on its way to the venue. ``created_mono_ns``: when its strategy made it, 0 where it does not say."""

    __slots__ = ("created_mono_ns", "on_sent", "order", "sent_mono_ns", "until_mono_ns")

    def __init__(
        self,
        order: Order,
        until_mono_ns: int,
        created_mono_ns: int,
        on_sent: Callable[[_Placing, int], None],
    ) -> None:
        self.order = order
        self.until_mono_ns = until_mono_ns
        self.created_mono_ns = created_mono_ns
        self.sent_mono_ns = 0
        self.on_sent = partial(on_sent, self)
