"""What must hold when all is quiet: the engine's journals, the venues' ledgers and the strategies' states agree.

Every check returns what is broken, a line each.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.actors.account_link import AccountLink
from engine.actors.strategy import StrategyActor
from engine.book import BookReader
from engine.messages import Order, OrderEvent, OrderEventKind, OrderFill, OrderState, Side
from engine.orders.journal import Journal
from engine.orders.strategy_store import StrategyStore
from engine.recorder_store import FILE_NAME
from engine.simulation.strategies import Busy, empty_state, folded, same
from engine.simulation.venue import SimulatedVenue
from engine.simulation.world import World
from engine.simulator.orders import Fill as VenueFill
from engine.simulator.orders import Order as VenueOrder
from engine.simulator.orders import Status
from engine.simulator.venue import Saved

UNIT: Final = Decimal("1e-8")
BOOK_LEVELS: Final = 10
ENDS: Final = {
    OrderEventKind.COMPLETED: OrderState.FILLED,
    OrderEventKind.CANCELLED: OrderState.CANCELLED,
    OrderEventKind.EXPIRED: OrderState.EXPIRED,
    OrderEventKind.FAILED: OrderState.FAILED,
}
STATES: Final = {
    Status.FILLED: OrderState.FILLED,
    Status.CANCELED: OrderState.CANCELLED,
    Status.EXPIRED: OrderState.EXPIRED,
    Status.EXPIRED_IN_MATCH: OrderState.EXPIRED,
}
_event = msgspec.msgpack.Decoder(OrderEvent)


@dataclass(frozen=True)
class Books:
    """One account as both sides have it written down."""

    connector: str
    orders: list[Order]
    fills: list[OrderFill]
    events: list[OrderEvent]
    incarnation: int
    venue_orders: list[VenueOrder]
    venue_fills: list[VenueFill]
    venue_balances: dict[str, dict[str, int]]


def read_books(world: World, venue: SimulatedVenue) -> Books:
    """Both sides' books of one account, after the run."""
    return compare(venue.connector, world.journal_path(venue), *venue.ledger())


def compare(connector: str, journal_path: Path, saved: Saved, balances: dict[str, dict[str, int]]) -> Books:
    """An account's journal beside what its venue has saved. ``balances``: ``free`` and ``locked`` by asset, in the
    venue's units.
    """
    with Journal.open_readonly(journal_path) as journal:
        orders = journal.orders(limit=10**9)
        fills = journal.fills(limit=10**9)
        events = [_event.decode(body) for _, body in journal.since(0, 10**9)]
        incarnation = journal.incarnation
    return Books(connector, orders, fills, events, incarnation, saved.orders, saved.fills, balances)


def check(world: World, books: Iterable[Books]) -> Iterator[str]:
    """Everything that is broken after a run."""
    all_books = {each.connector: each for each in books}
    for each in all_books.values():
        for text in check_account(each, world.report):
            yield f"{each.connector}: {text}"
        unseen = {order.client_order_id for order in each.venue_orders} - world.wire.written.keys()
        yield from (f"{each.connector}: order {order} was never seen on its way" for order in sorted(unseen))
    yield from _strategies(world, all_books)
    yield from _recorder(world, all_books)
    yield from check_report(world.report)


def check_account(books: Books, report: dict[str, Any]) -> Iterator[str]:
    """What is broken in one account's books. ``report``: the engine's, for the balances that it ended with."""
    yield from check_trades(books)
    yield from _balances(books, report)


def check_trades(books: Books) -> Iterator[str]:
    """What is broken in one account's orders, fills and events."""
    yield from _orders(books)
    yield from _fills(books)
    yield from _events(books)


def _orders(books: Books) -> Iterator[str]:
    counts = Counter(order.client_order_id for order in books.venue_orders)
    for client_order_id, count in counts.items():
        if count > 1:
            yield f"order {client_order_id} reached the venue {count} times"
    ours = {order.client_order_id: order for order in books.orders}
    theirs = {order.client_order_id: order for order in books.venue_orders}
    for client_order_id, order in theirs.items():
        if client_order_id not in ours:
            yield f"order {client_order_id} is at the venue and not in the journal"
        elif order.status.is_open:
            yield f"order {client_order_id} is open at the venue"
        else:
            yield from _order(ours[client_order_id], order)
    for client_order_id, own in ours.items():
        if not own.state.is_final:
            yield f"order {client_order_id} is {own.state.value} in the journal"
        elif own.state is not OrderState.FAILED and client_order_id not in theirs:
            yield f"order {client_order_id} is {own.state.value} in the journal and unknown to the venue"


def _order(ours: Order, theirs: VenueOrder) -> Iterator[str]:
    expected = STATES[theirs.status]
    if ours.state is not expected:
        yield f"order {ours.client_order_id} is {ours.state.value} in the journal, {theirs.status.value} at the venue"
    if ours.filled != theirs.filled * UNIT:
        yield f"order {ours.client_order_id}: {ours.filled} filled in the journal, {theirs.filled * UNIT} at the venue"
    if ours.exchange_order_id != str(theirs.order_id):
        yield f"order {ours.client_order_id}: venue id {ours.exchange_order_id!r} in the journal, not {theirs.order_id}"


def _fills(books: Books) -> Iterator[str]:
    ours = Counter(
        (each.pair, each.fill.trade_id, each.client_order_id, each.fill.price, each.fill.size, each.fill.fee)
        for each in books.fills
    )
    theirs = Counter(
        (each.pair, str(each.trade_id), each.client_order_id, each.price * UNIT, each.size * UNIT, each.fee * UNIT)
        for each in books.venue_fills
    )
    for fill in theirs - ours:
        yield f"fill missed: {_words(fill)}"
    for fill in ours - theirs:
        yield f"fill doubled or made up: {_words(fill)}"


def _words(fill: tuple[Any, ...]) -> str:
    pair, trade_id, client_order_id, price, size, fee = fill
    return f"{pair} trade {trade_id} of {client_order_id}: {size} at {price}, fee {fee}"


def _events(books: Books) -> Iterator[str]:
    numbers = [event.number for event in books.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "the events' numbers have holes"
    created: Counter[str] = Counter()
    ended: dict[str, OrderEventKind] = {}
    filled: Counter[tuple[str, str, str]] = Counter()
    for event in books.events:
        client_order_id = event.order.client_order_id
        if event.kind is OrderEventKind.CREATED:
            created[client_order_id] += 1
        elif event.kind is OrderEventKind.FILL and event.fill is not None:
            filled[event.order.pair, event.fill.trade_id, client_order_id] += 1
        elif event.kind in ENDS:
            if client_order_id in ended:
                yield f"order {client_order_id} ended twice: {ended[client_order_id]}, {event.kind}"
            ended[client_order_id] = event.kind
    yield from (f"order {order} was created {count} times" for order, count in created.items() if count > 1)
    if filled != Counter((each.pair, each.fill.trade_id, each.client_order_id) for each in books.fills):
        yield "the fills in the events are not the fills in the journal"
    for order in books.orders:
        kind = ended.get(order.client_order_id)
        if order.state.is_final and (kind is None or ENDS[kind] is not order.state):
            yield f"order {order.client_order_id} is {order.state.value}, and its last event was {kind}"


def _balances(books: Books, report: dict[str, Any]) -> Iterator[str]:
    told = report.get("balances", {}).get(f"{books.connector}/main")
    if told is None:
        yield "the report has no balances"
        return
    for asset, held in books.venue_balances.items():
        ours = told.get(asset, {"total": "0", "available": "0"})
        total, free = (held["free"] + held["locked"]) * UNIT, held["free"] * UNIT
        if (Decimal(ours["total"]), Decimal(ours["available"])) != (total, free):
            yield f"balance of {asset}: {ours} in the report, {total} with {free} free at the venue"


def _strategies(world: World, books: dict[str, Books]) -> Iterator[str]:
    for name, strategy in world.config.strategies.items():
        store = StrategyStore(world.paths.state / "strategies" / f"{name}.db")
        with store:
            saved = store.load()
        if saved is None:
            if strategy.params["checkpoint_every"]:
                yield f"{name} has saved nothing"
            continue
        events: list[OrderEvent] = []
        for connector in dict.fromkeys(connector for connector, _ in strategy.books):
            position = saved.positions.get(f"exchange.{connector}.main")
            if position is None:
                yield f"{name} has saved no place in the events of {connector}"
                continue
            if position.incarnation != books[connector].incarnation:
                yield f"{name} has saved a place in another life of {connector}'s events"
            own = [event for event in books[connector].events if event.order.strategy == name]
            events += [event for event in own if event.number <= position.number]
        expected = {**empty_state(), **folded(events)}
        if not same(saved.state, expected):
            yield f"{name} has saved {saved.state}, and its events once each amount to {expected}"


def _recorder(world: World, books: dict[str, Books]) -> Iterator[str]:
    """The recorder has each order as it ended, each fill once, and the positions that they amount to."""
    path = world.paths.state / FILE_NAME
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as recorded:
        orders = dict(recorded.execute("SELECT client_order_id, state FROM orders").fetchall())
        fills = recorded.execute("SELECT connector, pair, trade_id, client_order_id, price, size FROM fills").fetchall()
        positions = recorded.execute("SELECT connector, pair, base FROM positions ORDER BY id").fetchall()
    for each in books.values():
        missing = [order for order in each.orders if orders.get(order.client_order_id) != order.state.value]
        for order in missing[:3]:
            told = orders.get(order.client_order_id)
            yield f"recorder: order {order.client_order_id} is {told}, not {order.state.value}"
        rows = [row for row in fills if row[0] == each.connector]
        ours = Counter((row[1], row[2], row[3], Decimal(row[4]), Decimal(row[5])) for row in rows)
        theirs = Counter((f.pair, f.fill.trade_id, f.client_order_id, f.fill.price, f.fill.size) for f in each.fills)
        if ours != theirs:
            yield f"recorder: {len(theirs - ours)} fills of {each.connector} are missing, {len(ours - theirs)} made up"
        held: dict[str, Decimal] = {}
        for fill in each.fills:
            signed = fill.fill.size if fill.side is Side.BUY else -fill.fill.size
            held[fill.pair] = held.get(fill.pair, Decimal(0)) + signed
        last = {row[1]: Decimal(row[2]) for row in positions if row[0] == each.connector}
        if last != held:
            yield f"recorder: positions of {each.connector} are {last}, not {held}"


def check_report(report: dict[str, Any]) -> Iterator[str]:
    """What the engine itself reports as broken."""
    for problem in report.get("problems", ()):
        yield f"the report says: {problem}"
    for name in ("fills_missed", "fills_duplicated"):
        if report.get(name):
            yield f"the report counts {name}: {report[name]}"


def check_standing(world: World) -> Iterator[str]:
    """What is broken while all stands still. To be called before the stop."""
    yield from check_market_data(world)
    yield from _living_strategies(world)


def _living_strategies(world: World) -> Iterator[str]:
    """A strategy, whether or not it saves its state, was given each event since it began once, and holds none open."""
    runtime = world.runtime
    for name in world.config.strategies:
        seat = runtime.seat(f"strategy.{name}") if runtime is not None else None
        actor = seat.actor if seat is not None else None
        if not isinstance(actor, StrategyActor) or not isinstance(actor.strategy, Busy):
            yield f"{name} is not there"
            continue
        for venue in world.venues.values():
            link = actor.accounts.get(venue.connector)
            if link is not None:
                for text in _living_account(link, actor.strategy, world.journal_path(venue)):
                    yield f"{name} at {venue.connector}: {text}"


def _living_account(link: AccountLink, strategy: Busy, journal_path: Path) -> Iterator[str]:
    with Journal.open_readonly(journal_path) as journal:
        events = [_event.decode(body) for _, body in journal.since(0, 10**9)]
    if link.began is None:
        yield "it follows no account"
        return
    expected = [each.number for each in events if each.order.strategy == link.strategy]
    expected = [number for number in expected if number > link.began.number]
    heard = [number for connector, number in strategy.heard if connector == link.connector]
    if heard != expected:
        missed, more = Counter(expected) - Counter(heard), Counter(heard) - Counter(expected)
        yield f"events missed: {sorted(missed)[:5]}, doubled or made up: {sorted(more)[:5]}, since {link.began.number}"
    if link.orders:
        yield f"it holds {len(link.orders)} orders for open: {sorted(link.orders)[:3]}"


def check_market_data(world: World) -> Iterator[str]:
    """Every book in shared memory is the venue's own, once nothing moves any more. To be called before the stop."""
    now_ns = world.place.clock.monotonic_ns()
    for venue in world.venues.values():
        for pair in venue.pairs:
            path = world.paths.shm / f"{venue.connector}.{pair}.book"
            reader = BookReader(str(path))
            try:
                view = reader.depth(BOOK_LEVELS, now_ns)
            finally:
                reader.close()
            if view.status.name != "FRESH" or venue.box is None:
                yield f"book {venue.connector}/{pair} is {view.status.name}"
                continue
            book = venue.box.venue.markets[pair].book
            for side, ours, is_buy in (("bids", view.bids, True), ("asks", view.asks, False)):
                theirs = [(price * UNIT, size * UNIT) for price, size in book.levels(is_buy, BOOK_LEVELS)]
                if list(ours) != theirs:
                    yield f"book {venue.connector}/{pair}: {side} are {list(ours)[:3]}…, at the venue {theirs[:3]}…"
