"""W1: five minutes without the network, on virtual time, while orders rest and the venues go on trading.

One venue takes orders by REST, the other by WebSocket. To each the last order before the cut has come, its answer not
back.
"""

import asyncio
import dataclasses
import tempfile
from collections import Counter
from pathlib import Path

from engine.actors.inline import shared_logging
from engine.actors.inline_run import repeatable
from engine.messages import OrderState
from engine.orders.journal import Journal
from engine.simulation import invariants
from engine.simulation import world as world_module
from engine.simulation.plan import make_plan
from engine.simulation.run import memory_folder
from engine.simulation.weather import RequestFault
from engine.simulation.wire import ORDER
from engine.simulation.world import World
from tests.simulation.resting import Resting

SEED = 2
OUTAGE_S = 300.0
RESTING = 8
BACK_WITHIN_S = 5.0


class Outage:
    """Cuts both venues off once orders rest at each, and looks at what both sides have before and after."""

    def __init__(self):
        self.told_back_s = {}
        self.missed = {}

    async def strike(self, world):
        venues = world.venues.values()
        await asyncio.sleep(1.0)
        heal = await asyncio.gather(*(cut_off(world, venue) for venue in venues))
        known = {venue.name: journaled(world, venue) for venue in venues}
        arrived = {venue.name: set(venue.box.venue.orders) for venue in venues}
        await asyncio.sleep(OUTAGE_S)
        for venue in venues:
            self.look(world, venue, known[venue.name], arrived[venue.name])
        for end in heal:
            end()
        world.tell("world", "the network is back")
        await asyncio.gather(*(self.until_told(world, venue) for venue in venues))

    def look(self, world, venue, known, arrived):
        """Still cut off: the engine holds on to every order that the venue has, and no more has come to the venue."""
        now = journaled(world, venue)
        at_venue = {order.client_order_id for order in venue.box.venue.orders.values()}
        if now & at_venue != known & at_venue:
            world.find(f"given up at venue {venue.name}: {(known - now) & at_venue}")
        if set(venue.box.venue.orders) != arrived:
            world.find(f"orders came to venue {venue.name} through a network that is not there")
        self.missed[venue.name] = unknown_trades(world, venue)

    async def until_told(self, world, venue):
        began = world.now_s
        while unknown_trades(world, venue):
            if world.now_s > began + BACK_WITHIN_S:
                world.find(f"fills of venue {venue.name} are not known {BACK_WITHIN_S:g} s after the outage")
                return
            await asyncio.sleep(0.1)
        self.told_back_s[venue.name] = world.now_s - began


async def cut_off(world, venue):
    """Part the venue from everybody once orders rest there and one more has come, its answer on the way."""
    orders = venue.box.venue.orders
    while len(resting(venue)) < RESTING:  # noqa: ASYNC110 - the venue tells nobody
        await asyncio.sleep(0.1)
    world.storm.faults.append(("reply_lost", RequestFault(venue.port, ORDER, lose_reply=True)))
    count = len(orders)
    while len(orders) == count:  # noqa: ASYNC110 - the same
        await asyncio.sleep(0.0002)
    heal = world.storm.part("", venue.port)
    frozen = [each for each in world.place.net.connections.values() if each.port == venue.port]
    for connection in frozen:
        connection.freeze()

    def end():
        for connection in frozen:
            connection.cut()
        heal()

    return end


def resting(venue):
    return [order for order in venue.box.venue.orders.values() if order.status.is_open]


def journaled(world, venue):
    with Journal.open_readonly(world.journal_path(venue)) as journal:
        return {order.client_order_id for order in journal.orders(open_only=True, limit=1000)}


def unknown_trades(world, venue):
    """The trades of our orders that the venue has made and the journal lacks."""
    with Journal.open_readonly(world.journal_path(venue)) as journal:
        ours = {(each.pair, each.fill.trade_id) for each in journal.fills(limit=10**6)}
    theirs = {(fill.pair, str(fill.trade_id)) for fills in venue.box.venue.pair_fills.values() for fill in fills}
    return theirs - ours


def test_W1_five_minutes_without_the_network_lose_resend_and_double_nothing(monkeypatch):
    monkeypatch.setattr(world_module, "STRATEGY", f"{Resting.__module__}:Resting")
    monkeypatch.setattr(world_module, "TRADING_S", OUTAGE_S + 80.0)
    plan = dataclasses.replace(
        make_plan(SEED, faults=False), order_entry={"a": "rest", "b": "websocket"}, checkpoint_every=(1, 2, 3)
    )
    outage = Outage()
    folders = tempfile.TemporaryDirectory(dir=memory_folder())
    with repeatable(f"run/{SEED}"), shared_logging("critical"), folders as folder:
        world = World(plan, Path(folder))
        with asyncio.Runner(loop_factory=lambda: world.place.loop) as runner:
            runner.run(world.run(outage.strike, invariants.check_market_data))
        assert world.findings == []
        books = [invariants.read_books(world, venue) for venue in world.venues.values()]
        assert list(invariants.check(world, books)) == []
    for venue, each in zip(world.venues, books, strict=True):
        assert outage.missed[venue], f"venue {venue} filled nothing during the outage"
        ends = Counter(order.state for order in each.orders if order.exchange_order_id)
        assert ends[OrderState.FILLED], ends
        assert ends[OrderState.CANCELLED], ends
        assert not ends[OrderState.FAILED], ends
    assert world.struck["reply_lost"] == 2
    assert world.report["orders"]["unknown"] == 0
    assert set(outage.told_back_s) == set(world.venues)
