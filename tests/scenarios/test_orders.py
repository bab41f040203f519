"""Scenarios of placing and cancelling: the real connector and the account's actor, at a venue in a box."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from engine.actors import departure as departure_module
from engine.messages import (
    Accepted,
    CancelAll,
    CancelAllResult,
    OrderState,
    OrderType,
    Reason,
    Refused,
    Side,
)
from engine.orders import account as account_module
from engine.orders.watch import Timing
from engine.simulator.orders import Order as VenueOrder
from engine.simulator.orders import Status

PLACE = {"rest": "POST /api/v3/order", "websocket": "WS order.place"}
CANCEL = {"rest": "DELETE /api/v3/order", "websocket": "WS order.cancel"}
both_ways = pytest.mark.parametrize("way", PLACE)


@both_ways
@pytest.mark.parametrize("side", list(Side))
def test_S13_S14_create_a_limit_order_successfully(stage, way, side):
    async def body(world):
        trader = await world.trading(order_entry=way)
        client_order_id = await trader.opened(side, "100", "10000")
        (event,) = trader.of(client_order_id)
        theirs: VenueOrder = world.order(client_order_id)
        assert (theirs.is_buy, theirs.price, theirs.quantity) == (side is Side.BUY, 10_000 * 10**8, 100 * 10**8)
        assert (theirs.type, theirs.time_in_force, theirs.account) == ("LIMIT", "GTC", "main")
        order = event.order
        assert (order.pair, order.order_type, order.side) == ("BTC-USDT", OrderType.LIMIT, side)
        assert (order.size, order.price, order.filled) == (Decimal(100), Decimal(10_000), 0)
        assert (order.exchange_order_id, order.state) == (str(theirs.order_id), OrderState.OPEN)
        assert event.time_ns > 0
        assert [order.client_order_id for order in (await trader.account()).orders] == [client_order_id]

    stage(body)


@both_ways
def test_S15_an_order_that_the_venue_refuses_fails_once(stage, way):
    async def body(world):
        trader = await world.trading(order_entry=way)
        refusal = {"code": -2010, "msg": "Account has insufficient balance for requested action."}
        world.inflict("reject", status=400, match=PLACE[way], **refusal)
        client_order_id = await trader.place()
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["failed"]
        order = trader.of(client_order_id)[0].order
        assert (order.reason, order.order_type) == (Reason.INSUFFICIENT_BALANCE, OrderType.LIMIT)
        assert "insufficient balance" in order.detail
        assert world.order(client_order_id) is None
        assert (await trader.account()).orders == []
        assert await trader.opened() != client_order_id

    stage(body)


def test_S16_an_order_that_breaks_a_rule_is_refused_without_a_request_and_the_next_is_not(stage):
    async def body(world):
        await world.exchange()
        trader = await world.trader()
        requests = world.box.desk.requests
        refused = {
            Reason.BELOW_MIN_SIZE: await trader.send(size="0.000001"),
            Reason.BELOW_MIN_NOTIONAL: await trader.send(size="0.0001", price="10000"),
            Reason.ABOVE_MAX_SIZE: await trader.send(size="9001", price="1"),
            Reason.UNKNOWN_PAIR: await trader.send(pair="ETH-USDT"),
        }
        for reason, answer in refused.items():
            assert isinstance(answer, Refused)
            assert (answer.reason, bool(answer.detail)) == (reason, True)
            assert world.order(answer.client_order_id) is None
        assert world.box.desk.requests - requests < 20
        assert trader.events == []
        await trader.opened()

    stage(body)


def test_W19_no_accepted_order_stays_without_a_word(stage):
    """A market order with no price to be had, on an empty book: it is told as ended, whatever the venue makes of it."""

    async def body(world):
        trader = await world.trading()
        client_order_id = await trader.place(price=None, size="1")
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id)[-1] in ("expired", "failed", "cancelled")
        account = await trader.account()
        assert account.orders == []
        assert account.balances["USDT"].available == account.balances["USDT"].total == 20_000_000

    stage(body)


@both_ways
def test_S17_cancel_an_order_successfully(stage, way):
    async def body(world):
        trader = await world.trading(order_entry=way)
        client_order_id = await trader.opened()
        assert isinstance(await trader.cancel(client_order_id), Accepted)
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "cancelled"]
        assert world.order(client_order_id).status is Status.CANCELED
        assert (await trader.account()).orders == []

    stage(body)


@both_ways
def test_S18_a_refused_cancel_is_no_end_and_is_tried_again(stage, way):
    async def body(world):
        trader = await world.trading(order_entry=way)
        client_order_id = await trader.opened()
        world.inflict("reject", status=403, code=-1015, msg="not now", match=CANCEL[way], count=10_000)
        await trader.cancel(client_order_id)
        await world.until(lambda: world.box.faults.struck.get("reject", 0) >= 2)
        assert trader.kinds(client_order_id) == ["created"]
        world.forgive()
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "cancelled"]

    stage(body)


@both_ways
def test_S19_a_cancel_that_finds_no_order_ends_nothing_while_the_venue_still_has_it(stage, way):
    async def body(world):
        trader = await world.trading(order_entry=way)
        client_order_id = await trader.opened()
        world.inflict("reject", status=400, code=-2011, msg="Unknown order sent.", match=CANCEL[way], count=10_000)
        await trader.cancel(client_order_id)
        await world.until(lambda: world.box.faults.struck.get("reject", 0) >= 2)
        (order,) = (await trader.account()).orders
        assert not order.state.is_final
        assert trader.kinds(client_order_id) == ["created"]
        world.forgive()
        await world.until(lambda: trader.ended(client_order_id))
        assert trader.kinds(client_order_id) == ["created", "cancelled"]

    stage(body)


def test_S20_of_two_orders_cancelled_together_one_fails(stage, monkeypatch):
    """The time-out of a cancel-all leaves what was cancelled told as cancelled."""
    monkeypatch.setattr(departure_module, "CANCEL_ALL_TIMEOUT_S", 0.6)
    monkeypatch.setattr(account_module, "Timing", Timing)

    async def body(world):
        trader = await world.trading(order_entry="rest")
        ids = {await trader.opened(), await trader.opened()}
        world.inflict("latency", ms=1500, match=CANCEL["rest"])
        result = await trader.ask(CancelAll())
        assert isinstance(result, CancelAllResult)
        (good,), (bad,) = result.cancelled, result.failed
        assert {good, bad} == ids
        assert (trader.kinds(good), trader.kinds(bad)) == (["created", "cancelled"], ["created"])
        await world.until(lambda: trader.ended(bad))
        assert await trader.ask(CancelAll()) == CancelAllResult(cancelled=[])

    stage(body)


@both_ways
def test_F24_a_503_of_unknown_outcome_is_asked_about_and_another_one_is_the_same_and_nothing_is_sent_twice(stage, way):
    async def body(world):
        trader = await world.trading(order_entry=way)
        world.inflict("reject", status=503, code=-1007, msg="Timeout waiting for response.", match=PLACE[way])
        unknown = await trader.place()
        await world.until(lambda: trader.kinds(unknown) == ["unknown"])
        world.inflict("drop_reply", match=PLACE[way])
        unheard = await trader.place(price="9999")
        await world.until(lambda: "created" in trader.kinds(unheard))
        await world.until(lambda: trader.ended(unknown))
        assert trader.kinds(unknown) == ["unknown", "failed"]
        assert (world.order(unknown), world.order(unheard).status) == (None, Status.NEW)
        trader.check()

    stage(body)


def test_the_client_order_id_goes_to_the_venue_as_it_is(stage):
    async def body(world):
        trader = await world.trading()
        longest = "e-" + "x" * 30
        assert isinstance(await trader.send(client_order_id=longest + "y"), Refused)
        await trader.opened(client_order_id=longest)
        assert world.order(longest) is not None
        assert isinstance(await trader.send(client_order_id=longest), Accepted)
        assert world.order(longest) is not None

    stage(body)


@both_ways
def test_W9_a_crash_between_the_request_and_its_answer(stage, way):
    """The order was carried out, its answer never read: the next life finds it by its id, and places nothing."""

    async def body(world):
        running = await world.exchange(order_entry=way)
        trader = await world.trader()
        place, place_now = running.actor.client.place, running.actor.client.place_now
        sent = asyncio.Event()

        async def placed(*args, **kwargs):
            await place(*args, **kwargs)
            sent.set()
            await asyncio.Event().wait()

        def placed_now(order, on_sent, done):
            return place_now(order, on_sent, lambda _: sent.set())

        running.actor.client.place, running.actor.client.place_now = placed, placed_now
        client_order_id = await trader.place()
        await sent.wait()
        await running.kill()
        assert trader.kinds(client_order_id) == []
        await world.exchange()
        await world.until(lambda: "created" in trader.kinds(client_order_id))
        assert world.order(client_order_id).status is Status.NEW
        trader.check()

    stage(body)


def test_S2_only_open_orders_come_back_after_a_restart(stage):
    async def body(world):
        running = await world.exchange()
        await world.user_stream()
        trader = await world.trader()
        filled, cancelled, kept = [await trader.opened() for _ in range(3)]
        world.inflict("reject", status=400, code=-2010, msg="Account has insufficient balance.", match="order.place")
        failed = await trader.place()
        await trader.cancel(cancelled)
        await world.until(lambda: trader.ended(cancelled) and trader.ended(failed))
        await world.hit(filled, "100")
        await world.until(lambda: trader.ended(filled))
        await running.kill()
        await world.exchange()
        assert [order.client_order_id for order in (await trader.account()).orders] == [kept]
        trader.check()

    stage(body)
