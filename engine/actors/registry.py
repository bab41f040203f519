"""Which class runs which kind of actor. Imported lazily, so that each process loads what it needs."""

from __future__ import annotations

import importlib

from engine.actors.base import Actor
from engine.errors import EngineError

KINDS = {
    "clock": "engine.actors.clock:ClockActor",
    "order_book": "engine.actors.order_book:OrderBookActor",
    "user_stream": "engine.actors.user_stream:UserStreamActor",
    "exchange": "engine.actors.exchange:ExchangeActor",
    "risk": "engine.actors.risk:RiskActor",
    "recorder": "engine.actors.recorder:RecorderActor",
    "strategy": "engine.actors.strategy:StrategyActor",
    "venue": "engine.actors.venue:VenueActor",
}


def actor_class(kind: str) -> type[Actor]:
    """The actor class of a kind; EngineError for a kind that does not exist."""
    try:
        module, _, name = KINDS[kind].partition(":")
    except KeyError:
        raise EngineError(f"no actor is of kind {kind!r}; there are {', '.join(KINDS)}") from None
    found: type[Actor] = getattr(importlib.import_module(module), name)
    return found
