"""What befalls an engine, and when: drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

KILLED: Final = (
    "clock",
    "order_book",
    "user_stream",
    "exchange",
    "exchange",
    "strategy",
    "strategy",
    "risk",
    "recorder",
    "venue",
    "fork_server",
)
TERMINATED: Final = ("clock", "order_book", "user_stream", "exchange", "strategy", "risk", "recorder", "venue")
PAUSED: Final = (
    "clock",
    "order_book",
    "user_stream",
    "exchange",
    "strategy",
    "risk",
    "recorder",
    "venue",
    "fork_server",
    "supervisor",
)
TOGETHER: Final = ("order_book", "user_stream", "exchange", "strategy", "venue", "clock", "fork_server", "supervisor")
LONGEST_PAUSE_S: Final = 4.5


@dataclass(frozen=True)
class Strike:
    """One thing that goes wrong ``at_s`` seconds after the engine has begun to trade.

    ``action``: ``kill`` (SIGKILL), ``term`` (SIGTERM), ``pause`` (SIGSTOP, and SIGCONT after ``for_s``), all of one
    actor of each of ``kinds``; or ``fault``, of a venue in a box, as its ``POST /admin/faults`` takes it. ``draw`` (0
    to 1) chooses among several actors of a kind, and among the venues. ``again_s``: where the supervisor is among the
    killed, how long after that the engine is started again.
    """

    at_s: float
    action: str
    draw: float
    kinds: tuple[str, ...] = ()
    for_s: float = 0.0
    again_s: float = 0.0
    fault: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.action == "fault":
            details = ", ".join(f"{key}={value}" for key, value in self.fault.items() if key != "kind")
            return f"{self.fault['kind']}{f' ({details})' if details else ''}"
        return f"{self.action} {' and '.join(self.kinds)}{f' for {self.for_s} s' if self.for_s else ''}"


def make_plan(seed: int, seconds: float, every_s: float) -> list[Strike]:
    """The strikes of a run, ``every_s`` apart on average; the same for the same arguments."""
    rng = random.Random(f"chaos/{seed}")
    strikes = []
    kinds = _endless(rng)
    at_s = rng.uniform(0, every_s)
    while at_s < seconds:
        strikes.append(_draw(rng, next(kinds), round(at_s, 3)))
        at_s += min(rng.expovariate(1 / every_s), 4 * every_s)
    return strikes


def _endless(rng: random.Random) -> Iterator[tuple[str, str]]:
    """(action, kind) from a deck that is shuffled anew when it is used up, so that none is forgotten for long."""
    deck = [
        *(("kill", kind) for kind in KILLED),
        *(("term", kind) for kind in TERMINATED),
        *(("pause", kind) for kind in PAUSED),
        *(("kill", "two") for _ in range(4)),
        ("kill", "supervisor"),
        *(("fault", kind) for kind in FAULTS),
    ]
    while True:
        rng.shuffle(deck)
        yield from deck


def _draw(rng: random.Random, card: tuple[str, str], at_s: float) -> Strike:
    action, kind = card
    draw = rng.random()
    if action == "fault":
        return Strike(at_s, action, draw, fault={"kind": kind.partition("/")[0], **_fault(rng, kind)})
    kinds = tuple(rng.sample(TOGETHER, 2)) if kind == "two" else (kind,)
    for_s = round(rng.uniform(0.1, LONGEST_PAUSE_S), 2) if action == "pause" else 0.0
    again_s = round(rng.choice((0.0, rng.uniform(0, 2), rng.uniform(0, 5))), 2) if "supervisor" in kinds else 0.0
    return Strike(at_s, action, draw, kinds, for_s, again_s if action == "kill" else 0.0)


PLACE: Final = ("WS order.place", "POST /api/v3/order")
CANCEL: Final = ("WS order.cancel", "DELETE /api/v3/order")
BUSY: Final = {"status": 503, "code": -1008}
STATUS_UNKNOWN: Final = {"status": 503, "code": -1007, "msg": "Timeout waiting for response from backend server."}
LIMITED: Final = {"status": 429, "code": -1003, "msg": "Too many requests.", "retry_after_s": 2}

FAULTS: Final = (
    "drop_reply",
    "drop_reply/place",
    "drop_reply/cancel",
    "latency",
    "latency/place",
    "http_status",
    "http_status/order",
    "reject/busy",
    "reject/unknown",
    "reject/limit",
    "disconnect_streams",
    "disconnect_user",
    "skip_depth",
    "late_user",
    "duplicate_user",
    "skip_user",
)
"""Kinds of faults, with what they befall."""


def _fault(rng: random.Random, kind: str) -> dict[str, Any]:
    match kind.split("/"):
        case ["drop_reply"]:
            return {"count": rng.randint(1, 3), "match": rng.choice(("", "GET", "order"))}
        case ["drop_reply", what]:
            return {"count": rng.randint(1, 3), "match": rng.choice(PLACE if what == "place" else CANCEL)}
        case ["latency"]:
            return {"count": rng.randint(1, 12), "ms": rng.choice((100, 700, 2500))}
        case ["latency", "place"]:
            return {"count": rng.randint(1, 4), "ms": rng.choice((300, 1500, 4000)), "match": rng.choice(PLACE)}
        case ["http_status"]:
            return {"count": rng.randint(1, 6), "status": rng.choice((500, 502, 503, 504)), "body": "unavailable"}
        case ["http_status", "order"]:
            return {"count": rng.randint(1, 3), "status": rng.choice((500, 502, 504)), "match": "order"}
        case ["reject", "busy"]:
            return {"count": rng.randint(1, 4), **BUSY, "match": rng.choice((*PLACE, *CANCEL))}
        case ["reject", "unknown"]:
            return {"count": rng.randint(1, 2), **STATUS_UNKNOWN, "match": rng.choice((*PLACE, *CANCEL))}
        case ["reject", "limit"]:
            return {"count": 1, **LIMITED}
        case ["skip_depth"]:
            return {"count": rng.randint(1, 5)}
        case ["late_user"]:
            return {"count": rng.randint(1, 8), "ms": rng.choice((50, 800, 4000))}
        case ["duplicate_user"]:
            return {"count": rng.randint(1, 10)}
        case ["skip_user"]:
            return {"count": rng.randint(1, 4)}
    return {}
