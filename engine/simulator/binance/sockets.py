"""The WebSocket front ends: market streams at ``/ws`` and ``/stream``, the WebSocket API at ``/ws-api/v3``."""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from aiohttp import web

from engine.simulator.binance import commands
from engine.simulator.binance.desk import Desk
from engine.simulator.binance.streams import Listener
from engine.simulator.binance.users import UserSocket, listen_key
from engine.simulator.binance.ws_api import Session
from engine.simulator.sockets import Socket

MAX_MESSAGES_PER_SECOND = 5


class Sockets:
    """aiohttp handlers for every WebSocket path."""

    def __init__(self, desk: Desk, enforce_limits: bool) -> None:
        self._desk = desk
        self._enforce = enforce_limits
        self._keys = {listen_key(key, secret): key for key, secret in desk.api.secrets.items()}
        self.open: dict[Socket, None] = {}

    async def market(self, request: web.Request) -> web.StreamResponse:
        """``/ws``, ``/ws/<stream>[/<stream>…]``, ``/ws/<listenKey>``, ``/stream?streams=a/b``."""
        combined = request.path.startswith("/stream")
        text = request.query.get("streams", "") if combined else unquote(request.match_info.get("names", ""))
        names = [name for name in text.split("/") if name]
        socket = Socket(request)
        await socket.open()
        self.open[socket] = None
        listener = Listener(socket, combined)
        user = UserSocket(socket)
        self._desk.hub.add(listener, [name for name in names if name not in self._keys])
        for name in names:
            if name in self._keys:
                user.listen_key_account = self._desk.api.account_of_key[self._keys[name]]
                user.listen_key_stream = name if combined else ""
                self._desk.users.sockets[user] = None
        try:
            async for message in socket.texts():
                if self._too_many(listener):
                    await socket.close(1008, b"Too many requests")
                    break
                socket.send(commands.answer(message, listener, self._desk.hub))
        finally:
            self._desk.hub.remove(listener)
            self._desk.users.sockets.pop(user, None)
            self.open.pop(socket, None)
        return socket.response

    async def api(self, request: web.Request) -> web.StreamResponse:
        """``/ws-api/v3``: requests and user data on one connection."""
        socket = Socket(request)
        await socket.open()
        self.open[socket] = None
        session = Session(self._desk, socket, request.remote or "")
        try:
            async for message in socket.texts():
                reply = await session.answer(message)
                if reply is None:
                    socket.abort()
                    break
                socket.send(reply)
        finally:
            session.close()
            self.open.pop(socket, None)
        return socket.response

    def _too_many(self, listener: Listener) -> bool:
        """Whether the client says more than the venue listens to; as lenient as the live one, which allows bursts."""
        now = asyncio.get_running_loop().time()
        times = [at for at in listener.request_times if now - at < 2.0]
        times.append(now)
        listener.request_times = times
        return self._enforce and len(times) > 2 * MAX_MESSAGES_PER_SECOND
