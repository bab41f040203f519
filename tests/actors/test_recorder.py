"""The recorder: all that happens on an account, once, over any restart, at nobody's cost."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from engine.actors import recorder as recorder_module
from engine.actors.recorder import RecorderActor
from engine.bus import Overload
from engine.messages import (
    AccountSnapshot,
    Balance,
    BalanceEvent,
    ControlReply,
    Fill,
    GetAccount,
    Order,
    OrderEvent,
    OrderEventKind,
    OrderState,
    OrderType,
    Side,
    StreamPosition,
)
from engine.recorder_store import BalanceRow, Batch, FundingPayment, RecorderReader, RecorderStore

EXCHANGE = "exchange.box.main"
D = Decimal


class Journal:
    """An account's events, as its journal keeps them."""

    def __init__(self):
        self.events = []

    def first(self):
        return 1

    def last(self):
        return len(self.events)

    def since(self, number, limit):
        return [(event.number, msgspec.msgpack.encode(event)) for event in self.events[number : number + limit]]


class Account:
    """An exchange actor as the recorder sees it."""

    def __init__(self, bus, incarnation, journal=None):
        self.bus, self.incarnation = bus, incarnation
        self.journal = journal or Journal()
        self.held = {"USDT": Balance(total=D(100), available=D(90))}
        self.orders = bus.open_stream(
            "orders", overload=Overload.CLOSE, history=self.journal, incarnation=incarnation, queue=8
        )
        self.balances = bus.open_stream("balances", overload=Overload.MERGE)
        bus.serve(self._asked)

    def _asked(self, caller, message):
        if not isinstance(message, GetAccount):
            return ControlReply(ok=True)
        return AccountSnapshot(
            connector="box",
            account="main",
            incarnation=self.incarnation,
            number=self.journal.last(),
            orders=[],
            balances=self.held,
        )

    def fill(self, size="1", side=Side.BUY, pair="BTC-USDT"):
        number = self.journal.last() + 1
        fill = Fill(
            trade_id=f"t{number}",
            price=D(100),
            size=D(size),
            fee=D("0.1"),
            fee_asset="USDT",
            is_maker=True,
            time_ns=number,
        )
        order = Order(
            client_order_id=f"e-{number}",
            strategy="maker",
            pair=pair,
            side=side,
            order_type=OrderType.LIMIT,
            size=D(size),
            price=D(100),
            state=OrderState.FILLED,
            filled=D(size),
        )
        event = OrderEvent(
            number=number, connector="box", account="main", kind=OrderEventKind.FILL, order=order, fill=fill, time_ns=1
        )
        self.journal.events.append(event)
        self.orders.publish(event, number=number)

    def balance(self, asset, total, at=1):
        balance = Balance(total=D(total), available=D(total))
        self.held[asset] = balance
        event = BalanceEvent(connector="box", account="main", balances={asset: balance}, time_ns=at)
        self.balances.publish(event, key=asset)


def params(**settings):
    return {"recorder": {"exchanges": [EXCHANGE], "flush_s": 0.002, **settings}}


async def account(world, incarnation=7, journal=None):
    return Account(await world.bus(EXCHANGE), incarnation, journal)


def reader(world):
    return RecorderReader(world.folder / "state" / "recorder.db")


async def recorded(world, recorder, number):
    """Wait until an event is on disk."""
    await world.until(
        lambda: recorder.ended or recorder.actor.store.positions_reached().get(EXCHANGE, _NONE).number >= number
    )
    assert not recorder.ended


_NONE = StreamPosition(incarnation=0, number=0)


def test_everything_before_and_after_its_start_is_recorded_once(run):
    async def body(world):
        venue = await account(world)
        for _ in range(3):
            venue.fill()
        recorder = await world.start(RecorderActor, "recorder", params=params())
        await recorded(world, recorder, 3)
        venue.fill("0.5", Side.SELL)
        await recorded(world, recorder, 4)
        with reader(world) as found:
            assert {**found.counts(), "balances": 0} == {
                "orders": 4,
                "fills": 4,
                "positions": 4,
                "balances": 0,
                "funding_payments": 0,
            }
            assert [row["base"] for row in found.positions(0)] == ["2.5", "3", "2", "1"]
            (stands,) = found.positions()
            assert (stands["connector"], stands["account"], stands["pair"], stands["base"]) == (
                *("box", "main", "BTC-USDT"),
                "2.5",
            )

    run(body)


def test_a_killed_recorder_goes_on_after_the_last_event_that_it_wrote(run):
    async def body(world):
        venue = await account(world)
        venue.fill()
        recorder = await world.start(RecorderActor, "recorder", params=params())
        await recorded(world, recorder, 1)
        await recorder.kill()
        recorder.actor.abandon()
        for _ in range(5):
            venue.fill()
        recorder = await world.start(RecorderActor, "recorder", params=params())
        assert recorder.actor.reached[EXCHANGE] == StreamPosition(incarnation=7, number=1)
        await recorded(world, recorder, 6)
        with reader(world) as found:
            assert found.counts()["fills"] == 6
            assert found.positions()[0]["base"] == "6"

    run(body)


def test_a_polite_stop_writes_what_is_left(run):
    async def body(world):
        await world.supervisor()
        venue = await account(world)
        recorder = await world.start(RecorderActor, "recorder", params=params(flush_s=60))
        venue.fill()
        await world.until(lambda: recorder.actor.reached[EXCHANGE].number == 1)
        assert await recorder.stop() == 0
        with reader(world) as found:
            assert found.counts()["fills"] == 1

    run(body)


def test_one_that_is_behind_stops_listening_and_asks_the_journal_later(run):
    async def body(world):
        venue = await account(world)
        recorder = await world.start(RecorderActor, "recorder", params=params(most_waiting=10, flush_s=0.01))
        for _ in range(100):
            venue.fill()
            await asyncio.sleep(0)
        await recorded(world, recorder, 100)
        assert recorder.actor.metrics.counters["paused"] > 1
        with reader(world) as found:
            assert found.counts()["fills"] == 100
            assert [row["base"] for row in found.positions(0)] == [str(100 - index) for index in range(100)]

    run(body)


def test_a_journal_that_was_replaced_is_recorded_from_its_beginning(run):
    async def body(world):
        venue = await account(world)
        venue.fill("2")
        recorder = await world.start(RecorderActor, "recorder", params=params())
        await recorded(world, recorder, 1)
        await venue.bus.close()
        other = await account(world, incarnation=8)
        other.fill("3", pair="ETH-USDT")
        await world.until(
            lambda: recorder.actor.store.positions_reached()[EXCHANGE] == StreamPosition(incarnation=8, number=1)
        )
        with reader(world) as found:
            assert {row["pair"]: row["base"] for row in found.positions()} == {"BTC-USDT": "2", "ETH-USDT": "3"}

    run(body)


def test_balances_are_recorded_when_they_change_and_asked_for_when_nobody_listened(run, monkeypatch):
    monkeypatch.setattr(recorder_module, "RETRY_S", 0.005)

    async def body(world):
        venue = await account(world)
        recorder = await world.start(RecorderActor, "recorder", params=params())
        await world.until(lambda: _balances(world) == [("USDT", "100")])
        venue.balance("BTC", "1")
        await world.until(lambda: len(_balances(world)) == 2)
        venue.balance("BTC", "1")
        venue.balance("USDT", "50")
        await world.until(lambda: len(_balances(world)) == 3)
        assert _balances(world) == [("USDT", "50"), ("BTC", "1"), ("USDT", "100")]
        await recorder.kill()
        recorder.actor.abandon()
        venue.balance("USDT", "40")
        await world.start(RecorderActor, "recorder", params=params())
        await world.until(lambda: len(_balances(world)) == 4)
        assert _balances(world)[0] == ("USDT", "40")

    run(body)


def _balances(world):
    with reader(world) as found:
        return [(row["asset"], row["total"]) for row in found.balances(0)]


@pytest.fixture
def store(tmp_path):
    store = RecorderStore(tmp_path / "recorder.db")
    yield store
    store.close()


def test_two_funding_payments_of_one_instant_are_two_and_each_is_recorded_once(store, tmp_path):
    def payment(id_, pair="BTC-USDT"):
        return FundingPayment(
            connector="box",
            account="main",
            pair=pair,
            time_ns=5,
            payment_id=id_,
            rate=D("0.0001"),
            amount=D("-0.3"),
            asset="USDT",
        )

    store.write(Batch(funding=[payment("1"), payment("2"), payment("1", "ETH-USDT")]))
    store.write(Batch(funding=[payment("1")]))
    with RecorderReader(tmp_path / "recorder.db") as found:
        rows = found.funding()
        assert {(row["pair"], row["payment_id"]) for row in rows} == {
            ("BTC-USDT", "1"),
            ("BTC-USDT", "2"),
            ("ETH-USDT", "1"),
        }
        assert [row["amount"] for row in rows] == ["-0.3"] * 3


def test_a_batch_is_written_whole_or_not_at_all(store, tmp_path):
    held = Balance(total=D(1), available=D(1))
    row = BalanceRow(connector="box", account="main", asset="BTC", time_ns=1, balance=held)
    broken = msgspec.structs.replace(row, asset=None)
    with pytest.raises(Exception, match="NOT NULL"):
        store.write(Batch(balances=[row, broken]))
    with RecorderReader(tmp_path / "recorder.db") as found:
        assert found.balances(0) == []
