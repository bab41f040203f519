"""An exchange actor that began with a long past, which is still being read."""

import threading
from decimal import Decimal

import pytest

from engine.errors import JournalError
from engine.messages import Accepted, AccountSnapshot, CancelOrder, ControlReply, GetAccount, OrderEventKind, Reason
from engine.orders import journal as journal_module
from engine.orders.journal_past import JournalPast
from tests.actors.exchange_client import client

LIMITS = {"risk": {"max_position": {"BTC-USDT": "3"}}}


@pytest.fixture
def reading(monkeypatch):
    """Whether the past may be read on: as long as it is not, whoever reads it is in the middle of it."""
    go_on = threading.Event()
    go_on.set()
    each_size = JournalPast.each_size

    def held(past):
        assert go_on.wait(10)
        return each_size(past)

    monkeypatch.setattr(JournalPast, "each_size", held)
    yield go_on
    go_on.set()


async def second_life(world, venue, order, reading, **params):
    """One order filled and two open in the first life; the next one is at its venue, and its past is not read yet."""
    running = await world.exchange()
    maker = await client(world)
    for name in ("e-1", "e-2", "e-3"):
        await maker.ask(order(name))
    await world.until(lambda: len(venue.orders) == 3)
    venue.trade("e-1", "1")
    await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds("e-1"))
    await running.kill()
    reading.clear()
    running = await world.exchange(ready=False, **params)
    await world.until(lambda: running.actor.ready)
    return running, maker


def test_it_is_there_at_once_and_places_nothing_that_it_cannot_judge(exchange_world, order, reading):
    async def body(world, venue):
        running, maker = await second_life(world, venue, order, reading, **LIMITS)
        refused = await maker.ask(order("e-4"))
        assert (refused.reason, "added up" in refused.detail) == (Reason.NOT_READY, True)
        assert isinstance(await maker.ask(GetAccount()), ControlReply)
        assert isinstance(await maker.ask(CancelOrder(client_order_id="e-3")), Accepted)
        await world.until(lambda: OrderEventKind.CANCELLED in maker.kinds("e-3"))
        venue.trade("e-2", "1")
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds("e-2"))
        assert "fills" not in running.actor.metrics.gauges
        reading.set()
        await world.until(lambda: running.actor.exposure.known)
        assert isinstance(await maker.ask(GetAccount()), AccountSnapshot)
        assert running.actor.exposure.view("BTC-USDT").position == 2
        assert isinstance(await maker.ask(order("e-5")), Accepted)
        assert (await maker.ask(order("e-6"))).reason is Reason.POSITION_LIMIT
        await running.actor._learned.wait()
        running.actor.collect()
        gauges = running.actor.metrics.gauges
        assert gauges["fills"] == 2
        counted = {name: gauges["orders"][name] for name in ("placed", "filled", "cancelled", "open")}
        assert counted == {"placed": 4, "filled": 2, "cancelled": 1, "open": 1}
        assert Decimal(gauges["takings"][0]["base"]) == 2

    exchange_world(body)


def test_without_limits_orders_are_taken_at_once(exchange_world, order, reading):
    async def body(world, venue):
        running, maker = await second_life(world, venue, order, reading)
        assert isinstance(await maker.ask(order("e-4")), Accepted)
        assert not running.actor.exposure.known

    exchange_world(body)


def test_an_end_does_not_wait_for_it(exchange_world, order, reading, monkeypatch):
    ended = []
    close = JournalPast.close
    monkeypatch.setattr(JournalPast, "close", lambda past: (ended.append(past), close(past)))

    async def body(world, venue):
        running, _ = await second_life(world, venue, order, reading)
        assert await running.stop(grace_ns=10_000_000_000) == 0
        assert not venue.open
        before = len(ended)
        reading.set()
        await world.until(lambda: len(ended) > before)

    exchange_world(body)


def test_a_large_journal_is_checked_beside_the_loop_and_nothing_is_placed_before(exchange_world, order, monkeypatch):
    """To look through it takes longer than an actor may take to start."""
    go_on = threading.Event()
    check = JournalPast.check

    def held(past):
        assert go_on.wait(10)
        check(past)

    async def body(world, venue):
        monkeypatch.setattr(journal_module, "CHECKED_AT_ONCE", 1000)
        monkeypatch.setattr(JournalPast, "check", held)
        running = await world.exchange(ready=False)
        maker = await client(world)
        await world.until(lambda: running.actor.ready)
        refused = await maker.ask(order("e-1"))
        assert (refused.reason, "being checked" in refused.detail) == (Reason.NOT_READY, True)
        go_on.set()
        await world.until(lambda: not running.actor.journal.unchecked)
        assert isinstance(await maker.ask(order("e-2")), Accepted)
        await world.until(lambda: list(venue.orders) == ["e-2"])

    try:
        exchange_world(body)
    finally:
        go_on.set()


def test_a_past_that_cannot_be_read_ends_the_actor(exchange_world, order, monkeypatch):
    def damaged(past):
        raise JournalError("damaged")

    async def body(world, venue):
        monkeypatch.setattr(JournalPast, "each_size", damaged)
        running = await world.exchange(ready=False)
        assert await running.code() == 1

    exchange_world(body)
