"""A WebSocket with a bounded queue: a slow reader is dropped and never slows the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

MAX_QUEUED = 20_000
PING_INTERVAL = 20.0
PONG_TIMEOUT = 60.0


class Socket:
    """One accepted WebSocket. :meth:`send` never waits; :meth:`texts` yields what the client says until it leaves.

    The server pings every 20 s and drops a client that has not answered for 60 s; the client's pings are answered.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._ws = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=1 << 20, timeout=1.0)
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._max = MAX_QUEUED
        self._pong_at = self._now()
        self._tasks: list[asyncio.Task[None]] = []
        self.closed = False

    @property
    def response(self) -> web.WebSocketResponse:
        return self._ws

    async def open(self) -> None:
        await self._ws.prepare(self._request)
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._beat())]

    def send(self, frame: bytes) -> None:
        """Queue a text frame; a client whose queue is full is dropped."""
        if self.closed:
            return
        if len(self._queue) >= self._max:
            self.abort()
            return
        self._queue.append(frame)
        self._wake.set()

    async def send_now(self, frame: bytes) -> None:
        """Send past the queue, waiting for a slow reader. For a sender that sets its pace by its readers."""
        if not self.closed:
            try:
                await self._ws.send_frame(frame, WSMsgType.TEXT)
            except (ConnectionError, RuntimeError):
                self.abort()

    def abort(self) -> None:
        """Drop the connection at once, without a closing handshake."""
        self.closed = True
        self._queue.clear()
        self._wake.set()
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    async def close(self, code: int = 1000, reason: bytes = b"") -> None:
        """Close politely."""
        self.closed = True
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._ws.close(code=code, message=reason)

    async def texts(self) -> AsyncIterator[bytes]:
        try:
            async for message in self._ws:
                if message.type is WSMsgType.TEXT:
                    yield message.data.encode()
                elif message.type is WSMsgType.BINARY:
                    yield message.data
                elif message.type is WSMsgType.PING:
                    with contextlib.suppress(ConnectionError, RuntimeError):
                        await self._ws.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    self._pong_at = self._now()
        finally:
            self.closed = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and not self.closed:
                await self.send_now(self._queue.popleft())

    async def _beat(self) -> None:
        while not self.closed:
            await asyncio.sleep(PING_INTERVAL)
            if self._now() - self._pong_at > PING_INTERVAL + PONG_TIMEOUT:
                self.abort()
                return
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self._ws.ping(str(int(self._now() * 1000)).encode())
