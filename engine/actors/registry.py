"""Which class runs which kind of actor. Imported lazily, so that each process loads what it needs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from engine.actors.base import Actor
from engine.errors import EngineError

KINDS = {
    "clock": "engine.actors.clock:ClockActor",
    "order_book": "engine.actors.order_book:OrderBookActor",
    "user_stream": "engine.actors.user_stream:UserStreamActor",
    "exchange": "engine.actors.exchange:ExchangeActor",
    "risk": "engine.actors.risk:RiskActor",
    "recorder": "engine.actors.recorder:RecorderActor",
    "mirror": "engine.actors.mirror:MirrorActor",
    "strategy": "engine.actors.strategy:StrategyActor",
    "venue": "engine.actors.venue:VenueActor",
}


SHARED_EXCHANGE = "engine.actors.candidate:CandidateActor"
"""Instead of the exchange actor, for an account whose journal is at an arbiter."""


def actor_class(kind: str, params: Mapping[str, Any] | None = None) -> type[Actor]:
    """The actor class of a kind, and of its params; EngineError for a kind that does not exist."""
    try:
        shared = kind == "exchange" and (params or {}).get("journal", {}).get("address")
        module, _, name = (SHARED_EXCHANGE if shared else KINDS[kind]).partition(":")
    except KeyError:
        raise EngineError(f"no actor is of kind {kind!r}; there are {', '.join(KINDS)}") from None
    found: type[Actor] = getattr(importlib.import_module(module), name)
    return found
