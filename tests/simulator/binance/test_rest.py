"""The REST protocol over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ORDER = "/api/v3/order"
LIMIT = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001"}
InBox = Callable[..., None]


def test_public_endpoints_answer_in_their_shapes(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        assert await client.get("/api/v3/ping") == {}
        assert isinstance((await client.get("/api/v3/time"))["serverTime"], int)
        info = await client.get("/api/v3/exchangeInfo", symbol="BTCUSDT")
        (symbol,) = info["symbols"]
        kinds = {f["filterType"]: f for f in symbol["filters"]}
        assert kinds["PRICE_FILTER"]["tickSize"] == "0.01000000"
        assert kinds["LOT_SIZE"]["stepSize"] == "0.00001000"
        assert kinds["NOTIONAL"]["minNotional"] == "5.00000000"
        assert {"LIMIT", "MARKET", "LIMIT_MAKER"} <= set(symbol["orderTypes"])
        two = await client.get("/api/v3/exchangeInfo", symbols='["BTCUSDT","ETHUSDT"]')
        assert [s["symbol"] for s in two["symbols"]] == ["BTCUSDT", "ETHUSDT"]
        depth = await client.get("/api/v3/depth", symbol="BTCUSDT", limit=5)
        assert len(depth["bids"]) == len(depth["asks"]) == 5
        deep = await client.get("/api/v3/depth", symbol="BTCUSDT", limit=5000)
        assert len(deep["bids"]) > 200
        await client.ok("POST", ORDER, symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001")
        (trade, *_) = await client.get("/api/v3/trades", symbol="BTCUSDT", limit=1)
        assert {"id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"} <= set(trade)
        (aggregate, *_) = await client.get("/api/v3/aggTrades", symbol="BTCUSDT")
        assert {"a", "p", "q", "f", "l", "T", "m"} <= set(aggregate)
        (bar, *_) = await client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m")
        assert len(bar) == 12
        assert len(await client.get("/api/v3/ticker/price")) == 2
        ticker = await client.get("/api/v3/ticker/bookTicker", symbol="ETHUSDT")
        assert float(ticker["bidPrice"]) < float(ticker["askPrice"])
        day = await client.get("/api/v3/ticker/24hr", symbol="BTCUSDT")
        assert day["count"] >= 1
        assert "price" in await client.get("/api/v3/avgPrice", symbol="BTCUSDT")
        for path in ("/nowhere", "/api/v3/nowhere"):
            status, body, _ = await client.raw("GET", path)
            assert (status, body["code"]) == (404, -1000)

    in_box(scenario)


def test_an_order_s_life(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        placed = await client.limit("BUY", "0.001", "50000.00", newClientOrderId="mine")
        assert placed["status"] == "NEW"
        assert placed["fills"] == []
        assert placed["clientOrderId"] == "mine"
        assert placed["selfTradePreventionMode"] == "EXPIRE_MAKER"
        status = await client.ok("GET", ORDER, symbol="BTCUSDT", origClientOrderId="mine")
        assert (status["orderId"], status["status"], status["isWorking"]) == (placed["orderId"], "NEW", True)
        assert [o["orderId"] for o in await client.ok("GET", "/api/v3/openOrders")] == [placed["orderId"]]
        account = await client.ok("GET", "/api/v3/account", omitZeroBalances="true")
        usdt = next(b for b in account["balances"] if b["asset"] == "USDT")
        assert usdt == {"asset": "USDT", "free": "99950.00000000", "locked": "50.00000000"}
        cancelled = await client.ok("DELETE", ORDER, symbol="BTCUSDT", orderId=placed["orderId"], newClientOrderId="c1")
        assert cancelled["status"] == "CANCELED"
        assert (cancelled["clientOrderId"], cancelled["origClientOrderId"]) == ("c1", "mine")
        assert (await client.ok("GET", ORDER, symbol="BTCUSDT", orderId=placed["orderId"]))["status"] == "CANCELED"
        history = await client.ok("GET", "/api/v3/allOrders", symbol="BTCUSDT")
        assert [o["status"] for o in history] == ["CANCELED"]

    in_box(scenario)


def test_market_orders_fill_and_are_in_my_trades(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        market = {"symbol": "BTCUSDT", "type": "MARKET"}
        bought = await client.ok("POST", ORDER, **market, side="BUY", quoteOrderQty="600")
        assert bought["status"] == "FILLED"
        assert bought["origQuoteOrderQty"] == "600.00000000"
        assert 599 < float(bought["cummulativeQuoteQty"]) <= 600
        sold = await client.ok("POST", ORDER, **market, side="SELL", quantity="0.01", newOrderRespType="RESULT")
        assert "fills" not in sold
        acked = await client.ok("POST", ORDER, **market, side="SELL", quantity="0.01", newOrderRespType="ACK")
        assert "status" not in acked
        trades = await client.ok("GET", "/api/v3/myTrades", symbol="BTCUSDT")
        assert {t["orderId"] for t in trades} == {bought["orderId"], sold["orderId"], acked["orderId"]}
        mine = await client.ok("GET", "/api/v3/myTrades", symbol="BTCUSDT", orderId=bought["orderId"])
        assert [t["id"] for t in mine] == [f["tradeId"] for f in bought["fills"]]
        assert all(t["commissionAsset"] == "BTC" and t["isBuyer"] and not t["isMaker"] for t in mine)
        later = await client.ok("GET", "/api/v3/myTrades", symbol="BTCUSDT", fromId=trades[1]["id"], limit=1)
        assert [t["id"] for t in later] == [trades[1]["id"]]
        ledger = await client.ledger()
        assert [f["trade_id"] for f in ledger["fills"]] == [str(t["id"]) for t in trades]
        assert {f["pair"] for f in ledger["fills"]} == {"BTC-USDT"}

    in_box(scenario)


def test_requests_may_be_signed_in_the_body_and_percent_encoded(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        body = client.signed({**LIMIT, "price": "50000", "newClientOrderId": "in-body"})
        status, reply, headers = await client.raw("POST", ORDER, body=body)
        assert status == 200, reply
        assert headers["X-MBX-ORDER-COUNT-10S"] == headers["X-MBX-ORDER-COUNT-1D"] == "1"
        assert int(headers["X-MBX-USED-WEIGHT-1M"]) == 0
        query = "symbol=BTCUSDT&side=BUY&type=LIMIT"
        rest = client.signed({"timeInForce": "GTC", "quantity": "0.001", "price": "50000"}).rpartition("&")[0]
        both = f"{rest}&signature={client.sign(query + rest)}"
        assert (await client.raw("POST", f"{ORDER}?{query}", body=both))[0] == 200
        code, msg = await client.refused("GET", ORDER, symbol="１２３", orderId=1)
        assert (code, msg) == (-1121, "Invalid symbol.")

    in_box(scenario)


def test_keys_signatures_and_times_are_refused_by_name(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        good = client.signed({})
        for key, expected in (("", (401, -2014)), ("x" * 64, (401, -2015))):
            status, body, _ = await client.raw("GET", f"/api/v3/account?{good}", key=key)
            assert (status, body["code"]) == expected
        status, body, _ = await client.raw("GET", f"/api/v3/account?omitZeroBalances=true&{good}")
        assert (status, body) == (400, {"code": -1022, "msg": "Signature for this request is not valid."})
        assert (await client.refused("GET", "/api/v3/account", timestamp=1))[0] == -1021
        code, msg = await client.refused("GET", "/api/v3/account", timestamp="")
        assert (code, msg) == (
            -1102,
            "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed.",
        )

    in_box(scenario)


def test_orders_are_refused_as_the_venue_refuses_them(in_box: InBox) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"price": "50000.001"}, -1013, "Filter failure: PRICE_FILTER"),
        ({"price": "50000.000000001"}, -1111, "Parameter 'price' has too much precision."),
        ({"price": "1"}, -1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
        ({"price": "50000", "quantity": "0.000011"}, -1013, "Filter failure: LOT_SIZE"),
        ({"price": "50000", "quantity": "0.00001"}, -1013, "Filter failure: NOTIONAL"),
        ({"price": "50000", "quantity": "100"}, -2010, "Account has insufficient balance for requested action."),
        ({"price": "50000", "symbol": "NOPE"}, -1121, "Invalid symbol."),
        ({"price": "50000", "side": "HOLD"}, -1117, "Invalid side."),
        ({"price": "50000", "type": "NOPE"}, -1116, "Invalid orderType."),
        ({"price": "50000", "timeInForce": "X"}, -1115, "Invalid timeInForce."),
        ({"price": None}, -1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed."),
        (
            {"price": "5e4"},
            -1100,
            "Illegal characters found in parameter 'price'; legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'.",
        ),
        (
            {"price": "50000", "newClientOrderId": "no spaces"},
            -1100,
            "Illegal characters found in parameter 'newClientOrderId'; legal range is '^[a-zA-Z0-9-_]{1,36}$'.",
        ),
        (
            {"type": "LIMIT_MAKER", "price": "70000", "timeInForce": None},
            -2010,
            "Order would immediately match and take.",
        ),
        ({"type": "MARKET", "price": "1", "timeInForce": None}, -1106, "Parameter 'price' sent when not required."),
        ({"price": "50000", "newClientOrderId": "taken"}, -2010, "Duplicate order sent."),
    ]

    async def scenario(box: Any, client: Any) -> None:
        await client.limit("BUY", "0.001", "50000", newClientOrderId="taken")
        for change, code, msg in cases:
            assert await client.refused("POST", ORDER, **{**LIMIT, **change}) == (code, msg), change
        assert len((await client.ledger())["orders"]) == 1
        unknown = {"symbol": "BTCUSDT", "origClientOrderId": "nobody"}
        assert await client.refused("GET", ORDER, **unknown) == (-2013, "Order does not exist.")
        assert await client.refused("DELETE", ORDER, **unknown) == (-2011, "Unknown order sent.")
        assert (await client.refused("DELETE", ORDER, symbol="BTCUSDT"))[0] == -1102
        assert len(await client.ok("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")) == 1
        assert await client.refused("DELETE", "/api/v3/openOrders", symbol="BTCUSDT") == (-2011, "Unknown order sent.")
        assert await client.ok("POST", "/api/v3/order/test", **LIMIT, price="50000") == {}
        assert len((await client.ledger())["orders"]) == 1

    in_box(scenario)


def test_past_the_limit_is_429_and_who_goes_on_is_banned(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        statuses = []
        for _ in range(60):
            status, body, headers = await client.raw("GET", "/api/v3/ping")
            statuses.append(status)
            if status != 200:
                assert body["code"] == -1003
                assert int(headers["Retry-After"]) > 0
        assert statuses[:10] == [200] * 10
        assert 429 in statuses
        assert statuses[-1] == 418

    in_box(scenario, weight_limit=10)


def test_too_many_new_orders_are_refused(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        replies = [await client.send("POST", ORDER, **LIMIT, price="50000") for _ in range(10)]
        refused = [body for status, body in replies if status == 429]
        assert refused
        assert refused[0]["code"] == -1015

    in_box(scenario, order_limit_10s=3)
