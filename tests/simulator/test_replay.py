"""A capture is served so that a client that connects, subscribes and asks for depth is in sync with no gap."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from engine.errors import ConfigError
from engine.simulator.capture import read_capture
from engine.simulator.replay import pairs_of
from tests.captures import captured

InBox = Callable[..., None]
HOST = "https://api.binance.com/api/v3"


def diff(first: int, last: int, bids: list[list[str]]) -> str:
    return json.dumps({"e": "depthUpdate", "E": 1, "s": "ABCUSDT", "U": first, "u": last, "b": bids, "a": []})


def combined(stream: str, data: str) -> str:
    return f'{{"stream":"{stream}","data":{data}}}'


SNAPSHOT = {"lastUpdateId": 12, "bids": [["9.00", "1.0"], ["8.00", "1.0"]], "asks": [["10.00", "1.0"]]}
FIRST, LATER = diff(10, 12, [["9.00", "1.0"]]), diff(13, 14, [["9.00", "0.0"], ["7.50", "2.0"]])
LAST = diff(15, 15, [["8.50", "3.0"]])


def records() -> list[dict[str, Any]]:
    stream = "abcusdt@depth@100ms"
    return [
        {"t": 1.0, "kind": "ws_open", "conn": 1, "url": f"wss://x/stream?streams={stream}"},
        {"t": 1.1, "kind": "ws_in", "conn": 1, "data": combined(stream, FIRST)},
        {"t": 1.2, "kind": "http", "url": f"{HOST}/depth?symbol=ABCUSDT&limit=1000", "data": json.dumps(SNAPSHOT)},
        {"t": 1.3, "kind": "ws_in", "conn": 1, "data": combined(stream, LATER)},
        {"t": 1.4, "kind": "ws_in", "conn": 1, "data": combined(stream, LAST)},
        {"t": 1.5, "kind": "ws_close", "conn": 1},
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return str(path)


@pytest.fixture
def capture(tmp_path: Path) -> str:
    return write(tmp_path / "small.jsonl.gz", records())


@pytest.mark.parametrize("form", ["combined", "raw", "subscribe", "other speed"])
@pytest.mark.parametrize("speed", [0.0, 2.0])
def test_frames_arrive_in_the_form_asked_for(in_box: InBox, capture: str, form: str, speed: float) -> None:
    path, name = {
        "combined": ("/stream?streams=abcusdt@depth@100ms", "abcusdt@depth@100ms"),
        "raw": ("/ws/abcusdt@depth@100ms", ""),
        "subscribe": ("/stream", "abcusdt@depth@100ms"),
        "other speed": ("/stream?streams=abcusdt@depth", "abcusdt@depth"),
    }[form]

    async def scenario(box: Any, client: Any) -> None:
        async with client.session.ws_connect(client.info.ws + path) as socket:
            if form == "subscribe":
                await socket.send_json({"method": "SUBSCRIBE", "params": [name], "id": 1})
                assert await socket.receive_json() == {"result": None, "id": 1}
            asked = asyncio.create_task(client.get("/api/v3/depth", symbol="ABCUSDT", limit=1000))
            frames = [await socket.receive_json() for _ in range(3)]
            expected = [json.loads(text) for text in (FIRST, LATER, LAST)]
            assert frames == [{"stream": name, "data": data} if name else data for data in expected]
            assert await asked == SNAPSHOT
            stats = await client.get("/admin/stats")
            while not stats["capture"]["done"]:
                stats = await client.get("/admin/stats")
            assert (stats["capture"]["frames_sent"], stats["capture"]["frames_total"]) == (3, 3)

    in_box(scenario, capture=capture, speed=speed)


def test_a_depth_request_waits_for_the_frames_before_its_snapshot(in_box: InBox, capture: str) -> None:
    async def scenario(box: Any, client: Any) -> None:
        async with client.session.ws_connect(client.info.ws + "/ws/abcusdt@depth@100ms") as socket:
            asked = asyncio.create_task(client.get("/api/v3/depth", symbol="ABCUSDT", limit=1000))
            assert (await socket.receive_json())["u"] == 12
            assert not asked.done()
            assert await asked == SNAPSHOT

    in_box(scenario, capture=capture, speed=0.5)


def test_who_asks_again_or_joins_late_gets_the_snapshot_brought_forward(in_box: InBox, capture: str) -> None:
    async def scenario(box: Any, client: Any) -> None:
        path = "/ws/abcusdt@depth@100ms"
        async with client.session.ws_connect(client.info.ws + path) as socket:
            assert [(await socket.receive_json())["u"] for _ in range(3)] == [12, 14, 15]
            async with client.session.ws_connect(client.info.ws + path):
                late = await client.get("/api/v3/depth", symbol="ABCUSDT", limit=1000)
            assert late == {
                "lastUpdateId": 15,
                "bids": [["8.50", "3.0"], ["8.00", "1.0"], ["7.50", "2.0"]],
                "asks": [["10.00", "1.0"]],
            }
            top = await client.get("/api/v3/depth", symbol="ABCUSDT", limit=1)
            assert top["lastUpdateId"] in (12, 15)
            assert len(top["bids"]) == 1

    in_box(scenario, capture=capture, speed=0.0)


def test_the_timeline_starts_again_when_everybody_has_left(in_box: InBox, capture: str) -> None:
    async def scenario(box: Any, client: Any) -> None:
        for number in (1, 2):
            assert await client.get("/api/v3/depth", symbol="ABCUSDT", limit=1000) == SNAPSHOT
            async with client.session.ws_connect(client.info.ws + "/ws/abcusdt@depth@100ms/abcusdt@trade") as socket:
                assert [(await socket.receive_json())["u"] for _ in range(3)] == [12, 14, 15]
            assert (await client.get("/admin/stats"))["capture"]["timelines"] == number

    in_box(scenario, capture=capture, speed=0.0)


def test_private_endpoints_answer_and_orders_are_refused(in_box: InBox, capture: str) -> None:
    async def scenario(box: Any, client: Any) -> None:
        account = await client.ok("GET", "/api/v3/account", omitZeroBalances="true")
        assert {"asset": "USDT", "free": "100000.00000000", "locked": "0.00000000"} in account["balances"]
        assert await client.ok("GET", "/api/v3/openOrders", symbol="ABCUSDT") == []
        assert await client.ok("GET", "/api/v3/myTrades", symbol="ABCUSDT") == []
        order = {"symbol": "ABCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
        code, msg = await client.refused("POST", "/api/v3/order", **order, quantity="1", price="9")
        assert code == -2010
        assert msg.startswith("Market is closed")
        info = await client.get("/api/v3/exchangeInfo", symbol="ABCUSDT")
        assert info["symbols"][0]["baseAsset"] == "ABC"
        assert "serverTime" in await client.get("/api/v3/time")
        status, body, _ = await client.raw("GET", "/api/v3/depth?symbol=NOPE")
        assert (status, body["code"]) == (400, -1121)
        async with client.user_data():
            pass

    in_box(scenario, capture=capture)


def test_frames_of_raw_connections_find_their_stream(tmp_path: Path) -> None:
    ticker = '{"u":1,"s":"ABCUSDT","b":"1","B":"1","a":"2","A":"1"}'
    subscribe = {"method": "SUBSCRIBE", "params": ["abcusdt@depth@100ms"], "id": 1}
    path = write(
        tmp_path / "raw.jsonl",
        [
            {"t": 1, "kind": "ws_open", "conn": 1, "url": "wss://x/ws"},
            {
                "t": 1,
                "kind": "ws_out",
                "conn": 1,
                "data": json.dumps(subscribe),
            },
            {"t": 1, "kind": "ws_in", "conn": 1, "data": '{"result":null,"id":1}'},
            {"t": 2, "kind": "ws_in", "conn": 1, "data": LATER},
            {"t": 3, "kind": "ws_in", "conn": 1, "data": ticker},
            {"t": 4, "kind": "ws_in", "conn": 1, "data64": base64.b64encode(b"x").decode()},
        ],
    )
    capture = read_capture(path)
    assert [getattr(item, "stream", "") for item in capture.items] == ["abcusdt@depth@100ms", "abcusdt@bookTicker"]
    assert capture.unknown == 2
    assert [pair.pair for pair in pairs_of(capture)] == ["ABC-USDT"]


def test_without_the_venue_s_list_symbols_are_split_as_everywhere_else(tmp_path: Path) -> None:
    lines = [
        {"t": 1, "kind": "http", "url": f"{HOST}/depth?symbol={symbol}", "data": json.dumps(SNAPSHOT)}
        for symbol in ("BNBUSD", "OMGBUSD", "LTCU")
    ]
    path = write(tmp_path / "pairs.jsonl", [*lines, *records()])
    assert [pair.pair for pair in pairs_of(read_capture(path))] == ["BNB-USD", "OMG-BUSD", "LTC-U", "ABC-USDT"]


@pytest.mark.parametrize("content", ["", "nonsense\n", '{"t":1,"kind":"ws_in","conn":1,"data":"{}"}\n'])
def test_a_file_that_is_no_capture_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"bad\.jsonl"):
        read_capture(str(path))


def test_a_recorded_refusal_is_no_book(tmp_path: Path) -> None:
    refused = {
        "t": 1,
        "kind": "http",
        "url": f"{HOST}/depth?symbol=XYZUSDT",
        "data": '{"code":-1121,"msg":"Invalid symbol."}',
    }
    capture = read_capture(write(tmp_path / "refused.jsonl", [refused, *records()]))
    assert [pair.pair for pair in pairs_of(capture)] == ["ABC-USDT"]


def test_a_damaged_file_is_named_whatever_is_broken(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records()).encode()
    packed = bytearray(gzip.compress(lines))
    packed[20] ^= 0xFF
    path = tmp_path / "damaged.jsonl"
    for content in (bytes(packed), gzip.compress(lines)[:-9], lines.replace(b"abcusdt", b"abc\xffsdt", 1)):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"damaged\.jsonl"):
            read_capture(str(path))


def test_all_of_a_file_that_was_compressed_in_parts_is_read(tmp_path: Path) -> None:
    lines = [json.dumps(record).encode() + b"\n" for record in records()]
    path = tmp_path / "parts.jsonl.zst"
    path.write_bytes(b"".join(zstandard.compress(line) for line in lines))
    assert read_capture(str(path)).frames == 3
    path.write_bytes(b"".join(gzip.compress(line) for line in lines))
    assert read_capture(str(path)).frames == 3


@pytest.mark.capture
@pytest.mark.parametrize(
    ("file", "symbols", "compared"), [("binance_us_2021", 4, 56), ("binance_spot_ethusdt_2024", 1, 1056)]
)
def test_every_best_quote_of_a_recording_equals_the_book_kept_from_it(
    in_box: InBox, file: str, symbols: int, compared: int
) -> None:
    path = captured(file)
    names = sorted(name for name in read_capture(str(path)).streams if name.endswith(("@depth@100ms", "@bookTicker")))
    books: dict[str, Any] = {}
    waiting: dict[str, list[Any]] = {}
    tickers: dict[tuple[str, int], Any] = {}
    equal: list[bool] = []

    def compare(symbol: str, ticker: Any) -> None:
        _, bids, asks = books[symbol]
        bid, ask = max(bids, key=float), min(asks, key=float)
        equal.append((ticker["b"], ticker["B"], ticker["a"], ticker["A"]) == (bid, bids[bid], ask, asks[ask]))

    def apply(symbol: str, data: Any) -> None:
        book = books[symbol]
        if data["u"] <= book[0]:
            return
        assert data["U"] <= book[0] + 1, "a gap"
        book[0] = data["u"]
        for side, levels in ((book[1], data["b"]), (book[2], data["a"])):
            for price, size in levels:
                side[price] = size
                if not float(size):
                    del side[price]
        if (symbol, book[0]) in tickers:
            compare(symbol, tickers[symbol, book[0]])

    async def scenario(box: Any, client: Any) -> None:
        async def load(symbol: str) -> None:
            snapshot = await client.get("/api/v3/depth", symbol=symbol, limit=1000)
            books[symbol] = [snapshot["lastUpdateId"], dict(snapshot["bids"]), dict(snapshot["asks"])]
            for data in waiting.pop(symbol):
                apply(symbol, data)

        async with client.session.ws_connect(client.info.ws + "/stream", max_msg_size=0) as socket:
            await socket.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
            for symbol in {name.partition("@")[0].upper() for name in names}:
                waiting[symbol] = []
            loads = [asyncio.create_task(load(symbol)) for symbol in waiting]
            assert len(loads) == symbols
            total = sum(getattr(item, "stream", "") in names for item in box._capture.items)
            for _ in range(total + 1):
                frame = await socket.receive_json()
                if "data" not in frame:
                    continue
                data = frame["data"]
                symbol = data["s"]
                if frame["stream"].endswith("bookTicker"):
                    tickers[symbol, data["u"]] = data
                    if symbol in books and books[symbol][0] == data["u"]:
                        compare(symbol, data)
                elif symbol in waiting:
                    waiting[symbol].append(data)
                else:
                    apply(symbol, data)
            await asyncio.gather(*loads)
        assert len(equal) == compared
        assert all(equal)

    in_box(scenario, 60, capture=str(path), speed=0.0)
