"""Faults on demand strike what they name, as often as they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

InBox = Callable[..., None]
ORDER = "/api/v3/order"
LIMIT = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.001",
    "price": "50000",
}


async def inflict(client: Any, *faults: dict[str, Any]) -> Any:
    async with client.session.post(client.info.admin + "/faults", json=list(faults)) as response:
        body = await response.json()
        assert response.status == 200, body
        return body


def test_requests_are_refused_delayed_and_answered_with_a_status(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)

        box.desk.sleep = sleep
        await inflict(
            client,
            {"kind": "reject", "match": "POST " + ORDER, "code": -1008, "msg": "busy", "status": 503},
            {"kind": "http_status", "match": "/api/v3/account", "status": 502, "count": 2},
            {"kind": "latency", "match": "/api/v3/time", "ms": 250},
        )
        assert await client.send("POST", ORDER, **LIMIT) == (503, {"code": -1008, "msg": "busy"})
        assert [(await client.send("GET", "/api/v3/account"))[0] for _ in range(3)] == [502, 502, 200]
        await client.get("/api/v3/time")
        await client.get("/api/v3/time")
        assert waited == [0.25]
        assert (await client.ledger())["orders"] == []
        stats = await client.get("/admin/stats")
        assert stats["faults"] == {"armed": 0, "struck": {"reject": 1, "http_status": 2, "latency": 1}}

    in_box(scenario)


def test_a_dropped_reply_is_carried_out(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        await inflict(client, {"kind": "drop_reply", "match": "POST " + ORDER})
        with pytest.raises(aiohttp.ClientError):
            await client.send("POST", ORDER, **LIMIT, newClientOrderId="lost")
        status = await client.ok("GET", ORDER, symbol="BTCUSDT", origClientOrderId="lost")
        assert status["status"] == "NEW"

    in_box(scenario)


def test_sockets_are_dropped_on_demand(in_box: InBox) -> None:
    closed = (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING)

    async def scenario(box: Any, client: Any) -> None:
        async with client.session.ws_connect(client.info.ws + "/ws/btcusdt@depth") as market:
            async with client.user_data() as user:
                assert (await inflict(client, {"kind": "disconnect_streams"}))["dropped"] == 1
                assert (await market.receive()).type in closed
                await client.limit("BUY", "0.001", "50000")
                assert (await user.receive()).type is aiohttp.WSMsgType.TEXT
                assert (await inflict(client, {"kind": "disconnect_user"}))["dropped"] == 1
                while (await user.receive()).type not in closed:
                    pass

    in_box(scenario, activity=0.0)


def test_a_skipped_depth_diff_is_a_gap_of_one_pair(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        url = f"{client.info.ws}/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms"
        async with client.session.ws_connect(url) as socket:
            last: dict[str, int] = {}
            gaps: list[str] = []
            armed = False
            while not gaps:
                data = (await socket.receive_json())["data"]
                if last.get(data["s"], data["U"] - 1) + 1 != data["U"]:
                    gaps.append(data["s"])
                last[data["s"]] = data["u"]
                if len(last) == 2 and not armed:
                    armed = True
                    assert (await inflict(client, {"kind": "skip_depth", "match": "ETHUSDT"}))["armed"] == 1
            assert gaps == ["ETHUSDT"]
            assert (await inflict(client, {"kind": "skip_depth"}))["armed"] == 2

    in_box(scenario, activity=100.0)


async def diffs(socket: Any, until: Callable[[list[Any]], bool]) -> list[Any]:
    """Depth events as they come, until there are the right ones among them."""
    found: list[Any] = []
    while not until(found):
        found.append((await socket.receive_json())["data"])
    return found


@pytest.mark.parametrize("kind", ["duplicate_depth", "reorder_depth", "late_depth", "cross_depth"])
def test_what_befalls_depth_diffs_befalls_one_pair(in_box: InBox, kind: str) -> None:
    def ids(events: list[Any], symbol: str) -> list[int]:
        return [event["u"] for event in events if event["s"] == symbol]

    async def scenario(box: Any, client: Any) -> None:
        url = f"{client.info.ws}/stream?streams=btcusdt@depth@100ms/ethusdt@depth@100ms"
        async with client.session.ws_connect(url) as socket:
            await diffs(socket, lambda found: len(found) > 2)
            await inflict(client, {"kind": kind, "match": "BTCUSDT", "ms": 350})
            events = await diffs(socket, lambda found: min(len(ids(found, s)) for s in ("BTCUSDT", "ETHUSDT")) > 8)
            struck, others = ids(events, "BTCUSDT"), ids(events, "ETHUSDT")
            assert others == sorted(set(others))
            if kind == "cross_depth":
                both = [event for event in events if event["b"] and event["a"]]
                crossing = [event["s"] for event in both if float(event["b"][0][0]) > float(event["a"][-1][0])]
                assert crossing in ([], ["BTCUSDT"])  # where asks changed as well
                assert struck == sorted(set(struck))
            elif kind == "duplicate_depth":
                assert len(struck) == len(set(struck)) + 1
            else:
                assert struck != sorted(struck)
                assert len(struck) == len(set(struck))
        assert (await client.get("/admin/stats"))["faults"]["struck"] == {kind: 1}

    in_box(scenario, activity=100.0)


def test_an_old_snapshot_is_the_book_of_when_the_fault_was_armed(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        before = await client.get("/api/v3/depth", symbol="BTCUSDT", limit=10)
        await inflict(client, {"kind": "old_snapshot", "match": "BTCUSDT", "count": 2})
        await client.limit("BUY", "0.001", "50000")
        for _ in range(2):
            assert await client.get("/api/v3/depth", symbol="BTCUSDT", limit=10) == before
        assert (await client.get("/api/v3/depth", symbol="BTCUSDT"))["lastUpdateId"] > before["lastUpdateId"]

    in_box(scenario, activity=0.0)


def test_muted_sockets_stay_open_answer_pings_and_say_nothing_more(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        url = f"{client.info.ws}/ws/btcusdt@depth@100ms"
        async with client.session.ws_connect(url, autoping=False) as muted:
            await muted.receive_json()
            await inflict(client, {"kind": "mute_streams"})
            async with client.session.ws_connect(url) as later:
                heard = [await later.receive_json() for _ in range(5)]
                assert heard
                await muted.ping(b"there?")
                while (message := await muted.receive()).type is not aiohttp.WSMsgType.PONG:
                    assert message.json()["u"] < heard[0]["u"]  # was under way
            assert not muted.closed

    in_box(scenario, activity=100.0)


def test_a_late_reply_is_of_when_the_request_came(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)
            await client.limit("BUY", "0.001", "50000")

        box.desk.sleep = sleep
        before = box.api.markets["BTCUSDT"].book.update_id
        await inflict(client, {"kind": "late_reply", "match": "GET /api/v3/depth", "ms": 700})
        assert (await client.get("/api/v3/depth", symbol="BTCUSDT"))["lastUpdateId"] == before
        assert waited == [0.7]
        assert box.api.markets["BTCUSDT"].book.update_id > before

    in_box(scenario, activity=0.0)


def test_what_is_no_fault_is_refused_with_a_reason(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        for body in (b"{", b'{"kind":"nonsense"}', b'{"kind":"latency","count":0}', b'{"kind":"latency","extra":1}'):
            async with client.session.post(client.info.admin + "/faults", data=body) as response:
                assert response.status == 400
                assert "error" in await response.json()

    in_box(scenario)
