"""Scenarios of the user stream and of balances."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from engine.actors import reconciler as reconciler_module
from engine.messages import OrderState, Side

QUIET_S = 8.0


def quietly(monkeypatch):
    """Without the stream nothing is asked for: what comes, comes by the stream."""
    monkeypatch.setattr(reconciler_module, "POLL_S", QUIET_S)


def test_S28_a_new_order_told_by_the_stream_alone(stage, monkeypatch):
    quietly(monkeypatch)

    async def body(world):
        trader = await world.trading()
        world.inflict("drop_reply", match="order.place")
        world.inflict("http_status", status=502, match="GET", count=10_000)
        client_order_id = await trader.place()
        await world.until(lambda: "created" in trader.kinds(client_order_id))
        assert trader.kinds(client_order_id)[-1] == "created"
        (order,) = (await trader.account()).orders
        assert (order.state, bool(order.exchange_order_id)) == (OrderState.OPEN, True)
        world.forgive()
        trader.check()

    stage(body)


def test_S29_a_cancellation_told_by_the_stream(stage, monkeypatch):
    quietly(monkeypatch)

    async def body(world):
        trader = await world.trading()
        client_order_id = await trader.opened()
        by_hand = await world.client()
        await by_hand.cancel((await trader.account()).orders[0])
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "cancelled"]
        assert trader.of(client_order_id)[-1].order.state is OrderState.CANCELLED

    stage(body)


def test_S30_a_full_fill_told_by_the_stream(stage, monkeypatch):
    quietly(monkeypatch)

    async def body(world):
        trader = await world.trading()
        client_order_id = await trader.opened()
        await world.hit(client_order_id, "30")
        await world.hit(client_order_id, "70")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "fill", "completed"]
        fees = [event.fill.fee for event in trader.of(client_order_id) if event.fill]
        assert fees == [Decimal("0.03"), Decimal("0.07")]
        order = trader.of(client_order_id)[-1].order
        assert (order.filled, order.cost) == (Decimal(100), Decimal(1_000_000))
        assert (await trader.account()).orders == []

    stage(body)


def test_S30_an_order_that_trades_at_once(stage):
    """The answer, the stream and a question all tell of the same trade: it counts once."""

    async def body(world):
        trader = await world.trading()
        other = await world.client("other")
        resting = world.by_hand("o-resting", Side.SELL, "100", Decimal(10_000))
        await other.place(resting, lambda _: None)
        world.inflict("duplicate_user", count=20)
        client_order_id = await trader.place()
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "completed"]
        trader.check()

    stage(body)


def test_S31_a_balance_told_by_the_stream(stage, monkeypatch):
    quietly(monkeypatch)

    async def body(world):
        trader = await world.trading()
        await trader.opened()
        await world.until(lambda: any(event.balances.get("USDT") for event in trader.balances))

        async def usdt():
            balance = (await trader.account()).balances["USDT"]
            return balance.total, balance.available

        while await usdt() != (Decimal(20_000_000), Decimal(19_000_000)):
            await trader.more_balances()

    stage(body)


def test_S21_balances_asked_for_are_exact_and_an_asset_that_is_gone_disappears(stage):
    async def body(world):
        await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened(size="1.5", price="10000.01")
        balances = (await trader.account()).balances
        expected = Decimal(20_000_000) - Decimal("1.5") * Decimal("10000.01")
        await until_balance(trader, "USDT", (Decimal(20_000_000), expected))
        assert (balances["ETH"].total, balances["ETH"].available) == (30, 30)
        account = world.box.venue.accounts["main"]
        account.balances["ETH"].free = 0
        await until_balance(trader, "ETH", None)
        await trader.cancel(client_order_id)
        await until_balance(trader, "USDT", (Decimal(20_000_000), Decimal(20_000_000)))

    stage(body)


async def until_balance(trader, asset, expected):
    while True:
        balance = (await trader.account()).balances.get(asset)
        found = None if balance is None or not balance.total else (balance.total, balance.available)
        if found == expected:
            return
        await trader.more_balances()


def test_S32_a_user_stream_that_is_to_stop_stops_whatever_it_is_doing(stage):
    async def body(world):
        subscribed = await world.user_stream()
        assert await subscribed.stop() == 0
        await world.box.stop()
        connecting = await world.user_stream(subscribed=False)
        assert await connecting.stop() == 0

    stage(body)


def test_S33_a_frame_that_makes_no_sense_is_logged_and_costs_nothing(stage):
    async def body(world):
        await world.exchange()
        stream = await world.user_stream()
        trader = await world.trader()
        client_order_id = await trader.opened()
        session = stream.actor.session
        stream.actor.on_frame(b"neither JSON nor anything else", 1)
        await world.until(lambda: stream.actor.session > session)
        await world.hit(client_order_id, "100")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "completed"]
        assert stream.actor.metrics.counters["unparsed"] == 1

    logs = stage(body)
    assert [line["log_level"] for line in logs if "could not be read" in line["event"]] == ["error"]


def test_W8_what_happened_while_the_stream_was_away_is_found_when_it_comes_back(stage, monkeypatch):
    """No poll is due for a long time: the reconnection itself is what finds the fill."""
    quietly(monkeypatch)

    async def body(world):
        trader = await world.trading()
        client_order_id = await trader.opened()
        world.inflict("skip_user", count=10)
        await world.hit(client_order_id, "100")
        assert trader.kinds(client_order_id) == ["created"]
        world.forgive()
        world.inflict("disconnect_user")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "completed"]

    stage(body)


def test_W8_while_the_venue_wants_silence_the_stream_does_not_knock(stage):
    """Every attempt during a ban makes it longer. The ban was told to somebody else, by REST."""

    async def body(world):
        await world.exchange()
        stream = await world.user_stream(subscribed=True)
        before = stream.actor.socket.connects
        stream.actor.client.throttler.silence(600.0)
        world.inflict("disconnect_user")
        await world.until(lambda: stream.actor.metrics.counters.get("connect_failures", 0) >= 3)
        assert stream.actor.socket.connects == before

    stage(body)


def test_W7_whatever_comes_late_or_twice_each_thing_is_told_once_and_no_order_comes_back(stage):
    async def body(world):
        trader = await world.trading()
        world.inflict("late_user", count=3, ms=300)
        world.inflict("duplicate_user", count=10)
        world.inflict("late_user", count=6, ms=150)
        ids = [await trader.opened(price=str(9000 + n)) for n in range(3)]
        await trader.cancel(ids[0])
        await world.hit(ids[2], "100")
        await trader.cancel(ids[1])
        await world.until(lambda: all(map(trader.ended, ids)))
        later = await trader.opened(price="8000")
        world.forgive()
        await asyncio.sleep(0.4)  # nothing tells when the latest of the late events has been
        account = await trader.account()
        assert [order.client_order_id for order in account.orders] == [later]
        trader.check()
        assert trader.kinds(ids[2]) == ["created", "fill", "completed"]

    stage(body)
