"""Scenarios of a venue's pairs, rules, and of being there at all."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from engine.connectors.base import HttpRequest
from engine.connectors.binance.rules import parse_exchange_info
from engine.connectors.errors import UnknownOutcome
from engine.messages import ControlReply, GetAccount, NetworkStatus, OrderType, Reason, Refused, TradingRule

EXCHANGE_INFO = "GET /api/v3/exchangeInfo"


async def exchange_info(world):
    client = await world.client()
    return msgspec.json.decode(await client.fetch(HttpRequest(path="/api/v3/exchangeInfo")))


def test_S1_supported_order_types(stage):
    async def body(world):
        rules = await (await world.client()).trading_rules()
        assert {tuple(sorted(rule.order_types)) for rule in rules.values()} == {tuple(sorted(OrderType))}

    stage(body)


def test_S3_S4_all_pairs_and_which_of_them_trade(stage):
    async def body(world):
        assert set(await (await world.client()).trading_rules()) == {"BTC-USDT", "ETH-USDT"}
        reply = await exchange_info(world)
        reply["symbols"][0]["status"] = "BREAK"
        rules = parse_exchange_info(msgspec.json.encode(reply)).rules
        assert {pair: rule.is_trading for pair, rule in rules.items()} == {"BTC-USDT": False, "ETH-USDT": True}

    stage(body)


def test_S5_a_list_of_pairs_that_cannot_be_had_is_an_error_not_an_empty_list_and_is_asked_for_again(stage):
    async def body(world):
        client = await world.client()
        world.inflict("http_status", match=EXCHANGE_INFO, status=500, count=10)
        with pytest.raises(UnknownOutcome):
            await client.trading_rules()
        world.forgive()
        world.inflict("http_status", match=EXCHANGE_INFO, status=503, count=8)
        running = await world.exchange()
        assert running.actor.ready
        assert set(running.actor.core.rules) == {"BTC-USDT"}

    logs = stage(body)
    assert "the venue is out of reach" in [line["event"] for line in logs]


def test_S7_S8_the_network_is_up_down_and_up_again(stage):
    async def body(world):
        running = await world.exchange()
        network = running.actor.metrics
        assert network.network is NetworkStatus.CONNECTED
        world.outage()
        await world.until(lambda: network.network is NetworkStatus.DOWN)
        world.forgive()
        await world.until(lambda: network.network is NetworkStatus.CONNECTED)

    stage(body)


def test_S9_a_cancelled_question_ends_at_once(stage):
    async def body(world):
        client = await world.client()
        world.inflict("latency", match="/api/v3/time", ms=700)
        asking = asyncio.create_task(client.server_time_ms())
        await world.until(lambda: world.box.faults.struck.get("latency"))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await client.server_time_ms() > 0

    stage(body, 5.0)


def test_S10_a_fresh_account_is_not_ready_and_says_so(stage):
    async def body(world):
        world.outage()
        running = await world.exchange(ready=False)
        trader = await world.trader()
        assert (running.actor.ready, running.actor.core.rules) == (False, {})
        answer = await trader.ask(GetAccount())
        assert isinstance(answer, ControlReply)
        assert not answer.ok
        refused = await trader.send()
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.NOT_READY
        assert running.actor.metrics.network in (NetworkStatus.CONNECTING, NetworkStatus.DOWN)
        world.forgive()
        await world.until(lambda: running.actor.ready)
        assert world.order(refused.client_order_id) is None
        await trader.opened()

    stage(body)


def test_F43_an_empty_account_gets_ready(stage):
    async def body(world):
        for balance in world.box.venue.accounts["main"].balances.values():
            balance.free = 0
        await world.exchange()
        assert (await (await world.trader()).account()).balances == {}

    stage(body)


def test_S11_trading_rules_are_the_venues_exactly(stage):
    async def body(world):
        rules = await (await world.client()).trading_rules()
        rule = rules["ETH-USDT"]
        assert isinstance(rule, TradingRule)
        assert (rule.symbol, rule.base, rule.quote, rule.is_trading) == ("ETHUSDT", "ETH", "USDT", True)
        assert (rule.price_increment, rule.size_increment) == (Decimal("0.01"), Decimal("0.0001"))
        assert (rule.min_size, rule.max_size) == (Decimal("0.0001"), Decimal(9000))
        assert rule.min_notional == Decimal(5)
        assert rules["BTC-USDT"].size_increment == Decimal("0.00001")

    stage(body)


def test_S12_a_rule_that_cannot_be_read_costs_its_pair_alone(stage):
    async def body(world):
        reply = await exchange_info(world)
        reply["symbols"][0]["filters"][0]["tickSize"] = "a hundredth"
        info = parse_exchange_info(msgspec.json.encode(reply))
        assert (info.skipped, set(info.rules)) == (("BTCUSDT",), {"ETH-USDT"})
        running = await world.exchange(pairs=("BTC-USDT", "DOGE-USDT"))
        trader = await world.trader()
        refused = await trader.send(pair="DOGE-USDT")
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.UNKNOWN_PAIR
        await trader.opened()
        assert running.actor.ready

    logs = stage(body)
    assert [line["pairs"] for line in logs if "does not list" in line["event"]] == [["DOGE-USDT"]]


@pytest.mark.parametrize("order_entry", ["websocket", "rest"])
@pytest.mark.parametrize("hours", [1, -1])
def test_W1_a_venue_whose_clock_steps_by_an_hour_and_back_is_traded_on_and_known_all_the_while(
    stage, hours, order_entry
):
    async def body(world):
        trader = await world.trading(order_entry=order_entry)
        resting = await trader.opened()
        for ahead_s in (3600.0 * hours, 0.0):
            world.venue_clock.ahead_s = ahead_s
            # Whatever is refused for its time is told as that, and soon nothing is.
            fresh = await trader.place(price="9999")
            await world.until(lambda made=fresh: trader.kinds(made))
            while trader.kinds(fresh) != ["created"]:
                assert trader.kinds(fresh) == ["failed"]
                fresh = await trader.place(price="9999")
                await world.until(lambda made=fresh: trader.kinds(made))
            await trader.cancel(fresh)
            await world.until(lambda made=fresh: trader.ended(made))
            assert trader.kinds(fresh) == ["created", "cancelled"]
        await world.hit(resting, "40")
        await world.until(lambda: trader.kinds(resting) == ["created", "fill"])
        await trader.cancel(resting)
        await world.until(lambda: trader.ended(resting))
        assert trader.kinds(resting) == ["created", "fill", "cancelled"]
        held = (await (await world.client()).balances()).value.balances
        while (await trader.account()).balances != held:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        trader.check()

    stage(body, 40)
