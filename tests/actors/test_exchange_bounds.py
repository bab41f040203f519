"""An exchange actor does not grow with the orders that have ended."""

import asyncio

from engine.messages import CancelOrder, OrderEventKind
from engine.orders import held
from engine.orders.tally import KEPT_FAILED
from tests.containers import largest, total

ORDERS = 900
KEPT = 100


def test_an_exchange_actor_keeps_no_more_of_many_ended_orders_than_of_few(exchange_world, order, monkeypatch):
    monkeypatch.setattr(held, "KEPT_ENDED", KEPT)

    async def body(world, venue):
        running = await world.exchange()
        bus = await world.bus("strategy.maker")
        ended = asyncio.Queue()
        bus.subscribe(
            "exchange.box.main",
            "orders",
            lambda event, number: ended.put_nowait(event) if event.kind is OrderEventKind.CANCELLED else None,
        )
        sizes = []
        for number in range(1, ORDERS + 1):
            name = f"e-{number}"
            await bus.request("exchange.box.main", order(name))
            await bus.request("exchange.box.main", CancelOrder(client_order_id=name))
            await ended.get()
            venue.orders.pop(name)
            venue.calls.clear()
            if number in (ORDERS // 3, ORDERS):
                await world.until(lambda: running.actor.requests.idle and not running.actor.journal.pending)
                but = (*apart(world, venue), *histograms(running.actor))
                sizes.append((total(running.actor, *but), largest(running.actor, *but)))
        (few, _), (many, most) = sizes
        assert running.actor.core.gauges()["orders_ended_in_memory"] == KEPT
        more_orders = ORDERS - ORDERS // 3
        assert many - few < more_orders / 10, "containers have grown with the number of orders"
        assert most < max(ORDERS // 3, KEPT_FAILED // 2)

    exchange_world(body, seconds=60)


def apart(world, venue):
    """What is the test's own, and not the actor's."""
    return (world, venue, world.network, asyncio.get_running_loop())


def histograms(actor):
    """They have a bucket for each magnitude, of which there are so many."""
    journal = actor.journal
    return (actor.metrics.histograms, journal.commit_ns, journal.flush_ns, journal.sync_ns)
