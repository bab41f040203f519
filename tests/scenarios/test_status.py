"""Scenarios of finding out what became of orders by asking, while the user stream is down; and of doubt."""

from __future__ import annotations

from decimal import Decimal

from engine.messages import NetworkStatus, OrderState, Reason
from engine.simulator.orders import Status

NOT_FOUND = {"status": 400, "code": -2013, "msg": "Order does not exist."}


def passes(running):
    return running.actor.metrics.counters.get("reconciliations", 0)


def test_S22_an_order_found_filled(stage):
    async def body(world):
        await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        await world.hit(client_order_id, "100")
        await world.until(lambda: trader.ended(client_order_id))
        created, fill, completed = trader.of(client_order_id)
        assert [created.kind, fill.kind, completed.kind] == ["created", "fill", "completed"]
        assert (fill.fill.price, fill.fill.size) == (Decimal(10_000), Decimal(100))
        assert (fill.fill.fee, fill.fill.fee_asset, fill.fill.is_maker) == (Decimal("0.1"), "BTC", True)
        assert (completed.order.filled, completed.order.cost) == (Decimal(100), Decimal(1_000_000))
        assert completed.order.state is OrderState.FILLED
        assert (await trader.account()).orders == []

    stage(body)


def test_S23_an_order_found_cancelled(stage):
    async def body(world):
        await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        by_hand = await world.client()
        await by_hand.cancel((await trader.account()).orders[0])
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "cancelled"]
        order = trader.of(client_order_id)[-1].order
        assert (order.client_order_id, bool(order.exchange_order_id)) == (client_order_id, True)
        assert (await trader.account()).orders == []

    stage(body)


def test_S24_an_order_that_has_not_changed_is_no_event(stage):
    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        before = passes(running)
        await world.until(lambda: passes(running) > before + 3)
        assert trader.kinds(client_order_id) == ["created"]
        assert (await trader.account()).orders[0].state is OrderState.OPEN

    stage(body)


def test_S25_W1_an_outage_however_long_counts_for_nothing_and_fails_no_order(stage):
    """Many more failed passes than four, and every question about the order refused or without an answer."""

    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        world.outage()
        await world.until(lambda: world.box.faults.struck.get("http_status", 0) >= 6)
        world.forgive()
        world.inflict("drop_reply", match="GET", count=6)
        await world.until(lambda: world.box.faults.struck.get("drop_reply", 0) >= 6)
        assert trader.kinds(client_order_id) == ["created"]
        assert (await trader.account()).orders[0].state is OrderState.OPEN
        before = passes(running)
        await world.until(lambda: passes(running) > before)
        assert running.actor.metrics.network is NetworkStatus.CONNECTED
        await world.hit(client_order_id, "100")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "completed"]

    stage(body)


def test_W1_passes_never_overlap(stage):
    async def body(world):
        running = await world.exchange()
        await world.until(lambda: passes(running) >= 2 and running.actor.requests.idle)
        under_way = most = asked = 0
        open_orders = running.actor.client.open_orders

        async def counted(*args):
            nonlocal under_way, most, asked
            under_way, asked = under_way + 1, asked + 1
            most = max(most, under_way)
            try:
                return await open_orders(*args)
            finally:
                under_way -= 1

        running.actor.client.open_orders = counted
        world.inflict("latency", match="GET /api/v3/openOrders", ms=150, count=4)
        for _ in range(40):
            running.actor.reconciler.at_once()
            await world.until(lambda now=asked: asked > now or under_way)
        await world.until(lambda: asked >= 6)
        assert most == 1

    stage(body)


def test_S26_an_unchanged_order_with_one_partial_fill(stage):
    async def body(world):
        await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        await world.hit(client_order_id, "40")
        await world.until(lambda: trader.kinds(client_order_id) == ["created", "fill"])
        fill = trader.of(client_order_id)[-1]
        assert (fill.fill.price, fill.fill.size, fill.fill.fee) == (Decimal(10_000), Decimal(40), Decimal("0.04"))
        assert fill.order.state is OrderState.PARTIALLY_FILLED
        (order,) = (await trader.account()).orders
        assert (order.state, order.filled) == (OrderState.PARTIALLY_FILLED, Decimal(40))

    stage(body)


def test_S27_a_filled_order_is_not_completed_before_its_fills_are_there(stage):
    """The fills cannot be had for a while: the order is known as filled and is not told so with less than all."""

    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        world.inflict("http_status", match="/api/v3/myTrades", status=500, count=3)
        await world.hit(client_order_id, "100")
        await world.until(lambda: world.box.faults.struck.get("http_status"))
        assert trader.kinds(client_order_id) == ["created"]
        assert [order.client_order_id for order in (await trader.account()).orders] == [client_order_id]
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "fill", "completed"]
        assert trader.of(client_order_id)[-1].order.cost == Decimal(1_000_000)
        assert running.actor.core.gauges()["orders_awaiting_fills"] == 0

    stage(body)


async def unknown_order(world, trader, placing="WS order.place"):
    """An order that the venue has, whose answer was lost in an outage: nobody knows of it yet."""
    world.inflict("drop_reply", match=placing)
    world.outage()
    client_order_id = await trader.place()
    await world.until(lambda: trader.kinds(client_order_id) == ["unknown"])
    assert world.order(client_order_id).status is Status.NEW
    return client_order_id


def test_S34_an_order_of_unknown_fate_keeps_its_place_and_its_fill_is_told_once(stage):
    async def body(world):
        await world.exchange()
        await world.user_stream(subscribed=True)
        trader = await world.trader()
        world.inflict("skip_user", count=2)  # the order itself and what it locks: the stream says nothing of them
        client_order_id = await unknown_order(world, trader)
        await world.until(lambda: world.box.faults.struck.get("http_status", 0) >= 2)
        (order,) = (await trader.account()).orders
        assert (order.client_order_id, order.state) == (client_order_id, OrderState.UNKNOWN)
        world.forgive()
        await world.hit(client_order_id, "100")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["unknown", "created", "fill", "completed"]
        trader.check()

    stage(body)


def test_S35_an_order_of_unknown_fate_is_cancelled_once_it_is_known_to_live(stage):
    async def body(world):
        await world.exchange()
        trader = await world.trader()
        client_order_id = await unknown_order(world, trader)
        await trader.cancel(client_order_id)
        world.forgive()
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["unknown", "created", "cancelled"]
        assert world.order(client_order_id).status is Status.CANCELED

    stage(body)


def test_S36_a_cancel_that_fails_leaves_an_order_that_was_in_doubt_as_it_is(stage):
    async def body(world):
        await world.exchange(order_entry="rest")
        trader = await world.trader()
        client_order_id = await unknown_order(world, trader, "POST /api/v3/order")
        await trader.cancel(client_order_id)
        world.forgive()
        world.inflict("reject", match="DELETE /api/v3/order", status=400, code=-1015, msg="not now")
        await world.until(lambda: world.box.faults.struck.get("reject"))
        assert trader.kinds(client_order_id) == ["unknown", "created"]
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["unknown", "created", "cancelled"]

    stage(body)


def test_S37_not_found_ends_an_order_only_after_the_last_instant_at_which_it_could_be_accepted(stage):
    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        world.inflict("reject", match="order.place", status=503, code=-1007, msg="Timeout waiting for response.")
        client_order_id = await trader.place()
        await world.until(lambda: running.actor.core.counters["not_found_early"])
        assert trader.kinds(client_order_id) == ["unknown"]
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["unknown", "failed"]
        event = trader.of(client_order_id)[-1]
        assert event.order.reason is Reason.NOT_FOUND
        assert event.time_ns >= event.order.created_ns + running.actor.client.acceptance_horizon_ns
        assert world.order(client_order_id) is None

    stage(body)


def test_an_order_that_the_venue_denies_and_still_has_does_not_stay_open_unknown_to_all(stage):
    """What was told as ended on the venue's word and turns up alive is cancelled, and ends no second time."""

    async def body(world):
        running = await world.exchange()
        trader = await world.trader()
        client_order_id = await trader.opened()
        world.inflict("reject", match="GET /api/v3/order", count=1_000, **NOT_FOUND)
        world.inflict("reject", match="order.cancel", status=400, code=-2011, msg="Unknown order sent.")
        await trader.cancel(client_order_id)
        await world.until(lambda: trader.ended(client_order_id))
        world.forgive()
        await world.until(lambda: world.order(client_order_id).status is Status.CANCELED)
        assert len(trader.kinds(client_order_id)) == 2
        assert running.actor.core.counters["orders_revived"] == (trader.kinds(client_order_id)[-1] == "failed")
        trader.check()

    stage(body)


def test_S38_a_cancellation_by_the_stream_ends_an_order_of_unknown_fate(stage):
    async def body(world):
        await world.exchange()
        await world.user_stream()
        trader = await world.trader()
        world.inflict("skip_user", count=2)
        client_order_id = await unknown_order(world, trader)
        (order,) = (await trader.account()).orders
        theirs = world.order(client_order_id)
        world.box.venue.cancel(theirs, "by-hand", world.clock.time_ns())
        world.box.flush()
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["unknown", "created", "cancelled"]
        assert order.state is OrderState.UNKNOWN
        trader.check()

    stage(body)


def test_S39_a_full_fill_by_the_stream_completes_an_order_of_unknown_fate(stage):
    async def body(world):
        await world.exchange()
        await world.user_stream()
        trader = await world.trader()
        await world.client("other")
        world.inflict("skip_user", count=2)
        client_order_id = await unknown_order(world, trader)
        world.forgive()
        world.inflict("http_status", status=502, match="GET", count=10_000)
        await world.hit(client_order_id, "100")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["unknown", "created", "fill", "completed"]
        trader.check()

    stage(body)
