"""The connecting end of a link: everything this bus wants of one peer, over a connection that comes back."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

import msgspec

from engine.bus.context import Channel, Context, SessionError, Timer, log
from engine.bus.endpoints import Directory, Endpoint
from engine.bus.link import Link
from engine.bus.subscription import EventHandler, StateHandler, Subscription
from engine.bus.wire import (
    KNOWS_CLOCK_READS,
    ClockMoved,
    ClockReads,
    Command,
    Envelope,
    Event,
    Failure,
    Head,
    Hello,
    Rejected,
    Reply,
    Request,
    Skipped,
    StreamClosed,
    Subscribed,
    Tell,
    decode_body,
    encode_body,
    encode_frame,
)
from engine.errors import BusError, PeerLost, ProtocolMismatch, RemoteError, RequestTimeout
from engine.messages import Message, Reason, Refused, StreamPosition

Connect = Callable[[Endpoint, Callable[[], Link]], Awaitable[Link]]


Settle = Callable[[Message | BusError], None]


class _Kind(Enum):
    CONTROL = auto()
    TELL = auto()
    REQUEST = auto()


@dataclass(slots=True)
class _Unsent:
    kind: _Kind
    frame: bytes
    until_ns: int = 0


@dataclass(slots=True)
class _Pending:
    """A request or command without an answer yet. ``settle`` is called once, with the answer or why there is none.

    A command may be late from ``expires_mono_ns`` on.
    """

    what: str
    settle: Settle
    timers: list[Timer]
    command_id: str | None = None
    expires_mono_ns: int = 0


class Peer:
    """One peer: subscriptions, requests, commands and tells. A sans-I/O session; :class:`PeerLoop` connects
    it.
    """

    def __init__(self, context: Context, name: str, wake: Callable[[], None]) -> None:
        self.name = name
        self.subscriptions: dict[int, Subscription] = {}
        self.is_up = False
        self.connects = 0
        self._context = context
        self._stats = context.stats
        self._wake = wake
        self._ids = itertools.count(1)
        self._outbox: OrderedDict[int, _Unsent] = OrderedDict()
        self._waiting = {kind: 0 for kind in _Kind}
        self._pending: dict[int, _Pending] = {}
        self._channel: Channel | None = None
        self._hello: Hello | None = None
        self._rejected: str | None = None
        self._clock_told: Timer | None = None
        self._ending = False
        self._handlers: dict[type[Envelope], Callable[[Any], None]] = {
            Event: self._event,
            Subscribed: self._subscribed,
            Skipped: self._skipped,
            Head: self._head,
            StreamClosed: self._stream_closed,
            Reply: self._reply,
            Failure: self._failure,
        }

    @property
    def is_wanted(self) -> bool:
        """Whether a connection is worth its while."""
        return bool(self.subscriptions or self._outbox)

    @property
    def is_connected(self) -> bool:
        return self._channel is not None

    # -------------------------------------------------------------------------------------------- for the bus

    def subscribe(
        self,
        stream: str,
        handler: EventHandler,
        keys: Any,
        position: StreamPosition | None,
        on_state: StateHandler | None,
    ) -> Subscription:
        subscription = Subscription(
            self._context,
            self._control,
            self._forget,
            id=next(self._ids),
            peer=self.name,
            stream=stream,
            handler=handler,
            keys=keys,
            position=position,
            on_state=on_state,
        )
        self.subscriptions[subscription.id] = subscription
        self._control(subscription.request())
        self._wake()
        return subscription

    async def request(self, message: Message, timeout: float) -> Message:
        number = next(self._ids)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        pending = self._open(number, message, timeout, partial(_answer, answer))
        try:
            self._ask(number, pending, Request(number, msgspec.Raw(encode_body(message))))
            return await answer
        finally:
            self._close(number)

    async def command(
        self,
        message: Message,
        command_id: str,
        expires_in: float,
        to_incarnation: int | None,
        timeout: float,
    ) -> Message:
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        number = self.command_soon(message, command_id, expires_in, to_incarnation, timeout, partial(_answer, answer))
        try:
            return await answer
        finally:
            self._close(number)

    def command_soon(
        self,
        message: Message,
        command_id: str,
        expires_in: float,
        to_incarnation: int | None,
        timeout: float,
        settle: Settle,
    ) -> int:
        """Send a command in this very call, if the link takes it; ``settle`` hears what becomes of it, later."""
        number = next(self._ids)
        pending = self._open(number, message, timeout, settle)
        pending.command_id = command_id
        expiry_ns = int(expires_in * 1e9)
        sent_ns = self._context.clock.monotonic_ns()
        pending.expires_mono_ns = sent_ns + expiry_ns
        command = Command(
            number,
            command_id,
            to_incarnation,
            sent_ns + expiry_ns,
            self._context.clock.time_ns() + expiry_ns,
            msgspec.Raw(encode_body(message)),
            sent_ns,
        )
        try:
            self._ask(number, pending, command)
        except BaseException:
            self._close(number)
            raise
        if number in self._outbox:
            pending.timers.append(self._context.call_later(expires_in, lambda: self._not_sent(number)))
        return number

    def tell(self, message: Message) -> bool:
        frame = self._frame(Tell(msgspec.Raw(encode_body(message))))
        if self._can_send():
            self._send(frame)
            return True
        if self._waiting[_Kind.TELL] >= self._context.limits.tells:
            self._drop_stale_tells()
        if self._waiting[_Kind.TELL] >= self._context.limits.tells:
            self._stats.dropped_tells += 1
            return False
        ttl_ns = int(self._context.limits.tell_ttl * 1e9)
        until_ns = self._context.clock.monotonic_ns() + ttl_ns
        self._queue(next(self._ids), _Unsent(_Kind.TELL, frame, until_ns))
        self._wake()
        return True

    def fail_all(self, error: BusError) -> None:
        """End everything that waits for an answer."""
        for number in list(self._pending):
            self._fail(number, error)

    def end(self) -> None:
        """Close as soon as the peer has taken what waits for it."""
        self._ending = True
        if self._channel is not None and not (self.is_up and self._outbox):
            self._channel.close()

    def abort(self, reason: str) -> None:
        if self._channel is not None:
            self._channel.abort(reason)

    # ------------------------------------------------------------------------------------------- for the link

    def opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.send(encode_frame(self._context.hello()))

    def received(self, envelope: Envelope) -> None:
        if self._hello is None:
            self._greet(envelope)
        else:
            handler = self._handlers.get(type(envelope))
            if handler is None:
                raise SessionError(f"{type(envelope).__name__} from listener {self.name!r}")
            handler(envelope)

    def resumed(self) -> None:
        channel = self._channel
        while channel is not None and self.is_up and channel.writable and self._outbox:
            self._send(self._unqueue(next(iter(self._outbox))).frame)
        if self._ending:
            self.end()

    def closed(self, reason: str) -> None:
        self._channel = None
        hello, self._hello = self._hello, None
        if hello is None:
            return
        self.is_up = False
        if self._clock_told is not None:
            self._clock_told.cancel()
            self._clock_told = None
        for number in [number for number, unsent in self._outbox.items() if unsent.kind is _Kind.CONTROL]:
            self._unqueue(number)
        lost = PeerLost(f"the link with {self.name!r} ended ({reason}) before the answer: ask for the fate")
        for number in [number for number in self._pending if number not in self._outbox]:
            self._fail(number, lost)
        for subscription in list(self.subscriptions.values()):
            subscription.down(reason)
        self._context.registry.closed(hello.name, hello.incarnation)

    # ---------------------------------------------------------------------------------------------- handshake

    def _greet(self, envelope: Envelope) -> None:
        if isinstance(envelope, Rejected):
            self._mismatched(envelope.reason)
            return
        if not isinstance(envelope, Hello):
            raise SessionError(f"{type(envelope).__name__} before Hello")
        mismatch = self._context.mismatch(envelope)
        if mismatch is None and envelope.name != self.name:
            mismatch = f"{envelope.name!r} listens where {self.name!r} should"
        if mismatch is not None:
            self._mismatched(mismatch)
            return
        self._hello = envelope
        self._rejected = None
        self.is_up = True
        self.connects += 1
        self._stats.connects += 1
        self._context.registry.opened(envelope.name, envelope.incarnation)
        if envelope.host != self._context.host and envelope.minor >= KNOWS_CLOCK_READS:
            self._clock_told = self._context.call_later(self._context.limits.clock_every, self._tell_clock)
        self._drop_stale_tells()
        for subscription in list(self.subscriptions.values()):
            self._control(subscription.request())
        self.resumed()

    def _tell_clock(self) -> None:
        """So that a listener on another host knows after any silence how its clock and this one stand."""
        if self._can_send():
            self._send(encode_frame(ClockReads(self._context.clock.monotonic_ns())))
        self._clock_told = self._context.call_later(self._context.limits.clock_every, self._tell_clock)

    def _mismatched(self, reason: str) -> None:
        self._stats.mismatched += 1
        if reason != self._rejected:
            self._rejected = reason
            log.error("peer_rejected", bus=self._context.name, peer=self.name, reason=reason)
            for subscription in list(self.subscriptions.values()):
                subscription.rejected(reason)
        self.fail_all(ProtocolMismatch(reason))
        self.abort(reason)

    # ----------------------------------------------------------------------------------------------- incoming

    def _event(self, event: Event) -> None:
        subscription = self.subscriptions.get(event.id)
        if subscription is not None:
            subscription.event(event)

    def _subscribed(self, start: Subscribed) -> None:
        if start.id in self.subscriptions:
            self.subscriptions[start.id].started(start)

    def _skipped(self, skipped: Skipped) -> None:
        if skipped.id in self.subscriptions:
            self.subscriptions[skipped.id].skipped(skipped)

    def _head(self, head: Head) -> None:
        if head.id in self.subscriptions:
            self.subscriptions[head.id].head(head)

    def _stream_closed(self, closed: StreamClosed) -> None:
        if closed.id in self.subscriptions:
            self.subscriptions[closed.id].down("the publisher closed the stream")

    def _reply(self, reply: Reply) -> None:
        pending = self._close(reply.id)
        if pending is None:
            return
        try:
            answer: Message | BusError = decode_body(reply.body)
        except msgspec.DecodeError as error:
            self._stats.unknown_bodies += 1
            answer = RemoteError(f"{self.name} answered {pending.what} with what this version cannot read: {error}")
        if isinstance(answer, Refused) and answer.reason is Reason.EXPIRED:
            self._called_late(pending)
        pending.settle(answer)

    def _called_late(self, pending: _Pending) -> None:
        """If it cannot have been, the two hosts' clocks have moved against each other: one stood still for a while."""
        now_ns = self._context.clock.monotonic_ns()
        if now_ns < pending.expires_mono_ns:
            log.warning("clocks_moved", bus=self._context.name, peer=self.name)
            self._control(ClockMoved(now_ns))

    def _failure(self, failure: Failure) -> None:
        self._fail(failure.id, RemoteError(f"{self.name}: {failure.error}"))

    # ----------------------------------------------------------------------------------------------- requests

    def _open(self, number: int, message: Message, timeout: float, settle: Settle) -> _Pending:
        timer = self._context.call_later(timeout, lambda: self._timed_out(number, timeout))
        pending = self._pending[number] = _Pending(type(message).__name__, settle, [timer])
        return pending

    def _ask(self, number: int, pending: _Pending, envelope: Request | Command) -> None:
        frame = self._frame(envelope)
        if self._can_send():
            self._send(frame)
        elif self._waiting[_Kind.REQUEST] < self._context.limits.outbox:
            self._queue(number, _Unsent(_Kind.REQUEST, frame))
            self._wake()
        else:
            self._context.call_soon(lambda: self._overfull(number, pending))

    def _overfull(self, number: int, pending: _Pending) -> None:
        detail = f"{self._context.limits.outbox} requests wait for {self.name}"
        if pending.command_id is None:
            self._fail(number, BusError(detail))
        else:
            self._refuse(number, pending.command_id, Reason.OVERLOADED, detail)

    def _timed_out(self, number: int, timeout: float) -> None:
        pending = self._pending.get(number)
        if pending is None:
            return
        if number in self._outbox and not self.is_up:
            self._fail(number, PeerLost(f"{self.name!r} could not be reached in {timeout:g} s; nothing was sent"))
        else:
            what = f"{self.name!r} did not answer {pending.what} in {timeout:g} s"
            self._fail(number, RequestTimeout(what))

    def _not_sent(self, number: int) -> None:
        pending = self._pending.get(number)
        if pending is not None and number in self._outbox and pending.command_id is not None:
            detail = f"expired while {self.name} was not to be reached"
            self._refuse(number, pending.command_id, Reason.NOT_SENT, detail)

    def _refuse(self, number: int, command_id: str, reason: Reason, detail: str) -> None:
        pending = self._close(number)
        if pending is not None:
            pending.settle(Refused(client_order_id=command_id, reason=reason, detail=detail))

    def _fail(self, number: int, error: BusError) -> None:
        pending = self._close(number)
        if pending is not None:
            pending.settle(error)

    def _close(self, number: int) -> _Pending | None:
        """Take a request out of the books, unsent copy and timers included; None when it is out already."""
        pending = self._pending.pop(number, None)
        if pending is None:
            return None
        if number in self._outbox:
            self._unqueue(number)
        for timer in pending.timers:
            timer.cancel()
        return pending

    # ----------------------------------------------------------------------------------------------- outgoing

    def _control(self, envelope: Envelope) -> None:
        """Part of a subscription: now, or in order when the link takes it; a new link starts it anew."""
        if not self.is_up:
            return
        frame = encode_frame(envelope)
        if self._can_send():
            self._send(frame)
        else:
            self._queue(next(self._ids), _Unsent(_Kind.CONTROL, frame))

    def _forget(self, subscription: Subscription) -> None:
        self.subscriptions.pop(subscription.id, None)

    def _frame(self, envelope: Envelope) -> bytes:
        frame = encode_frame(envelope)
        if len(frame) > self._context.limits.max_frame:
            raise BusError(f"a message of {len(frame)} bytes to {self.name!r} is above the frame limit")
        return frame

    def _can_send(self) -> bool:
        return self.is_up and not self._outbox and self._channel is not None and self._channel.writable

    def _send(self, frame: bytes) -> None:
        if self._channel is not None:
            self._channel.send(frame)

    def _queue(self, number: int, unsent: _Unsent) -> None:
        self._outbox[number] = unsent
        self._waiting[unsent.kind] += 1

    def _unqueue(self, number: int) -> _Unsent:
        unsent = self._outbox.pop(number)
        self._waiting[unsent.kind] -= 1
        return unsent

    def _drop_stale_tells(self) -> None:
        now_ns = self._context.clock.monotonic_ns()
        for number, unsent in list(self._outbox.items()):
            if unsent.kind is _Kind.TELL and unsent.until_ns < now_ns:
                self._unqueue(number)
                self._stats.dropped_tells += 1

    def expire(self) -> None:
        """Drop tells that waited too long for a connection."""
        if not self.is_up and self._waiting[_Kind.TELL]:
            self._drop_stale_tells()


def _answer(answer: asyncio.Future[Message], outcome: Message | BusError) -> None:
    """What :meth:`Peer.request` and :meth:`Peer.command` wait for; their caller may have left."""
    if answer.done():
        return
    if isinstance(outcome, BusError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


class PeerLoop:
    """Keeps the connection to one peer for as long as anything wants it."""

    def __init__(self, context: Context, name: str, directory: Directory, connect: Connect) -> None:
        directory.endpoint(name)
        self.peer = Peer(context, name, self._wanted)
        self._context = context
        self._directory = directory
        self._connect = connect
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._endpoint: Endpoint | None = None
        self._connecting: asyncio.Timeout | None = None
        self._closed = False

    def changed(self) -> None:
        """The directory says that the peer moved or came back: connect at once, there."""
        if not self.peer.is_connected:
            self._news.set()
            if self._connecting is not None and self._directory.endpoint(self.peer.name) != self._endpoint:
                self._connecting.reschedule(asyncio.get_running_loop().time())
        elif not self.peer.is_up or self._directory.endpoint(self.peer.name) != self._endpoint:
            self._news.set()
            self.peer.abort("the directory names a new one")

    async def close(self) -> None:
        self._closed = True
        self._news.set()
        self.peer.end()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=self._context.limits.close_grace)
            if late:
                self.peer.abort("closed by this side")
                self._task.cancel()
                await asyncio.wait([self._task])
        self.peer.fail_all(PeerLost(f"bus {self._context.name!r} closed before {self.peer.name!r} answered"))

    def lost(self) -> None:
        """Stop at once, without a word to anyone."""
        self._closed = True
        self.peer.subscriptions.clear()
        self.peer.abort("the process ended")
        if self._task is not None:
            self._task.cancel()

    def _wanted(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.ensure_future(self._run())
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("peer_loop_failed", peer=self.peer.name, exc_info=task.exception())
        elif self.peer.is_wanted:
            self._wanted()

    async def _run(self) -> None:
        limits = self._context.limits
        delay = limits.backoff_min
        while self.peer.is_wanted and not self._closed:
            self._news.clear()
            self._endpoint = self._directory.endpoint(self.peer.name)
            if self._endpoint is None:
                await self._wait(limits.tell_ttl)
            else:
                if await self._connected(self._endpoint):
                    delay = limits.backoff_min
                await self._wait(delay * self._context.rng.uniform(0.5, 1.0))
                delay = min(2 * delay, limits.backoff_max)
            self.peer.expire()

    async def _connected(self, endpoint: Endpoint) -> bool:
        """Connect and stay until the link ends; whether it was ever up."""
        connects = self.peer.connects
        try:
            async with asyncio.timeout(None) as self._connecting:
                link = await self._connect(endpoint, lambda: Link(self.peer, self._context))
        except OSError:
            return False
        finally:
            self._connecting = None
        if self._closed:
            link.close()
        await link.done
        return self.peer.connects > connects

    async def _wait(self, seconds: float) -> None:
        """Until the time is up, the directory has news or the bus closes."""
        if self._closed:
            return
        timer = self._context.call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
