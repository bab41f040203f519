"""A WebSocket that is kept up: opened again when it ends, and ended when it goes silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from engine.connectors.backoff import Backoff
from engine.connectors.base import ConnectionPlan
from engine.connectors.errors import RateLimited, TransportError
from engine.connectors.websocket import (
    WebSocketConnection,
    WebSocketHandler,
    WebSocketOptions,
    connect,
)
from engine.errors import EngineError

PlanFactory = Callable[[], Awaitable[ConnectionPlan]]


def fixed(plan: ConnectionPlan) -> PlanFactory:
    """The same plan every time."""

    async def give() -> ConnectionPlan:
        return plan

    return give


class ReconnectingWebSocket:
    """Holds one connection open until :meth:`close`, through one task.

    ``plan`` is asked before each attempt (for a fresh signature, say; a VenueError from it counts as a failed
    attempt, as does every other error of the engine's own; a venue that wants to be left alone for longer than the
    back-off is). Its ``opening`` texts are sent before
    ``on_open`` is called. A connection without a data frame for ``silence_s`` is cut (pings and pongs do not
    count, nor do frames of which the handler says that they are no data; 0: never), one that lasted
    ``stable_s`` resets the back-off. ``keepalive``: a text sent every so many seconds. ``after_read``: see
    :func:`~engine.connectors.websocket.connect`. ``monotonic_ns``: the clock that silence and frames are timed by.
    """

    def __init__(
        self,
        plan: PlanFactory,
        handler: WebSocketHandler,
        *,
        options: WebSocketOptions | None = None,
        backoff: Backoff | None = None,
        silence_s: float = 0.0,
        stable_s: float = 10.0,
        keepalive: tuple[float, str] | None = None,
        on_failed: Callable[[str, float], None] | None = None,
        after_read: Callable[[], None] | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._plan = plan
        self._handler = handler
        self._options = options or WebSocketOptions()
        self._backoff = backoff or Backoff()
        self._silence_s = silence_s
        self._stable_s = stable_s
        self._keepalive = keepalive
        self._on_failed = on_failed
        self._after_read = after_read
        self._monotonic_ns = monotonic_ns
        self._connection: WebSocketConnection | None = None
        self._opening: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.connects = 0
        self.failures = 0

    @property
    def is_open(self) -> bool:
        """Whether there is an open connection now."""
        return self._connection is not None and self._connection.is_open

    def start(self) -> None:
        """Begin to connect. Does nothing if it has begun."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="websocket")
            self._task.add_done_callback(_report)

    async def close(self) -> None:
        """End the connection and the task."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def send(self, text: str) -> None:
        """Send on the present connection; TransportError if there is none."""
        if self._connection is None:
            raise TransportError("the connection is not open", sent=False)
        self._connection.send(text)

    def rest(self) -> None:
        """See :meth:`engine.connectors.websocket.WebSocketConnection.rest`."""
        if self._connection is not None:
            self._connection.rest()

    @property
    def rests(self) -> bool:
        """Whether messages that were read wait for the event loop's next turn."""
        return self._connection is not None and self._connection.rests

    def restart(self, reason: str) -> None:
        """Cut the present connection; another one is opened."""
        if self._connection is not None:
            self._connection.abort(reason)

    # --------------------------------------------------------------------------------------------- the task

    async def _run(self) -> None:
        while True:
            try:
                plan = await self._plan()
                self._opening = plan.opening
                await self._once(plan)
            except EngineError as error:
                self.failures += 1
                delay = self._backoff.next()
                if isinstance(error, RateLimited) and not error.local:
                    delay = max(delay, error.retry_after_s)
                if self._on_failed is not None:
                    self._on_failed(str(error), delay)
            else:
                delay = self._backoff.next()
            await asyncio.sleep(delay)

    async def _once(self, plan: ConnectionPlan) -> None:
        """One connection, from opening to its end."""
        connection = await connect(
            plan.url,
            self._handler,
            self._options,
            before_open=self._opened,
            after_read=self._after_read,
            monotonic_ns=self._monotonic_ns,
        )
        opened = self._now()
        try:
            await self._watch(connection)
        finally:
            await connection.close()
            self._connection = None
        if self._now() - opened >= self._stable_s:
            self._backoff.reset()

    async def _watch(self, connection: WebSocketConnection) -> None:
        """Until the connection ends: sends the keep-alive text, and cuts the connection when it is silent."""
        keepalive_at = self._now() + self._keepalive[0] if self._keepalive else None
        while not connection.closed.done():
            now = self._now()
            wake_at = []
            if self._silence_s > 0:
                silent_at = connection.last_data_mono_ns / 1e9 + self._silence_s
                if now >= silent_at:
                    connection.abort(f"silent for {self._silence_s:g} s")
                    await connection.closed
                    return
                wake_at.append(silent_at)
            if self._keepalive and keepalive_at is not None:
                if now >= keepalive_at:
                    keepalive_at = now + self._keepalive[0]
                    if connection.is_open:
                        connection.send(self._keepalive[1])
                wake_at.append(keepalive_at)
            await asyncio.wait([connection.closed], timeout=min(wake_at) - now if wake_at else None)

    def _now(self) -> float:
        return self._monotonic_ns() / 1e9

    def _opened(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self.connects += 1
        for text in self._opening:
            connection.send(text)


def _report(task: asyncio.Task[None]) -> None:
    """The task ends by being cancelled, and by nothing else: an error that ended it must not go unseen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "a WebSocket is no longer kept up", "exception": error, "task": task}
        )
