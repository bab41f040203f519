"""Where an actor's CPU time goes: the time spent in named functions of a living process, each without what it calls.

An actor's process that is to be measured has the functions of its kind wrapped, lives as ever, and writes
``stages.<actor>.json`` to the state folder at its end. What no stage has is the rest: the event loop, tasks, system
calls of waiting, garbage collection. Measuring costs about a microsecond a call, counted where it falls.
"""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.runtime.base import ActorSpec

REST = "event loop, tasks, system calls of waiting"

_BUS = {
    "bus: read, frames cut": ["engine.bus.link:Link.data_received", "engine.bus.link:Link._next_turn"],
    "bus: decode": ["engine.bus.link:decode_envelope", "engine.bus.subscription:decode_body"],
    "bus: write to the socket": ["engine.bus.link:Link.send"],
    "bus: publish": ["engine.bus.streams:Stream.publish"],
    "statistics": ["engine.metrics:Histogram.record", "engine.actors.base:Metrics.message"],
}
STAGES: dict[str, dict[str, list[str]]] = {
    "exchange": {
        **_BUS,
        "bus: commands": ["engine.bus.serving:ServerSession.received"],
        "bus: events": ["engine.bus.subscription:Subscription.event"],
        "core: place": ["engine.orders.account:Account.place"],
        "core: cancel": ["engine.orders.account:Account.cancel"],
        "core: look-ups in the journal": ["engine.orders.journal:Journal.fate", "engine.orders.journal:Journal.order"],
        "core: sent": ["engine.orders.account:Account.sent"],
        "core: replies": ["engine.orders.account:Account.placed", "engine.orders.account:Account.cancel_result"],
        "core: private stream": [
            "engine.orders.account:Account.venue_update",
            "engine.orders.account:Account.balances",
        ],
        "journal: commit": ["engine.orders.journal:Journal.record"],
        "request: parameters and signature": [
            "engine.connectors.binance.order_requests:OrderRequests.place",
            "engine.connectors.binance.order_requests:OrderRequests.cancel",
        ],
        "request: limits": [
            "engine.connectors.throttler:Throttler._charge",
            "engine.connectors.throttler:Throttler.refund",
            "engine.connectors.throttler:Throttler.report",
        ],
        "request: write to the socket": ["engine.connectors.websocket:WebSocketConnection.send"],
        "reply: frame to future": ["engine.connectors.binance.order_entry:OrderEntry.on_frame"],
        "reply: decode": [
            "engine.connectors.binance.exchange:decoded",
            "engine.connectors.binance.reports:order_update",
        ],
        "effects carried out": ["engine.actors.journal_care:JournalCare.take"],
        "statistics collected": ["engine.actors.exchange:ExchangeActor.collect"],
    },
    "venue": {
        "reply: encode": ["engine.simulator.binance.ws_api:Session._reply"],
        "request: signature and time": ["engine.simulator.binance.desk:Desk.identify"],
        "orders: checked": ["engine.simulator.binance.trading:_new_order"],
        "orders: matched": ["engine.simulator.venue:Venue.place", "engine.simulator.venue:Venue.cancel"],
        "ledger: commit": ["engine.simulator.ledger:Ledger.commit"],
        "events: private stream": ["engine.simulator.binance.users:Users.tell"],
        "events: market streams": ["engine.simulator.binance.streams:Feed.tell"],
        "market: step": ["engine.simulator.box:VenueBox.step"],
        "limits": [
            "engine.simulator.binance.limits:Limits.charge",
            "engine.simulator.binance.limits:Limits.order_report",
        ],
        "socket: write": ["engine.simulator.sockets:Socket.send"],
    },
    "strategy": {
        **_BUS,
        "strategy: handlers": ["engine.actors.strategy:StrategyActor._on_order"],
        "orders sent": ["engine.actors.strategy:StrategyActor.place", "engine.actors.strategy:StrategyActor.cancel"],
        "bus: commands": ["engine.bus.peer:Peer._open", "engine.bus.peer:Peer._frame", "engine.bus.peer:Peer._close"],
        "account followed": ["engine.actors.account_link:AccountLink._on_event"],
    },
}


class Stopwatch:
    """CPU time of this thread by stage; of what calls each other, each its own part."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self._inner: list[int] = [0]

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted for the stage."""
        now, inner = time.thread_time_ns, self._inner

        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            inner.append(0)
            began = now()
            try:
                return function(*arguments, **named)
            finally:
                whole = now() - began
                self.spent[stage] = self.spent.get(stage, 0) + whole - inner.pop()
                self.calls[stage] = self.calls.get(stage, 0) + 1
                inner[-1] += whole

        return wrapper

    def wrap(self, stage: str, target: str) -> None:
        """Replace ``module:function`` or ``module:Class.method``."""
        module, _, path = target.partition(":")
        owner: Any = importlib.import_module(module)
        *names, last = path.split(".")
        for name in names:
            owner = getattr(owner, name)
        setattr(owner, last, self.timed(stage, getattr(owner, last)))


def measured(spec: ActorSpec, live: Callable[[ActorSpec], int]) -> int:
    """``live(spec)``, with the stages of the actor's kind timed."""
    watch = Stopwatch()
    for stage, targets in STAGES[spec.kind].items():
        for target in targets:
            watch.wrap(stage, target)
    began = time.process_time_ns()
    try:
        return live(spec)
    finally:
        whole = time.process_time_ns() - began
        spent = {**watch.spent, REST: whole - sum(watch.spent.values())}
        result = {"spent": spent, "calls": watch.calls}
        (Path(spec.state_dir) / f"stages.{spec.name}.json").write_text(json.dumps(result))


def table(state: Path, actor: str, orders: int) -> dict[str, float]:
    """Microseconds of CPU for each order, by stage, most first."""
    found = json.loads((state / f"stages.{actor}.json").read_text())
    spent = sorted(found["spent"].items(), key=lambda entry: -entry[1])
    return {stage: round(ns / 1e3 / orders, 1) for stage, ns in spent}
