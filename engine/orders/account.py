"""The pure core of an account's orders: commands, answers, venue events and time in; a list of effects out.

What it holds to:

* An order is in the journal before it is sent, under the client order id that it will carry, and is sent once. The
  intent's row has the last instant at which its request may be signed (``send_by_ns``), so that after a crash the last
  instant at which the venue could accept it is known without a second write: ``send_by_ns`` + acceptance horizon. A
  request not signed by then is given up as not sent.
* A request of unknown fate is asked about by its id and never sent again. "Not found" ends an order only if the venue
  itself said so, to a question asked after that last instant, and no newer evidence says otherwise.
* Evidence is always taken: fills whenever they come (once per pair, trade id and order), ends in any order with what is
  older or newer, since an ended order never comes back at a venue. An order told as failed that turns up alive is
  cancelled, since nobody else knows of it any more.
* What is not an end is taken only if it is dated no earlier than the newest evidence for that order. Dates are on the
  venue's clock: of a stream's event its own, of an answer by REST the instant at which its request started. A date that
  is further ahead than clocks can differ is a mistake, and counts as that: it would put off whatever comes after it.
  When that clock turns out to be back by more than that, dates of before say nothing any more.
* An end is told once, after the fills that belong to it by the venue's cumulative filled size.

Times are nanoseconds since the epoch; ``now_ns`` is the wall clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from engine.messages import (
    Accepted,
    AccountSnapshot,
    Balance,
    CancelAll,
    CancelOrder,
    FeeSchema,
    Fill,
    Order,
    OrderState,
    PlaceOrder,
    Reason,
    Refused,
    TradingRule,
    VenueOrderUpdate,
)
from engine.orders.batch import Batch, EventNumbers
from engine.orders.effects import Effect, FetchFills, FetchOpenOrders, Query, Send
from engine.orders.estimated import BalanceView
from engine.orders.evidence import Evidence
from engine.orders.fees import Mids
from engine.orders.funds import Funds
from engine.orders.held import HeldOrders
from engine.orders.ids import is_own, is_valid, made_by
from engine.orders.order import Ending, Need, Signal, TrackedOrder
from engine.orders.records import OrderArchive, RecoveredState
from engine.orders.rules import check_increments, check_numbers, quantise, validate
from engine.orders.watch import Timing, Watch

_FILLS_OVERLAP_NS = 60_000_000_000
_ALIVE = frozenset({OrderState.OPEN, OrderState.PARTIALLY_FILLED, OrderState.PENDING_CANCEL})


class Failure(Enum):
    """What is known of a request that brought no good answer."""

    REFUSED = "refused"
    """The venue said no."""
    NOT_SENT = "not_sent"
    """Not a byte of it left."""
    NOT_FOUND = "not_found"
    """Of a cancel: the venue knows no such open order."""
    UNKNOWN = "unknown"
    """Anything else: it may have been carried out or not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a command, to be given after the effects' journal write is committed."""

    answer: Accepted | Refused
    effects: list[Effect]


class Account:
    """The orders and balances of one account at one venue.

    ``rules``: by pair. ``id_prefix``: of own client order ids. ``horizon_ns``: how long after its signing a request can
    still be accepted (receive window + clock error). ``archive``: the orders that are no longer in memory. ``mids``:
    present prices by pair, for fees in an asset of their own.
    """

    def __init__(
        self,
        connector: str,
        account: str,
        rules: Mapping[str, TradingRule],
        id_prefix: str,
        horizon_ns: int,
        recovered: RecoveredState,
        archive: OrderArchive,
        timing: Timing | None = None,
        view: BalanceView | None = None,
        mids: Callable[[], Mids] = dict,
    ) -> None:
        self.connector = connector
        self.account = account
        self.rules = dict(rules)
        self.incarnation = recovered.incarnation
        self.counters: Counter[str] = Counter()
        self._prefix = id_prefix
        self._horizon_ns = horizon_ns
        self._timing = timing or Timing()
        self._numbers = EventNumbers(recovered.last_number)
        self._watch = Watch(self._timing, horizon_ns)
        self._funds = Funds(connector, account, view or BalanceView())
        self._held = HeldOrders(archive, id_prefix, self._watch, self.counters)
        self._last_trade_ns = dict(recovered.last_trade_ns)
        self._newest_ns = 0
        self._evidence = Evidence(self._timing, self.counters, self._last_trade_ns, self._funds.fees, mids)
        for stored in recovered.orders:
            self._held.hold(TrackedOrder.from_stored(stored))

    # ------------------------------------------------------------------------------------------ what it knows

    @property
    def last_number(self) -> int:
        """The number of the newest event."""
        return self._numbers.last

    def order(self, client_order_id: str) -> Order | None:
        """An own order, open or ended."""
        tracked = self._held.find(client_order_id)
        return tracked.order if tracked else None

    def open_orders(self, strategy: str | None = None, pair: str | None = None) -> list[Order]:
        """The orders that have not ended, those of unknown fate among them, oldest first."""
        return [tracked.order for tracked in self._held.open(strategy, pair)]

    @property
    def foreign_orders(self) -> list[VenueOrderUpdate]:
        """Open orders at the venue that this engine did not place, as the venue last told them."""
        return list(self._held.foreign.values())

    def snapshot(self) -> AccountSnapshot:
        """Open orders and balances as of the newest event."""
        return AccountSnapshot(
            connector=self.connector,
            account=self.account,
            incarnation=self.incarnation,
            number=self.last_number,
            orders=self.open_orders(),
            balances=self._funds.shown(self.open_orders()),
            rules=dict(self.rules),
        )

    def balance(self, asset: str) -> Balance | None:
        """An asset's balance, None if the venue told of none."""
        return self._funds.shown(self.open_orders()).get(asset)

    def gauges(self) -> dict[str, int]:
        """Present numbers, for the statistics."""
        active = self._held.active.values()
        return {
            "orders_open": len(self._held.active),
            "orders_unknown": sum(t.order.state is OrderState.UNKNOWN for t in active),
            "orders_awaiting_fills": sum(t.lacks_fills for t in active),
            "orders_ended_in_memory": self._held.ended_count,
            "orders_watched": len(self._watch),
            "orders_foreign": len(self._held.foreign),
        }

    def set_horizon(self, horizon_ns: int) -> None:
        """How long after its signing a request can still be accepted, as the venue's clock is better or worse known."""
        self._horizon_ns = self._watch.horizon_ns = horizon_ns

    def set_fees(self, fees: Mapping[str, FeeSchema]) -> None:
        """What the account pays, by pair."""
        self._funds.set_fees(fees)

    # ----------------------------------------------------------------------------------------------- commands

    def place(
        self,
        command: PlaceOrder,
        now_ns: int,
        expires_ns: int | None = None,
        reference_price: Decimal | None = None,
        check_balance: bool = False,
    ) -> Decision:
        """Take an order or refuse it. An id that was seen before is answered with its fate, and nothing is sent.

        ``reference_price``: what a market order is expected to trade at. ``check_balance``: refuse what the account
        surely cannot pay; for when the venue tells balances as they change.
        """
        known = self._held.fate(command.client_order_id)
        if known is not None:
            return Decision(known, [])
        if expires_ns is not None and now_ns >= expires_ns:
            return self.refuse(command, Reason.EXPIRED, "the command came too late", now_ns)
        rule = self.rules.get(command.pair)
        if rule is None:
            return self.refuse(command, Reason.UNKNOWN_PAIR, f"no trading rule for {command.pair}", now_ns)
        if not (is_own(command.client_order_id, self._prefix) and is_valid(command.client_order_id)):
            detail = f"client order ids begin with {self._prefix!r} and are at most 32 of A-Z a-z 0-9 - _"
            return self.refuse(command, Reason.UNSUPPORTED, detail, now_ns)
        violation = check_numbers(command.order_type, command.size, command.price)
        if violation is not None:
            return self.refuse(command, violation.reason, violation.detail, now_ns)
        size, price = quantise(rule, command.order_type, command.size, command.price)
        violation = validate(rule, command.order_type, size, price, reference_price) or check_increments(
            rule, command.order_type, command.size, command.price
        )
        if violation is not None:
            return self.refuse(command, violation.reason, violation.detail, now_ns)
        if check_balance:
            newest_ns = max(self._last_trade_ns.values(), default=0)
            lacking = self._funds.lacking(command, size, price or reference_price, self.open_orders(), newest_ns)
            if lacking:
                return self.refuse(command, Reason.INSUFFICIENT_BALANCE, lacking, now_ns)
        return self._accept(command, size, price, now_ns)

    def refuse(self, command: PlaceOrder, reason: Reason, detail: str, now_ns: int) -> Decision:
        """Refuse an order for a reason of the caller's; its id is never taken later."""
        known = self._held.fate(command.client_order_id)
        if known is not None:
            return Decision(known, [])
        refused = Refused(client_order_id=command.client_order_id, reason=reason, detail=detail)
        batch = self._batch(now_ns)
        batch.refusal(refused, command.strategy)
        self.counters["commands_refused"] += 1
        return Decision(refused, batch.effects())

    def known(self, client_order_id: str) -> Accepted | Refused | None:
        """What became of an id; None if it was never seen."""
        return self._held.fate(client_order_id)

    def fate(self, client_order_id: str, now_ns: int) -> Decision:
        """What became of an id. One that was never seen is refused from then on, so that the answer stays true."""
        known = self._held.fate(client_order_id)
        if known is not None:
            return Decision(known, [])
        refused = Refused(client_order_id=client_order_id, reason=Reason.UNKNOWN_ORDER, detail="never arrived")
        batch = self._batch(now_ns)
        batch.refusal(refused, "")
        return Decision(refused, batch.effects())

    def cancel(self, command: CancelOrder, now_ns: int) -> Decision:
        """Cancel an order; one whose request is not answered yet is cancelled once it is known to live."""
        tracked = self._held.find(command.client_order_id)
        if tracked is None:
            refused = Refused(
                client_order_id=command.client_order_id,
                reason=Reason.UNKNOWN_ORDER,
                detail="no such order of this account",
            )
            return Decision(refused, [])
        batch = self._batch(now_ns)
        self._evidence.request_cancel(batch, tracked)
        return Decision(self._accepted(tracked), self._close(batch, tracked))

    def cancel_all(self, command: CancelAll, now_ns: int) -> tuple[list[str], list[Effect]]:
        """Cancel all open orders that the command names: their ids, and what to do."""
        batch = self._batch(now_ns)
        orders = self._held.open(command.strategy, command.pair)
        if command.made_by_ns:
            orders = [tracked for tracked in orders if made_by(tracked.order, command.made_by_ns)]
        for tracked in orders:
            self._evidence.request_cancel(batch, tracked)
        return [tracked.id for tracked in orders], self._close(batch, *orders)

    # -------------------------------------------------------------------------------- answers to own requests

    def sent(self, client_order_id: str, signed_ns: int, now_ns: int) -> list[Effect]:
        """An order's request was signed; told before its first byte leaves.

        Later than ``send_by_ns`` it should have been given up; the later instant is then journaled first.
        """
        tracked = self._held.active.get(client_order_id)
        if tracked is None:
            return []
        tracked.signed_ns = max(tracked.signed_ns, signed_ns)
        batch = self._batch(now_ns)
        if signed_ns > tracked.send_by_ns:
            self.counters["sent_late"] += 1
            tracked.send_by_ns = signed_ns
            batch.changed(tracked)
        return self._close(batch, tracked)

    def placed(self, update: VenueOrderUpdate, fills: Sequence[Fill], requested_ns: int, now_ns: int) -> list[Effect]:
        """The venue took an order, as it said in the answer to a request begun at ``requested_ns``."""
        return self._observe(update, fills, requested_ns, now_ns)

    def place_failed(
        self, client_order_id: str, failure: Failure, reason: Reason, detail: str, now_ns: int
    ) -> list[Effect]:
        """An order's request brought no good answer. That the venue has the id already is no refusal of the order."""
        tracked = self._held.active.get(client_order_id)
        if tracked is None:
            return []
        batch = self._batch(now_ns)
        if tracked.acknowledged:
            self.counters["contradictions"] += failure is not Failure.UNKNOWN
        elif failure is Failure.REFUSED and reason is not Reason.DUPLICATE_ID:
            self._evidence.end(batch, tracked, Ending(OrderState.FAILED, reason or Reason.VENUE_REFUSED, detail))
        elif failure is Failure.NOT_SENT:
            self._evidence.end(batch, tracked, Ending(OrderState.FAILED, reason or Reason.NOT_SENT, detail))
        else:
            self._evidence.lose(batch, tracked, detail)
        return self._close(batch, tracked)

    def cancel_result(
        self, client_order_id: str, update: VenueOrderUpdate | None, requested_ns: int, now_ns: int
    ) -> list[Effect]:
        """The venue took a cancel. ``update``: the order as its answer has it; None if it will tell later."""
        if update is None:
            return []
        return self._observe(update, (), requested_ns, now_ns, client_order_id)

    def cancel_failed(
        self, client_order_id: str, failure: Failure, reason: Reason, detail: str, now_ns: int
    ) -> list[Effect]:
        """A cancel brought no good answer: the order is asked about, and cancelled again as long as it is open."""
        tracked = self._held.find(client_order_id)
        if tracked is None or (tracked.ended and not tracked.removal):
            return []
        batch = self._batch(now_ns)
        tracked.cancel_sent_ns = 0
        if failure is Failure.REFUSED:
            if tracked.move(Signal.CANCEL_REFUSED, now_ns, reason, detail):
                batch.changed(tracked)
            return self._close(batch, tracked)
        if failure is Failure.NOT_FOUND:
            batch.action(Query(tracked.order))
        effects = self._close(batch, tracked)
        if failure is not Failure.NOT_FOUND:
            self._watch.hurry(tracked, now_ns + self._timing.retry_first)
        return effects

    # ----------------------------------------------------------------------------------- what the venue tells

    def venue_update(self, update: VenueOrderUpdate, dated_ns: int, now_ns: int) -> list[Effect]:
        """What the venue says of an order: by its stream, dated by the venue, or by REST, by its request's start.

        ``dated_ns`` 0: the venue did not say; then it counts as new.
        """
        return self._observe(update, (), self._plausible(dated_ns, now_ns), now_ns)

    def venue_fill(
        self, pair: str, fill: Fill, now_ns: int, client_order_id: str = "", exchange_order_id: str = ""
    ) -> list[Effect]:
        """One execution, of an order named by either id. Kept if the order's venue id is not known yet."""
        tracked = self._held.find(client_order_id, pair, exchange_order_id)
        if tracked is None:
            self._held.keep_orphan(pair, exchange_order_id, fill)
            return []
        batch = self._batch(now_ns)
        self._learn_exchange_id(batch, tracked, exchange_order_id)
        self._evidence.take_fill(batch, tracked, fill)
        self._evidence.press_cancel(batch, tracked)
        return self._close(batch, tracked)

    def order_not_found(
        self, client_order_id: str, asked_ns: int, now_ns: int, dated_ns: int | None = None
    ) -> list[Effect]:
        """The venue itself said that it has no such order, to a question asked at ``asked_ns`` (wall clock).

        ``dated_ns``: that instant on the venue's clock, if it is known to differ.
        """
        tracked = self._held.find(client_order_id)
        if tracked is None:
            return []
        batch = self._batch(now_ns)
        dated_ns = asked_ns if dated_ns is None else dated_ns
        outdated = dated_ns <= tracked.dated_ns
        if tracked.ended:
            tracked.removal = tracked.removal and outdated
        elif outdated or asked_ns <= tracked.last_acceptance_ns(self._horizon_ns):
            self.counters["not_found_early"] += 1
        elif tracked.ending is None:
            self._evidence.end(
                batch, tracked, Ending(OrderState.FAILED, Reason.NOT_FOUND, "the venue knows no such order")
            )
            tracked.dated_ns = dated_ns
            batch.action(self._fetch_fills(tracked))
        return self._close(batch, tracked)

    def open_orders_snapshot(
        self,
        updates: Iterable[VenueOrderUpdate],
        requested_ns: int,
        now_ns: int,
        pairs: Iterable[str] | None = None,
    ) -> list[Effect]:
        """The account's open orders (of some pairs), asked for at ``requested_ns``: missing ones are asked about."""
        self._keep_time(now_ns)
        scope = None if pairs is None else frozenset(pairs)
        effects: list[Effect] = []
        listed: set[str] = set()
        updates = list(updates)
        self._held.keep_foreign(updates, scope)
        for update in updates:
            effects += self._observe(update, (), requested_ns, now_ns)
            tracked = self._held.find(update.client_order_id, update.pair, update.exchange_order_id)
            if tracked is not None:
                listed.add(tracked.id)
        for tracked in self._held.active.values():
            missing = tracked.id not in listed and (scope is None or tracked.order.pair in scope)
            if missing and tracked.acknowledged and tracked.ending is None and tracked.dated_ns < requested_ns:
                effects.append(Query(tracked.order))
        return effects

    def balances(
        self,
        balances: Mapping[str, Balance],
        dated_ns: int,
        now_ns: int,
        complete: bool = False,
        orders: Sequence[Order] | None = None,
    ) -> list[Effect]:
        """Balances told by the venue. ``complete``: an asset that is not named is not held; then ``orders`` are those
        that were open when the request began.
        """
        self._keep_time(now_ns)
        dated_ns = self._plausible(dated_ns, now_ns)
        changed = self._funds.update(balances, dated_ns, complete, self.open_orders, orders)
        return self._funds.event(changed, dated_ns)

    # --------------------------------------------------------------------------------------------------- time

    def recover(self, now_ns: int) -> list[Effect]:
        """The first input of an incarnation: requests under way at the end of the last one are of unknown fate now."""
        batch = self._batch(now_ns)
        for tracked in self._held.active.values():
            if tracked.order.state is OrderState.PENDING_CREATE:
                self._evidence.lose(batch, tracked, "the engine restarted before the venue answered")
        batch.action(FetchOpenOrders())
        for effect in self.fills_wanted(now_ns):
            batch.action(effect)
        return self._close(batch, *self._held.active.values())

    def fills_wanted(self, now_ns: int) -> list[FetchFills]:
        """What to ask of fills in a reconciliation: for each pair with open orders, those since the last known."""
        since: dict[str, int] = {}
        for tracked in self._held.active.values():
            pair, created_ns = tracked.order.pair, tracked.order.created_ns
            since[pair] = min(since.get(pair, now_ns), created_ns)
        return [
            FetchFills(pair=pair, since_ns=max(created_ns - _FILLS_OVERLAP_NS, self._fills_since(pair, now_ns), 0))
            for pair, created_ns in since.items()
        ]

    def due(self, now_ns: int) -> list[Effect]:
        """The questions that are due."""
        self._keep_time(now_ns)
        effects: list[Effect] = []
        for tracked in self._watch.due(now_ns):
            if tracked.need is Need.FILLS:
                effects.append(self._fetch_fills(tracked))
            if tracked.need is not Need.FILLS or (tracked.cancel_requested and tracked.ending is None):
                effects.append(Query(tracked.order))
        return effects

    def ask_again(self, now_ns: int) -> list[Effect]:
        """The venue can be reached again: what was asked in vain is asked anew, without waiting for its turn."""
        self._watch.press(now_ns)
        return self.due(now_ns)

    def next_due(self) -> int | None:
        """When :meth:`due` has something next, None if nothing is awaited."""
        return self._watch.next_due()

    # --------------------------------------------------------------------------------------- inside: commands

    def _accept(self, command: PlaceOrder, size: Decimal, price: Decimal | None, now_ns: int) -> Decision:
        order = Order(
            client_order_id=command.client_order_id,
            strategy=command.strategy,
            pair=command.pair,
            side=command.side,
            order_type=command.order_type,
            size=size,
            price=price,
            state=OrderState.PENDING_CREATE,
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        tracked = TrackedOrder(order=order, send_by_ns=now_ns + self._timing.send_within)
        self._held.hold(tracked)
        batch = self._batch(now_ns)
        batch.intent(tracked)
        batch.action(Send(order, tracked.send_by_ns))
        self.counters["orders_placed"] += 1
        return Decision(self._accepted(tracked), self._close(batch, tracked))

    def _accepted(self, tracked: TrackedOrder) -> Accepted:
        return Accepted(client_order_id=tracked.id, state=tracked.order.state)

    # --------------------------------------------------------------------------------------- inside: evidence

    def _observe(
        self,
        update: VenueOrderUpdate,
        fills: Sequence[Fill],
        dated_ns: int,
        now_ns: int,
        client_order_id: str = "",
    ) -> list[Effect]:
        tracked = self._held.find(client_order_id or update.client_order_id, update.pair, update.exchange_order_id)
        if tracked is None:
            self._held.note_foreign(update)
            return []
        batch = self._batch(now_ns)
        self._learn_exchange_id(batch, tracked, update.exchange_order_id)
        for fill in fills if update.fill is None else (*fills, update.fill):
            self._evidence.take_fill(batch, tracked, fill)
        filled = update.filled
        if update.state is OrderState.FILLED and not filled:
            filled = tracked.order.size
        tracked.venue_filled = max(tracked.venue_filled, filled)
        if update.state.is_final:
            self._evidence.claim_end(batch, tracked, Ending(update.state, update.reason, update.detail))
        elif update.state in _ALIVE:
            self._evidence.claim_alive(batch, tracked, dated_ns)
        tracked.dated_ns = max(tracked.dated_ns, dated_ns)
        return self._close(batch, tracked)

    def _fetch_fills(self, tracked: TrackedOrder) -> FetchFills:
        order = tracked.order
        return FetchFills(pair=order.pair, since_ns=max(0, order.created_ns - _FILLS_OVERLAP_NS), order=order)

    def _fills_since(self, pair: str, now_ns: int) -> int:
        return max(0, min(self._last_trade_ns.get(pair, 0), now_ns) - _FILLS_OVERLAP_NS)

    def _plausible(self, dated_ns: int, now_ns: int) -> int:
        """A date of the venue's, no further ahead than clocks can differ; now where it gave none."""
        return min(dated_ns or now_ns, now_ns + self._horizon_ns)

    # --------------------------------------------------------------------------------------------- inside: holding

    def _keep_time(self, now_ns: int) -> None:
        """Notice that the venue's clock is back by more than clocks can differ: it stepped, or was known wrongly."""
        if now_ns + self._horizon_ns < self._newest_ns:
            self.counters["clock_went_back"] += 1
            self._held.undate()
            self._funds.undate(now_ns)
            self._watch.ask_all(now_ns)
            self._newest_ns = 0
        self._newest_ns = max(self._newest_ns, now_ns)

    def _batch(self, now_ns: int) -> Batch:
        self._keep_time(now_ns)
        return Batch(self.connector, self.account, self._numbers, now_ns)

    def _close(self, batch: Batch, *orders: TrackedOrder) -> list[Effect]:
        """The batch's effects, after the orders that it touched are put where they belong."""
        for tracked in orders:
            self._watch.update(tracked, batch.now_ns)
            if tracked.ended and tracked.id in self._held.active:
                self._held.retire(tracked)
        return [*batch.effects(), *self._funds.moved(batch.fills, self.open_orders, batch.now_ns)]

    def _learn_exchange_id(self, batch: Batch, tracked: TrackedOrder, exchange_order_id: str) -> None:
        if not exchange_order_id or tracked.order.exchange_order_id:
            return
        tracked.set_exchange_order_id(exchange_order_id)
        self._held.index(tracked)
        batch.changed(tracked)
        for fill in self._held.claim_orphans(tracked):
            self._evidence.take_fill(batch, tracked, fill)
