"""What an account asks of its venue from its start on: what was missed, and what the venue changes."""

from decimal import Decimal

import msgspec
import pytest

from engine.actors import reconciler as reconciler_module
from engine.connectors.errors import RateLimited
from engine.messages import (
    Accepted,
    FeeSchema,
    NetworkStatus,
    OrderEventKind,
    Reason,
)
from tests.actors.exchange_client import DOWN, client


def test_a_fill_that_the_stream_missed_is_found_when_it_comes_back(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.trade("e-1", "0.25", told=False)
        venue.subscribed()
        await world.until(lambda: OrderEventKind.FILL in maker.kinds())
        venue.unsubscribed()
        venue.trade("e-1", "0.75", told=False)
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        assert [event.fill.size for event in maker.events if event.fill] == [Decimal("0.25"), Decimal("0.75")]

    exchange_world(body)


def test_without_the_user_stream_the_venue_is_asked_often(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        world.network.kill("user_stream.box.main")
        before = venue.count("open_orders")
        await world.until(lambda: venue.count("open_orders") > before + 2)
        venue.trade("e-1", "1", told=False)
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())

    exchange_world(body)


def test_a_stream_that_says_the_same_again_causes_no_pass(exchange_world):
    async def body(world, venue):
        running = await world.exchange()
        await world.until(lambda: venue.stream.readers)
        venue.subscribed()
        await world.until(lambda: running.actor.reconciler.stream_up and not running.actor.reconciler.wanted)
        for _ in range(5):
            venue.session -= 1
            venue.subscribed()
        await world.until(lambda: running.actor.metrics.counters.get("reconciliations", 0) >= 1)
        assert not running.actor.reconciler.wanted

    exchange_world(body)


def test_a_pass_that_fails_is_made_again(exchange_world):
    async def body(world, venue):
        running = await world.exchange()
        await world.until(lambda: running.actor.metrics.counters.get("reconciliations", 0) >= 1)
        before = running.actor.metrics.counters["reconciliations"]
        venue.next("balances", before=DOWN)
        venue.subscribed()
        await world.until(lambda: running.actor.metrics.counters["reconciliations"] > before)
        assert running.actor.metrics.network is NetworkStatus.CONNECTED

    logs = exchange_world(body)
    assert "reconciliation will be tried again" in [line["event"] for line in logs]


@pytest.fixture
def learning(monkeypatch):
    monkeypatch.setattr(reconciler_module, "RULES_S", 0.01)
    monkeypatch.setattr(reconciler_module, "LEARN_AGAIN_S", 0.01)


def test_F34_rules_that_the_venue_changes_hold_from_then_on(exchange_world, order, learning):
    """Also when it cannot be asked for a while, and for a pair whose rule could not be read at the start."""

    async def body(world, venue):
        venue.rules = {}
        running = await world.exchange()
        maker = await client(world)
        assert (await maker.ask(order("e-1"))).reason is Reason.UNKNOWN_PAIR
        venue.rules = {world.pair: world.rule}
        await world.until(lambda: running.actor.core.rules)
        assert isinstance(await maker.ask(order("e-2", price="100.01")), Accepted)
        venue.next("rules", before=DOWN)
        venue.next("rules", before=RateLimited(-1003, "too many", 1.0))
        venue.rules = {world.pair: msgspec.structs.replace(world.rule, price_increment=Decimal("0.1"))}
        await world.until(lambda: running.actor.core.rules[world.pair].price_increment == Decimal("0.1"))
        refused = await maker.ask(order("e-3", price="100.01"))
        assert refused.reason is Reason.OFF_INCREMENT
        assert "price_increment 0.1" in refused.detail
        asked = venue.count("rules")
        venue.rules = {}
        await world.until(lambda: venue.count("rules") > asked + 1)
        assert isinstance(await maker.ask(order("e-4", price="100.1")), Accepted)

    exchange_world(body)


def test_F34_fees_that_could_not_be_asked_for_are_asked_for_again(exchange_world, learning):
    async def body(world, venue):
        venue.next("fees", before=DOWN)
        venue.fees = {world.pair: FeeSchema(maker=Decimal("0.002"))}
        running = await world.exchange()
        await world.until(lambda: running.actor.core._funds.fees[world.pair].maker == Decimal("0.002"))
        venue.fees = {world.pair: FeeSchema(maker=Decimal("0.001"))}
        await world.until(lambda: running.actor.core._funds.fees[world.pair].maker == Decimal("0.001"))

    exchange_world(body)
