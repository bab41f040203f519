"""The WebSocket client against the websockets package's own server, and against hand-made bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.streams import StreamReader
from websockets.uri import parse_uri

from engine.connectors.errors import TransportError
from engine.connectors.websocket import WebSocketConnection, WebSocketOptions, _text_frame, connect
from engine.errors import ConfigError


class Listener:
    """Records what it hears, and lets tests wait for it."""

    def __init__(self) -> None:
        self.opened = 0
        self.frames: list[bytes] = []
        self.times: list[int] = []
        self.reasons: list[str] = []
        self._news = asyncio.Event()

    def on_open(self) -> None:
        self.opened += 1
        self._news.set()

    def on_frame(self, data: bytes, received_mono_ns: int) -> None:
        self.frames.append(data)
        self.times.append(received_mono_ns)
        self._news.set()

    def on_close(self, reason: str) -> None:
        self.reasons.append(reason)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def serving(handler: Callable[[ServerConnection], Awaitable[None]], **options: Any) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/stream?streams=a@b/c@d"


@pytest.fixture
def raw_server(tcp_server: Any) -> Callable[[bytes], AbstractAsyncContextManager[str]]:
    """Completes a handshake by hand, sends given bytes in one with it, and never says anything again."""

    @asynccontextmanager
    async def serving_bytes(after: bytes) -> AsyncIterator[str]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
            digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
            answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            answer += b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
            writer.write(answer + after)
            await until_the_end(reader)

        async with tcp_server(handle) as port:
            yield f"ws://127.0.0.1:{port}/"

    return serving_bytes


async def until_the_end(reader: asyncio.StreamReader) -> None:
    """Read until the other side closes or cuts."""
    with contextlib.suppress(ConnectionResetError):
        await reader.read()


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def test_messages_go_both_ways_and_carry_the_time_of_their_reading(run: Any) -> None:
    async def work() -> None:
        async def echo(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        listener = Listener()
        async with serving(echo) as url:
            before = time.monotonic_ns()
            connection = await connect(url, listener)
            assert (listener.opened, connection.is_open) == (1, True)
            for text in ("a", "ü" * 200, "x" * 100_000):
                connection.send(text)
            await listener.until(lambda: len(listener.frames) == 3)
            assert [len(data) for data in listener.frames] == [1, 400, 100_000]
            assert before < listener.times[0] <= listener.times[-1] <= time.monotonic_ns()
            await connection.close()
            assert listener.reasons == ["closed by us"]
            with pytest.raises(TransportError):
                connection.send("late")
            await connection.close()
            assert len(listener.reasons) == 1

    run(work())


def test_pings_are_answered_with_their_payload_and_are_no_data(run: Any) -> None:
    async def work() -> None:
        answered = asyncio.Event()

        async def ping(connection: ServerConnection) -> None:
            await (await connection.ping(b"payload"))
            answered.set()
            await connection.wait_closed()

        listener = Listener()
        async with serving(ping) as url:
            connection = await connect(url, listener)
            quiet_since = connection.last_data_mono_ns
            await answered.wait()
            assert connection.last_data_mono_ns == quiet_since
            assert not listener.frames
            await connection.close()

    run(work())


def test_a_frame_that_its_consumer_calls_no_data_leaves_the_connection_silent(run: Any, raw_server: Any) -> None:
    class Choosy(Listener):
        def on_frame(self, data: bytes, received_mono_ns: int) -> bool:
            super().on_frame(data, received_mono_ns)
            return data != b"pong"

    async def work() -> None:
        ticks = iter(range(1, 1_000_000))
        whole = frame(Opcode.TEXT, b"pong")
        parts = frame(Opcode.TEXT, b"po", fin=False) + frame(Opcode.CONT, b"ng")
        for sent in (whole, parts):
            listener = Choosy()
            async with raw_server(sent) as url:
                connection = await connect(
                    url, listener, WebSocketOptions(close_timeout_s=0.05), monotonic_ns=lambda: next(ticks)
                )
                opened = connection.last_data_mono_ns
                await listener.until(lambda heard=listener: heard.frames == [b"pong"])
                assert connection.last_data_mono_ns == opened
                await connection.close()

    run(work())


def test_the_end_of_a_read_is_told_after_all_that_came_in_it(run: Any, raw_server: Any) -> None:
    async def work() -> None:
        listener = Listener()
        reads: list[list[bytes]] = []

        def after_read() -> None:
            reads.append(list(listener.frames))

        sent = frame(Opcode.TEXT, b"one") + frame(Opcode.PING, b"p") + frame(Opcode.TEXT, b"two")
        async with raw_server(sent + frame(Opcode.TEXT, b"half")[:-1]) as url:
            options = WebSocketOptions(close_timeout_s=0.05)
            connection = await connect(url, listener, options, after_read=after_read)
            await listener.until(lambda: len(listener.frames) == 2)
            await connection.close()
        assert reads[0] == [b"one", b"two"]
        assert reads[-1] == [b"one", b"two"]

    run(work())


@pytest.mark.parametrize("rests", [False, True])
def test_a_reader_that_rests_lets_the_event_loop_take_its_turn(run: Any, raw_server: Any, rests: bool) -> None:
    async def work() -> None:
        happened: list[Any] = []

        class Rester(Listener):
            def on_frame(self, data: bytes, received_mono_ns: int) -> None:
                super().on_frame(data, received_mono_ns)
                happened.append(data)
                if data == b"one":
                    asyncio.get_running_loop().call_soon(happened.append, "turn")
                    if rests:
                        connections[0].rest()

        listener = Rester()
        connections: list[WebSocketConnection] = []
        async with raw_server(b"".join(frame(Opcode.TEXT, data) for data in (b"one", b"two", b"three"))) as url:
            await connect(
                url, listener, before_open=connections.append, after_read=lambda: happened.append(connections[0].rests)
            )
            await listener.until(lambda: len(listener.frames) == 3)
            assert len(set(listener.times)) == 1
            await asyncio.sleep(0)
            await connections[0].close()
        together = [b"one", b"two", b"three", False, "turn"]
        apart = [b"one", True, "turn", b"two", b"three", False]
        wanted = apart if rests else together
        assert happened[: len(wanted)] == wanted

    run(work())


def test_messages_that_wait_are_handed_on_before_a_cut_is_told(run: Any, tcp_server: Any) -> None:
    async def work() -> None:
        class Rester(Listener):
            def on_frame(self, data: bytes, received_mono_ns: int) -> None:
                assert not self.reasons
                super().on_frame(data, received_mono_ns)
                connections[0].rest()
                if data == b"one":
                    connections[0].abort("on purpose")

        listener = Rester()
        connections: list[WebSocketConnection] = []

        async def say(server: ServerConnection) -> None:
            server.transport.write(b"".join(frame(Opcode.TEXT, data) for data in (b"one", b"two", b"three")))
            await server.wait_closed()

        async with serving(say) as url:
            await connect(url, listener, before_open=connections.append)
            await listener.until(lambda: bool(listener.reasons))
            assert listener.frames == [b"one", b"two", b"three"]
            assert listener.reasons == ["on purpose"]

    run(work())


def test_an_error_at_the_end_of_a_read_ends_the_connection(run: Any, raw_server: Any) -> None:
    async def work() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

        def after_read() -> None:
            raise RuntimeError("on purpose")

        listener = Listener()
        async with raw_server(frame(Opcode.TEXT, b"one")) as url:
            await connect(url, listener, after_read=after_read)
            await listener.until(lambda: bool(listener.reasons))
        assert "on purpose" in listener.reasons[0]
        assert "on purpose" in str(told[0]["exception"])

    run(work())


def test_fragments_are_put_together_around_control_frames(run: Any, raw_server: Any) -> None:
    async def work() -> None:
        parts = frame(Opcode.TEXT, b"one ", fin=False) + frame(Opcode.PING, b"p")
        parts += frame(Opcode.CONT, b"two ", fin=False) + frame(Opcode.CONT, b"three")
        parts += frame(Opcode.TEXT, b"next")
        listener = Listener()
        async with raw_server(parts) as url:
            connection = await connect(url, listener, WebSocketOptions(close_timeout_s=0.05))
            await listener.until(lambda: len(listener.frames) == 2)
            assert listener.frames == [b"one two three", b"next"]
            await connection.close()

    run(work())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(st.binary(max_size=70_000), min_size=1, max_size=8),
    pings=st.lists(st.booleans(), min_size=8, max_size=8),
    cuts=st.lists(st.integers(0, 10_000), max_size=20),
    rests=st.sets(st.integers(0, 7)),
    turns=st.lists(st.booleans(), min_size=25, max_size=25),
)
def test_however_the_bytes_are_cut_and_the_reader_rests_the_messages_are_whole(
    messages: list[bytes], pings: list[bool], cuts: list[int], rests: set[int], turns: list[bool]
) -> None:
    stream = b""
    for message, ping in zip(messages, pings, strict=False):
        stream += frame(Opcode.PING, b"x") if ping else b""
        half = len(message) // 2
        if len(message) % 3 == 0:
            stream += frame(Opcode.BINARY, message[:half], fin=False) + frame(Opcode.CONT, message[half:])
        else:
            stream += frame(Opcode.BINARY, message)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})

    class Rester(Listener):
        def on_frame(self, data: bytes, received_mono_ns: int) -> None:
            super().on_frame(data, received_mono_ns)
            if len(self.frames) - 1 in rests:
                connection.rest()

    async def work() -> Listener:
        nonlocal connection
        listener = Rester()
        connection = opened_connection(listener)
        for (start, end), turn in zip(pairwise(edges), turns, strict=False):
            connection.data_received(stream[start:end])
            if turn:
                await asyncio.sleep(0)
        connection.connection_lost(None)
        assert not connection.rests
        return listener

    connection: WebSocketConnection
    listener = asyncio.run(work())
    assert listener.frames == messages
    assert len(listener.reasons) == 1


def opened_connection(listener: Listener) -> WebSocketConnection:
    """A connection that has had its handshake, on a transport that goes nowhere."""

    class Nowhere(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written = b""
            self.paused = False

        def write(self, data: Any) -> None:
            self.written += bytes(data)

        def is_closing(self) -> bool:
            return False

        def abort(self) -> None:
            pass

        def pause_reading(self) -> None:
            assert not self.paused
            self.paused = True

        def resume_reading(self) -> None:
            assert self.paused
            self.paused = False

    transport = Nowhere()
    connection = WebSocketConnection(parse_uri("ws://venue/"), listener, WebSocketOptions())
    connection.connection_made(transport)
    server = ServerProtocol()
    server.receive_data(transport.written)
    request = server.events_received()[0]
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    connection.data_received(b"".join(server.data_to_send()))
    assert connection.is_open
    return connection


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (Frame(Opcode.TEXT, b"masked").serialize(mask=True), 1002),
        (b"\x83\x00", 1002),
        (frame(Opcode.CONT, b"nothing to continue"), 1002),
        (frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"), 1002),
        (b"\x81\x7f" + (2**40).to_bytes(8, "big"), 1009),
    ],
    ids=["masked", "reserved opcode", "nothing to continue", "interrupted", "too long"],
)
def test_a_broken_frame_ends_the_connection(run: Any, raw_server: Any, broken: bytes, code: int) -> None:
    async def work() -> None:
        listener = Listener()
        after = frame(Opcode.TEXT, b"good") + broken + frame(Opcode.TEXT, b"never seen")
        async with raw_server(after) as url:
            options = WebSocketOptions(close_timeout_s=0.2)
            connection = await connect(url, listener, options)
            await listener.until(lambda: bool(listener.reasons))
            assert listener.frames == [b"good"]
            assert "broken frame" in listener.reasons[0]
            assert connection.closed.done()
            assert connection.close_code == code

    run(work())


def test_a_message_over_the_limit_ends_the_connection(run: Any) -> None:
    async def work() -> None:
        async def send(connection: ServerConnection) -> None:
            await connection.send("x" * 2000)
            await connection.wait_closed()

        listener = Listener()
        async with serving(send) as url:
            await connect(url, listener, WebSocketOptions(max_size=1000, close_timeout_s=0.2))
            await listener.until(lambda: bool(listener.reasons))
            assert not listener.frames
            assert "broken frame" in listener.reasons[0]

    run(work())


def test_a_good_bye_of_the_venue_is_answered_and_told(run: Any) -> None:
    async def work() -> None:
        codes: list[int | None] = []

        async def leave(connection: ServerConnection) -> None:
            await connection.send("last")
            await connection.close(1001, "maintenance")
            codes.append(connection.close_code)

        listener = Listener()
        async with serving(leave) as url:
            await connect(url, listener)
            await listener.until(lambda: bool(listener.reasons))
            assert listener.frames == [b"last"]
            assert "maintenance" in listener.reasons[0]
        assert codes == [1001]

    run(work())


def test_a_cut_line_is_told_once(run: Any) -> None:
    async def work() -> None:
        async def cut(connection: ServerConnection) -> None:
            connection.transport.abort()

        listener = Listener()
        async with serving(cut) as url:
            await connect(url, listener)
            await listener.until(lambda: bool(listener.reasons))
            assert len(listener.reasons) == 1

    run(work())


def test_what_cannot_be_opened_says_why_without_the_query(run: Any) -> None:
    async def work() -> None:
        async def refuse(_connection: Any, _request: Any) -> Any:
            return _connection.respond(403, "no")

        async def never(_connection: ServerConnection) -> None:
            raise AssertionError

        with pytest.raises(TransportError):
            await connect("ws://127.0.0.1:1/?token=secret", Listener())
        async with serving(never, process_request=refuse) as url:
            with pytest.raises(TransportError, match="403") as failed:
                await connect(url, Listener())
            assert "streams" not in str(failed.value)
        with pytest.raises(ConfigError):
            await connect("http://127.0.0.1:1/", Listener())

    run(work())


def test_opening_is_bounded_in_time(run: Any, tcp_server: Any) -> None:
    async def work() -> None:
        async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await until_the_end(reader)

        async with tcp_server(say_nothing) as port:
            url = f"ws://127.0.0.1:{port}/"
            listener = Listener()
            with pytest.raises(TransportError, match="not open within"):
                await connect(url, listener, WebSocketOptions(open_timeout_s=0.05))
            assert not listener.reasons

    run(work())


def test_a_server_that_does_not_answer_a_good_bye_is_cut(run: Any, raw_server: Any) -> None:
    async def work() -> None:
        listener = Listener()
        async with raw_server(b"") as url:
            connection = await connect(url, listener, WebSocketOptions(close_timeout_s=0.05))
            await connection.close()
            assert listener.reasons == ["closed by us"]

    run(work())


def test_own_pings_find_a_dead_peer(run: Any, raw_server: Any) -> None:
    async def work() -> None:
        listener = Listener()
        async with raw_server(b"") as url:
            await connect(url, listener, WebSocketOptions(ping_every_s=0.02))
            await listener.until(lambda: bool(listener.reasons))
            assert "ping" in listener.reasons[0]

    run(work())


def test_a_handler_that_fails_is_reported_and_ends_the_connection(run: Any) -> None:
    async def work() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

        class Failing(Listener):
            def on_frame(self, data: bytes, received_mono_ns: int) -> None:
                raise ValueError("mine")

        async def send(connection: ServerConnection) -> None:
            await connection.send("x")
            await connection.wait_closed()

        listener = Failing()
        async with serving(send) as url:
            await connect(url, listener)
            await listener.until(lambda: bool(listener.reasons))
        assert "mine" in listener.reasons[0]
        assert isinstance(reported[0]["exception"], ValueError)

    run(work())


def test_compression_works_where_it_is_asked_for(run: Any) -> None:
    async def work() -> None:
        async def send(connection: ServerConnection) -> None:
            for _ in range(3):
                await connection.send("abc" * 1000)
            await connection.wait_closed()

        listener = Listener()
        async with serving(send) as url:
            connection = await connect(url, listener, WebSocketOptions(compression=True))
            await listener.until(lambda: len(listener.frames) == 3)
            assert set(listener.frames) == {b"abc" * 1000}
            await connection.close()

    run(work())


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 127, 65_535, 65_536, 70_001])
def test_a_message_of_any_size_is_framed_as_servers_read_it(size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    reader = StreamReader()
    reader.feed_data(_text_frame(payload))
    parsing = Frame.parse(reader.read_exact, mask=True)
    try:
        while True:
            next(parsing)
    except StopIteration as end:
        frame = end.value
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.TEXT, True, payload)
