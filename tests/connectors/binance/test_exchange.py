"""The account's client against a server that says exactly what a test wants."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from engine.clock import WallClock
from engine.connectors import errors
from engine.connectors.binance.exchange import BinanceExchange
from engine.connectors.binance.public import read_usage
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.messages import Order, OrderState, OrderType, Side

DAY_MS = 86_400_000
Answer = Callable[[web.Request], Any]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def exchange(answer: Answer, **options: Any) -> AsyncIterator[tuple[BinanceExchange, list[web.Request]]]:
    """A client, and the requests that came, those for the time left out. An answer is (status, JSON) or
    JSON.
    """
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        if request.path == "/api/v3/time":
            return web.json_response({"serverTime": now_ms()})
        requests.append(request)
        found = answer(request)
        status, body = found if isinstance(found, tuple) else (200, found)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = ConnectorSettings(
        connector="b",
        venue="binance",
        pairs=("BTC-USDT",),
        endpoints=Endpoints(rest=url, ws=url, ws_api=url),
        credentials=Credentials(api_key="key", api_secret="secret"),
        options=options,
    )
    client = create(settings).exchange(WallClock())
    assert isinstance(client, BinanceExchange)
    try:
        await client.start()
        yield client, requests
    finally:
        await client.close()
        await runner.cleanup()


def report(**fields: Any) -> dict[str, Any]:
    return {
        "symbol": "BTCUSDT", "orderId": 7, "orderListId": -1, "clientOrderId": "mine", "price": "100.00",
        "origQty": "1.0", "executedQty": "0.0", "cummulativeQuoteQty": "0.0", "status": "NEW", "timeInForce": "GTC",
        "type": "LIMIT", "side": "BUY", "transactTime": 1700000000123, **fields,
    }  # fmt: skip


def order(**fields: Any) -> Order:
    known: dict[str, Any] = {
        "client_order_id": "mine",
        "strategy": "s",
        "pair": "BTC-USDT",
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "size": Decimal("1E+2"),
        "price": Decimal("1E-7"),
        "state": OrderState.PENDING_CREATE,
    }
    return Order(**{**known, **fields})


def trade(number: int, at_ms: int) -> dict[str, Any]:
    return {
        "symbol": "BTCUSDT", "id": number, "orderId": 7, "price": "100", "qty": "1", "quoteQty": "100",
        "commission": "0.1", "commissionAsset": "BNB", "time": at_ms, "isBuyer": True, "isMaker": True,
    }  # fmt: skip


def test_numbers_are_written_without_an_exponent_and_everything_is_signed(run: Any) -> None:
    async def work() -> None:
        async with exchange(lambda _: report(), recv_window_ms=3000) as (client, requests):
            await client.place(order(), lambda _at: None)
            query = requests[0].query
            assert (query["quantity"], query["price"]) == ("100", "0.0000001")
            assert (query["newOrderRespType"], query["timeInForce"]) == ("FULL", "GTC")
            assert query["recvWindow"] == "3000"
            assert abs(int(query["timestamp"]) - now_ms()) < 2000
            assert list(query)[-1] == "signature"
            assert requests[0].headers["X-MBX-APIKEY"] == "key"
            assert "secret" not in requests[0].path_qs
            await client.place(order(order_type=OrderType.LIMIT_MAKER), lambda _at: None)
            assert "timeInForce" not in requests[1].query
            await client.place(order(order_type=OrderType.MARKET, price=None), lambda _at: None)
            assert not {"price", "timeInForce"} & set(requests[2].query)

    run(work())


def test_placing_is_never_repeated(run: Any) -> None:
    async def work() -> None:
        replies = [(503, {"code": -1008, "msg": "busy"}), (400, {"code": -1021, "msg": "late"}), (200, [])]
        async with exchange(lambda _: replies[len(requests) - 1]) as (client, requests):
            for kind in (errors.UnknownOutcome, errors.ClockError, errors.MalformedReply):
                before = len(requests)
                with pytest.raises(kind):
                    await client.place(order(), lambda _at: None)
                assert len(requests) == before + 1

    run(work())


def test_a_client_without_the_venues_time_places_nothing(run: Any) -> None:
    async def work() -> None:
        async with exchange(lambda _: report()) as (client, requests):

            async def ask() -> int:
                raise errors.UnknownOutcome("no time")

            client.time.forget()
            client.time._ask = ask
            with pytest.raises(errors.TransportError) as failed:
                await client.place(order(), lambda _at: None)
            assert errors.never_sent(failed.value)
            assert requests == []

    run(work())


def test_reading_and_cancelling_are_done_once_more_with_the_right_time(run: Any) -> None:
    async def work() -> None:
        late = (400, {"code": -1021, "msg": "late"})
        replies = [
            late,
            report(),
            late,
            report(status="CANCELED", origClientOrderId="mine", clientOrderId="c"),
            late,
            late,
        ]
        async with exchange(lambda _: replies[len(requests) - 1]) as (client, requests):
            assert (await client.query(order())).value.state is OrderState.OPEN
            gone = (await client.cancel(order())).value
            assert (gone.client_order_id, gone.state) == ("mine", OrderState.CANCELLED)
            with pytest.raises(errors.ClockError):
                await client.balances()
            assert len(requests) == 6

    run(work())


def test_executions_whose_commission_names_no_asset_are_read(run: Any) -> None:
    nothing = {"commission": "0.00000000", "commissionAsset": None}
    immediate = {"price": "100", "qty": "1", "tradeId": 5, **nothing}
    replies = {"POST": report(status="FILLED", fills=[immediate]), "GET": [{**trade(5, 1), **nothing}]}

    async def work() -> None:
        async with exchange(lambda request: replies[request.method]) as (client, _):
            (fill,) = (await client.place(order(), lambda _at: None)).fills
            (listed,) = (await client.fills("BTC-USDT", exchange_order_id="7")).value
            for found in (fill, listed.fill):
                assert (found.fee, found.fee_asset) == (0, "USDT")

    run(work())


def test_an_order_that_a_person_amended_is_asked_for_and_cancelled_by_the_venues_id(run: Any) -> None:
    """Its client order id is another one since then: by the old one the venue knows none."""

    async def work() -> None:
        def answer(request: web.Request) -> Any:
            if request.query.get("orderId") != "7" or "origClientOrderId" in request.query:
                return 400, {"code": -2013, "msg": "Order does not exist."}
            if request.method == "DELETE":
                return report(status="CANCELED", origClientOrderId="by-hand", clientOrderId="c")
            return report(clientOrderId="by-hand")

        async with exchange(answer) as (client, _):
            mine = order(exchange_order_id="7")
            asked = (await client.query(mine)).value
            assert (asked.client_order_id, asked.state) == ("mine", OrderState.OPEN)
            gone = (await client.cancel(mine)).value
            assert (gone.client_order_id, gone.state) == ("mine", OrderState.CANCELLED)
            with pytest.raises(errors.OrderNotFound):
                await client.query(order())

    run(work())


def test_fills_are_paged_to_the_end(run: Any) -> None:
    async def work() -> None:
        began = now_ms() - 3 * DAY_MS
        trades = [trade(number, began + number) for number in range(2500)]

        def answer(request: web.Request) -> list[dict[str, Any]]:
            query = request.query
            assert query["limit"] == "1000"
            assert not ("fromId" in query and "startTime" in query)
            found = [entry for entry in trades if entry["id"] >= int(query.get("fromId", 0))]
            if "startTime" in query:
                start, end = int(query["startTime"]), int(query["endTime"])
                assert end - start < DAY_MS
                found = [entry for entry in found if start <= entry["time"] <= end]
            return found[:1000]

        async with exchange(answer) as (client, requests):
            everything = await client.fills("BTC-USDT")
            assert [entry.fill.trade_id for entry in everything.value] == [str(n) for n in range(2500)]
            assert len(requests) == 3
            fill = everything.value[0].fill
            assert (fill.price, fill.fee, fill.fee_asset, fill.is_maker) == (100, Decimal("0.1"), "BNB", True)

            since = await client.fills("BTC-USDT", since_ns=(began + 400) * 1_000_000)
            assert [entry.fill.trade_id for entry in since.value] == [str(n) for n in range(400, 2500)]
            a_day_early = await client.fills("BTC-USDT", since_ns=(began - DAY_MS - 5) * 1_000_000)
            assert len(a_day_early.value) == 2500
            long_ago = await client.fills("BTC-USDT", since_ns=(began - 300 * DAY_MS) * 1_000_000)
            assert len(long_ago.value) == 2500
            before = len(requests)
            assert (await client.fills("BTC-USDT", since_ns=now_ms() * 1_000_000)).value == []
            assert len(requests) == before + 1
            assert (await client.fills("BTC-USDT", since_ns=(now_ms() + 1_000) * 1_000_000)).value == []
            assert len(requests) == before + 2
            last = await client.fills("BTC-USDT", from_trade_id="2498")
            assert [entry.fill.trade_id for entry in last.value] == ["2498", "2499"]

    run(work())


def test_an_answer_is_dated_before_anything_it_can_show(run: Any) -> None:
    async def work() -> None:
        seen: list[int] = []

        def answer(_request: web.Request) -> dict[str, Any]:
            seen.append(time.time_ns())
            return {"balances": [{"asset": "BTC", "free": "1.5", "locked": "0.5"}]}

        async with exchange(answer) as (client, _requests):
            dated = await client.balances()
            assert dated.venue_ns <= seen[0]
            assert dated.requested_ns <= seen[0]
            balance = dated.value.balances["BTC"]
            assert (balance.total, balance.available) == (2, Decimal("1.5"))
            assert dated.requested_mono_ns <= time.monotonic_ns()

    run(work())


def test_cancelling_a_pair_reports_the_orders_of_lists_too(run: Any) -> None:
    async def work() -> None:
        gone = [
            report(status="CANCELED", origClientOrderId="a", clientOrderId="x"),
            {
                "orderListId": 1,
                "symbol": "BTCUSDT",
                "orders": [],
                "orderReports": [report(status="CANCELED", origClientOrderId="b", type="STOP_LOSS_LIMIT")],
            },
        ]
        async with exchange(lambda _: gone) as (client, _requests):
            updates = (await client.cancel_pair("BTC-USDT")).value
            assert [update.client_order_id for update in updates] == ["a", "b"]
            assert {update.state for update in updates} == {OrderState.CANCELLED}
        async with exchange(lambda _: (400, {"code": -2011, "msg": "Unknown order sent."})) as (client, _requests):
            assert (await client.cancel_pair("BTC-USDT")).value == []
        async with exchange(lambda _: ["nonsense"]) as (client, _requests):
            with pytest.raises(errors.MalformedReply):
                await client.cancel_pair("BTC-USDT")

    run(work())


@pytest.mark.parametrize(
    "wrong", [{"executedQty": "NaN"}, {"price": "-Infinity"}, {"status": "DREAMT"}, {"orderId": "7"}]
)
def test_an_answer_that_makes_no_sense_leaves_the_outcome_open(run: Any, wrong: dict[str, Any]) -> None:
    async def work() -> None:
        async with exchange(lambda _: report(**wrong)) as (client, _requests):
            with pytest.raises(errors.MalformedReply) as odd:
                await client.place(order(), lambda _at: None)
            assert not errors.was_refused(odd.value)

    run(work())


def test_one_pairs_error_ends_the_asking_of_the_others(run: Any) -> None:
    async def work() -> None:
        def answer(request: web.Request) -> Any:
            bad = request.query["symbol"] == "BTCUSDT"
            return (400, {"code": -2015, "msg": "no"}) if bad else []

        async with exchange(answer) as (client, _requests):
            with pytest.raises(errors.AuthError):
                await client.open_orders(["BTC-USDT", "ETH-USDT", "LTC-BTC"])

    run(work())


def test_a_pair_that_the_venue_no_longer_knows_hides_nothing_of_the_others(run: Any) -> None:
    rates = {"maker": "0.001", "taker": "0.001", "buyer": "0", "seller": "0"}
    none = dict.fromkeys(rates, "0")
    discount = {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0.75"}

    async def work() -> None:
        def answer(request: web.Request) -> Any:
            if request.query["symbol"] == "GONEUSDT":
                return (400, {"code": -1121, "msg": "Invalid symbol."})
            if request.path.endswith("/openOrders"):
                return [report()]
            commissions = {"standardCommission": rates, "taxCommission": none, "specialCommission": none}
            return {"symbol": "BTCUSDT", **commissions, "discount": discount}

        async with exchange(answer) as (client, _requests):
            pairs = ["GONE-USDT", "BTC-USDT"]
            assert [update.exchange_order_id for update in (await client.open_orders(pairs)).value] == ["7"]
            assert list(await client.fee_rates(pairs)) == ["BTC-USDT"]

    run(work())


def test_many_pairs_orders_are_asked_for_at_once(run: Any) -> None:
    async def work() -> None:
        listed = [report(symbol="BTCUSDT"), report(symbol="ETHUSDT", clientOrderId="other")]
        async with exchange(lambda _: listed) as (client, requests):
            pairs = ["BTC-USDT", *(f"C{number}-USDT" for number in range(20))]
            assert [update.pair for update in (await client.open_orders(pairs)).value] == ["BTC-USDT"]
            assert len(requests) == 1
            assert len((await client.open_orders()).value) == 2

    run(work())


def test_when_orders_are_limited_cancels_still_go_out(run: Any) -> None:
    async def work() -> None:
        def answer(request: web.Request) -> Any:
            if request.method == "POST":
                return 429, {"code": -1015, "msg": "Too many new orders."}
            return report(status="CANCELED", origClientOrderId="mine")

        async with exchange(answer) as (client, requests):
            for local in (False, True):
                with pytest.raises(errors.RateLimited) as refused:
                    await client.place(order(), lambda _at: None)
                assert refused.value.local is local
            await client.cancel(order())
            assert [request.method for request in requests] == ["POST", "DELETE"]

    run(work())


def test_the_horizon_holds_the_window_the_lead_and_the_clocks_error(run: Any) -> None:
    async def work() -> None:
        async with exchange(lambda _: report(), recv_window_ms=2000) as (client, _requests):
            assert 3_000_000_000 < client.acceptance_horizon_ns < 4_000_000_000
            client.time.forget()
            assert client.acceptance_horizon_ns >= 13_000_000_000

    run(work())


def test_usage_is_read_from_the_headers() -> None:
    headers = {
        "X-MBX-USED-WEIGHT": "9",
        "x-mbx-used-weight-1m": "12",
        "X-MBX-ORDER-COUNT-10S": "3",
        "X-MBX-ORDER-COUNT-1D": "many",
        "Date": "1",
    }
    assert read_usage(headers) == {"REQUEST_WEIGHT_1M": 12, "ORDERS_10S": 3}


def test_closing_ends_the_timekeeping(run: Any) -> None:
    async def work() -> None:
        async with exchange(lambda _: json.dumps({})) as (client, _requests):
            await client.start()
            assert "timekeeper" in {task.get_name() for task in asyncio.all_tasks()}
            await client.close()
            await client.close()
            assert "timekeeper" not in {task.get_name() for task in asyncio.all_tasks()}

    run(work())


@pytest.mark.parametrize("pairs", [["BTC-USDT"], None])
def test_an_open_order_that_cannot_be_read_does_not_hide_the_others(run: Any, pairs: list[str] | None) -> None:
    strange = [report(orderId=8, type="SOMETHING_NEW"), report(orderId=9, status="PONDERING")]

    async def work() -> None:
        async with exchange(lambda _: [strange[0], report(), strange[1]]) as (client, _):
            found = await client.open_orders(pairs)
            assert [update.exchange_order_id for update in found.value] == ["7"]
            assert client.unreadable == 2

    run(work())
