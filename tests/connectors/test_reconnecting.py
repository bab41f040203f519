from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from engine.connectors.backoff import Backoff
from engine.connectors.base import ConnectionPlan
from engine.connectors.errors import TransportError
from engine.connectors.reconnecting import ReconnectingWebSocket, fixed


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []
        self._news = asyncio.Event()

    def _add(self, what: str) -> None:
        self.heard.append(what)
        self._news.set()

    def on_open(self) -> None:
        self._add("open")

    def on_frame(self, data: bytes, received_mono_ns: int) -> None:
        self._add(data.decode())

    def on_close(self, reason: str) -> None:
        self._add(f"close: {reason}")

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def serving(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


def quick() -> Backoff:
    return Backoff(base_s=0.001, max_s=0.01, seed=1)


def test_it_comes_back_and_says_its_opening_first_each_time(run: Any) -> None:
    async def work() -> None:
        async def greet(connection: ServerConnection) -> None:
            await connection.send(f"got {await connection.recv()}")

        listener = Listener()
        async with serving(greet) as url:
            plan = ConnectionPlan(url=url, opening=("hello",))
            socket = ReconnectingWebSocket(fixed(plan), listener, backoff=quick())
            socket.start()
            socket.start()
            await listener.until(lambda: listener.heard.count("got hello") == 3)
            await socket.close()
            assert listener.heard[:2] == ["open", "got hello"]
            assert listener.heard[2].startswith("close: ")
            assert listener.heard[3] == "open"
            assert socket.connects >= 3
            assert not socket.is_open

    run(work())


def test_W8_a_silent_connection_is_cut_though_it_answers_pings(run: Any) -> None:
    async def work() -> None:
        async def only_pings(connection: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await (await connection.ping())

        listener = Listener()
        async with serving(only_pings) as url:
            socket = ReconnectingWebSocket(fixed(ConnectionPlan(url=url)), listener, backoff=quick(), silence_s=0.1)
            socket.start()
            await listener.until(lambda: listener.heard.count("open") == 2)
            assert listener.heard[1] == "close: silent for 0.1 s"
            await socket.close()

    run(work())


def test_a_keepalive_text_is_sent_and_its_answers_keep_the_connection(run: Any) -> None:
    async def work() -> None:
        async def echo(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        listener = Listener()
        async with serving(echo) as url:
            socket = ReconnectingWebSocket(
                fixed(ConnectionPlan(url=url)), listener, silence_s=0.5, keepalive=(0.01, "still here")
            )
            socket.start()
            await listener.until(lambda: listener.heard.count("still here") == 5)
            assert listener.heard.count("open") == 1
            await socket.close()

    run(work())


def test_what_fails_is_told_and_tried_again(run: Any) -> None:
    async def work() -> None:
        failures: list[tuple[str, float]] = []
        attempts = 0

        async def hold(connection: ServerConnection) -> None:
            await connection.wait_closed()

        listener = Listener()
        async with serving(hold) as url:

            async def plan() -> ConnectionPlan:
                nonlocal attempts
                attempts += 1
                if attempts == 1:
                    raise TransportError("no time yet", sent=False)
                return ConnectionPlan(url="ws://127.0.0.1:1/" if attempts == 2 else url)

            socket = ReconnectingWebSocket(
                plan, listener, backoff=quick(), on_failed=lambda why, delay: failures.append((why, delay))
            )
            socket.start()
            await listener.until(lambda: listener.heard == ["open"])
            assert socket.failures == 2
            assert failures[0][0] == "no time yet"
            socket.restart("the venue asked for it")
            await listener.until(lambda: listener.heard.count("open") == 2)
            assert listener.heard[1] == "close: the venue asked for it"
            await socket.close()

    run(work())


@pytest.mark.parametrize(
    ("status", "headers", "waits"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (418, {"Retry-After": "90"}, 90.0),
        (418, {}, 0.0),
        (503, {"Retry-After": "7"}, 0.0),
    ],
)
def test_a_venue_that_wants_to_be_left_alone_is(run: Any, status: int, headers: dict[str, str], waits: float) -> None:
    async def work() -> None:
        told: asyncio.Future[tuple[str, float]] = asyncio.get_running_loop().create_future()

        def refuse(connection: ServerConnection, request: Any) -> Response:
            return Response(status, "too many", Headers(headers))

        async with serve(lambda connection: connection.wait_closed(), "127.0.0.1", 0, process_request=refuse) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"
            socket = ReconnectingWebSocket(
                fixed(ConnectionPlan(url=url)),
                Listener(),
                backoff=quick(),
                on_failed=lambda why, delay: told.done() or told.set_result((why, delay)),
            )
            socket.start()
            why, delay = await told
            await socket.close()
        assert str(status) in why
        assert delay == pytest.approx(waits, abs=0.02)

    run(work())


def test_closing_while_connecting_leaves_nothing(run: Any, tcp_server: Any) -> None:
    async def work() -> None:
        accepted = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            accepted.set()
            with contextlib.suppress(ConnectionResetError):
                await reader.read()

        async with tcp_server(say_nothing) as port:
            listener = Listener()
            plan = ConnectionPlan(url=f"ws://127.0.0.1:{port}/")
            socket = ReconnectingWebSocket(fixed(plan), listener)
            socket.start()
            await accepted.wait()
            await socket.close()
            await socket.close()
            assert listener.heard == []

    run(work())


def test_sending_without_a_connection_is_an_error(run: Any) -> None:
    async def work() -> None:
        socket = ReconnectingWebSocket(fixed(ConnectionPlan(url="ws://127.0.0.1:1/")), Listener())
        with pytest.raises(TransportError) as failed:
            socket.send("x")
        assert not failed.value.sent

    run(work())


def test_an_error_that_is_nobodys_is_reported(run: Any) -> None:
    async def work() -> None:
        reported: list[Any] = []
        told = asyncio.Event()

        def report(_loop: Any, context: dict[str, Any]) -> None:
            reported.append(context["exception"])
            told.set()

        asyncio.get_running_loop().set_exception_handler(report)

        async def plan() -> ConnectionPlan:
            raise KeyError("mine")

        socket = ReconnectingWebSocket(plan, Listener())
        socket.start()
        await told.wait()
        await socket.close()
        assert isinstance(reported[0], KeyError)

    run(work())
