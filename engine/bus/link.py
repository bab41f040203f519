"""The shell around a session: an asyncio protocol that cuts frames, paces reading, obeys the write buffer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import msgspec

from engine.bus.context import Context, Session, SessionError, log
from engine.bus.wire import FrameSplitter, decode_envelope

LOOK_EVERY: Final = 8
"""After how many frames the clock is looked at, which costs as much as some of them."""


class Link(asyncio.Protocol):
    """One connection, whatever transport carries it.

    At most ``limits.frames_per_turn`` frames are handled, and no more once ``limits.turn`` seconds are over, before
    the event loop gets its turn; reading pauses meanwhile. A malformed frame closes the link. ``on_made`` is called
    once the connection is there: one whose TLS handshake fails never is.
    """

    def __init__(self, session: Session, context: Context, on_made: Callable[[Link], None] | None = None) -> None:
        self._session = session
        self._context = context
        self._on_made = on_made
        self._stats = context.stats
        self._splitter = FrameSplitter(context.limits.max_frame)
        self._turn_ns = round(context.limits.turn * 1e9)
        self._backlog: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None
        self._turn_booked = False
        self._closing = False
        self._reason = "closed by the peer"
        self.writable = False
        self.done = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport | None:
        """What carries it; None before the connection is there and after its end."""
        return self._transport

    # ---------------------------------------------------------------------------------------- for the session

    def send(self, frame: bytes) -> None:
        """Write a frame; after the end of the link it goes nowhere."""
        if self._closing or self._transport is None:
            return
        self._stats.frames_out += 1
        self._stats.bytes_out += len(frame)
        self._transport.write(frame)

    def close(self) -> None:
        """Send what was written, then close."""
        self._end("closed by this side")
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close at once; what was not sent yet is lost."""
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    # -------------------------------------------------------------------------------------- for the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's have the methods, not the base class
        stream.set_write_buffer_limits(high=self._context.limits.high_water)
        self._transport = stream
        self.writable = True
        if self._on_made is not None:
            self._on_made(self)
        self._session.opened(self)

    def data_received(self, data: bytes) -> None:
        self._stats.bytes_in += len(data)
        self._backlog.extend(self._splitter.feed(data))
        if not self._turn_booked:
            self._take_turn()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        if not self._closing:
            self.writable = True
            self._session.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        while self._backlog and not self._closing:
            self._handle(self._backlog.popleft())
        if exc is not None and not self._closing:
            self._reason = f"connection lost: {exc}"
        self._closing = True
        self.writable = False
        self._transport = None
        self._session.closed(self._reason)
        if not self.done.done():
            self.done.set_result(None)

    # ------------------------------------------------------------------------------------------------ private

    def _take_turn(self) -> None:
        backlog = self._backlog
        now_ns, frames = self._context.clock.monotonic_ns, min(len(backlog), self._context.limits.frames_per_turn)
        until_ns = now_ns() + self._turn_ns if frames > LOOK_EVERY else 0
        for number in range(1, frames + 1):
            if self._closing:
                break
            self._handle(backlog.popleft())
            if number % LOOK_EVERY == 0 and number < frames and now_ns() >= until_ns:
                break
        if self._closing:
            backlog.clear()
        elif backlog:
            self._book_turn()
        elif self._splitter.error is not None:
            self._malformed(self._splitter.error)

    def _book_turn(self) -> None:
        self._turn_booked = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._context.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn_booked = False
        self._take_turn()
        transport = self._transport
        if not self._turn_booked and transport is not None and not transport.is_closing():
            transport.resume_reading()

    def _handle(self, frame: bytes) -> None:
        self._stats.frames_in += 1
        try:
            self._session.received(decode_envelope(frame))
        except (msgspec.DecodeError, SessionError) as error:
            self._malformed(str(error))
        except Exception:  # a session's mistake costs its link, and no other of this bus
            log.exception("session_failed", bus=self._context.name)
            self.abort("internal error")

    def _malformed(self, detail: str) -> None:
        self._stats.malformed += 1
        log.error("malformed_frame", bus=self._context.name, detail=detail)
        self.abort(f"malformed frame: {detail}")

    def _end(self, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self.writable = False
            self._reason = reason
