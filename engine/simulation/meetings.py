"""Which kinds of fault met orders in which states: what a simulation of many seeds has tried, and what not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.actors.exchange import ExchangeActor
from engine.messages import Order, OrderState
from engine.orders.journal import Journal

if TYPE_CHECKING:
    from engine.simulation.venue import SimulatedVenue
    from engine.simulation.world import World

RECENT_NS: Final = 10_000_000_000
"""So long after its end an order can still be told of: by late messages, repeated ones and reconciliation."""
STATES: Final = tuple(state.value for state in OrderState)
Meetings = Mapping[str, Mapping[str, int]]


def states_held(world: World, venue: SimulatedVenue) -> set[str]:
    """The states of the open orders that the account's exchange actor holds now; none while it is down."""
    runtime = world.runtime
    seat = runtime.seat(f"exchange.{venue.connector}.main") if runtime is not None else None
    actor = seat.actor if seat is not None else None
    return {order.state.value for order in actor.core.open_orders()} if isinstance(actor, ExchangeActor) else set()


def states_present(world: World, venue: SimulatedVenue) -> set[str]:
    """The states that orders of a venue's account are in now, by its exchange actor and its journal. An ended order
    counts while it is :data:`RECENT_NS` young.
    """
    held, path = states_held(world, venue), world.journal_path(venue)
    if not path.exists():
        return held
    return held | {order.state.value for order in _orders(path, venue.now_ns() - RECENT_NS)}


def _orders(path: Path, since_ns: int) -> Iterator[Order]:
    with Journal.open_readonly(path) as journal:
        yield from journal.orders(open_only=True)
        yield from (order for order in journal.orders(0, limit=60) if order.updated_ns >= since_ns)


def table(met: Meetings, kinds: Mapping[str, int]) -> Iterator[str]:
    """Lines of text: a row for each kind, a column for each state, the strikes that met it; "-" for none."""
    width = max(map(len, kinds), default=0)
    yield " ".join([f"{'fault':<{width}}", f"{'strikes':>8}", *(f"{state:>{len(state)}}" for state in STATES)])
    for kind in sorted(kinds):
        row = met.get(kind, {})
        cells = (f"{row.get(state) or '-':>{len(state)}}" for state in STATES)
        yield " ".join([f"{kind:<{width}}", f"{kinds[kind]:>8}", *cells])


def unmet(met: Meetings, kinds: Iterable[str]) -> list[str]:
    """The pairs of kind and state that never met, as ``kind/state``."""
    return [f"{kind}/{state}" for kind in sorted(kinds) for state in STATES if not met.get(kind, {}).get(state)]
