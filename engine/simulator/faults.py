"""Faults on demand: what a venue does wrong, for the next ``count`` requests that match.

``POST /admin/faults`` takes one fault or a list of them::

    {"kind": "reject", "count": 1, "match": "POST /api/v3/order", "code": -1008, "msg": "…", "status": 503,
     "retry_after_s": 3}
    {"kind": "latency", "count": 3, "match": "/api/v3/order", "ms": 250}
    {"kind": "http_status", "count": 2, "match": "/api/v3/account", "status": 502, "body": "bad gateway"}
    {"kind": "drop_reply", "count": 1, "match": "POST /api/v3/order"}
    {"kind": "late_reply", "count": 1, "match": "GET /api/v3/depth", "ms": 4000}
    {"kind": "disconnect_streams"}
    {"kind": "disconnect_user"}
    {"kind": "mute_streams"}
    {"kind": "skip_depth", "count": 1, "match": "BTCUSDT"}
    {"kind": "duplicate_depth", "count": 2, "match": "BTCUSDT"}
    {"kind": "reorder_depth", "count": 1, "match": "BTCUSDT"}
    {"kind": "late_depth", "count": 5, "match": "BTCUSDT", "ms": 800}
    {"kind": "cross_depth", "count": 1, "match": "BTCUSDT"}
    {"kind": "old_snapshot", "count": 1, "match": "BTCUSDT"}
    {"kind": "late_user", "count": 2, "ms": 800}
    {"kind": "duplicate_user", "count": 3}
    {"kind": "skip_user", "count": 1}

``reject`` and ``http_status`` answer without carrying the request out; ``drop_reply`` carries it out and closes the
connection with no reply; ``late_reply`` carries it out and answers ``ms`` later; ``latency`` delays the request before
it is carried out and combines with one of the others.
``match`` is a substring of ``"METHOD /path"`` for REST and of ``"WS method"`` for the WebSocket API
(``"WS order.place"``); empty matches all.
The disconnects drop all market or user sockets at once. ``mute_streams`` sends nothing more on the market sockets that
are open now, which stay open and answer pings.

The depth faults befall the next ``count`` diffs of each pair (or of the symbol named by ``match``) on the 100 ms
stream: ``skip_depth`` swallows them, on the 1 s stream as well, so that clients see a gap; ``duplicate_depth`` tells
them twice; ``reorder_depth`` tells them behind the one that follows; ``late_depth`` tells them ``ms`` later, while
others overtake them; ``cross_depth`` puts a bid above the best ask into them that was never in the book.
``old_snapshot`` answers the next ``count`` requests for depth with the book as it stands when the fault is armed.

``late_user``, ``duplicate_user`` and ``skip_user`` befall the next ``count`` order and balance events of accounts: told
later than what follows them, told twice, not told. ``DELETE /admin/faults`` forgets what is armed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

REQUEST_KINDS = frozenset({"reject", "latency", "http_status", "drop_reply", "late_reply"})
INSTANT_KINDS = frozenset({"disconnect_streams", "disconnect_user", "mute_streams"})
USER_KINDS = frozenset({"late_user", "duplicate_user", "skip_user"})
DEPTH_KINDS = frozenset({"skip_depth", "duplicate_depth", "reorder_depth", "late_depth", "cross_depth"})
BY_SYMBOL = DEPTH_KINDS | {"old_snapshot"}
KINDS = REQUEST_KINDS | INSTANT_KINDS | USER_KINDS | BY_SYMBOL

Picture = tuple[int, list[tuple[int, int]], list[tuple[int, int]]]
"""A book as it stood once: update id, bids and asks, each (price, size)."""


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One fault; ``count`` goes down as it strikes."""

    kind: str
    count: int = 1
    match: str = ""
    ms: int = 100
    status: int = 500
    code: int = -1008
    msg: str = "Server is currently overloaded with other requests. Please try again in a few minutes."
    body: str = ""
    retry_after_s: int = 0
    """The Retry-After header of a ``reject``; 0: none."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault kind {self.kind!r}; known are {', '.join(sorted(KINDS))}")
        if self.count < 1 or self.ms < 0 or not 100 <= self.status <= 599:
            raise ValueError("count must be at least 1, ms at least 0, status an HTTP status")


def decode(body: bytes) -> list[Fault]:
    """One fault or a list; ValueError says what is wrong."""
    try:
        decoded = msgspec.json.decode(body, type=list[Fault] | Fault)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no fault: {error}") from error
    return decoded if isinstance(decoded, list) else [decoded]


class Faults:
    """The armed faults, in the order in which they came."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.pictures: dict[str, Picture] = {}
        """The books of old snapshots, by symbol."""
        self.struck: dict[str, int] = {}

    def arm(self, faults: Iterable[Fault]) -> None:
        self.armed.extend(fault for fault in faults if fault.kind not in INSTANT_KINDS)

    def clear(self) -> None:
        self.armed.clear()

    def latency_ms(self, request: str) -> int:
        """How long this request is to be delayed."""
        fault = self._next(request, frozenset({"latency"}))
        return fault.ms if fault else 0

    def strike(self, request: str) -> Fault | None:
        """The reject, http_status, drop_reply or late_reply that befalls this request."""
        return self._next(request, REQUEST_KINDS - {"latency"})

    def strike_user(self) -> Fault | None:
        """What befalls this event of an account."""
        return self._next("", USER_KINDS)

    def strike_depth(self, symbol: str) -> Fault | None:
        """What befalls this depth diff."""
        return self._next_of(symbol, DEPTH_KINDS)

    def strike_snapshot(self, symbol: str) -> Picture | None:
        """The old book with which this request for depth is to be answered."""
        return self.pictures.get(symbol) if self._next_of(symbol, frozenset({"old_snapshot"})) else None

    def spread(self, symbols: Iterable[str]) -> None:
        """Turn each depth fault for all pairs into one for every pair."""
        names = list(symbols)
        for fault in [fault for fault in self.armed if fault.kind in BY_SYMBOL and not fault.match]:
            self.armed.remove(fault)
            self.armed += [msgspec.structs.replace(fault, match=name) for name in names]

    def count(self, kind: str) -> None:
        self.struck[kind] = self.struck.get(kind, 0) + 1

    def _next(self, request: str, kinds: frozenset[str]) -> Fault | None:
        for fault in self.armed:
            if fault.kind in kinds and fault.match in request:
                self._strike(fault)
                return fault
        return None

    def _next_of(self, symbol: str, kinds: frozenset[str]) -> Fault | None:
        for fault in self.armed:
            if fault.kind in kinds and fault.match == symbol:
                self._strike(fault)
                return fault
        return None

    def _strike(self, fault: Fault) -> None:
        fault.count -= 1
        if not fault.count:
            self.armed.remove(fault)
        self.count(fault.kind)
