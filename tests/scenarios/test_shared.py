"""Scenarios of what connectors share: orders found by their ids, orders over restarts, amounts of several fills."""

from __future__ import annotations

from decimal import Decimal

from engine.messages import OrderState, OrderType, Side, VenueOrderUpdate
from engine.simulator.orders import Status


def update(client_order_id="", exchange_order_id="", state=OrderState.FILLED):
    return VenueOrderUpdate(
        client_order_id=client_order_id,
        exchange_order_id=exchange_order_id,
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal(100),
        price=Decimal(10_000),
        state=state,
        filled=Decimal(0),
        venue_time_ns=0,
    )


def test_news_without_an_id_or_of_an_unknown_one_touches_no_order(stage):
    """An order whose venue id is not known yet is not found by an empty one."""

    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        world.inflict("drop_reply", match="order.place")
        world.outage()
        client_order_id = await trader.place()
        await world.until(lambda: trader.kinds(client_order_id) == ["unknown"])
        core, now_ns = running.actor.core, world.clock.time_ns()
        assert core.order(client_order_id).exchange_order_id == ""
        for news in (update(), update("e-nobody", "77"), update("", "77")):
            assert not core.venue_update(news, now_ns, now_ns)
        assert trader.kinds(client_order_id) == ["unknown"]
        world.forgive()
        await world.until(lambda: "created" in trader.kinds(client_order_id))

    stage(body)


def test_news_by_the_venues_id_alone_finds_the_order(stage):
    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        theirs = world.order(client_order_id)
        now_ns = world.clock.time_ns()
        news = update("", str(theirs.order_id), OrderState.CANCELLED)
        running.actor._do(running.actor.core.venue_update(news, now_ns, now_ns))
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "cancelled"]

    stage(body)


def test_an_order_of_several_fills_has_their_sums(stage):
    async def body(world):
        trader = await world.trading()
        other = await world.client("other")
        for number, price in enumerate(("9990", "10000")):
            resting = world.by_hand(f"o-{number}", Side.SELL, "50", Decimal(price))
            await other.place(resting, lambda _: None)
        client_order_id = await trader.place()
        await world.until(lambda: trader.ended(client_order_id))
        order = trader.of(client_order_id)[-1].order
        assert (order.filled, order.cost, order.cost / order.filled) == (100, 50 * 9990 + 50 * 10_000, Decimal(9995))
        fees = {event.fill.fee for event in trader.of(client_order_id) if event.fill}
        assert fees == {Decimal("0.05")}
        trader.check()

    stage(body)


def test_an_order_is_the_same_after_a_restart_and_its_old_trades_count_no_second_time(stage):
    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        await world.hit(client_order_id, "40")
        await world.until(lambda: "fill" in trader.kinds(client_order_id))
        (before,) = (await trader.account()).orders
        await running.kill()
        await world.exchange()
        assert (await trader.account()).orders == [before]
        await world.hit(client_order_id, "60")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "fill", "completed"]
        trader.check()

    stage(body)


def test_fills_made_while_nobody_was_there_are_found_by_the_next_life(stage):
    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        filled, cancelled = await trader.opened(), await trader.opened()
        await running.kill()
        await world.hit(filled, "100")
        world.box.venue.cancel(world.order(cancelled), "by-hand", world.clock.time_ns())
        world.box.flush()
        await world.exchange()
        await world.until(lambda: trader.ended(filled) and trader.ended(cancelled))
        assert trader.kinds(filled) == ["created", "fill", "completed"]
        assert trader.kinds(cancelled) == ["created", "cancelled"]
        assert world.order(cancelled).status is Status.CANCELED
        trader.check()

    stage(body)


def test_orders_that_others_placed_are_neither_told_nor_cancelled(stage):
    async def body(world):
        by_hand = await world.client()
        await by_hand.place(world.by_hand("by-hand", Side.BUY, "1", Decimal(9000)), lambda _: None)
        running = await world.exchange()
        trader = await world.trader()
        own = await trader.opened()
        await world.until(lambda: running.actor.core.foreign_orders)
        assert await running.stop() == 0
        assert (world.order("by-hand").status, world.order(own).status) == (Status.NEW, Status.CANCELED)
        assert trader.kinds("by-hand") == []

    stage(body)
