"""An exchange actor's journal: durable before told, small, and stopped for where it cannot be trusted."""

import asyncio
import sqlite3
import threading
import time
from decimal import Decimal

import pytest

from engine.actors import journal_care
from engine.errors import JournalError
from engine.messages import (
    Accepted,
    AccountSnapshot,
    Balance,
    GetAccount,
    GetOrders,
    OrderState,
    PlaceOrder,
    Reason,
    Refused,
    StreamPosition,
    VenueBalanceUpdate,
)
from engine.orders.journal import Journal
from engine.orders.rotation import Rotation

NAME = "exchange.box.main"
POWER = {"journal": {"durability": "power"}}


class Disk:
    """The disk under the journal, in the test's hand."""

    def __init__(self, monkeypatch):
        self.free = threading.Event()
        self.free.set()
        self.syncs = 0
        self.error = None
        sync = Journal.sync

        def held(journal):
            self.syncs += 1
            assert self.free.wait(5)
            if self.error is not None:
                raise self.error
            return sync(journal)

        monkeypatch.setattr(Journal, "sync", held)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(monkeypatch)
    yield disk
    disk.free.set()


async def ask(world, message, name="strategy.maker", bus=None):
    return await (bus or await world.bus(name)).request(NAME, message, timeout=3.0)


def test_an_order_that_is_journaled_in_time_is_not_called_expired_after_that(exchange_world, order):
    async def body(world, venue):
        exchange = await world.exchange(**POWER)
        on_message = exchange.actor.on_message

        def slow_turn(caller, message):
            answer = on_message(caller, message)
            if isinstance(message, PlaceOrder):
                time.sleep(1.1)
            return answer

        exchange.actor.on_message = slow_turn
        bus = await world.bus("strategy.maker")
        answer = await bus.command(NAME, order(), command_id="e-1", expires_in=1.0)
        assert isinstance(answer, Accepted)
        await world.until(lambda: venue.count("place") == 1)

    exchange_world(body)


def test_with_power_nothing_is_sent_told_or_answered_before_it_is_on_disk(exchange_world, order, disk):
    async def body(world, venue):
        await world.exchange(**POWER)
        bus = await world.bus("strategy.maker")
        events = []
        bus.subscribe(NAME, "orders", lambda event, number: events.append(event))
        disk.free.clear()
        asked = disk.syncs
        answers = [asyncio.create_task(ask(world, order(f"e-{index}"), bus=bus)) for index in range(5)]
        await world.until(lambda: disk.syncs > asked)
        await asyncio.sleep(0.05)
        assert not any(answer.done() for answer in answers)
        assert (venue.count("place"), events) == (0, [])
        disk.free.set()
        assert [type(await answer) for answer in answers] == [Accepted] * 5
        await world.until(lambda: len(events) == 5)
        assert [event.number for event in events] == [1, 2, 3, 4, 5]
        assert venue.count("place") == 5

    exchange_world(body)


def test_with_power_commits_that_came_while_the_disk_was_busy_share_one_sync(exchange_world, order, disk):
    async def body(world, venue):
        running = await world.exchange(**POWER)
        bus = await world.bus("strategy.maker")
        disk.free.clear()
        before = disk.syncs
        answers = [asyncio.create_task(ask(world, order(f"e-{index}"), bus=bus)) for index in range(40)]
        await world.until(lambda: running.actor.journal.commits >= 40)
        disk.free.set()
        await asyncio.gather(*answers)
        assert disk.syncs - before < 40
        assert venue.count("place") == 40

    exchange_world(body)


def test_with_power_an_account_is_not_shown_ahead_of_its_disk(exchange_world, order, disk):
    async def body(world, venue):
        running = await world.exchange(**POWER)
        bus = await world.bus("strategy.maker")
        await ask(world, order("e-1"), bus=bus)
        await world.until(lambda: running.actor.core.last_number == 1 and not running.actor.care.behind)
        disk.free.clear()
        venue.trade("e-1", "1")
        await world.until(lambda: running.actor.core.last_number > 1)
        snapshot = asyncio.create_task(ask(world, GetAccount(), bus=bus))
        await asyncio.sleep(0.03)
        assert not snapshot.done()
        assert running.actor.orders.last == 1
        disk.free.set()
        found = await snapshot
        assert isinstance(found, AccountSnapshot)
        assert found.number == running.actor.orders.last

    exchange_world(body)


def test_with_power_an_account_that_was_asked_for_shows_no_older_balance_than_the_stream(exchange_world, order, disk):
    """The answer waits for the disk, and comes after the balances that the stream told of meanwhile."""

    async def body(world, venue):
        running = await world.exchange(**POWER)
        bus = await world.bus("strategy.maker")
        await ask(world, order("e-1"), bus=bus)
        await world.until(lambda: running.actor.core.last_number == 1 and not running.actor.care.behind)
        told = {}
        bus.subscribe(NAME, "balances", lambda event, number: told.update(event.balances))
        disk.free.clear()
        venue.trade("e-1", "0.5")
        await world.until(lambda: running.actor.care.behind)
        asked = asyncio.create_task(ask(world, GetAccount(), bus=bus))
        # Answered in the order in which they were asked: this one does not wait for the disk.
        await ask(world, GetOrders(), bus=bus)
        now = Balance(total=Decimal("10.5"), available=Decimal("10.5"))
        venue.balance["BTC"] = now
        venue.stream.publish(VenueBalanceUpdate(balances={"BTC": now}, venue_time_ns=venue.clock.time_ns()))
        await world.until(lambda: running.actor.core.balance("BTC") == now)
        disk.free.set()
        assert (await asked).balances["BTC"] == now
        await world.until(lambda: told.get("BTC") == now)

    exchange_world(body)


def test_with_power_a_fill_that_waits_for_the_disk_is_in_the_position_once(exchange_world, order, disk):
    """Positions are summed up from the journal when the first order of a life is judged, which may be just then."""

    async def body(world, venue):
        running = await world.exchange(**POWER)
        await ask(world, order("e-1"))
        await world.until(lambda: "e-1" in venue.orders and not running.actor.care.behind)
        await running.kill()
        running = await world.exchange(**POWER, risk={"max_position": {"BTC-USDT": "3"}})
        await world.until(lambda: not running.actor.care.behind)
        bus = await world.bus("strategy.other")
        before = running.actor.core.last_number
        disk.free.clear()
        venue.trade("e-1", "1")
        await world.until(lambda: running.actor.core.last_number > before)
        judged = asyncio.create_task(ask(world, order("e-2", price="99"), bus=bus))
        await world.until(lambda: running.actor.core.order("e-2"))
        disk.free.set()
        assert isinstance(await judged, Accepted)
        assert running.actor.exposure.view("BTC-USDT").position == 1
        assert isinstance(await ask(world, order("e-3", price="98"), bus=bus), Accepted)
        refused = await ask(world, order("e-4", price="97"), bus=bus)
        assert refused.reason is Reason.POSITION_LIMIT

    exchange_world(body)


def test_a_disk_that_fails_ends_the_actor_before_anything_is_sent(exchange_world, order, disk):
    async def body(world, venue):
        running = await world.exchange(**POWER)
        disk.error = JournalError("the disk is gone")
        bus = await world.bus("strategy.maker")
        answer = asyncio.create_task(ask(world, order("e-1"), bus=bus))
        assert await running.code() == 1
        assert venue.count("place") == 0
        await asyncio.gather(answer, return_exceptions=True)

    exchange_world(body)


def test_a_rotation_of_the_running_actor_changes_no_answer(exchange_world, order, monkeypatch):
    monkeypatch.setattr(journal_care, "DELETE_PAUSE_S", 0.001)

    async def body(world, venue):
        running = await world.exchange(journal={"keep_days": 1e-9})
        bus = await world.bus("strategy.maker")
        for index in range(4):
            await ask(world, order(f"e-{index}"), bus=bus)
            await world.until(lambda name=f"e-{index}": running.actor.core.order(name).state is OrderState.OPEN)
            venue.trade(f"e-{index}", "1")
            await world.until(lambda name=f"e-{index}": running.actor.core.order(name).state is OrderState.FILLED)
        before = (running.actor.journal.since(0, 100), running.actor.journal.orders())
        assert await running.actor.care.rotate() > 0
        assert (running.actor.journal.since(0, 100), running.actor.journal.orders()) == before
        events = []
        other = await world.bus("strategy.late")
        other.subscribe(
            NAME,
            "orders",
            lambda event, number: events.append(number),
            position=StreamPosition(incarnation=0, number=0),
        )
        await world.until(lambda: len(events) == len(before[0]))
        assert events == list(range(1, len(before[0]) + 1))

    exchange_world(body)


def test_a_rotation_that_fails_is_told_and_tried_again_and_stops_no_trading(exchange_world, order, monkeypatch):
    """The archive is locked by a program that copies it, say: what was to be moved stays where it is."""
    monkeypatch.setattr(journal_care, "ROTATE_FIRST_S", 0.001)
    monkeypatch.setattr(journal_care, "ROTATE_EVERY_S", 0.001)

    async def body(world, venue):
        tries = []

        def fail(rotation, now_ns, folded):
            tries.append(now_ns)
            raise JournalError("main.db: database is locked; another program holds it; close that program")

        with monkeypatch.context() as held:
            held.setattr(Rotation, "copy", fail)
            running = await world.exchange(journal={"keep_days": 1})
            await world.until(lambda: len(tries) > 2)
            assert isinstance(await ask(world, order()), Accepted)
            await world.until(lambda: running.actor.core.order("e-1").state is OrderState.OPEN)
        assert running.actor.metrics.counters["journal_rotations_failed"] >= 2
        assert not running.ended

    (said, *_) = [line for line in exchange_world(body) if line["event"] == "the journal was not rotated"]
    assert "another program holds it" in said["error"]


def test_a_damaged_journal_keeps_its_account_from_trading(exchange_world):
    async def body(world, venue):
        running = await world.exchange()
        await running.stop()
        path = running.actor.journal.path
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = b"\x07" * (len(content) - len(content) // 2)
        path.write_bytes(content)
        with pytest.raises(JournalError, match=r"box\.main\.db"):
            await world.exchange()
        assert venue.count("place") == 0

    exchange_world(body)


def test_a_journal_that_another_program_locks_ends_the_actor_and_what_left_is_known(exchange_world, order):
    async def body(world, venue):
        running = await world.exchange()
        running.actor.journal._connection.execute("PRAGMA busy_timeout=10")
        other = sqlite3.connect(running.actor.journal.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        bus = await world.bus("strategy.maker")
        answer = asyncio.create_task(ask(world, order("e-1"), bus=bus))
        try:
            assert await running.code() == 1
            await asyncio.gather(answer, return_exceptions=True)
            assert "another program holds it" in str(running.actor.context.failed.result())
            path = running.actor.journal.path
            running.actor.journal.abandon()
            with pytest.raises(JournalError, match="another program holds it"):
                Journal(path, "box", "main", world.clock)
        finally:
            other.close()
        with Journal(path, "box", "main", world.clock) as journal:
            assert [known.client_order_id for known in journal.orders()] == venue.asked("place")

    exchange_world(body)


# --------------------------------------------------------------------------------------------------------- balances


def broke(venue, usdt):
    venue.balance = {"USDT": Balance(total=Decimal(usdt), available=Decimal(usdt))}


def test_what_the_account_surely_cannot_pay_is_refused_and_never_sent(exchange_world, order):
    async def body(world, venue):
        broke(venue, "150")
        running = await world.exchange()
        await world.until(lambda: venue.stream.readers > 0)
        venue.subscribed()
        await world.until(lambda: running.actor.reconciler.stream_up)
        bus = await world.bus("strategy.maker")
        assert isinstance(await ask(world, order("e-1"), bus=bus), Accepted)
        refused = await ask(world, order("e-2"), bus=bus)
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.INSUFFICIENT_BALANCE
        assert "USDT" in refused.detail
        assert venue.asked("place") == ["e-1"]

    exchange_world(body)


@pytest.mark.parametrize("params", [{"check_balance": False}, {}])
def test_without_the_check_or_the_stream_the_venue_decides(exchange_world, order, params):
    async def body(world, venue):
        broke(venue, "1")
        running = await world.exchange(**params)
        if not params:
            venue.unsubscribed()
            await world.until(lambda: not running.actor.reconciler.stream_up)
        assert isinstance(await ask(world, order("e-1")), Accepted)

    exchange_world(body)


def test_a_balance_limit_is_shown_and_holds(exchange_world, order):
    async def body(world, venue):
        running = await world.exchange(balance_limits={"USDT": "150"})
        await world.until(lambda: venue.stream.readers > 0)
        venue.subscribed()
        await world.until(lambda: running.actor.reconciler.stream_up and running.actor.shown.known)
        bus = await world.bus("strategy.maker")
        assert (await ask(world, GetAccount(), bus=bus)).balances["USDT"].available == 150
        assert isinstance(await ask(world, order("e-1"), bus=bus), Accepted)
        assert (await ask(world, GetAccount(), bus=bus)).balances["USDT"].available == 50
        refused = await ask(world, order("e-2"), bus=bus)
        assert isinstance(refused, Refused)
        assert refused.reason is Reason.INSUFFICIENT_BALANCE

    exchange_world(body)
