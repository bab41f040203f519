"""What travels on a link: frames, and the envelopes inside them.

A frame is a little-endian ``u32`` length and that many bytes: one MessagePack array whose first element is
the envelope's tag. Message bodies stay raw inside the envelope and are decoded only where they are handled.
Readers ignore further elements at an array's end, so an envelope may grow within a major version.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from engine.messages import PROTOCOL_MAJOR, AnyMessage, Message

PROTOCOL_MINOR: Final = 2
KNOWS_CLOCK_READS: Final = 2
"""The first minor version of a listener that takes a :class:`ClockReads`."""
HEADER_BYTES: Final = 4
_LENGTH = struct.Struct("<I")


class Envelope(msgspec.Struct, array_like=True, gc=False):
    """Base of all envelopes."""


class Hello(Envelope, tag=0):
    """First frame each way. ``host`` names the monotonic clock that the sender reads ("": unknown), ``mono_ns`` is what
    it reads (0: not told).
    """

    engine_id: str
    name: str
    incarnation: int
    major: int = PROTOCOL_MAJOR
    minor: int = PROTOCOL_MINOR
    host: str = ""
    mono_ns: int = 0


class Rejected(Envelope, tag=1):
    """The listener's answer to a Hello that it cannot take; it closes after it."""

    reason: str


class Subscribe(Envelope, tag=2):
    """Read a stream from after ``number`` of ``incarnation`` (None: from now; 0: whichever it has)."""

    id: int
    stream: str
    keys: list[str] | None = None
    incarnation: int | None = None
    number: int = 0


class SetKeys(Envelope, tag=3):
    """Read only these keys from now on; answered with a :class:`Head`."""

    id: int
    keys: list[str] | None = None


class Unsubscribe(Envelope, tag=4):
    id: int


class Probe(Envelope, tag=5):
    """Ask for a :class:`Head`, in order with the stream's events."""

    id: int


class Request(Envelope, tag=6):
    id: int
    body: msgspec.Raw


class Command(Envelope, tag=7):
    """A request that goes stale. ``expires_mono_ns`` and ``sent_mono_ns`` are the sender's monotonic clock's; one that
    does not tell when it was sent (0) expires by the wall clock on another host.
    """

    id: int
    command_id: str
    to_incarnation: int | None
    expires_mono_ns: int
    expires_wall_ns: int
    body: msgspec.Raw
    sent_mono_ns: int = 0


class Tell(Envelope, tag=8):
    body: msgspec.Raw


class Subscribed(Envelope, tag=9):
    """Where the stream stands and what follows: events from ``replay_from`` on, or from after ``number``."""

    id: int
    incarnation: int
    number: int
    contiguous: bool
    incarnation_changed: bool = False
    replay_from: int | None = None
    missed: tuple[int, int] | None = None


class Event(Envelope, tag=10):
    """Built by :func:`event_frame`, so that all subscribers share one encoding of the number and the body."""

    id: int
    number: int
    body: msgspec.Raw


class Skipped(Envelope, tag=11):
    """These events were dropped because the reader was slow."""

    id: int
    first: int
    last: int


class Head(Envelope, tag=12):
    """All events up to ``number`` that this subscription wants have been sent before this."""

    id: int
    number: int


class StreamClosed(Envelope, tag=13):
    id: int


class Reply(Envelope, tag=14):
    id: int
    body: msgspec.Raw


class Failure(Envelope, tag=15):
    """The request could not be answered."""

    id: int
    error: str


class ClockMoved(Envelope, tag=16):
    """From a caller whose command was called late though it was not: its monotonic clock reads so now, and what was
    known of it before holds no more.
    """

    mono_ns: int


class ClockReads(Envelope, tag=17):
    """From a caller on another host, every so often: its monotonic clock reads so now."""

    mono_ns: int


_ENVELOPES = (
    Hello
    | Rejected
    | Subscribe
    | SetKeys
    | Unsubscribe
    | Probe
    | Request
    | Command
    | Tell
    | Subscribed
    | Event
    | Skipped
    | Head
    | StreamClosed
    | Reply
    | Failure
    | ClockMoved
    | ClockReads
)

_encoder = msgspec.msgpack.Encoder()
_envelope_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(_ENVELOPES)
_body_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(AnyMessage)


def encode_body(message: Message) -> bytes:
    """A message as it travels. Raises TypeError for what MessagePack cannot hold."""
    return _encoder.encode(message)


def decode_body(body: msgspec.Raw | bytes) -> Message:
    """Raises msgspec.DecodeError for an unknown type or a body that does not fit its type."""
    message: Message = _body_decoder.decode(body)
    return message


def decode_envelope(frame: bytes) -> Envelope:
    """Raises msgspec.DecodeError for what is no envelope."""
    envelope: Envelope = _envelope_decoder.decode(frame)
    return envelope


def encode_frame(envelope: Envelope) -> bytes:
    """An envelope with its length before it."""
    encoded = _encoder.encode(envelope)
    return _LENGTH.pack(len(encoded)) + encoded


def event_tail(number: int, body: bytes) -> bytes:
    """The part of an :class:`Event` that all its subscribers share."""
    return _encoder.encode(number) + body


def event_prefix(subscription: int) -> bytes:
    """The part of an :class:`Event` before the tail: array of four, the tag, the id that its reader chose."""
    return b"\x94\x0a" + _encoder.encode(subscription)


def event_frame(prefix: bytes, tail: bytes) -> bytes:
    """The whole frame of an :class:`Event`."""
    return _LENGTH.pack(len(prefix) + len(tail)) + prefix + tail


class FrameSplitter:
    """Cuts arriving bytes into frames, however they were chunked.

    After a length of zero or above ``limit`` it yields nothing more and ``error`` says why.
    """

    __slots__ = ("_have", "_limit", "_need", "_parts", "error")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEADER_BYTES
        self.error: str | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, without their lengths, in order."""
        self._have += len(data)
        if self._have < self._need:
            self._parts.append(data)
            return []
        if self._parts:
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        frames: list[bytes] = []
        if self.error is not None:
            return frames
        start, end = 0, len(data)
        need = HEADER_BYTES
        while end - start >= HEADER_BYTES:
            size = _LENGTH.unpack_from(data, start)[0]
            if not 0 < size <= self._limit:
                self.error = f"a frame of {size} bytes (the limit is {self._limit})"
                return frames
            stop = start + HEADER_BYTES + size
            if stop > end:
                need = HEADER_BYTES + size
                break
            frames.append(data[start + HEADER_BYTES : stop])
            start = stop
        self._need = need
        self._have = end - start
        if self._have:
            self._parts.append(data[start:])
        return frames
