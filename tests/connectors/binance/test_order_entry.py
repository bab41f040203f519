"""The order connection against a server that says exactly what a test wants."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from engine.clock import WallClock
from engine.connectors import errors
from engine.connectors.binance import constants
from engine.connectors.binance.order_entry import NotOpenError, OrderEntry
from engine.connectors.throttler import Priority, Throttler

COSTS = {constants.WEIGHT: 1, constants.ORDERS_10S: 1}
Talk = Callable[[web.WebSocketResponse, dict[str, Any]], Awaitable[None]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def entry(talk: Talk, **options: Any) -> AsyncIterator[tuple[OrderEntry, list[dict[str, Any]]]]:
    """A connection that is open, and the requests that came; ``talk`` answers them."""
    requests: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            requests.append(json.loads(message.data))
            await talk(socket, requests[-1])
        return socket

    app = web.Application()
    app.router.add_get("/ws", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    clock = WallClock()
    found = OrderEntry(
        f"ws://127.0.0.1:{runner.addresses[0][1]}/ws",
        clock=clock,
        throttler=Throttler(constants.DEFAULT_LIMITS, clock=clock, venue_now_ns=clock.time_ns),
        venue_now_ms=now_ms,
        timeout_s=options.pop("timeout_s", 5.0),
    )
    try:
        await found.start()
        assert found.is_open
        yield found, requests
    finally:
        await found.close()
        await runner.cleanup()


def write(number: int) -> str:
    return json.dumps({"id": number, "method": "order.place"})


async def by_request(of: OrderEntry, **more: Any) -> Any:
    return await of.request(more.pop("write", write), COSTS, Priority.PLACE, **more)


async def at_once(of: OrderEntry, **more: Any) -> Any:
    reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answered(outcome: Any) -> None:
        if isinstance(outcome, Exception):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)

    if not of.begin(more.pop("write", write), tuple(COSTS.items()), Priority.PLACE, answered, **more):
        raise NotOpenError
    return await reply


@pytest.fixture(params=[by_request, at_once])
def ask(request: pytest.FixtureRequest) -> Any:
    """Both ways to send a request."""
    return request.param


def used(of: OrderEntry) -> int:
    return of._throttler.used()[constants.ORDERS_10S]


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - what changes is a server's or a socket's, which tell nobody
        await asyncio.sleep(0.002)


def test_replies_find_their_requests_in_any_order_and_others_are_counted(run: Any, ask: Any) -> None:
    async def talk(socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        if request["id"] < 3:
            return
        for odd in ('{"id":99,"status":200,"result":{}}', '{"id":null,"status":400,"error":{"code":-1135}}', "{"):
            await socket.send_str(odd)
        for number in (3, 1, 2, 2):
            await socket.send_json({"id": number, "status": 200, "result": {"n": number}, "rateLimits": []})

    async def work() -> None:
        async with entry(talk) as (of, _requests):
            sent: list[int] = []
            before = time.monotonic_ns()
            replies = await asyncio.gather(*(ask(of, on_sent=sent.append) for _ in range(3)))
            assert [json.loads(reply.body) for reply in replies] == [{"n": 1}, {"n": 2}, {"n": 3}]
            assert before <= replies[0].requested_mono_ns <= sent[0] <= sent[2] <= time.monotonic_ns()
            await until(lambda: of.strangers == 3)
            assert of.unreadable == 1
            assert used(of) == 3

    run(work())


def test_a_connection_lost_between_request_and_reply_leaves_the_outcome_open(run: Any, ask: Any) -> None:
    async def talk(socket: web.WebSocketResponse, _request: dict[str, Any]) -> None:
        socket._req.transport.abort()

    async def work() -> None:
        async with entry(talk) as (of, requests):
            with pytest.raises(errors.TransportError) as lost:
                await ask(of)
            assert lost.value.sent
            await until(lambda: of.is_open)
            assert len(requests) == 1
            assert used(of) == 1

    run(work())


def test_no_reply_in_time_leaves_the_outcome_open_and_ends_a_dead_connection(run: Any, ask: Any) -> None:
    async def talk(_socket: web.WebSocketResponse, _request: dict[str, Any]) -> None:
        return

    async def work() -> None:
        async with entry(talk, timeout_s=0.2) as (of, requests):
            with pytest.raises(errors.UnknownOutcome):
                await ask(of)
            await until(lambda: of._socket.connects == 2)
            assert len(requests) == 1

    run(work())


def test_what_was_not_sent_counts_nowhere_and_is_said_to_be_so(run: Any, ask: Any) -> None:
    async def talk(socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        await socket.send_json({"id": request["id"], "status": 200, "result": {}})

    async def work() -> None:
        async with entry(talk) as (of, requests):

            def refuse(_mono_ns: int) -> None:
                raise errors.TransportError("too late", sent=False)

            def cannot(_number: int) -> str:
                raise errors.FilterFailure("local", "no price")

            with pytest.raises(errors.TransportError, match="too late"):
                await ask(of, on_sent=refuse)
            with pytest.raises(errors.FilterFailure):
                await ask(of, write=cannot)
            assert used(of) == 0
            await of.close()
            with pytest.raises(NotOpenError) as closed:
                await ask(of)
            assert not closed.value.sent
            assert requests == []
            assert used(of) == 0

    run(work())


@pytest.mark.parametrize(
    ("status", "data", "kind", "seconds"),
    [
        (429, {"serverTime": 1000, "retryAfter": 31_000}, errors.RateLimited, 30),
        (418, {"serverTime": 1000, "retryAfter": 61_000}, errors.Banned, 60),
        (418, None, errors.Banned, 120),
        (429, {"retryAfter": "in ten minutes"}, errors.RateLimited, 600),
    ],
)
def test_a_venue_that_says_stop_is_obeyed(
    run: Any, status: int, data: Any, kind: type[errors.RateLimited], seconds: float
) -> None:
    async def talk(socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        if data and data["retryAfter"] == "in ten minutes":
            data["retryAfter"] = now_ms() + 600_000
        error = {"code": -1003, "msg": "Way too much", **({"data": data} if data else {})}
        await socket.send_json({"id": request["id"], "status": status, "error": error})

    async def work() -> None:
        async with entry(talk) as (of, requests):
            for local in (False, True):
                with pytest.raises(errors.RateLimited) as told:
                    await of.request(write, {}, Priority.CANCEL)
                assert told.value.local is local
                assert isinstance(told.value, kind) or local
                assert seconds - 15 < told.value.retry_after_s <= seconds
            assert len(requests) == 1

    run(work())


def test_the_venues_counts_are_taken_over_and_what_is_free_is_given_back(run: Any, ask: Any) -> None:
    async def talk(socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        usage = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
        limits = [{**usage, "count": 700}] if request["id"] == 2 else []
        await socket.send_json({"id": request["id"], "status": 200, "result": {}, "rateLimits": limits})

    async def work() -> None:
        async with entry(talk) as (of, _requests):
            before = of._throttler.used()
            await ask(of, free=(constants.WEIGHT,))
            after = of._throttler.used()
            assert after[constants.WEIGHT] == before[constants.WEIGHT]
            assert after[constants.ORDERS_10S] == before[constants.ORDERS_10S] + 1
            # A count that is told at a minute's very beginning may be the last minute's, and is passed over.
            left_s = 60 - time.time() % 60
            if left_s < 1 or left_s > 59.5:
                await asyncio.sleep(min(left_s, 1) + 0.5)
            await ask(of)
            assert of._throttler.used()[constants.WEIGHT] == 700

    run(work())


def test_a_venue_that_announces_its_end_gets_nothing_more_and_what_is_out_is_waited_for(run: Any, ask: Any) -> None:
    go_on = asyncio.Event()

    async def talk(socket: web.WebSocketResponse, request: dict[str, Any]) -> None:
        if request["id"] == 1:
            await socket.send_json({"event": {"e": "serverShutdown", "E": 1}})
            await go_on.wait()
        await socket.send_json({"id": request["id"], "status": 200, "result": {}})

    async def work() -> None:
        async with entry(talk) as (of, requests):
            first = asyncio.create_task(ask(of))
            await until(lambda: not of.is_open)
            with pytest.raises(NotOpenError):
                await ask(of)
            go_on.set()
            assert (await first).status == 200
            await until(lambda: of.is_open)
            await ask(of)
            assert len(requests) == 2
            assert of._socket.connects == 2

    run(work())


def test_closing_tells_those_who_wait(run: Any, ask: Any) -> None:
    async def talk(_socket: web.WebSocketResponse, _request: dict[str, Any]) -> None:
        return

    async def work() -> None:
        async with entry(talk) as (of, requests):
            waiting = asyncio.create_task(ask(of))
            await until(lambda: requests)
            await of.close()
            with pytest.raises(errors.TransportError) as lost:
                await waiting
            assert lost.value.sent

    run(work())
