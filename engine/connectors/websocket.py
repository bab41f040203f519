"""A WebSocket client whose frames reach their consumer in the very call that read them from the socket.

There is no queue and no task between the socket and the consumer: ``data_received`` hands each message on at
once, with the monotonic time of its arrival. The protocol itself (handshake, control frames, fragments,
closing) is the ``websockets`` package's Sans-I/O :class:`~websockets.client.ClientProtocol`; messages that
are one whole frame, which is nearly all, are cut out here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import WebSocketURI, parse_uri

from engine.connectors.decoding import retry_after_s
from engine.connectors.errors import Banned, RateLimited, TransportError
from engine.connectors.tls import client_context
from engine.errors import ConfigError

MAX_MESSAGE = 16 * 1024 * 1024
MAX_UNSENT = 1024 * 1024
MAX_HEAD = 64 * 1024

_TOO_MANY: Final[dict[int, type[RateLimited]]] = {429: RateLimited, 418: Banned}
_WHOLE_FRAMES = (0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY)


class WebSocketHandler(Protocol):
    """Who hears of a connection. All are called from the event loop's reading, so they must be quick.

    ``on_frame`` answers False for a frame that is no data: a connection with nothing else counts as silent.
    """

    def on_open(self) -> None: ...

    def on_frame(self, data: bytes, received_mono_ns: int) -> bool | None: ...

    def on_close(self, reason: str) -> None: ...


class WebSocketOptions:
    """Limits of a connection. Times in seconds; ``ping_every_s`` 0: no pings of our own."""

    __slots__ = ("ca", "close_timeout_s", "compression", "max_size", "open_timeout_s", "ping_every_s")

    def __init__(
        self,
        *,
        open_timeout_s: float = 5.0,
        close_timeout_s: float = 1.0,
        ping_every_s: float = 0.0,
        max_size: int = MAX_MESSAGE,
        compression: bool = False,
        ca: str | None = None,
    ) -> None:
        self.open_timeout_s = open_timeout_s
        self.close_timeout_s = close_timeout_s
        self.ping_every_s = ping_every_s
        self.max_size = max_size
        self.compression = compression
        self.ca = ca


async def connect(
    url: str,
    handler: WebSocketHandler,
    options: WebSocketOptions | None = None,
    *,
    before_open: Callable[[WebSocketConnection], None] | None = None,
    after_read: Callable[[], None] | None = None,
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
) -> WebSocketConnection:
    """Open a connection; it is open, and ``on_open`` was called, when this returns.

    ``before_open`` gets the open connection right before ``on_open``, to send what comes first. ``after_read`` is
    called when all messages of one read were handed on, or those before a :meth:`~WebSocketConnection.rest`: what is
    sent from within a read leaves after it anyway.

    TransportError if it cannot be opened in time or the venue refuses the upgrade; RateLimited or Banned if it refuses
    because of too many requests, with how long it wants to be left alone. ConfigError for a bad address.
    """
    options = options or WebSocketOptions()
    try:
        uri = parse_uri(url)
    except InvalidURI as error:
        raise ConfigError(f"{url!r} is not a WebSocket address: {error}") from error
    tls = client_context(options.ca) if uri.secure else None
    connection = WebSocketConnection(uri, handler, options, before_open, after_read, monotonic_ns)
    try:
        async with asyncio.timeout(options.open_timeout_s):
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                uri.host,
                uri.port,
                ssl=tls,
                server_hostname=uri.host if tls else None,
            )
            await connection.opened
    except TimeoutError:
        connection.abort()
        raise TransportError(f"{_safe(uri)}: not open within {options.open_timeout_s:g} s", sent=False) from None
    except InvalidStatus as error:
        connection.abort()
        raise _refusal(uri, error.response) or TransportError(f"{_safe(uri)}: {error}", sent=False) from error
    except (OSError, EOFError, InvalidHandshake) as error:
        connection.abort()
        raise TransportError(f"{_safe(uri)}: {error}", sent=False) from error
    except BaseException:
        connection.abort()
        raise
    return connection


class WebSocketConnection(asyncio.Protocol):
    """One connection. Made by :func:`connect`.

    ``on_open``, then ``on_frame`` for every message (text and binary alike, as bytes), then ``on_close``
    once. Pings are answered with their own payload before the messages behind them are handed on.
    ``rests``: messages of a read wait for the event loop's next turn, see :meth:`rest`.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        handler: WebSocketHandler,
        options: WebSocketOptions,
        before_open: Callable[[WebSocketConnection], None] | None = None,
        after_read: Callable[[], None] | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.last_data_mono_ns = 0
        self.rests = False
        self._loop = loop
        self._handler = handler
        self._before_open = before_open
        self._after_read = after_read
        self._options = options
        self._monotonic_ns = monotonic_ns
        extensions = [ClientPerMessageDeflateFactory()] if options.compression else None
        self._protocol = ClientProtocol(uri, extensions=extensions, max_size=options.max_size)
        self._transport: asyncio.Transport | None = None
        self._is_open = False
        self._head_read = False
        self._cuts_frames = False
        self._pending = b""
        self._read_mono_ns = 0
        self._is_paused = False
        self._fragments: list[bytes] = []
        self._reason = ""
        self._drained = asyncio.Event()
        self._drained.set()
        self._timer: asyncio.TimerHandle | None = None
        self._ping_unanswered = False

    @property
    def is_open(self) -> bool:
        """True from ``on_open`` to ``on_close``, while messages can be sent."""
        transport = self._transport
        return (
            self._is_open
            and self._protocol.state is State.OPEN
            and transport is not None
            and not transport.is_closing()
        )

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that was sent, or else received; None if there was none."""
        close = self._protocol.close_sent or self._protocol.close_rcvd
        return close.code if close else None

    def send(self, text: str) -> None:
        """Send a text message. TransportError if the connection is not open, or its unsent data passes 1
        MiB.
        """
        transport = self._transport
        if transport is None or not self.is_open:
            raise TransportError("the connection is not open", sent=False)
        if transport.get_write_buffer_size() > MAX_UNSENT:
            self._give_up("the venue does not read what is sent")
            raise TransportError("the venue does not read what is sent", sent=False)
        if self._options.compression:
            self._protocol.send_text(text.encode())
            self._flush()
        else:
            transport.write(_text_frame(text.encode()))

    async def drained(self) -> None:
        """Wait until the socket takes more data."""
        await self._drained.wait()

    def rest(self) -> None:
        """From within ``on_frame``: let the event loop take its turn before the next message is handed on, so that what
        was sent by then leaves. Messages that wait keep the time of their reading. ``after_read`` is called before
        the turn, too.
        """
        transport = self._transport
        if self.rests or transport is None:
            return
        self.rests = True
        if not self._is_paused and not transport.is_closing():
            self._is_paused = True
            transport.pause_reading()
        self._loop.call_soon(self._go_on)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say good-bye, wait for the answer for at most ``close_timeout_s``, and cut."""
        if self._transport is not None and not self.closed.done():
            if self._protocol.state is State.OPEN:
                self._set_reason("closed by us" + (f": {reason}" if reason else ""))
                self._protocol.send_close(code, reason)
                self._flush()
            try:
                await asyncio.wait([self.closed], timeout=self._options.close_timeout_s)
            finally:
                self.abort()
            await self.closed

    def abort(self, reason: str = "") -> None:
        """Cut the connection at once; ``on_close`` follows in the next turn of the loop."""
        if reason:
            self._set_reason(reason)
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self.rests:
            self._pending += data
            return
        self._read_mono_ns = self._monotonic_ns()
        self._hand_on(data)

    def _hand_on(self, data: bytes) -> None:
        now = self._read_mono_ns
        try:
            if self._cuts_frames:
                self._read_frames(data, now)
            elif self._head_read:
                self._feed_protocol(data, now)
            else:
                self._read_head(data, now)
            if self._after_read is not None:
                self._after_read()
        except Exception as error:
            # A consumer's mistake: it must not go unseen, and this connection is no longer to be trusted.
            self._give_up(f"the handler failed: {error!r}")
            self._loop.call_exception_handler(
                {"message": "a WebSocket handler failed", "exception": error, "protocol": self}
            )

    def _go_on(self) -> None:
        """The event loop has had its turn."""
        transport = self._transport
        if not self.rests or transport is None:
            return
        self.rests = False
        self._hand_on(b"")
        if not self.rests and not transport.is_closing():
            self._is_paused = False
            transport.resume_reading()

    def eof_received(self) -> bool:
        self._set_reason("the venue closed the connection")
        self._protocol.receive_eof()
        self._flush()
        return False

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def connection_lost(self, exc: Exception | None) -> None:
        while self.rests:
            self._go_on()
        was_open, self._is_open = self._is_open, False
        if self._timer is not None:
            self._timer.cancel()
        self._drained.set()
        self._protocol.receive_eof()
        self._protocol.data_to_send()
        if not self.opened.done():
            self._fail_opening(
                self._protocol.handshake_exc or exc or EOFError("the connection was closed before it was open")
            )
        self._set_reason(str(exc) if exc else "the connection was cut")
        if not self.closed.done():
            self.closed.set_result(None)
        if was_open:
            self._handler.on_close(self._reason)

    # ---------------------------------------------------------------------------------------------- reading

    def _read_head(self, data: bytes, now: int) -> None:
        """The answer to the handshake goes to the protocol alone, so that it never keeps a part of a
        frame.
        """
        data = self._pending + data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 and len(data) < MAX_HEAD:
            self._pending = data
            return
        end = end if end >= 4 else len(data)
        self._head_read = True
        self._pending = b""
        self._feed_protocol(data[:end], now)
        if len(data) > end:
            if self._cuts_frames:
                self._read_frames(data[end:], now)
            else:
                self._feed_protocol(data[end:], now)

    def _read_frames(self, data: bytes, now: int) -> None:
        """Cut whole messages out of the data; everything else goes through the protocol, one frame at a
        time.
        """
        if self._pending:
            data = self._pending + data
        size = len(data)
        at = 0
        on_frame = self._handler.on_frame
        while size - at >= 2:
            length = data[at + 1]
            start = at + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                start += wide if length < 128 else 0
                if size < start:
                    break
                if length < 128:
                    length = int.from_bytes(data[at + 2 : start], "big")
            if length > self._options.max_size or data[at + 1] > 127:
                # Too large, or masked as only clients do: for the protocol to refuse.
                self._pending = b""
                self._feed_protocol(data[at:], now)
                return
            end = start + length
            if size < end:
                break
            if data[at] in _WHOLE_FRAMES and not self._fragments:
                if on_frame(data[start:end], now) is not False:
                    self.last_data_mono_ns = now
            else:
                self._feed_protocol(data[at:end], now)
            at = end
            if not self._cuts_frames:
                self._pending = b""
                return
            if self.rests:
                break
        self._pending = data[at:] if at else data

    def _feed_protocol(self, data: bytes, now: int) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._on_protocol_frame(event, now)
            elif isinstance(event, Response) and protocol.handshake_exc is None:
                self._on_opened()
        self._flush()
        if protocol.handshake_exc is not None:
            self._fail_opening(protocol.handshake_exc)
        elif protocol.close_expected() and self._cuts_frames:
            self._begin_closing()

    def _on_protocol_frame(self, frame: Frame, now: int) -> None:
        opcode = frame.opcode
        if opcode is Opcode.PONG:
            self._ping_unanswered = False
        elif opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            self._set_reason(f"closed by the venue: {received}" if received else "closed by the venue")
        elif opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                whole = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
                self._fragments.clear()
                if self._handler.on_frame(whole, now) is not False:
                    self.last_data_mono_ns = now

    def _on_opened(self) -> None:
        self._is_open = True
        self._cuts_frames = True
        self.last_data_mono_ns = self._monotonic_ns()
        if not self.opened.done():
            self.opened.set_result(None)
        if self._options.ping_every_s > 0:
            self._timer = self._loop.call_later(self._options.ping_every_s, self._ping)
        if self._before_open is not None:
            self._before_open(self)
        self._handler.on_open()

    def _fail_opening(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            # Whoever waits for it hears it; if nobody does any more, there is nothing to warn of.
            self.opened.exception()

    # ------------------------------------------------------------------------------------- pings and endings

    def _ping(self) -> None:
        if self._ping_unanswered:
            self._give_up("no answer to a ping")
            return
        if self._protocol.state is State.OPEN:
            self._ping_unanswered = True
            self._protocol.send_ping(b"")
            self._flush()
            self._timer = self._loop.call_later(self._options.ping_every_s, self._ping)

    def _begin_closing(self) -> None:
        """Both have said good-bye, or one broke the rules: the venue has a moment to cut, then we do."""
        self._cuts_frames = False
        error = self._protocol.parser_exc
        self._set_reason(f"broken frame: {error}" if error else "closed by the venue")
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._options.close_timeout_s, self.abort)

    def _give_up(self, reason: str) -> None:
        self._set_reason(reason)
        self.abort()

    def _set_reason(self, reason: str) -> None:
        """The first reason is the cause; what follows from it is not recorded."""
        if not self._reason:
            self._reason = reason

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        for data in self._protocol.data_to_send():
            if transport.is_closing():
                return
            if data:
                transport.write(data)
            elif transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()


def _text_frame(payload: bytes) -> bytes:
    """A whole text message as a client sends it (RFC 6455, 5.2 and 5.3): masked by four random bytes."""
    size = len(payload)
    if size < 126:
        head = bytes((0x81, 0x80 | size))
    elif size < 65_536:
        head = b"\x81\xfe" + size.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + size.to_bytes(8, "big")
    mask = os.urandom(4)
    masks = int.from_bytes(mask * (size // 4 + 1), "big") >> 8 * (4 - size % 4)
    return head + mask + (int.from_bytes(payload, "big") ^ masks).to_bytes(size, "big")


def _refusal(uri: WebSocketURI, response: Response) -> RateLimited | None:
    """What the statuses 429 (RFC 6585, 4) and 418 (Binance's "I'm a teapot": shut out) say; None for any other."""
    refused = _TOO_MANY.get(response.status_code)
    if refused is None:
        return None
    text = f"{_safe(uri)}: the venue takes no connection: {response.reason_phrase}"
    return refused(response.status_code, text, retry_after_s(response.headers) or 0.0)


def _safe(uri: WebSocketURI) -> str:
    """The address without its query, which may hold a token."""
    return f"{'wss' if uri.secure else 'ws'}://{uri.host}:{uri.port}{uri.path}"
