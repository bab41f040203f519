"""The REST client against servers that do what servers do: answer, fail, hang, and cut the line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from engine.clock import WallClock
from engine.connectors.errors import Banned, RateLimited, TransportError, UnknownOutcome, VenueRefused
from engine.connectors.rest import RestClient
from engine.connectors.throttler import Priority, RateLimit, Throttler
from engine.errors import VenueError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def classify(status: int, headers: Mapping[str, str], body: bytes) -> VenueError:
    if status in (418, 429):
        return (Banned if status == 418 else RateLimited)(status, "slow down", float(headers["Retry-After"]))
    return UnknownOutcome(f"HTTP {status}") if status >= 500 else VenueRefused(status, body.decode())


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[RestClient]:
    clock = WallClock()
    client = RestClient(
        url,
        clock=clock,
        classify=classify,
        throttler=Throttler(options.pop("limits", {}), clock=clock, venue_now_ns=lambda: 1_700_000_500_000_000_000),
        read_usage=lambda headers: {"weight": int(headers["Used"])} if "Used" in headers else {},
        **options,
    )
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_a_reply_is_dated_by_its_requests_start(run: Any) -> None:
    async def work() -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(body=request.rel_url.raw_query_string.encode())

        async with serving(answer) as url, client_of(url) as client:
            sent: list[int] = []
            before = time.monotonic_ns()
            reply = await client.send("POST", "/order", "a=%20b&signature=x", on_sent=sent.append)
            assert reply.body == b"a=%20b&signature=x"
            assert before <= reply.requested_mono_ns <= sent[0] <= time.monotonic_ns()
            assert abs(reply.requested_ns - time.time_ns()) < 5e9

    run(work())


def test_a_refused_connection_was_certainly_not_sent(run: Any) -> None:
    async def work() -> None:
        async with client_of("http://127.0.0.1:1") as client:
            with pytest.raises(TransportError) as failed:
                await client.send("POST", "/order", "signature=secret")
            assert not failed.value.sent
            assert "secret" not in str(failed.value)

    run(work())


def test_a_name_that_does_not_resolve_was_certainly_not_sent(run: Any) -> None:
    async def work() -> None:
        async with client_of("http://no-such-host.invalid") as client:
            with pytest.raises(TransportError) as failed:
                await client.send("POST", "/order")
            assert not failed.value.sent

    run(work())


def test_a_line_cut_after_the_request_was_sent(run: Any, tcp_server: Any) -> None:
    async def work() -> None:
        got = 0

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal got
            await reader.readuntil(b"\r\n\r\n")
            got += 1
            writer.transport.abort()

        async with tcp_server(cut) as port, client_of(f"http://127.0.0.1:{port}") as client:
            for method in ("POST", "DELETE"):
                got = 0
                with pytest.raises(TransportError) as failed:
                    await client.send(method, "/order", "signature=secret")
                assert failed.value.sent
                assert got == 1
                assert "secret" not in str(failed.value)

    run(work())


def test_a_delete_on_a_kept_connection_that_dies_is_not_repeated(run: Any, tcp_server: Any) -> None:
    async def work() -> None:
        requests: list[bytes] = []

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.transport.abort()

        async with tcp_server(once) as port, client_of(f"http://127.0.0.1:{port}") as client:
            await client.send("GET", "/time")
            sent: list[int] = []
            with pytest.raises(TransportError) as failed:
                await client.send("DELETE", "/order", on_sent=sent.append)
            assert failed.value.sent
            assert len(sent) == 1
        assert [request.split()[0] for request in requests] == [b"GET", b"DELETE"]

    run(work())


def test_no_answer_in_time_is_an_unknown_outcome_for_what_was_sent(run: Any) -> None:
    async def work() -> None:
        forever = asyncio.Event()

        async def hang(_request: web.Request) -> web.Response:
            await forever.wait()
            return web.Response()

        async with serving(hang) as url, client_of(url, timeout_s=0.1) as client:
            with pytest.raises(UnknownOutcome, match="no answer"):
                await client.send("POST", "/order")
            forever.set()

    run(work())


def test_reading_is_tried_again_sending_is_not(run: Any) -> None:
    async def work() -> None:
        asked: dict[str, int] = {"GET": 0, "POST": 0}

        async def fail_twice(request: web.Request) -> web.Response:
            asked[request.method] += 1
            return web.Response(status=200 if asked[request.method] == 3 else 502)

        async with serving(fail_twice) as url, client_of(url) as client:
            queries = iter(["n=1", "n=2", "n=3"])
            assert (await client.read("/x", lambda: next(queries))).status == 200
            assert next(queries, None) is None
            with pytest.raises(UnknownOutcome):
                await client.send("POST", "/order")
        assert asked == {"GET": 3, "POST": 1}

    run(work())


def test_reading_gives_up_in_the_end_and_never_repeats_a_refusal(run: Any) -> None:
    async def work() -> None:
        asked = 0

        async def answer(request: web.Request) -> web.Response:
            nonlocal asked
            asked += 1
            return web.Response(status=int(request.query["status"]))

        async with serving(answer) as url, client_of(url) as client:
            with pytest.raises(UnknownOutcome):
                await client.read("/x", "status=500")
            assert asked == 3
            with pytest.raises(VenueRefused):
                await client.read("/x", "status=400")
            assert asked == 4

    run(work())


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (418, Banned)])
def test_after_being_told_to_stop_nothing_leaves(run: Any, status: int, kind: type[RateLimited]) -> None:
    async def work() -> None:
        asked = 0

        async def refuse(_request: web.Request) -> web.Response:
            nonlocal asked
            asked += 1
            return web.Response(status=status, headers={"Retry-After": "30"})

        async with serving(refuse) as url, client_of(url) as client:
            with pytest.raises(kind):
                await client.read("/x")
            with pytest.raises(RateLimited) as refused:
                await client.send("DELETE", "/order", priority=Priority.CANCEL)
            assert refused.value.local
            assert 25 < refused.value.retry_after_s <= 30
        assert asked == 1

    run(work())


def test_usage_headers_are_taken_over(run: Any) -> None:
    async def work() -> None:
        async def answer(_request: web.Request) -> web.Response:
            return web.Response(headers={"Used": "95"})

        limits = {"weight": RateLimit(100, 3600 * 10**9)}
        async with serving(answer) as url, client_of(url, limits=limits) as client:
            await client.send("GET", "/x", costs={"weight": 1})
            with pytest.raises(RateLimited):
                await client.send("GET", "/x", costs={"weight": 1})

    run(work())


def test_redirects_are_not_followed(run: Any) -> None:
    async def work() -> None:
        async def redirect(_request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

        async with serving(redirect) as url, client_of(url) as client:
            with pytest.raises(VenueRefused) as refused:
                await client.send("POST", "/order")
            assert refused.value.code == 307

    run(work())


def test_a_closed_client_sends_nothing(run: Any) -> None:
    async def work() -> None:
        async with client_of("http://127.0.0.1:1") as client:
            await client.close()
            await client.close()
            with pytest.raises(TransportError) as failed:
                await client.send("GET", "/x")
            assert not failed.value.sent

    run(work())
