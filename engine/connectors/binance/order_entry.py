"""Placing and cancelling on one held-open connection of Binance's WebSocket API.

Source: "Request format", "Response format" and "Rate limits" of the Spot WebSocket API documentation (2026).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from engine.connectors.backoff import Backoff
from engine.connectors.base import Clock, ConnectionPlan, OnSent
from engine.connectors.binance import constants
from engine.connectors.binance.errors import FrameError, from_status
from engine.connectors.decoding import UNREADABLE
from engine.connectors.errors import RateLimited, TransportError, UnknownOutcome
from engine.connectors.reconnecting import PlanFactory, ReconnectingWebSocket
from engine.connectors.rest import RestReply
from engine.connectors.throttler import Grant, Priority, Throttler
from engine.connectors.websocket import WebSocketOptions
from engine.errors import VenueError

Write = Callable[[int], str]
"""Makes (and signs) a request's text; its argument is the request's id."""

_PING_EVERY_S = 5.0
_CONNECT_WAIT_S = 15.0


class NotOpenError(TransportError):
    """There is no open connection, so nothing was done: the request may take another way."""

    def __init__(self) -> None:
        super().__init__("the order connection is not open", sent=False)


class _Usage(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    interval_num: int
    count: int = 0


class _Event(msgspec.Struct):
    e: str = ""


class _Frame(msgspec.Struct, rename="camel"):
    id: int | str | None = None
    status: int = 0
    result: msgspec.Raw = msgspec.Raw()
    error: FrameError | None = None
    rate_limits: list[_Usage] = []
    event: _Event | None = None


_decode = msgspec.json.Decoder(_Frame).decode


Answered = Callable[[RestReply | VenueError], None]
"""Hears a request's reply, or why there is none. Called once; must not raise."""


class _Pending:
    __slots__ = ("answered", "free", "grant", "requested_mono_ns", "requested_ns", "timer")

    def __init__(
        self, answered: Answered, grant: Grant, free: tuple[str, ...], clock: Clock, timer: asyncio.TimerHandle
    ) -> None:
        self.answered = answered
        self.grant = grant
        self.free = free
        self.requested_ns = clock.time_ns()
        self.requested_mono_ns = clock.monotonic_ns()
        self.timer = timer


class OrderEntry:
    """Holds the connection open, in the background, and matches replies to requests by their ids.

    A request goes out at most once and only here: :class:`NotOpenError` says that it did not. ``strangers`` counts
    replies to nobody, ``unreadable`` frames that are none.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        throttler: Throttler,
        venue_now_ms: Callable[[], int],
        timeout_s: float = 5.0,
        ca: str | None = None,
    ) -> None:
        self._clock = clock
        self._throttler = throttler
        self._venue_now_ms = venue_now_ms
        self._timeout_s = timeout_s
        self._socket = ReconnectingWebSocket(
            self._plan_of(url),
            self,
            options=WebSocketOptions(open_timeout_s=timeout_s, ping_every_s=_PING_EVERY_S, ca=ca),
            backoff=Backoff(base_s=0.05, max_s=5.0),
            on_failed=self._failed,
            monotonic_ns=clock.monotonic_ns,
        )
        self._ids = itertools.count(1)
        self._pending: dict[int | str, _Pending] = {}
        self._tried = asyncio.Event()
        self._leaving = False
        self._last_frame_mono_ns = 0
        self.strangers = 0
        self.unreadable = 0
        self.last_failure = ""

    @property
    def is_open(self) -> bool:
        """Whether a request would go out here now."""
        return self._socket.is_open and not self._leaving

    async def start(self) -> None:
        """Begin to connect, and wait until the first attempt came to something, or for one time-out."""
        self._socket.start()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._tried.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        """End the connection; what has no reply yet is told so."""
        self._leaving = True
        await self._socket.close()
        self.on_close("closed by us")

    def restart(self, reason: str) -> None:
        """Cut the connection; another one is opened."""
        self._socket.restart(reason)

    async def request(
        self,
        write: Write,
        costs: Mapping[str, int],
        priority: Priority,
        *,
        until_mono_ns: int | None = None,
        on_sent: OnSent | None = None,
        free: tuple[str, ...] = (),
    ) -> RestReply:
        """Send a request and wait for its reply; errors as a REST request's, and :class:`NotOpenError`.

        ``free``: the limits that the venue does not count it against when it is done.
        """
        if not self.is_open:
            raise NotOpenError
        grant = await self._throttler.acquire(costs, priority, until_mono_ns)
        reply: asyncio.Future[RestReply] = asyncio.get_running_loop().create_future()
        number = self._send(write, grant, free, on_sent, partial(_settle, reply))
        try:
            return await reply
        finally:
            self._forget(number)

    def begin(
        self,
        write: Write,
        costs: tuple[tuple[str, int], ...],
        priority: Priority,
        answered: Answered,
        *,
        on_sent: OnSent | None = None,
        free: tuple[str, ...] = (),
    ) -> bool:
        """Send a request in this very call, if it need not wait; otherwise False, and nothing was done.

        Raises, as :meth:`request`, what comes before its first byte; what comes after that is for ``answered``.
        """
        grant = self._throttler.grant(costs, priority) if self.is_open else None
        if grant is None:
            return False
        self._send(write, grant, free, on_sent, answered)
        return True

    # ----------------------------------------------------------------------------------------- WebSocketHandler

    def on_open(self) -> None:
        self._leaving = False
        self._tried.set()

    def on_frame(self, data: bytes, received_mono_ns: int) -> None:
        self._last_frame_mono_ns = received_mono_ns
        try:
            frame = _decode(data)
        except UNREADABLE:
            self.unreadable += 1
            return
        if frame.event is not None:
            self._told(frame.event)
            return
        pending = self._forget(frame.id) if frame.id is not None else None
        if pending is None:
            self.strangers += 1
            self._heed(frame)
            return
        self._throttler.report(pending.grant, _counts(frame.rate_limits))
        self._answer(pending, frame)
        if self._leaving:
            self._leave_when_idle()

    def on_close(self, reason: str) -> None:
        text = f"the order connection ended before an answer: {reason}"
        for number in list(self._pending):
            pending = self._forget(number)
            if pending is not None:
                pending.answered(TransportError(text, sent=True))

    # -------------------------------------------------------------------------------------------------- sending

    def _send(
        self, write: Write, grant: Grant, free: tuple[str, ...], on_sent: OnSent | None, answered: Answered
    ) -> int:
        """Write a request; whatever fails before that is given back to the limits. Its id."""
        number = next(self._ids)
        try:
            if not self.is_open:
                raise NotOpenError
            timer = asyncio.get_running_loop().call_later(self._timeout_s, self._timed_out, number)
            self._pending[number] = _Pending(answered, grant, free, self._clock, timer)
            text = write(number)
            if on_sent is not None:
                on_sent(self._clock.monotonic_ns())
            self._socket.send(text)
        except BaseException:
            self._forget(number)
            self._throttler.refund(grant)
            raise
        return number

    def _forget(self, number: int | str) -> _Pending | None:
        """Nobody waits for this reply any more, or it is here."""
        pending = self._pending.pop(number, None)
        if pending is not None:
            pending.timer.cancel()
        return pending

    def _timed_out(self, number: int) -> None:
        pending = self._forget(number)
        if pending is None:
            return
        if self._last_frame_mono_ns < pending.requested_mono_ns:
            # Nothing at all came since the request left: the connection is dead, and others shall not wait for it.
            self.restart("no reply in time")
        pending.answered(UnknownOutcome("no answer in time on the order connection"))

    # ------------------------------------------------------------------------------------------------- replies

    def _answer(self, pending: _Pending, frame: _Frame) -> None:
        if 200 <= frame.status < 300 and frame.error is None:
            if pending.free:
                self._throttler.refund(pending.grant, pending.free)
            pending.answered(
                RestReply(
                    status=frame.status,
                    body=bytes(frame.result),
                    requested_ns=pending.requested_ns,
                    requested_mono_ns=pending.requested_mono_ns,
                )
            )
            return
        pending.answered(self._heed(frame) or UnknownOutcome(f"a reply of status {frame.status}"))

    def _heed(self, frame: _Frame) -> VenueError | None:
        """The error of a reply. What it says of limits is obeyed, whomever it is for."""
        if frame.error is None and 200 <= frame.status < 300:
            return None
        wait_s = None if frame.error is None else frame.error.retry_after_s(self._venue_now_ms())
        error = from_status(frame.status, frame.error, wait_s)
        if isinstance(error, RateLimited):
            self._throttler.silence(error.retry_after_s, error.limits)
        return error

    def _told(self, event: _Event) -> None:
        """The venue announces that it will end this connection: send nothing more here, wait for what is out."""
        if event.e == "serverShutdown":
            self._leaving = True
            self._leave_when_idle()

    def _leave_when_idle(self) -> None:
        if not self._pending:
            self.restart("the venue announced that this connection will end")

    # ---------------------------------------------------------------------------------------------- connecting

    def _plan_of(self, url: str) -> PlanFactory:
        async def plan() -> ConnectionPlan:
            until = self._clock.monotonic_ns() + round(_CONNECT_WAIT_S * 1e9)
            await self._throttler.acquire({constants.WEIGHT: constants.CONNECT_WEIGHT}, until_mono_ns=until)
            return ConnectionPlan(url=url)

        return plan

    def _failed(self, error: str, delay_s: float) -> None:
        self.last_failure = error
        self._tried.set()


def _settle(reply: asyncio.Future[RestReply], outcome: RestReply | VenueError) -> None:
    """What :meth:`OrderEntry.request` waits for; its caller may have left."""
    if reply.done():
        return
    if isinstance(outcome, RestReply):
        reply.set_result(outcome)
    else:
        reply.set_exception(outcome)


def _counts(usages: list[_Usage]) -> dict[str, int]:
    """The venue's own counts, by the names of its limits."""
    return {f"{usage.rate_limit_type}_{usage.interval_num}{usage.interval[:1]}": usage.count for usage in usages}
