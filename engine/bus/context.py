"""What all parts of one bus share: its identity, its limits, its counters and who is connected."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Protocol

import structlog

from engine.bus.wire import Envelope, Hello
from engine.clock import Clock
from engine.messages import PROTOCOL_MAJOR

log = structlog.get_logger("engine.bus")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one bus. Sizes in bytes, times in seconds, the rest in messages."""

    max_frame: int = 16 * 1024 * 1024
    high_water: int = 256 * 1024
    """A link with more than this unsent is paused; its queues fill from there."""
    frames_per_turn: int = 256
    """How many frames of one link are handled before the event loop's other work gets its turn."""
    turn: float = 0.010
    """After how long it gets its turn though there are more frames to handle: some take long."""
    pending_requests: int = 1000
    """Requests and commands being handled at once, for the whole bus."""
    outbox: int = 1000
    """Requests, commands and replies waiting for one link."""
    tells: int = 256
    tell_ttl: float = 1.0
    """How long a tell waits for a connection before it is dropped."""
    handshake: float = 5.0
    clock_every: float = 10.0
    """How often a caller tells a listener on another host what its clock reads."""
    replay_batch: int = 256
    backoff_min: float = 0.010
    backoff_max: float = 0.250
    close_grace: float = 0.5
    """How long closing waits for peers to take what was written."""


@dataclass(slots=True)
class BusStats:
    """Counters that only grow."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    merged: int = 0
    skipped: int = 0
    gaps: int = 0
    duplicates: int = 0
    replayed: int = 0
    dropped_tells: int = 0
    closed_slow_readers: int = 0
    malformed: int = 0
    mismatched: int = 0
    unknown_bodies: int = 0
    handler_errors: int = 0
    late_replies: int = 0
    refused_expired: int = 0
    refused_other_incarnation: int = 0
    refused_overloaded: int = 0
    connects: int = 0

    def as_dict(self) -> dict[str, int]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """An incarnation of an actor connected (``up``) or the last link with it closed."""

    name: str
    incarnation: int
    up: bool


class PeerRegistry:
    """Who is connected, in either direction."""

    def __init__(self) -> None:
        self._links: dict[str, dict[int, int]] = {}
        self._callbacks: list[Callable[[PeerEvent], None]] = []

    def on_event(self, callback: Callable[[PeerEvent], None]) -> None:
        self._callbacks.append(callback)

    def silence(self) -> None:
        """Tell nobody any more."""
        self._callbacks.clear()

    def incarnation(self, name: str) -> int | None:
        """The incarnation that connected last; None when no link with that actor is up."""
        links = self._links.get(name)
        return next(reversed(links)) if links else None

    def opened(self, name: str, incarnation: int) -> None:
        links = self._links.setdefault(name, {})
        links[incarnation] = links.get(incarnation, 0) + 1
        if links[incarnation] == 1:
            self._tell(PeerEvent(name, incarnation, True))

    def closed(self, name: str, incarnation: int) -> None:
        links = self._links[name]
        links[incarnation] -= 1
        if links[incarnation] == 0:
            del links[incarnation]
            if not links:
                del self._links[name]
            self._tell(PeerEvent(name, incarnation, False))

    def _tell(self, event: PeerEvent) -> None:
        for callback in list(self._callbacks):
            try:
                callback(event)
            except Exception:  # one listener's mistake keeps no other from being told
                log.exception("peer_callback_failed", peer=event.name, up=event.up)


class Channel(Protocol):
    """The way out of a session: a link that may be paused while its other end reads slowly."""

    writable: bool

    def send(self, frame: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self, reason: str) -> None: ...


class Session(Protocol):
    """One end of a link: envelopes in; frames out through its channel. Knows nothing of sockets."""

    def opened(self, channel: Channel) -> None: ...

    def received(self, envelope: Envelope) -> None:
        """Raises :class:`SessionError` for an envelope that does not belong here."""

    def resumed(self) -> None:
        """The channel takes frames again."""

    def closed(self, reason: str) -> None: ...


class SessionError(Exception):
    """The other end does not keep to the protocol; its link is closed."""


@dataclass(slots=True)
class Context:
    """One bus, as its parts see it. ``host`` names its monotonic clock."""

    name: str
    incarnation: int
    engine_id: str
    host: str
    clock: Clock
    limits: Limits
    rng: random.Random
    call_soon: Callable[[Callable[[], None]], object]
    call_later: Callable[[float, Callable[[], None]], Timer]
    stats: BusStats = field(default_factory=BusStats)
    registry: PeerRegistry = field(default_factory=PeerRegistry)

    def hello(self) -> Hello:
        return Hello(
            engine_id=self.engine_id,
            name=self.name,
            incarnation=self.incarnation,
            host=self.host,
            mono_ns=self.clock.monotonic_ns(),
        )

    def mismatch(self, theirs: Hello) -> str | None:
        """Why this bus cannot talk to the sender of ``theirs``; None when it can."""
        if theirs.engine_id != self.engine_id:
            return (
                f"{theirs.name!r} belongs to engine {theirs.engine_id!r}, {self.name!r} to {self.engine_id!r}"
                ": give them different run folders"
            )
        if theirs.major > PROTOCOL_MAJOR:
            return (
                f"{theirs.name!r} speaks protocol {theirs.major}.{theirs.minor}, {self.name!r} only"
                f" {PROTOCOL_MAJOR}: upgrade {self.name!r}"
            )
        return None


class Timer(Protocol):
    def cancel(self) -> None: ...
