"""The WebSocket API over a real socket: user data, and orders placed there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

InBox = Callable[..., None]
LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001"}
REPORT = set("eEscSofqpPFgCxXrilzLnNTtIwmMOZYQWV")


def signed(client: Any, params: dict[str, Any]) -> dict[str, Any]:
    params = {**params, "apiKey": client.info.api_key, "timestamp": int(time.time() * 1000)}
    return {**params, "signature": client.sign("&".join(f"{name}={params[name]}" for name in sorted(params)))}


def test_user_data_tells_an_order_s_life(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        async with client.user_data() as socket:

            async def event(kind: str) -> Any:
                frame = await socket.receive_json()
                assert set(frame) == {"subscriptionId", "event"}
                assert frame["event"]["e"] == kind
                return frame["event"]

            placed = await client.limit("BUY", "0.001", "50000", newClientOrderId="mine")
            report = await event("executionReport")
            assert set(report) >= REPORT
            assert (report["x"], report["X"], report["c"], report["C"], report["w"]) == ("NEW", "NEW", "mine", "", True)
            assert (report["i"], report["t"], report["N"]) == (placed["orderId"], -1, None)
            position = await event("outboundAccountPosition")
            assert {b["a"]: (b["f"], b["l"]) for b in position["B"]} == {
                "BTC": ("2.00000000", "0.00000000"),
                "USDT": ("99950.00000000", "50.00000000"),
            }
            await client.ok(
                "DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="mine", newClientOrderId="c1"
            )
            report = await event("executionReport")
            assert (report["x"], report["X"], report["c"], report["C"]) == ("CANCELED", "CANCELED", "c1", "mine")
            await event("outboundAccountPosition")
            bought = await client.ok(
                "POST", "/api/v3/order", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001"
            )
            assert (await event("executionReport"))["x"] == "NEW"
            await event("outboundAccountPosition")
            report = await event("executionReport")
            (fill,) = bought["fills"]
            assert (report["x"], report["X"], report["t"], report["m"]) == ("TRADE", "FILLED", fill["tradeId"], False)
            assert (report["l"], report["L"], report["n"], report["N"]) == (
                fill["qty"],
                fill["price"],
                fill["commission"],
                "BTC",
            )

    in_box(scenario, activity=0.0)


def test_a_resting_order_is_filled_by_the_other_traders(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        async with client.user_data() as socket:
            ticker = await client.get("/api/v3/ticker/bookTicker", symbol="BTCUSDT")
            await client.limit("BUY", "0.001", ticker["bidPrice"], newClientOrderId="bid")
            await client.limit("SELL", "0.001", ticker["askPrice"], newClientOrderId="ask")
            filled = set()
            while filled != {"bid", "ask"}:
                event = (await socket.receive_json())["event"]
                if event.get("X") == "FILLED":
                    filled.add(event["c"])
                    assert event["m"]
            ledger = await client.ledger()
            assert {f["client_order_id"] for f in ledger["fills"]} == filled

    in_box(scenario, activity=200.0)


def test_subscriptions_are_listed_and_ended(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        async with client.user_data() as socket:

            async def ask(method: str, **params: Any) -> Any:
                await socket.send_json({"id": "x", "method": method, "params": params})
                return await socket.receive_json()

            assert (await ask("session.subscriptions"))["result"] == [{"subscriptionId": 0}]
            again = await ask("userDataStream.subscribe.signature", **signed(client, {}))
            assert again["status"] == 400
            assert (await ask("userDataStream.unsubscribe", subscriptionId=7))["status"] == 400
            assert (await ask("userDataStream.unsubscribe", subscriptionId=0))["result"] == {}
            assert (await ask("session.subscriptions"))["result"] == []
            assert (await ask("ping"))["result"] == {}
            await client.limit("BUY", "0.001", "50000")
            assert "serverTime" in (await ask("time"))["result"]

    in_box(scenario, activity=0.0)


def test_orders_are_placed_asked_and_cancelled(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        async with client.session.ws_connect(client.info.ws_api) as socket:

            async def ask(method: str, params: dict[str, Any]) -> Any:
                await socket.send_json({"id": 7, "method": method, "params": params})
                reply = await socket.receive_json()
                assert reply["id"] == 7
                return reply

            placed = await ask("order.place", signed(client, {**LIMIT, "price": "50000"}))
            assert placed["status"] == 200
            where = {"symbol": "BTCUSDT", "orderId": placed["result"]["orderId"]}
            assert (await ask("order.status", signed(client, where)))["result"]["status"] == "NEW"
            assert (await ask("order.cancel", signed(client, where)))["result"]["status"] == "CANCELED"
            refused = await ask("order.cancel", signed(client, where))
            assert (refused["status"], refused["error"]) == (400, {"code": -2011, "msg": "Unknown order sent."})
            wrong = signed(client, where) | {"orderId": 99}
            assert (await ask("order.status", wrong))["error"]["code"] == -1022
            assert (await ask("no.such", {}))["status"] == 400
            await socket.send_str("{")
            assert (await socket.receive_json())["status"] == 400

    in_box(scenario, activity=0.0)


def test_a_listen_key_s_stream_has_the_form_asked_for(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        _, body, _ = await client.raw("POST", "/api/v3/userDataStream")
        key = body["listenKey"]
        assert (await client.raw("PUT", f"/api/v3/userDataStream?listenKey={key}"))[:2] == (200, {})
        assert (await client.raw("PUT", "/api/v3/userDataStream?listenKey=other"))[1]["code"] == -1125
        async with client.session.ws_connect(f"{client.info.ws}/ws/{key}") as socket:
            await client.limit("BUY", "0.001", "50000")
            assert (await socket.receive_json())["e"] == "executionReport"
        async with client.session.ws_connect(f"{client.info.ws}/stream?streams={key}") as socket:
            await client.limit("BUY", "0.001", "50000")
            frame = await socket.receive_json()
            assert (frame["stream"], frame["data"]["e"]) == (key, "executionReport")

    in_box(scenario, activity=0.0)
