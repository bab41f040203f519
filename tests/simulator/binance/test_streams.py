"""Market streams over a real socket: the book rebuilt from them equals the venue's own best bid and ask."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import websockets

InBox = Callable[..., None]


class Local:
    """A client's book by the venue's rule for keeping one."""

    def __init__(self) -> None:
        self.last = 0
        self.bids: dict[float, str] = {}
        self.asks: dict[float, str] = {}

    def load(self, snapshot: dict[str, Any]) -> None:
        self.last = snapshot["lastUpdateId"]
        self.bids = {float(price): size for price, size in snapshot["bids"]}
        self.asks = {float(price): size for price, size in snapshot["asks"]}

    def apply(self, diff: dict[str, Any]) -> None:
        if diff["u"] <= self.last:
            return
        assert diff["U"] <= self.last + 1, "a gap"
        self.last = diff["u"]
        for side, levels in ((self.bids, diff["b"]), (self.asks, diff["a"])):
            for price, size in levels:
                side[float(price)] = size
                if not float(size):
                    del side[float(price)]


@pytest.mark.parametrize("speed", ["@100ms", ""])
def test_a_book_kept_from_diffs_equals_the_book_ticker_of_the_same_id(in_box: InBox, speed: str) -> None:
    async def scenario(box: Any, client: Any) -> None:
        url = f"{client.info.ws}/stream?streams=btcusdt@depth{speed}/btcusdt@bookTicker"
        async with websockets.connect(url) as ws:
            book, tickers, compared = Local(), {}, 0
            first = json.loads(await ws.recv())
            assert first["stream"].startswith("btcusdt@")
            book.load(await client.get("/api/v3/depth", symbol="BTCUSDT", limit=5000))
            start = book.last
            while compared < (10 if speed else 1):
                frame = json.loads(await ws.recv())
                data = frame["data"]
                if frame["stream"].endswith("bookTicker"):
                    tickers[data["u"]] = data
                    continue
                book.apply(data)
                ticker = tickers.get(book.last)
                if ticker and book.last > start:
                    bid, ask = max(book.bids), min(book.asks)
                    assert (float(ticker["b"]), ticker["B"]) == (bid, book.bids[bid])
                    assert (float(ticker["a"]), ticker["A"]) == (ask, book.asks[ask])
                    compared += 1

    in_box(scenario, activity=100.0)


def test_subscriptions_come_and_go_on_a_raw_connection(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        async with client.session.ws_connect(client.info.ws + "/ws") as ws:

            async def ask(number: int, method: str, *params: str) -> Any:
                await ws.send_json({"method": method, "params": list(params), "id": number})
                while True:
                    reply = await ws.receive_json()
                    if isinstance(reply, dict) and "id" in reply:
                        return reply

            assert await ask(1, "SUBSCRIBE", "btcusdt@trade", "btcusdt@aggTrade") == {"result": None, "id": 1}
            listed = await ask(2, "LIST_SUBSCRIPTIONS")
            assert listed == {"result": ["btcusdt@trade", "btcusdt@aggTrade"], "id": 2}
            await client.ok("POST", "/api/v3/order", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001")
            trade = await ws.receive_json()
            assert trade["e"] == "trade"
            assert {"E", "s", "t", "p", "q", "T", "m"} <= set(trade)
            assert await ask(3, "UNSUBSCRIBE", "btcusdt@trade", "btcusdt@aggTrade") == {"result": None, "id": 3}
            assert (await ask(4, "LIST_SUBSCRIPTIONS"))["result"] == []
            assert (await ask(5, "NONSENSE"))["error"]["code"] == 2

    in_box(scenario, activity=0.0)


def test_streams_in_the_path_are_raw(in_box: InBox) -> None:
    wanted = {
        "btcusdt@depth5@100ms": {"lastUpdateId", "bids", "asks"},
        "btcusdt@miniTicker": {"e", "E", "s", "c", "o", "h", "l", "v", "q"},
        "btcusdt@kline_1m": {"e", "E", "s", "k"},
    }

    async def scenario(box: Any, client: Any) -> None:
        async with client.session.ws_connect(f"{client.info.ws}/ws/{'/'.join(wanted)}") as ws:
            missing = dict(wanted)
            while missing:
                frame = await ws.receive_json()
                for name, keys in list(missing.items()):
                    if keys <= set(frame):
                        del missing[name]

    in_box(scenario)


def test_a_client_that_does_not_read_is_dropped_and_slows_nobody(
    in_box: InBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(box: Any, client: Any) -> None:
        stream = "/stream?streams=btcusdt@bookTicker/btcusdt@depth@100ms/btcusdt@trade"
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", client.info.port))
        reader, writer = await asyncio.open_connection(sock=deaf, limit=1024)
        head = f"GET {stream} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.write(f"{head}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        async with client.session.ws_connect(client.info.ws + stream) as lively:
            while len(box.hub.listeners) == 2:
                message = await lively.receive()
                assert message.type is aiohttp.WSMsgType.TEXT
            assert (await lively.receive()).type is aiohttp.WSMsgType.TEXT
        writer.transport.abort()

    monkeypatch.setattr("engine.simulator.sockets.MAX_QUEUED", 1500)
    monkeypatch.setattr("engine.simulator.market._MAX_CATCH_UP_NS", 10**8)
    in_box(scenario, activity=2000.0)
