"""How an account is left: many orders cancelled at once, the end of a run, and its audit."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from engine.connectors.errors import VenueRefused
from engine.messages import (
    ActorStats,
    CancelAll,
    CancelAllResult,
    OrderEventKind,
    OrderState,
)
from tests.actors.exchange_client import DOWN, client


def test_cancel_all_says_what_it_did(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        for name, strategy in (("e-1", "maker"), ("e-2", "other"), ("e-3", "maker")):
            await maker.ask(order(name, strategy=strategy))
        await world.until(lambda: len(maker.events) == 3)
        result = await maker.ask(CancelAll(strategy="maker"))
        assert result == CancelAllResult(cancelled=["e-1", "e-3"])
        assert [order.client_order_id for order in venue.open] == ["e-2"]
        assert await maker.ask(CancelAll(pair="ETH-USDT")) == CancelAllResult(cancelled=[])
        assert await maker.ask(CancelAll()) == CancelAllResult(cancelled=["e-2"])

    exchange_world(body)


def test_S20_cancel_all_does_not_call_cancelled_what_was_filled(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        names = ("e-1", "e-2", "e-3")
        for name in names:
            await maker.ask(order(name))
        await world.until(lambda: len(maker.events) == 3)
        held = asyncio.Event()
        venue.next("cancel", wait=held, forever=True)
        asked = asyncio.create_task(maker.ask(CancelAll()))
        await world.until(lambda: venue.count("cancel") == 3)
        venue.trade("e-2", "1")
        venue.end("e-3", OrderState.EXPIRED)
        await world.until(lambda: len(maker.events) == 6)
        held.set()
        assert await asked == CancelAllResult(cancelled=["e-1"], ended={"e-2": "filled", "e-3": "expired"})

    exchange_world(body)


def test_cancel_all_waits_as_long_as_it_was_told(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.next("cancel", before=VenueRefused(-1, "not now"), forever=True)
        result = await maker.ask(CancelAll(within_ns=50_000_000))
        assert (result.cancelled, list(result.failed)) == ([], ["e-1"])
        venue.script.clear()

    exchange_world(body)


def test_cancel_all_names_what_stays_open(exchange_world, order, monkeypatch):
    from engine.actors import departure as module

    monkeypatch.setattr(module, "CANCEL_ALL_TIMEOUT_S", 0.05)

    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.next("cancel", before=VenueRefused(-1, "not now"), forever=True)
        result = await maker.ask(CancelAll())
        assert (result.cancelled, list(result.failed)) == ([], ["e-1"])
        venue.script.clear()

    exchange_world(body)


@pytest.mark.parametrize("keep", [True, False])
def test_a_polite_end_cancels_what_is_open_unless_it_is_to_be_kept(exchange_world, order, keep):
    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        assert await running.stop(grace_ns=15_000_000_000, keep_orders=keep) == 0
        assert [order.client_order_id for order in venue.open] == (["e-1"] if keep else [])
        assert running.actor.client.closed == 1

    exchange_world(body)


@pytest.mark.parametrize("keep", [True, False])
def test_a_dead_man_cancels_what_is_open_unless_it_is_to_be_kept(exchange_world, order, keep):
    async def body(world, venue):
        running = await world.exchange(keep_orders=keep)
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        running.host.supervisor_died()
        assert await running.code() == 0
        assert [order.client_order_id for order in venue.open] == (["e-1"] if keep else [])

    exchange_world(body)


def test_the_audit_of_a_run_without_fault(exchange_world, order):
    async def body(world, venue):
        supervisor = await world.supervisor()
        running = await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.trade("e-1", "0.5")
        await world.until(lambda: OrderEventKind.FILL in maker.kinds())
        await running.stop(grace_ns=15_000_000_000)
        gauges = supervisor.of(ActorStats)[-1].gauges
        assert (gauges["fills_missed"], gauges["fills_duplicated"], gauges["fills"]) == (0, 0, 1)
        assert gauges["orders"]["cancelled"] == 1
        assert msgspec.convert(gauges["takings"][0]["base"], Decimal, strict=False) == Decimal("0.5")

    exchange_world(body)


def test_the_audit_counts_what_the_journal_lacks_and_what_the_venue_lacks(exchange_world, order):
    async def body(world, venue):
        supervisor = await world.supervisor()
        running = await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.trade("e-1", "0.5")
        venue.trade("e-1", "0.5")
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        lost, hidden = venue.fill_list[0], venue.fill_list[1]
        venue.fill_list = [
            msgspec.structs.replace(lost, fill=msgspec.structs.replace(lost.fill, trade_id="999")),
            hidden,
            msgspec.structs.replace(hidden, exchange_order_id="somebody else's"),
        ]
        await running.stop(grace_ns=15_000_000_000)
        gauges = supervisor.of(ActorStats)[-1].gauges
        assert (gauges["fills_missed"], gauges["fills_duplicated"]) == (1, 1)

    logs = exchange_world(body)
    (told,) = [line for line in logs if line["event"] == "the journal and the venue disagree on fills"]
    assert (told["missed"], told["duplicated"]) == (["999"], ["1"])


def test_an_audit_that_the_venue_does_not_answer_is_left_out(exchange_world, order):
    async def body(world, venue):
        supervisor = await world.supervisor()
        running = await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.next("fills", before=DOWN, forever=True)
        assert await running.stop(grace_ns=15_000_000_000) == 0
        assert "fills_missed" not in supervisor.of(ActorStats)[-1].gauges

    exchange_world(body)
