"""What a seed means: the make-up of a run, and when what goes wrong in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

TRADING_S: Final = 56.0
"""For so long strategies trade and faults strike."""
CALM_STRIKE_S: Final = 3.0
"""The account's stream is dropped for the first time while nothing else goes wrong."""
FIRST_FAULT_S: Final = 6.0
LAST_FAULT_S: Final = 50.0
VENUES: Final = ("a", "b")
CONNECTORS: Final = {"a": "binance", "b": "binance:us"}
PAIRS: Final = {"binance": ("BTC-USDT", "ETH-USDT"), "binance:us": ("BTC-USDT",)}
KILLED_KINDS: Final = ("exchange", "strategy", "order_book", "user_stream", "clock", "risk", "recorder")
PAUSED_KINDS: Final = ("exchange", "strategy", "user_stream", "order_book")
CUT_KINDS: Final = ("exchange", "user_stream", "order_book")
AIMED_STATES: Final = ("pending_create", "partially_filled", "pending_cancel", "unknown")
"""States that pass quickly or come seldom: faults wait for them, or they would seldom meet."""
BUS_LINKS: Final = (
    ("strategy", "exchange"),
    ("exchange", "user_stream"),
    ("strategy", "order_book"),
    ("recorder", "exchange"),
    ("risk", "exchange"),
    ("exchange", ""),
    ("strategy", ""),
    ("clock", ""),
)
"""Whose links break: between actors of two kinds, or of one kind and any other."""


@dataclass(frozen=True)
class PlannedFault:
    """One thing that goes wrong at ``at_s``; ``venue`` names one of :data:`VENUES`, ``args`` depend on the kind.

    ``meets``: it waits a while for an order of that venue's account to be in this state, and strikes then.
    """

    at_s: float
    kind: str
    venue: str
    args: dict[str, Any] = field(default_factory=dict)
    meets: str = ""

    def __str__(self) -> str:
        details = ", ".join(f"{key}={value}" for key, value in [*self.args.items(), ("meets", self.meets)] if value)
        return f"{self.kind} at venue {self.venue}{f' ({details})' if details else ''}"


@dataclass(frozen=True)
class Plan:
    """A run. Times in seconds of virtual time from its start."""

    seed: int
    activity: float
    latency_ms: float
    jitter_ms: float
    bus_latency_us: float
    interval_s: float
    skew_s: dict[str, float]
    order_entry: dict[str, str]
    takes: float
    checkpoint_every: tuple[int, int, int]
    stall_s: float
    step_s: float
    faults: tuple[PlannedFault, ...]


def make_plan(seed: int, faults: bool = True) -> Plan:
    """The plan of a seed; the same for ever, as long as this module is."""
    rng = random.Random(f"plan/{seed}")
    return Plan(
        seed=seed,
        activity=rng.choice((1.0, 2.0, 4.0)),
        latency_ms=rng.choice((0.5, 2.0, 10.0, 40.0)),
        jitter_ms=rng.choice((0.1, 2.0, 15.0)),
        bus_latency_us=rng.choice((10.0, 60.0, 400.0)),
        interval_s=rng.choice((0.4, 0.8, 1.0)),
        skew_s={venue: round(rng.uniform(-30, 30), 3) if rng.random() < 0.5 else 0.0 for venue in VENUES},
        order_entry={venue: rng.choice(("websocket", "rest")) for venue in VENUES},
        takes=rng.uniform(0.15, 0.5),
        checkpoint_every=(1, rng.choice((2, 3, 7)), 0),
        stall_s=rng.choice((3.0, 8.0)),
        step_s=rng.choice((0.05, 0.2, 0.4)),
        faults=tuple(_faults(rng)) if faults else (),
    )


def _faults(rng: random.Random) -> list[PlannedFault]:
    count = rng.randint(5, 10)
    kinds = [rng.choice(list(KINDS)) for _ in range(count)]
    times = sorted(round(rng.uniform(FIRST_FAULT_S, LAST_FAULT_S), 3) for _ in range(count))
    calm = PlannedFault(CALM_STRIKE_S, "unheard_fills", rng.choice(VENUES), {"levels": 8, "heard_within_s": 2.5})
    drawn = [
        PlannedFault(at, kind, rng.choice(VENUES), KINDS[kind](rng), rng.choice(("", *AIMED_STATES)))
        for at, kind in zip(times, kinds, strict=True)
    ]
    return [calm, *drawn]


def _steps(rng: random.Random) -> int:
    """How many more callbacks a process lives: often few, sometimes many."""
    return rng.choice((1, rng.randint(1, 10), rng.randint(1, 60), rng.randint(1, 400)))


def _seconds(low: float, high: float) -> Callable[[random.Random], float]:
    return lambda rng: round(rng.uniform(low, high), 3)


def _spell(rng: random.Random) -> float:
    """How long a partition lasts: less than a request stays acceptable, or more."""
    return round(rng.uniform(0.5, 7.0) if rng.random() < 0.5 else rng.uniform(7.0, 18.0), 3)


def _args(**makers: Callable[[random.Random], Any]) -> Callable[[random.Random], dict[str, Any]]:
    return lambda rng: {name: make(rng) for name, make in makers.items()}


def _count(most: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.randint(1, most)


def _one_of(*choices: Any) -> Callable[[random.Random], Any]:
    return lambda rng: rng.choice(choices)


KINDS: Final[dict[str, Callable[[random.Random], dict[str, Any]]]] = {
    **{f"kill_{kind}": _args(steps=_steps) for kind in KILLED_KINDS},
    "kill_venue": _args(steps=_steps, down_s=_seconds(0.1, 5.0)),
    "kill_two": _args(
        steps=_steps, kinds=lambda rng: rng.sample(("exchange", "strategy", "order_book", "user_stream", "venue"), 2)
    ),
    "kill_supervisor": _args(steps=_steps, down_s=_seconds(0.1, 2.0)),
    "kill_after_send": _args(steps=_count(4)),
    **{f"pause_{kind}": _args(for_s=_seconds(0.2, 4.5)) for kind in PAUSED_KINDS},
    "cut": _args(kind=_one_of(*CUT_KINDS)),
    "half_open": _args(kind=_one_of(*CUT_KINDS)),
    "partition": _args(
        kind=_one_of(*CUT_KINDS, ""), for_s=lambda rng: _seconds(*rng.choice(((0.5, 7.0), (7.0, 18.0))))(rng)
    ),
    "bus_cut": _args(link=_one_of(*BUS_LINKS)),
    "bus_silent": _args(link=_one_of(*BUS_LINKS), for_s=_seconds(0.3, 6.0)),
    "request_lost": _args(count=_count(2), silent=_one_of(True, False)),
    "reply_lost": _args(count=_count(3)),
    "request_late": _args(count=_count(2), by_s=_seconds(2.1, 7.0)),
    "request_outlives_sender": _args(by_s=_seconds(0.05, 4.0), steps=_count(3)),
    "cancel_lost": _args(count=_count(2), silent=_one_of(True, False)),
    "user_late": _args(count=_count(6), ms=_one_of(50, 500, 3000, 9000)),
    "user_duplicated": _args(count=_count(8)),
    "user_lost": _args(count=_count(3)),
    "http_5xx": _args(count=_count(4), status=_one_of(500, 502, 503, 504), match=_one_of("", "order", "GET")),
    "http_429": _args(count=_count(2)),
    "http_418": _args(count=_count(1)),
    "venue_slow": _args(count=_count(4), ms=_one_of(300, 1500, 2600)),
    "venue_drops_reply": _args(count=_count(2), match=_one_of("order", "order.place", "POST", "GET", "WS")),
    "clock_skew": _args(by_s=lambda rng: round(rng.choice((rng.uniform(0.2, 8.0), -rng.uniform(0.05, 0.5))), 3)),
    "halt": _args(for_s=_seconds(0.3, 4.0), cut_off_s=lambda rng: rng.choice((0.0, round(rng.uniform(0.2, 1.8), 3)))),
    "book_gap": _args(count=_count(5)),
    "streams_dropped": _args(),
    "user_stream_dropped": _args(),
    "unheard_fills": _args(levels=_count(8)),
}
"""Every kind of fault, with what is drawn for each of its strikes."""
