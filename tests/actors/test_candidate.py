"""An account that several hosts may trade: one holder at a time, and what it may do when it is not sure."""

import asyncio
from decimal import Decimal

import pytest

from engine.clock import WallClock
from engine.errors import RemoteError
from engine.messages import (
    Accepted,
    AccountSnapshot,
    CancelOrder,
    ControlReply,
    GetAccount,
    OrderEventKind,
    OrderFate,
    OrderState,
    OrderType,
    PlaceOrder,
    Reason,
    Refused,
    SetTrading,
    Side,
    TradingSet,
)
from engine.orders.memory_store import MemoryLine, MemoryStore, name_line
from tests.actors.fake_venue import FakeClient
from tests.actors.world import World

NAME = "exchange.box.main"


@pytest.fixture(autouse=True)
def quick_venue(monkeypatch):
    """The venue accepts a request for 0.2 s: leases may be short."""
    monkeypatch.setattr(FakeClient, "horizon_ns", 200_000_000)


@pytest.fixture
def arbiter():
    return MemoryStore("id", lambda: 0)


class Maker:
    """A strategy at one host."""

    def __init__(self, bus):
        self.bus = bus
        self.events = []
        bus.subscribe(NAME, "orders", lambda event, number: self.events.append((number, event)))

    async def ask(self, message, timeout=3.0):
        return await self.bus.request(NAME, message, timeout=timeout)

    def kinds(self, client_order_id):
        return [event.kind for _, event in self.events if event.order.client_order_id == client_order_id]


async def maker(world):
    return Maker(await world.bus("strategy.maker"))


def other_host(world):
    """Another host: a folder and a network of its own, the same venue and arbiter."""
    (world.folder / "other").mkdir()
    return World(world.folder / "other", world.monkeypatch)


def test_a_holder_takes_orders_and_its_intents_are_at_the_arbiter_before_they_are_sent(exchange_world, order, arbiter):
    async def body(world, venue):
        running = await world.candidate(MemoryLine(arbiter))
        strategy = await maker(world)
        at_arbiter = []
        take = venue.take

        def checked(placed):
            at_arbiter.append([row[0] for row in arbiter.changed("orders", 0)])
            return take(placed)

        venue.take = checked
        assert await strategy.ask(order()) == Accepted(client_order_id="e-1", state=OrderState.PENDING_CREATE)
        await world.until(lambda: strategy.kinds("e-1") == [OrderEventKind.CREATED])
        assert at_arbiter == [["e-1"]]
        assert running.actor.metrics.gauges.get("lease", "held") == "held"

    exchange_world(body)


def test_a_candidate_refuses_and_knows_nothing_and_takes_over_when_the_holder_is_dead(exchange_world, order, arbiter):
    async def body(world, venue):
        there = other_host(world)
        try:
            first = await world.candidate(MemoryLine(arbiter))
            strategy = await maker(world)
            await strategy.ask(order())
            await world.until(lambda: len(strategy.events) == 1)
            second = await world.candidate(MemoryLine(arbiter), at=there, held=False)
            waiting = await maker(there)
            refused = await waiting.ask(order("e-2"))
            assert (type(refused), refused.reason) == (Refused, Reason.NO_LEASE)
            assert isinstance(await waiting.ask(GetAccount()), ControlReply)
            with pytest.raises(RemoteError):
                await waiting.ask(OrderFate(client_order_id="e-1"))
            with pytest.raises(RemoteError, match="only the risk actor"):
                await waiting.ask(SetTrading(state="active", reason=""))
            risk = Maker(await there.bus("risk"))
            assert isinstance(await risk.ask(SetTrading(state="reducing", reason="")), TradingSet)
            await first.kill()
            venue.trade("e-1", "0.4", told=False)
            await there.until(lambda: second.actor.exchange is not None and second.actor.exchange.ready)
            assert second.actor.exchange.gate.state.value == "reducing"
            assert second.actor.tenure.lease.epoch == 2
            await there.until(lambda: OrderEventKind.FILL in waiting.kinds("e-1"))
            assert [number for number, _ in waiting.events] == [2]
            await there.until(lambda: second.actor.exchange.exposure.known)
            snapshot = await waiting.ask(GetAccount())
            assert isinstance(snapshot, AccountSnapshot)
            assert [(open_.client_order_id, str(open_.filled)) for open_ in snapshot.orders] == [("e-1", "0.4")]
            assert venue.count("place") == 1
        finally:
            await there.close()

    exchange_world(body)


def test_without_its_database_a_holder_places_nothing_and_still_cancels_and_comes_back_by_itself(
    exchange_world, order, arbiter, monkeypatch
):
    monkeypatch.setattr("engine.orders.memory_store._TIMEOUT_S", 0.05)

    async def body(world, venue):
        line = MemoryLine(arbiter)
        running = await world.candidate(line)
        strategy = await maker(world)
        await strategy.ask(order())
        await world.until(lambda: strategy.kinds("e-1") == [OrderEventKind.CREATED])
        line.cut = True
        await world.until(lambda: running.actor.tenure.lost)
        refused = await strategy.ask(order("e-2"))
        assert (refused.reason, "out of reach" in refused.detail) == (Reason.NO_LEASE, True)
        assert isinstance(await strategy.ask(CancelOrder(client_order_id="e-1")), Accepted)
        await world.until(lambda: venue.count("cancel") == 1)
        assert strategy.kinds("e-1") == [OrderEventKind.CREATED]
        await world.until(lambda: running.actor.tenure._unreached == {"lease", "journal"})
        line.cut = False
        await world.until(lambda: strategy.kinds("e-1")[-1] is OrderEventKind.CANCELLED)
        await world.until(lambda: not running.actor.tenure.lost)
        assert isinstance(await strategy.ask(order("e-3")), Accepted)
        await world.until(lambda: venue.count("place") == 2)
        assert venue.asked("place") == ["e-1", "e-3"]

    logs = exchange_world(body)
    assert sum("out of reach" in entry["event"] for entry in logs) == 1
    assert sum("is back" in entry["event"] for entry in logs) == 1


def test_an_order_whose_intent_reached_the_arbiter_too_late_is_given_up(exchange_world, order, arbiter, monkeypatch):
    monkeypatch.setattr("engine.orders.memory_store._TIMEOUT_S", 0.05)

    async def body(world, venue):
        line = MemoryLine(arbiter)
        running = await world.candidate(line)
        strategy = await maker(world)
        held = running.actor.exchange.core
        line.cut = True
        answer = asyncio.create_task(strategy.ask(order(), timeout=8))
        await world.until(lambda: held.order("e-1") is not None)
        ended_ns = running.actor.tenure.lease.ends_ns
        await world.until(lambda: world.clock.monotonic_ns() > ended_ns)
        wait_ns = ended_ns + 2_000_000_000
        await world.until(lambda: world.clock.monotonic_ns() > wait_ns)
        line.cut = False
        assert isinstance(await answer, Accepted)
        await world.until(lambda: OrderEventKind.FAILED in strategy.kinds("e-1"))
        assert strategy.events[-1][1].order.reason is Reason.NOT_SENT
        assert venue.count("place") == 0

    exchange_world(body)


def test_a_holder_that_another_has_replaced_ends(exchange_world, order, arbiter):
    async def body(world, venue):
        running = await world.candidate(MemoryLine(arbiter))
        arbiter.take(arbiter.look(), "another", "another seat", 900_000_000)
        assert await running.code() == 1

    logs = exchange_world(body)
    assert any("another holder has the lease" in str(entry.get("error")) for entry in logs)


def test_a_restart_on_the_same_host_need_not_wait_for_the_lease_of_the_dead(exchange_world, order, arbiter):
    async def body(world, venue):
        lease = {"ttl_ns": 60_000_000_000, "renew_ns": 50_000_000, "clock_error_ns": 0, "look_ns": 20_000_000}
        line = MemoryLine(arbiter)
        journal = {"address": name_line("same", line), "lease": lease}
        first = await world.candidate(line, journal=journal)
        await first.kill()
        second = await world.candidate(line, journal=journal)
        assert second.actor.tenure.lease.epoch == 2

    exchange_world(body, seconds=20)


def test_a_polite_stop_gives_the_lease_back(exchange_world, order, arbiter):
    async def body(world, venue):
        running = await world.candidate(MemoryLine(arbiter))
        assert await running.stop(keep_orders=True) == 0
        assert arbiter.look().holder == ""

    exchange_world(body)


async def held_until_it_ran_out(world, arbiter):
    """A holder with an order open, cut off from its database until its lease has run out."""
    line = MemoryLine(arbiter)
    running = await world.candidate(line, keep_orders=False)
    strategy = await maker(world)
    await strategy.ask(order_of_the_test())
    await world.until(lambda: strategy.kinds("e-1") == [OrderEventKind.CREATED])
    line.cut = True
    await world.until(lambda: not running.actor.tenure.lease.holds(world.clock.monotonic_ns()))
    return line, running


def order_of_the_test():
    return PlaceOrder(
        client_order_id="e-1",
        strategy="maker",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal(1),
        price=Decimal(100),
    )


def test_a_dead_man_leaves_alone_what_belongs_to_a_holder_that_has_begun(exchange_world, arbiter, monkeypatch):
    monkeypatch.setattr("engine.orders.memory_store._TIMEOUT_S", 0.05)

    async def body(world, venue):
        line, running = await held_until_it_ran_out(world, arbiter)
        arbiter.take(arbiter.look(), "another", "another seat", 900_000_000)
        line.cut = False
        running.host.supervisor_died()
        await running.code()
        assert [order.client_order_id for order in venue.open] == ["e-1"]
        assert venue.count("cancel") == 0

    exchange_world(body)


def test_a_dead_man_cancels_what_may_be_nobodys(exchange_world, arbiter, monkeypatch):
    monkeypatch.setattr("engine.orders.memory_store._TIMEOUT_S", 0.05)

    async def body(world, venue):
        _, running = await held_until_it_ran_out(world, arbiter)
        running.host.supervisor_died()
        await running.code()
        assert venue.open == []

    exchange_world(body)


def test_a_dead_man_whose_lease_ran_out_and_was_taken_by_nobody_cancels(exchange_world, arbiter, monkeypatch):
    monkeypatch.setattr("engine.orders.memory_store._TIMEOUT_S", 0.05)

    async def body(world, venue):
        line, running = await held_until_it_ran_out(world, arbiter)
        line.cut = False
        running.host.supervisor_died()
        await running.code()
        assert venue.open == []

    exchange_world(body)


class WrongClock(WallClock):
    """A host's wall clock that is a minute and a half ahead."""

    def time_ns(self):
        return super().time_ns() + 90_000_000_000


def test_how_far_a_hosts_clock_is_off_is_measured_and_told(exchange_world, order):
    arbiter = MemoryStore("id", WallClock().time_ns)

    async def body(world, venue):
        there = other_host(world)
        there.clock = WrongClock()
        try:
            right = await world.candidate(MemoryLine(arbiter))
            wrong = await world.candidate(MemoryLine(arbiter), at=there, held=False)
            await world.until(lambda: right.actor.tenure.time.is_synced and wrong.actor.tenure.time.is_synced)
            for running in (right, wrong):
                running.actor.collect()
            assert abs(right.actor.metrics.gauges["clock_offset_ms"]) < 5_000
            assert abs(wrong.actor.metrics.gauges["clock_offset_ms"] - 90_000) < 5_000
        finally:
            await there.close()

    logs = exchange_world(body)
    assert [entry["offset_s"] > 85 for entry in logs if "clock differs" in entry["event"]] == [True]
