"""The listening end of a link: one caller's subscriptions, requests, commands and tells."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from engine.bus.context import Channel, Context, SessionError, Timer, log
from engine.bus.streams import Outlet, Stream
from engine.bus.wire import (
    ClockMoved,
    ClockReads,
    Command,
    Envelope,
    Failure,
    Head,
    Hello,
    Probe,
    Rejected,
    Reply,
    Request,
    SetKeys,
    StreamClosed,
    Subscribe,
    Tell,
    Unsubscribe,
    decode_body,
    encode_body,
    encode_frame,
)
from engine.clock import Lateness
from engine.messages import Message, Reason, Refused

CLOCKS_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. A command has an id, and an expiry on this host's monotonic clock. ``same_host``: the caller reads that
    clock, too.
    """

    name: str
    incarnation: int
    command_id: str | None = None
    expires_mono_ns: int | None = None
    same_host: bool = True


Answer = Message | Awaitable[Message | None] | None
Handler = Callable[[Caller, Message], Answer]


class Server:
    """What all callers of one bus share: its streams, its handler and the bound on what is pending."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.handler: Handler | None = None
        self.streams: dict[str, Stream] = {}
        self.sessions: dict[ServerSession, None] = {}
        self.tasks: dict[asyncio.Future[None], None] = {}
        self._clocks: dict[tuple[str, str], Lateness] = {}

    def lateness_of(self, caller: Hello) -> Lateness:
        """What is known of the clock of a caller on another host, also from its earlier connections: the next one is
        often made while the way between the two is slow.
        """
        if not caller.host:
            return Lateness()
        key = caller.host, caller.name
        found = self._clocks.pop(key) if key in self._clocks else Lateness()
        self._clocks[key] = found
        if len(self._clocks) > CLOCKS_KEPT:
            del self._clocks[next(iter(self._clocks))]
        return found

    def opened(self, stream: Stream) -> None:
        """Begin a stream; those who asked for it before get it now. Raises ValueError when it is open."""
        if stream.name in self.streams:
            raise ValueError(f"stream {stream.name!r} of {self.context.name!r} is already open")
        self.streams[stream.name] = stream
        for session in list(self.sessions):
            try:
                session.stream_opened(stream)
            except Exception:  # what one caller asked for costs its link, and neither the publisher nor other callers
                log.exception("session_failed", bus=self.context.name)
                session.abort("internal error")

    def closed(self, stream: Stream) -> None:
        """End a stream; its readers are told, and wait for it to open again."""
        if self.streams.get(stream.name) is stream:
            del self.streams[stream.name]
            for session in list(self.sessions):
                session.stream_closed(stream)

    async def close(self) -> None:
        """Cancel what is being handled and wait for its end; a handler may itself be the one who closes."""
        tasks = [task for task in self.tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def lost(self) -> None:
        """Handle nothing more, and cut all callers off."""
        self.handler = None
        for task in self.tasks:
            task.cancel()
        for session in list(self.sessions):
            session.abort("the process ended")


class ServerSession:
    """One caller."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._context = server.context
        self._stats = server.context.stats
        self._control: deque[bytes] = deque()
        self._outlets: dict[int, Outlet] = {}
        self._awaited: dict[int, Subscribe] = {}
        self._channel: Channel | None = None
        self._hello: Hello | None = None
        self._caller = Caller("", 0)
        self._lateness = Lateness()
        self._timer: Timer | None = None
        self._ending = False
        self._handlers: dict[type[Envelope], Callable[[Any], None]] = {
            Subscribe: self._subscribe,
            SetKeys: self._set_keys,
            Unsubscribe: self._unsubscribe,
            Probe: self._probe,
            Request: self._request,
            Command: self._command,
            ClockMoved: self._clock_moved,
            ClockReads: self._clock_reads,
            Tell: self._tell,
        }

    # ------------------------------------------------------------------------------------------- for the link

    def opened(self, channel: Channel) -> None:
        self._channel = channel
        self._server.sessions[self] = None
        self._timer = self._context.call_later(self._context.limits.handshake, self._no_hello)

    def received(self, envelope: Envelope) -> None:
        if self._hello is None:
            self._greet(envelope)
            return
        handler = self._handlers.get(type(envelope))
        if handler is None:
            raise SessionError(f"{type(envelope).__name__} from {self._caller.name!r} to a listener")
        handler(envelope)

    def resumed(self) -> None:
        channel = self._channel
        while channel is not None and channel.writable and self._control:
            channel.send(self._control.popleft())
        for outlet in self._fairly():
            outlet.flush()
        if self._ending:
            self.end()

    def closed(self, reason: str) -> None:
        self._channel = None
        self._server.sessions.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        for outlet in self._outlets.values():
            outlet.close()
        self._outlets.clear()
        self._control.clear()
        if self._hello is not None:
            self._context.registry.closed(self._caller.name, self._caller.incarnation)

    # ----------------------------------------------------------------------------------------- for the server

    def stream_opened(self, stream: Stream) -> None:
        for request in [wanted for wanted in self._awaited.values() if wanted.stream == stream.name]:
            self._serve(stream, request)

    def stream_closed(self, stream: Stream) -> None:
        for outlet in [outlet for outlet in self._outlets.values() if outlet.stream is stream]:
            position = stream.position
            keys = outlet.keys
            outlet.close()
            del self._outlets[outlet.id]
            self._awaited[outlet.id] = Subscribe(
                outlet.id,
                stream.name,
                None if keys is None else sorted(keys),
                position.incarnation,
                position.number,
            )
            self._send(StreamClosed(outlet.id))

    def end(self) -> None:
        """Close as soon as the caller has taken what waits for it."""
        self._ending = True
        waits = self._control or any(outlet.is_waiting for outlet in self._outlets.values())
        if self._channel is not None and not waits:
            self._channel.close()

    def abort(self, reason: str) -> None:
        if self._channel is not None:
            self._channel.abort(reason)

    # ---------------------------------------------------------------------------------------------- handshake

    def _greet(self, envelope: Envelope) -> None:
        if not isinstance(envelope, Hello):
            raise SessionError(f"{type(envelope).__name__} before Hello")
        mismatch = self._context.mismatch(envelope)
        if mismatch is not None:
            self._stats.mismatched += 1
            log.error("caller_rejected", bus=self._context.name, reason=mismatch)
            self._send(Rejected(mismatch))
            self.end()
            return
        self._hello = envelope
        same_host = envelope.host != "" and envelope.host == self._context.host
        self._caller = Caller(envelope.name, envelope.incarnation, same_host=same_host)
        if not same_host:
            self._lateness = self._server.lateness_of(envelope)
        if envelope.mono_ns:
            self._lateness.of(envelope.mono_ns, self._context.clock.monotonic_ns())
        if self._timer is not None:
            self._timer.cancel()
        self._send(self._context.hello())
        self._context.registry.opened(envelope.name, envelope.incarnation)

    def _no_hello(self) -> None:
        if self._hello is None:
            self.abort("no Hello in time")

    # ------------------------------------------------------------------------------------------ subscriptions

    def _subscribe(self, request: Subscribe) -> None:
        if request.id in self._outlets or request.id in self._awaited:
            raise SessionError(f"subscription {request.id} twice")
        stream = self._server.streams.get(request.stream)
        if stream is None:
            self._awaited[request.id] = request
        else:
            self._serve(stream, request)

    def _serve(self, stream: Stream, request: Subscribe) -> None:
        self._awaited.pop(request.id, None)
        if self._channel is None:
            return
        outlet = stream.attach(self._channel, request)
        self._outlets[request.id] = outlet
        self._send(outlet.start)
        outlet.flush()

    def _set_keys(self, request: SetKeys) -> None:
        awaited = self._awaited.get(request.id)
        if awaited is not None:
            self._awaited[request.id] = msgspec.structs.replace(awaited, keys=request.keys)
            self._send(Head(request.id, 0))
        elif request.id in self._outlets:
            self._outlets[request.id].set_keys(request.keys)

    def _unsubscribe(self, request: Unsubscribe) -> None:
        self._awaited.pop(request.id, None)
        outlet = self._outlets.pop(request.id, None)
        if outlet is not None:
            outlet.close()

    def _probe(self, request: Probe) -> None:
        if request.id in self._outlets:
            self._outlets[request.id].head()

    def _fairly(self) -> Iterator[Outlet]:
        """All outlets, beginning with the one that was second the last time."""
        for number in list(self._outlets)[:1]:
            self._outlets[number] = self._outlets.pop(number)
        yield from list(self._outlets.values())

    # ------------------------------------------------------------------------------ requests, commands, tells

    def _request(self, request: Request) -> None:
        self._handle(request, self._caller)

    def _command(self, command: Command) -> None:
        now = self._context.clock.monotonic_ns()
        expires = self._expiry(command, now)
        if command.to_incarnation not in (None, self._context.incarnation):
            self._stats.refused_other_incarnation += 1
            detail = f"meant for incarnation {command.to_incarnation}, this is {self._context.incarnation}"
            self._refuse(command, Reason.OTHER_INCARNATION, detail)
        elif now >= expires:
            self._expired(command, now - expires)
        else:
            known = self._caller
            caller = Caller(known.name, known.incarnation, command.command_id, expires, known.same_host)
            self._handle(command, caller)

    def _expiry(self, command: Command, now: int) -> int:
        """By this host's monotonic clock. Of another host's command that is known but for the shortest way here."""
        if self._caller.same_host:
            return command.expires_mono_ns
        if command.sent_mono_ns:
            lifetime = command.expires_mono_ns - command.sent_mono_ns
            return now + lifetime - self._lateness.of(command.sent_mono_ns, now)
        return now + command.expires_wall_ns - self._context.clock.time_ns()

    def _clock_moved(self, moved: ClockMoved) -> None:
        self._lateness.forget()
        self._lateness.of(moved.mono_ns, self._context.clock.monotonic_ns())

    def _clock_reads(self, reads: ClockReads) -> None:
        self._lateness.of(reads.mono_ns, self._context.clock.monotonic_ns())

    def _tell(self, tell: Tell) -> None:
        message = self._decode(tell.body)
        handler = self._server.handler
        if message is None:
            return
        if handler is None or len(self._server.tasks) >= self._context.limits.pending_requests:
            self._stats.dropped_tells += 1
            return
        try:
            answer = handler(self._caller, message)
        except Exception:  # logged and counted: nobody waits for an answer to a tell
            self._failed(message)
            return
        if isinstance(answer, Awaitable):
            self._spawn(self._finish_tell(message, answer))

    def _handle(self, request: Request | Command, caller: Caller) -> None:
        message, handler = self._decode(request.body), self._server.handler
        if message is None:
            self._fail(request, "this version does not know the message or a field's type")
        elif handler is None:
            self._refuse(request, Reason.NOT_READY, f"{self._context.name} does not serve yet")
        elif len(self._server.tasks) >= self._context.limits.pending_requests:
            self._stats.refused_overloaded += 1
            self._refuse(request, Reason.OVERLOADED, f"{len(self._server.tasks)} requests are pending")
        else:
            self._call(request, caller, message, handler)

    def _call(self, request: Request | Command, caller: Caller, message: Message, handler: Handler) -> None:
        try:
            answer = handler(caller, message)
        except Exception as error:
            self._failed(message)
            self._fail(request, f"{type(error).__name__}: {error}")
            return
        if isinstance(answer, Awaitable):
            self._spawn(self._finish(request, caller, message, answer))
        else:
            self._answer(request, message, answer)

    async def _finish(
        self,
        request: Request | Command,
        caller: Caller,
        message: Message,
        answer: Awaitable[Message | None],
    ) -> None:
        if caller.expires_mono_ns is not None and inspect.iscoroutine(answer):
            late_ns = self._context.clock.monotonic_ns() - caller.expires_mono_ns
            if late_ns >= 0:
                answer.close()
                self._expired(request, late_ns)
                return
        try:
            reply = await answer
        except Exception as error:
            self._failed(message)
            self._fail(request, f"{type(error).__name__}: {error}")
            return
        self._answer(request, message, reply)

    async def _finish_tell(self, message: Message, answer: Awaitable[Message | None]) -> None:
        try:
            await answer
        except Exception:  # logged and counted: nobody waits for an answer to a tell
            self._failed(message)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._server.tasks[task] = None
        task.add_done_callback(self._server.tasks.pop)

    # ------------------------------------------------------------------------------------------------ answers

    def _answer(self, request: Request | Command, message: Message, reply: Message | None) -> None:
        if not isinstance(reply, Message):
            self._fail(request, f"{self._context.name} has no answer to {type(message).__name__}")
            return
        try:
            body = encode_body(reply)
        except (TypeError, ValueError, OverflowError) as error:
            self._failed(message)
            self._fail(request, f"{type(reply).__name__} cannot be sent: {error}")
            return
        if len(body) + 64 > self._context.limits.max_frame:
            self._fail(request, f"the answer of {len(body)} bytes is above the frame limit: ask for less")
            return
        self._send(Reply(request.id, msgspec.Raw(body)))

    def _expired(self, command: Request | Command, late_ns: int) -> None:
        self._stats.refused_expired += 1
        self._refuse(command, Reason.EXPIRED, f"expired {late_ns / 1e6:.1f} ms before it was handled")

    def _refuse(self, request: Request | Command, reason: Reason, detail: str) -> None:
        if isinstance(request, Command):
            refused = Refused(client_order_id=request.command_id, reason=reason, detail=detail)
            self._send(Reply(request.id, msgspec.Raw(encode_body(refused))))
        else:
            self._fail(request, f"{reason.value}: {detail}")

    def _fail(self, request: Request | Command, error: str) -> None:
        self._send(Failure(request.id, error))

    def _failed(self, message: Message) -> None:
        self._stats.handler_errors += 1
        log.exception("handler_failed", bus=self._context.name, caller=self._caller.name, type=type(message).__name__)

    def _decode(self, body: msgspec.Raw) -> Message | None:
        try:
            return decode_body(body)
        except msgspec.DecodeError as error:
            self._stats.unknown_bodies += 1
            log.error("unknown_body", bus=self._context.name, caller=self._caller.name, detail=str(error))
            return None

    def _send(self, envelope: Envelope) -> None:
        """Now, or when the caller reads again; one that never reads its replies is disconnected."""
        channel = self._channel
        if channel is None:
            if isinstance(envelope, Reply | Failure):
                self._stats.late_replies += 1
        elif channel.writable and not self._control:
            channel.send(encode_frame(envelope))
        elif len(self._control) < self._context.limits.outbox:
            self._control.append(encode_frame(envelope))
        else:
            self._stats.closed_slow_readers += 1
            log.warning("slow_reader_closed", bus=self._context.name, caller=self._caller.name)
            channel.abort("does not read its replies")
