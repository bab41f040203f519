"""The engine with one safeguard switched off at a time: what the simulation has to see.

Each mutant patches the real code where the safeguard is, and nothing else. Its docstring says which failure of real
programs it stands for; ``breaks`` is a part of what the simulation then finds to be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import msgspec

from engine.actors.reconciler import Reconciler
from engine.actors.venue_requests import VenueRequests
from engine.bus import Down, SubscriptionState
from engine.bus.serving import ServerSession
from engine.bus.subscription import Subscription
from engine.bus.wire import Command, Subscribe
from engine.connectors.binance.exchange import BinanceExchange
from engine.connectors.errors import OrderNotFound, TransportError, UnknownOutcome
from engine.messages import Fill, Order, Reason, StreamPosition, UserStreamState
from engine.orders import journal, journal_rows
from engine.orders.account import Failure
from engine.orders.batch import Batch
from engine.orders.evidence import Evidence
from engine.orders.journal import Journal
from engine.orders.order import TrackedOrder
from engine.orders.records import Write, WriteIntent
from engine.orders.risk import RiskGate, RiskLimits, TradingState
from engine.orders.strategy_store import StrategyStore
from engine.orders.watch import Timing
from engine.runtime.virtual_loop import CURRENT
from engine.simulation.plan import Plan
from engine.simulation.wire import OLDEST_NS

NEVER_NS = 2**62
CUT_OFF_S = 8.0


@dataclass(frozen=True)
class Mutant:
    """An engine without one safeguard. ``comes_out``: whether a plan has what could show it."""

    name: str
    patch: Callable[[], AbstractContextManager[None]]
    breaks: str
    comes_out: Callable[[Plan], bool]

    @property
    def stands_for(self) -> str:
        """The failure of real programs that it stands for."""
        return (self.patch.__doc__ or "").partition("\n")[0]

    def findings(self, broken: Sequence[str]) -> list[str]:
        """Which of a run's findings are those that this mutant is to cause."""
        return [text for text in broken if self.breaks in text]


MUTANTS: dict[str, Mutant] = {}


def struck_by(*kinds: str) -> Callable[[Plan], bool]:
    """Plans with a fault of one of these kinds."""
    return lambda plan: any(fault.kind in kinds for fault in plan.faults)


def held_up(plan: Plan) -> bool:
    """Plans in which an exchange actor is stopped for long, and not killed for it."""
    stops = [fault.args["for_s"] for fault in plan.faults if fault.kind == "pause_exchange"]
    return any(OLDEST_NS / 1e9 < for_s < plan.stall_s for for_s in stops)


def cut_off(plan: Plan) -> bool:
    """Plans in which a venue is out of an exchange actor's reach for longer than a request could be accepted."""
    parted = [fault.args for fault in plan.faults if fault.kind == "partition"]
    return any(args["kind"] in ("", "exchange") and args["for_s"] > CUT_OFF_S for args in parted)


def halted_in_trouble(plan: Plan) -> bool:
    """Plans in which trading is halted while a venue is out of reach."""
    return any(fault.kind == "halt" and fault.args["cut_off_s"] for fault in plan.faults)


def mutant(
    breaks: str, comes_out: Callable[[Plan], bool] = lambda plan: True
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], AbstractContextManager[None]]]:
    """Enter a patch into the table, under its name."""

    def enter(make: Callable[[], Iterator[None]]) -> Callable[[], AbstractContextManager[None]]:
        manager = contextlib.contextmanager(make)
        MUTANTS[make.__name__] = Mutant(make.__name__, manager, breaks, comes_out)
        return manager

    return enter


@mutant("is at the venue and not in the journal", struck_by("kill_after_send", "request_outlives_sender"))
def journal_after_send() -> Iterator[None]:
    """An order is written down once something is heard of it: one whose sender died is nobody's at the venue.

    The intent waits for the next commit of its account, as where orders are saved with their first update.
    """
    record = Journal.record
    waiting: WeakKeyDictionary[Journal, list[Write]] = WeakKeyDictionary()

    def late(self: Journal, writes: Sequence[Write]) -> None:
        if len(writes) == 1 and isinstance(writes[0], WriteIntent):
            waiting.setdefault(self, []).append(writes[0])
        else:
            record(self, (*waiting.pop(self, ()), *writes))

    with patch.object(Journal, "record", late):
        yield


@mutant("is at the venue and not in the journal", struck_by("kill_after_send", "request_outlives_sender"))
def front_log_not_read() -> Iterator[None]:
    """What was written ahead of a database is not brought in after a crash: its newest commits are lost."""
    with patch.object(journal, "read_front", lambda path, after, incarnation: []):
        yield


@mutant("the fills in the events are not the fills in the journal")
def fills_counted_twice() -> Iterator[None]:
    """A trade counts as often as it is told: by the reply, by the stream, and by the list of fills."""
    take_fill = Evidence.take_fill

    def forgetful(self: Evidence, batch: Batch, tracked: TrackedOrder, fill: Fill) -> None:
        tracked.trade_ids.discard(fill.trade_id)
        take_fill(self, batch, tracked, fill)

    # The journal refuses a trade that it has: a second line of the same defence.
    insert = journal_rows.INSERT_FILL.replace("INSERT", "INSERT OR IGNORE", 1)
    with patch.object(Evidence, "take_fill", forgetful), patch.object(journal_rows, "INSERT_FILL", insert):
        yield


@mutant("is failed in the journal, ", struck_by("request_late", "request_outlives_sender"))
def not_found_at_once() -> Iterator[None]:
    """The first "not found" ends an order whose request may still be on its way, and is then carried out."""
    with patch.object(TrackedOrder, "last_acceptance_ns", lambda self, horizon_ns: 0):
        yield


@mutant("is failed in the journal, ", cut_off)
def no_answer_is_not_found() -> Iterator[None]:
    """A question that brought no answer counts as "not found": an outage drops every order that was open."""
    query = BinanceExchange.query

    async def certain(self: BinanceExchange, order: Order) -> Any:
        try:
            return await query(self, order)
        except (TransportError, UnknownOutcome) as error:
            raise OrderNotFound(0, str(error)) from error

    with patch.object(BinanceExchange, "query", certain):
        yield


@mutant("is sent for the 2. time", struck_by("reply_lost", "request_lost", "request_late"))
def order_sent_again() -> Iterator[None]:
    """An order of unknown fate is sent once more, under its id, as a retrying HTTP client would."""
    place_failed = VenueRequests._place_failed

    def persistent(self: VenueRequests, order: Order, failure: Failure, reason: Reason, detail: str) -> None:
        if failure is Failure.UNKNOWN:
            self.place(order, self._desk.now() + Timing().send_within)
        else:
            place_failed(self, order, failure, reason, detail)

    with patch.object(VenueRequests, "_place_failed", persistent):
        yield


@mutant("made unheard, is not in the journal")
def reconnect_without_reconciliation() -> Iterator[None]:
    """What happened while the user stream was away is not asked for when it is back."""

    def on_link(self: Reconciler, state: SubscriptionState) -> None:
        if isinstance(state, Down):
            self.stream_up = False

    def on_stream(self: Reconciler, state: UserStreamState) -> None:
        self.stream_up, self._session = state.connected, state.session

    with patch.object(Reconciler, "on_link", on_link), patch.object(Reconciler, "on_stream", on_stream):
        yield


@mutant("and its events once each amount to", struck_by("kill_exchange", "kill_after_send"))
def events_folded_again() -> Iterator[None]:
    """A reader of a journal's events that comes back begins where it first began, and takes what it has seen anew."""
    request = Subscription.request
    begun: WeakKeyDictionary[Subscription, int] = WeakKeyDictionary()

    def from_the_start(self: Subscription) -> Subscribe:
        if self.position is not None and self.stream == "orders":
            self._number = begun.setdefault(self, self._number)
        return request(self)

    with patch.object(Subscription, "request", from_the_start):
        yield


@mutant("its command expired", held_up)
def expired_commands_carried_out() -> Iterator[None]:
    """A process that was held up finds old commands in its sockets, and trades on what was true back then."""
    handle = ServerSession._command

    def patient(self: ServerSession, command: Command) -> None:
        handle(self, msgspec.structs.replace(command, expires_mono_ns=NEVER_NS, expires_wall_ns=NEVER_NS))

    with patch.object(ServerSession, "_command", patient):
        yield


@mutant("and its events once each amount to", struck_by("kill_strategy", "kill_two"))
def checkpoint_in_two_steps() -> Iterator[None]:
    """A strategy's state is saved, and right after it how far it had read: dying in between, it folds events twice."""
    save, close = StrategyStore.save, StrategyStore.close
    behind: WeakKeyDictionary[StrategyStore, tuple[Any, ...]] = WeakKeyDictionary()

    def in_two_steps(
        self: StrategyStore,
        state: Any,
        positions: dict[str, StreamPosition],
        open_orders: Sequence[str] = (),
        saved_ns: int = 0,
    ) -> None:
        found = self.load()
        save(self, state, found.positions if found is not None else {}, open_orders, saved_ns)
        behind[self] = (state, positions, open_orders, saved_ns)
        asyncio.get_running_loop().call_soon(follow, self)

    def follow(self: StrategyStore) -> None:
        if self in behind:
            save(self, *behind.pop(self))

    def close_followed(self: StrategyStore) -> None:
        process = CURRENT.get()
        if process is not None and not process.gone:
            follow(self)
        behind.pop(self, None)
        close(self)

    with patch.object(StrategyStore, "save", in_two_steps), patch.object(StrategyStore, "close", close_followed):
        yield


@mutant("acknowledged a halt", halted_in_trouble)
def halt_spares_what_is_under_way() -> Iterator[None]:
    """A halt stops new orders alone: one that was taken and waits for a connection leaves after it was acknowledged."""
    init = VenueRequests.__init__

    def unaware(self: VenueRequests, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self._gate = RiskGate(RiskLimits(), TradingState.ACTIVE, "")

    with patch.object(VenueRequests, "__init__", unaware):
        yield
