"""W4 where the venue sends its books in the stream: a reconnection and a lost message, over real sockets.

The venue is a WebSocket server of the test's that speaks OKX's ``books`` channel: a snapshot to each subscription,
updates that name the one before them. The actor's connector is the engine's own; the instruments come over HTTP.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
import uvloop
from aiohttp import WSMsgType, web

from engine.actors.base import ActorContext, ActorHost
from engine.actors.order_book import OrderBookActor
from engine.actors.settings import pack_settings
from engine.book import BookReader, ReadStatus
from engine.bus import MemoryBus, MemoryNetwork
from engine.clock import WallClock
from engine.connectors.settings import ConnectorSettings, Endpoints
from engine.messages import StopActor
from engine.runtime.base import ActorSpec

PAIRS = ("BTC-USDT", "ETH-USDT")


class PushingVenue:
    """Two books; ``bump`` changes one and tells its subscribers, unless ``lose`` is set."""

    def __init__(self) -> None:
        self.ids = dict.fromkeys(PAIRS, 10)
        self.bids = {pair: {100: 1} for pair in PAIRS}
        self.subscribed: dict[web.WebSocketResponse, set[str]] = {}
        self.heard: list[dict[str, Any]] = []
        self.connections = 0

    async def instruments(self, request: web.Request) -> web.Response:
        kind = request.query["instType"]
        rows = [{"instId": pair, "tickSz": "1", "lotSz": "1", "minSz": "1"} for pair in PAIRS if kind == "SPOT"]
        return web.json_response({"code": "0", "data": rows})

    async def stream(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.connections += 1
        self.subscribed[socket] = set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data == "ping":
                    await socket.send_str("pong")
                elif message.type is WSMsgType.TEXT:
                    await self._asked(socket, json.loads(message.data))
        finally:
            del self.subscribed[socket]
        return socket

    async def _asked(self, socket: web.WebSocketResponse, asked: dict[str, Any]) -> None:
        self.heard.append(asked)
        for arg in asked["args"]:
            await socket.send_json({"event": asked["op"], "arg": arg})
            if arg["channel"] != "books":
                continue
            pair = arg["instId"]
            if asked["op"] == "unsubscribe":
                self.subscribed[socket].discard(pair)
                continue
            self.subscribed[socket].add(pair)
            book = {
                "bids": self._levels(pair),
                "asks": [["200", "1"]],
                "ts": "1",
                "seqId": self.ids[pair],
                "prevSeqId": -1,
            }
            await socket.send_json({"arg": arg, "action": "snapshot", "data": [book]})

    async def bump(self, pair: str, *, lose: bool = False) -> None:
        before = self.ids[pair]
        self.ids[pair] += 3
        price = 101 + self.ids[pair] % 50
        self.bids[pair][price] = self.ids[pair]
        book = {"bids": [[str(price), str(self.ids[pair])]], "asks": [], "ts": "1"}
        book |= {"seqId": self.ids[pair], "prevSeqId": before}
        for socket, pairs in list(self.subscribed.items()):
            if pair in pairs and not lose:
                arg = {"channel": "books", "instId": pair}
                await socket.send_json({"arg": arg, "action": "update", "data": [book]})

    async def cut(self) -> None:
        for socket in list(self.subscribed):
            await socket.close()

    def _levels(self, pair: str) -> list[list[str]]:
        return [[str(price), str(size)] for price, size in sorted(self.bids[pair].items(), reverse=True)]

    def best(self, pair: str) -> tuple[int, int]:
        price = max(self.bids[pair])
        return price, self.bids[pair][price]


class Stage:
    def __init__(self, venue: PushingVenue, actor: OrderBookActor, readers: dict[str, BookReader]) -> None:
        self.venue, self.actor, self.readers = venue, actor, readers

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    def is_right(self, pair: str) -> bool:
        view = self.readers[pair].read_best()
        assert view.status is not ReadStatus.FRESH or view.bid is not None
        return (
            view.status is ReadStatus.FRESH
            and view.update_id == self.venue.ids[pair]
            and (view.bid, view.bid_size) == self.venue.best(pair)
        )

    def counted(self, name: str, pair: str) -> int:
        return int(getattr(self.actor.feed.books[pair].counters, name))


def with_books(tmp_path: Path, body: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        venue = PushingVenue()
        app = web.Application()
        app.router.add_get("/api/v5/public/instruments", venue.instruments)
        app.router.add_get("/ws/v5/public", venue.stream)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host = f"127.0.0.1:{runner.addresses[0][1]}"
        settings = ConnectorSettings(
            connector="okx", venue="okx", pairs=PAIRS,
            endpoints=Endpoints(rest=f"http://{host}", ws=f"ws://{host}/ws/v5/public"),
        )  # fmt: skip
        spec = ActorSpec(
            name="order_book.okx.0", kind="order_book", connector="okx", incarnation=1, run_dir=str(tmp_path),
            shm_dir=str(tmp_path), state_dir=str(tmp_path), engine_id="", entry="",
            params={"settings": pack_settings(settings), "pairs": list(PAIRS), "depth": 10, "keep_warm_s": 0.0},
        )  # fmt: skip
        clock = WallClock()
        bus = MemoryBus(MemoryNetwork(), spec.name, 1, clock)
        actor = OrderBookActor(ActorContext(spec, bus, clock, structlog.get_logger()))
        readers = {pair: BookReader(tmp_path / f"okx.{pair}.book", stale_after_ns=10**11) for pair in PAIRS}
        stage = Stage(venue, actor, readers)
        await bus.start()
        running = ActorHost(actor)
        task = asyncio.create_task(running.run(1, 1.0))
        try:
            async with asyncio.timeout(30):
                await stage.until(lambda: all(stage.is_right(pair) for pair in PAIRS))
                await body(stage)
        finally:
            running.request_stop(StopActor(grace_ns=2_000_000_000))
            await task
            await bus.close()
            await runner.cleanup()

    uvloop.run(main())


def test_W4_a_reconnection_begins_from_the_snapshots_that_the_stream_brings(tmp_path):
    async def body(stage):
        await stage.venue.bump(PAIRS[0])
        await stage.until(lambda: stage.is_right(PAIRS[0]))
        await stage.venue.cut()
        await stage.venue.bump(PAIRS[0])  # while nobody is connected
        await stage.until(lambda: stage.venue.connections == 2 and all(stage.is_right(pair) for pair in PAIRS))
        await stage.venue.bump(PAIRS[0])
        await stage.until(lambda: stage.is_right(PAIRS[0]))
        for pair in PAIRS:
            assert [stage.counted(name, pair) for name in ("resyncs", "gaps", "snapshots")] == [1, 0, 2]
        assert [asked["op"] for asked in stage.venue.heard].count("unsubscribe") == 0

    with_books(tmp_path, body)


def test_W2_a_lost_message_is_mended_by_another_subscription_of_that_pair_alone(tmp_path):
    async def body(stage):
        struck, other = PAIRS
        await stage.venue.bump(struck, lose=True)
        await stage.venue.bump(struck)
        await stage.until(lambda: stage.is_right(struck))
        await stage.venue.bump(other)
        await stage.until(lambda: stage.is_right(other))
        assert [stage.counted(name, struck) for name in ("resyncs", "gaps")] == [1, 1]
        assert [stage.counted(name, other) for name in ("resyncs", "gaps", "snapshots")] == [0, 0, 1]
        assert stage.venue.connections == 1
        again = [(asked["op"], asked["args"][0]["instId"], len(asked["args"])) for asked in stage.venue.heard[2:]]
        assert again == [("unsubscribe", struck, 1), ("subscribe", struck, 1)]

    with_books(tmp_path, body)
