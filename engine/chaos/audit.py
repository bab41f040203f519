"""What must hold once an engine under chaos has ended: its books are its venues', and nothing of it is left."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from engine.chaos.setting import BUSY, MAKER
from engine.config import EngineConfig, StrategyConfig
from engine.messages import OrderEvent, OrderEventKind, Side
from engine.orders.strategy_store import Checkpoint, StrategyStore
from engine.simulation.invariants import Books, check_account, check_report, compare
from engine.simulation.strategies import empty_state, folded, same
from engine.simulation.venue import read_ledger

STOP_NS: Final = 5_000_000_000
"""Events this long before the stop have reached every strategy by then."""
AN_ID: Final = re.compile(r"\b[\w-]{1,11}-[0-9a-z]{21}\b")
NEAR_NS: Final = 3_000_000_000
MOST_LINES: Final = 60


@dataclass
class Audit:
    """What was compared, and what of it is broken, a line each."""

    books: dict[str, Books] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def orders(self) -> int:
        return sum(len(books.orders) for books in self.books.values())

    @property
    def fills(self) -> int:
        return sum(len(books.fills) for books in self.books.values())


def audit(config: EngineConfig, state: Path, report: dict[str, Any] | None, stopped_ns: int) -> Audit:
    """Compare everything that is on disk after the engine's end. ``stopped_ns``: when it was told to stop."""
    found = Audit()
    for name, connector in config.connectors.items():
        if connector.trade and connector.at is not None:
            saved, balances = read_ledger(state / "venues" / connector.at)
            journal = state / "accounts" / f"{name}.{connector.account}.db"
            found.books[name] = compare(name, journal, saved, balances)
    if report is None:
        found.broken.append("the engine did not stop and report")
    for name, books in found.books.items():
        given = config.boxes[config.connectors[name].at or ""].balances
        problems = (*check_account(books, report or {}), *_conserved(books, given))
        found.broken += [f"{name}: {text}" for text in problems]
    for strategy in config.strategies.values():
        found.broken += [f"{strategy.name}: {text}" for text in _strategy(strategy, state, found.books, stopped_ns)]
    if report is not None:
        found.broken += check_report(report)
        found.broken += [f"the report has {name}: not asked" for name in _ASKED if report[name] is None]
    return found


_ASKED: Final = ("fills_missed", "fills_duplicated")


def _conserved(books: Books, given: Mapping[str, Decimal]) -> Iterator[str]:
    """What an account began with and the journal's fills amount to what the venue says that it has."""
    totals = Counter[str]()
    exact: dict[str, Decimal] = dict(given)

    def add(asset: str, amount: Decimal) -> None:
        exact[asset] = exact.get(asset, Decimal(0)) + amount

    for each in books.fills:
        base, _, quote = each.pair.partition("-")
        signed = each.fill.size if each.side is Side.BUY else -each.fill.size
        add(base, signed)
        add(quote, -signed * each.fill.price)
        add(each.fill.fee_asset, -each.fill.fee)
        totals[quote] += 1
    for asset, held in books.venue_balances.items():
        total = (held["free"] + held["locked"]) * Decimal("1e-8")
        slack = Decimal("1e-8") * totals[asset]
        if abs(exact.get(asset, Decimal(0)) - total) > slack:
            yield f"{asset}: the fills amount to {exact.get(asset)}, and the venue has {total}"
        if held["locked"]:
            yield f"{asset}: {held['locked']} units are locked, and nothing is to be open"


def _strategy(strategy: StrategyConfig, state: Path, all_books: Mapping[str, Books], stopped_ns: int) -> Iterator[str]:
    """What it has saved is what its events, each once, amount to, and it was given all of them."""
    path = state / "strategies" / f"{strategy.name}.db"
    if not path.exists():
        yield "has saved nothing"
        return
    with StrategyStore(path) as store:
        saved = store.load()
    if saved is None:
        yield "has saved nothing"
        return
    events: list[OrderEvent] = []
    for connector in dict.fromkeys(connector for connector, _ in strategy.books):
        books = all_books[connector]
        own = [event for event in books.events if event.order.strategy == strategy.name]
        position = saved.positions.get(f"exchange.{connector}.main")
        if position is None:
            if own:
                yield f"has saved no place in the events of {connector}"
            continue
        if position.incarnation != books.incarnation:
            yield f"has saved a place in another life of {connector}'s events"
        events += [event for event in own if event.number <= position.number]
        late = [event for event in own if event.number > position.number]
        yield from _not_folded(strategy, late, stopped_ns)
    yield from _folded(strategy, saved, events)


def _not_folded(strategy: StrategyConfig, late: list[OrderEvent], stopped_ns: int) -> Iterator[str]:
    """Events that were there long before the stop and are not in the saved state, though they should be."""
    wanted = [event for event in late if strategy.strategy == BUSY or event.kind is OrderEventKind.FILL]
    for event in wanted:
        if event.time_ns < stopped_ns - STOP_NS:
            yield f"was never given event {event.number}, {event.kind.value} of {event.order.client_order_id}"


def _folded(strategy: StrategyConfig, saved: Checkpoint, events: list[OrderEvent]) -> Iterator[str]:
    expected = {**empty_state(), **folded(events)}
    if strategy.strategy == BUSY and not same(saved.state, expected):
        yield f"has saved {saved.state}, and its events once each amount to {expected}"
    if strategy.strategy == MAKER:
        position = {pair: Decimal(amount) for pair, amount in saved.state["position"].items()}
        wanted = {pair: Decimal(amount) for pair, amount in expected["position"].items()}
        if position != wanted:
            yield f"has saved the inventory {position}, and its fills amount to {wanted}"


# ------------------------------------------------------------------------------------------------------- its story


def story(text: str, audited: Audit, state: Path, strikes: list[tuple[int, str]]) -> list[str]:
    """What is known of a broken thing: the orders that it names, their events, their lines in the logs, and what
    struck at that time. ``strikes``: (ns since the epoch, what).
    """
    lines: list[tuple[int, str]] = []
    for client_order_id in dict.fromkeys(AN_ID.findall(text)):
        own = _order_story(client_order_id, audited) + _logged(client_order_id, state)
        lines += own
        if own:
            first, last = min(own)[0] - NEAR_NS, max(own)[0] + NEAR_NS
            lines += [(at_ns, f"chaos    {what}") for at_ns, what in strikes if first <= at_ns <= last]
    told = sorted(set(lines))
    shown = told if len(told) <= MOST_LINES else [*told[: MOST_LINES // 2], *told[-MOST_LINES // 2 :]]
    return [f"{datetime.fromtimestamp(at_ns / 1e9, UTC).strftime('%H:%M:%S.%f')} {line}" for at_ns, line in shown]


def _order_story(client_order_id: str, audited: Audit) -> list[tuple[int, str]]:
    lines = []
    for name, books in audited.books.items():
        for order in books.orders:
            if order.client_order_id == client_order_id:
                what = f"{order.side.value} {order.size} {order.pair} at {order.price}"
                lines.append((order.created_ns, f"journal  {name} {order.strategy} {what}: {order.state.value}"))
        for event in books.events:
            if event.order.client_order_id == client_order_id:
                trade = f" trade {event.fill.trade_id}" if event.fill is not None else ""
                why = f" {event.order.reason.value} {event.order.detail}".rstrip()
                lines.append((event.time_ns, f"journal  event {event.number} {event.kind.value}{trade}{why}"))
        for theirs in books.venue_orders:
            if theirs.client_order_id == client_order_id:
                lines.append((theirs.created_ns, f"venue    {name} took it as {theirs.order_id}"))
                lines.append((theirs.updated_ns, f"venue    {theirs.status.value}, {theirs.filled} filled"))
        for fill in books.venue_fills:
            if fill.client_order_id == client_order_id:
                lines.append((fill.time_ns, f"venue    trade {fill.trade_id}: {fill.size} at {fill.price}"))
    return lines


def _logged(text: str, state: Path) -> list[tuple[int, str]]:
    import json

    lines = []
    for path in sorted((state / "logs").glob("*.jsonl*")):
        for line in path.read_text(errors="replace").splitlines():
            if text in line:
                fields = json.loads(line)
                at = datetime.fromisoformat(fields.pop("time")).timestamp()
                lines.append((round(at * 1e9), f"log      {path.stem} {fields}"))
    return lines
