"""The risk actor beside a real exchange actor: what it counts, when it judges, and whom it halts."""

from decimal import Decimal

import msgspec
import pytest

from engine.actors import risk as module
from engine.actors.risk import DAY_NS, RiskActor
from engine.book import BookWriter, OrderBook, SyncState
from engine.clock import WallClock
from engine.errors import RemoteError
from engine.messages import Accepted, OrderEventKind, Reason, Refused, SetTrading, TradingSet
from engine.orders.halt import read_trading
from engine.orders.risk import TradingState

NAME = "exchange.box.main"
D = Decimal


class SteppedClock(WallClock):
    """A host's clocks whose wall time somebody sets."""

    def __init__(self):
        self.stepped_ns = 0

    def time_ns(self):
        return super().time_ns() + self.stepped_ns


class Book:
    """A book in shared memory, in the test's hand."""

    def __init__(self, world, pair="BTC-USDT"):
        self.clock = world.clock
        self.pair = pair
        (world.folder / "shm").mkdir(exist_ok=True)
        self.writer = BookWriter(world.folder / "shm" / f"box.{pair}.book", pair, -2, -4)
        self.updates = 0

    def mid(self, price):
        book = OrderBook(self.pair, -2, -4)
        book.apply_snapshot([(str(price - 1), "1")], [(str(price + 1), "1")])
        self.updates += 1
        self.writer.publish(book, self.updates, 0, self.clock.monotonic_ns(), SyncState.SYNCED)
        self.writer.heartbeat(self.clock.monotonic_ns())

    def lost(self):
        self.writer.set_state(SyncState.UNSYNCED)

    def close(self):
        self.writer.close(unlink=True)


async def traded(world, venue, order, *names):
    """Orders filled at 100, and who placed them."""
    bus = await world.bus("strategy.maker")
    kinds = []
    bus.subscribe(NAME, "orders", lambda event, number: kinds.append(event.kind))
    for name in names:
        assert isinstance(await bus.request(NAME, order(name), timeout=3.0), Accepted)
        await world.until(lambda made=name: made in venue.orders)
        venue.trade(name, "1")
    await world.until(lambda: kinds.count(OrderEventKind.COMPLETED) == len(names))
    return bus


async def restarted(world, running, **params):
    """The next life of the exchange actor."""
    await running.kill()
    return await world.exchange(**params)


async def watch(world, clock=None, max_loss="15", pairs=("BTC-USDT",)):
    accounts = [{"exchange": NAME, "connector": "box", "pairs": list(pairs)}]
    params = {
        "risk": {"accounts": accounts, "max_loss": {"USDT": max_loss}, "stale_after_ns": 3_600_000_000_000},
    }
    return await world.start(RiskActor, "risk", params=params, clock=clock)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "JUDGE_S", 0.002)
    monkeypatch.setattr(module, "RETRY_S", 0.01)


def test_a_loss_halts_every_account_with_no_tick_of_a_clock(exchange_world, order, quick):
    """The clock actor is dead, or waits for a wall clock that stepped back: the kill switch works all the same."""

    async def body(world, venue):
        running, book = await world.exchange(), Book(world)
        book.mid(100)
        bus = await traded(world, venue, order, "e-1")
        risk = await watch(world)
        await world.until(lambda: risk.actor.takings[NAME].fills == 1)
        assert risk.actor.trading.state is TradingState.ACTIVE
        book.mid(80)
        await world.until(lambda: running.actor.gate.state is TradingState.HALTED)
        assert read_trading(world.folder / "state").state is TradingState.HALTED
        refused = await bus.request(NAME, order("e-2"), timeout=3.0)
        assert isinstance(refused, Refused)
        assert (refused.reason, "limit is 15" in refused.detail) == (Reason.HALTED, True)
        book.close()

    exchange_world(body)


def test_the_days_fills_are_asked_for_some_at_a_time(exchange_world, order, quick, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)

    async def body(world, venue):
        await world.exchange()
        names = [f"e-{index}" for index in range(5)]
        await traded(world, venue, order, *names)
        risk = await watch(world)
        await world.until(lambda: risk.actor.takings[NAME].fills == 5)
        assert risk.actor.takings[NAME].position("BTC-USDT") == 5

    exchange_world(body)


@pytest.mark.parametrize("days", [1, -1])
def test_a_wall_clock_that_steps_over_midnight_and_back_loses_no_loss(exchange_world, order, quick, days):
    async def body(world, venue):
        await world.exchange()
        await traded(world, venue, order, "e-1")
        clock = SteppedClock()
        risk = await watch(world, clock)
        await world.until(lambda: risk.actor.takings[NAME].fills == 1)
        today = risk.actor._day
        clock.stepped_ns = days * DAY_NS
        await world.until(lambda: risk.actor._day == today + days)
        clock.stepped_ns = 0
        await world.until(lambda: risk.actor._day == today and risk.actor.takings[NAME].fills == 1)

    exchange_world(body)


def test_a_days_loss_does_not_go_away_with_its_book(exchange_world, order):
    async def body(world, venue):
        book = Book(world)
        book.mid(100)
        running = await world.exchange(risk={"max_daily_loss": {"USDT": "15"}}, stale_after_ns=3_600_000_000_000)
        bus = await traded(world, venue, order, "e-1")
        book.mid(80)
        assert (await bus.request(NAME, order("e-2"), timeout=3.0)).reason is Reason.DAILY_LOSS
        book.lost()
        assert running.actor.exposure.mid("BTC-USDT") is None
        assert (await bus.request(NAME, order("e-3"), timeout=3.0)).reason is Reason.DAILY_LOSS
        book.close()

    exchange_world(body)


def test_a_days_loss_does_not_go_away_with_a_restart_while_no_book_is_there(exchange_world, order):
    """What is held counts with the price of the newest fill."""
    risk = {"risk": {"max_daily_loss": {"USDT": "15"}}, "stale_after_ns": 3_600_000_000_000}

    async def body(world, venue):
        book = Book(world)
        book.mid(100)
        running = await world.exchange(**risk)
        bus = await traded(world, venue, order, "e-1")
        await bus.request(NAME, order("e-2", price="75"), timeout=3.0)
        await world.until(lambda: venue.open)
        venue.trade("e-2", "0.1", price="75")
        await world.until(lambda: running.actor.exposure.view("BTC-USDT").position == Decimal("1.1"))
        book.lost()
        await running.kill()
        actor = (await world.exchange(**risk)).actor
        await world.until(lambda: not actor._lacks)
        assert actor.exposure.mid("BTC-USDT") is None
        assert actor.exposure.view("BTC-USDT").daily_loss["USDT"] > 25
        assert (await bus.request(NAME, order("e-3"), timeout=3.0)).reason is Reason.DAILY_LOSS
        book.close()

    exchange_world(body)


def test_fees_in_an_asset_of_their_own_count_as_losses_of_the_day(exchange_world, order, quick):
    """Binance takes BNB: as long as a book of it is followed, a day of fees alone reaches a limit."""

    async def body(world, venue):
        venue.pairs = ("BTC-USDT", "BNB-USDT")
        venue.rules["BNB-USDT"] = msgspec.structs.replace(world.rule, pair="BNB-USDT", symbol="BNBUSDT", base="BNB")
        book, of_fees = Book(world), Book(world, "BNB-USDT")
        book.mid(100)
        running = await world.exchange(risk={"max_daily_loss": {"USDT": "15"}}, stale_after_ns=3_600_000_000_000)
        bus = await world.bus("strategy.maker")
        await bus.request(NAME, order("e-1"), timeout=3.0)
        await world.until(lambda: "e-1" in venue.orders)
        venue.trade("e-1", "1", fee="0.03 BNB")
        await world.until(lambda: not running.actor.core.open_orders())
        assert isinstance(await bus.request(NAME, order("e-2"), timeout=3.0), Accepted)
        of_fees.mid(600)
        assert (await bus.request(NAME, order("e-3"), timeout=3.0)).reason is Reason.DAILY_LOSS
        risk = await watch(world, pairs=["BTC-USDT", "BNB-USDT"])
        await world.until(lambda: risk.actor.trading.state is TradingState.HALTED)
        assert "18.00 USDT" in risk.actor.trading.reason
        book.close()
        of_fees.close()

    exchange_world(body)


def test_what_is_learned_today_of_yesterdays_trading_is_no_loss_of_today(exchange_world, order):
    """A fill of before midnight that comes after it: in the position, and in the loss of the day that it was made on,
    in this life of the actor as in the next.
    """

    async def body(world, venue):
        book = Book(world)
        book.mid(80)
        limits = {"max_daily_loss": {"USDT": "15"}, "max_position": {"BTC-USDT": "2"}}
        running = await world.exchange(risk=limits, stale_after_ns=3_600_000_000_000)
        bus = await world.bus("strategy.maker")
        await bus.request(NAME, order("e-1"), timeout=3.0)
        await world.until(lambda: "e-1" in venue.orders)
        venue.trade("e-1", "1", time_ns=venue.clock.time_ns() - DAY_NS)
        await world.until(lambda: not running.actor.core.open_orders())
        for life in (running, await restarted(world, running, risk=limits, stale_after_ns=3_600_000_000_000)):
            seen = life.actor.exposure.view("BTC-USDT")
            assert (seen.position, seen.daily_loss.get("USDT", 0)) == (1, 0)
        assert isinstance(await bus.request(NAME, order("e-2"), timeout=3.0), Accepted)
        assert (await bus.request(NAME, order("e-3"), timeout=3.0)).reason is Reason.POSITION_LIMIT
        book.close()

    exchange_world(body)


@pytest.mark.parametrize("ahead_h", [26, -26])
def test_days_are_the_venues_on_a_host_whose_clock_is_a_day_off(exchange_world, order, ahead_h):
    async def body(world, venue):
        venue.time.lead_ns = -ahead_h * 3600 * 10**9
        book = Book(world)
        book.mid(80)
        limits = {"max_daily_loss": {"USDT": "15"}}
        running = await world.exchange(risk=limits, stale_after_ns=3_600_000_000_000)
        bus = await world.bus("strategy.maker")
        await bus.request(NAME, order("e-1"), timeout=3.0)
        await world.until(lambda: "e-1" in venue.orders)
        venue.trade("e-1", "1", time_ns=venue.time.now_ns())
        await world.until(lambda: not running.actor.core.open_orders())
        await restarted(world, running, risk=limits, stale_after_ns=3_600_000_000_000)
        assert (await bus.request(NAME, order("e-2"), timeout=3.0)).reason is Reason.DAILY_LOSS
        book.close()

    exchange_world(body)


def test_an_order_rate_is_counted_by_a_clock_that_never_steps(exchange_world, order):
    """The venue's time is found anew an hour earlier: what was let out before does not hold orders back for an hour."""

    async def body(world, venue):
        await world.exchange(risk={"max_orders_per_second": 1, "duplicate_window_s": 0.001})
        venue.time.lead_ns = 3600 * 10**9
        bus = await traded(world, venue, order, "e-1")
        venue.time.lead_ns = 0
        answers = []

        async def placed():
            answers.append(await bus.request(NAME, order(f"e-again-{len(answers)}"), timeout=3.0))
            return isinstance(answers[-1], Accepted)

        while not await placed():
            assert answers[-1].reason is Reason.ORDER_RATE

    exchange_world(body)


def test_nobody_but_the_risk_actor_ends_a_halt(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        risk, strategy = await world.bus("risk"), await world.bus("strategy.maker")
        halt = SetTrading(state="halted", reason="by hand")
        assert isinstance(await risk.request(NAME, halt, timeout=3.0), TradingSet)
        with pytest.raises(RemoteError, match="only the risk actor"):
            await strategy.request(NAME, SetTrading(state="active", reason=""), timeout=3.0)
        assert (await strategy.request(NAME, order(), timeout=3.0)).reason is Reason.HALTED
        assert venue.count("place") == 0

    exchange_world(body)


def test_a_disk_that_takes_nothing_stops_no_halt_and_no_halt_ends_by_it(exchange_world, order, quick):
    async def body(world, venue):
        running = await world.exchange()
        risk = await watch(world)
        caller = await world.bus("supervisor-of-mine")
        state = world.folder / "state"
        in_the_way = state / "trading.new"
        in_the_way.mkdir()
        halted = await caller.request("risk", SetTrading(state="halted", reason="by hand"), timeout=3.0)
        assert halted.ok
        assert (halted.data["acknowledged"], halted.data["missing"]) == ([NAME], [])
        assert "cannot be written" in halted.data["not_saved"]
        assert running.actor.gate.state is TradingState.HALTED
        assert read_trading(state).state is TradingState.ACTIVE
        with pytest.raises(RemoteError, match="cannot be written"):
            await caller.request("risk", SetTrading(state="active", reason=""), timeout=3.0)
        assert (running.actor.gate.state, risk.actor.trading.state) == (TradingState.HALTED, TradingState.HALTED)
        in_the_way.rmdir()
        await world.until(lambda: read_trading(state).state is TradingState.HALTED)
        resumed = await caller.request("risk", SetTrading(state="active", reason=""), timeout=3.0)
        assert (resumed.data["not_saved"], resumed.data["missing"]) == ("", [])
        assert running.actor.gate.state is TradingState.ACTIVE

    exchange_world(body)


def test_an_order_that_was_refused_for_something_else_is_no_duplicate_and_counts_for_no_rate(exchange_world, order):
    """Nothing of it was sent, so that nothing is repeated."""

    async def body(world, venue):
        await world.exchange(risk={"duplicate_window_s": 3600, "max_orders_per_second": 1})
        bus = await world.bus("strategy.maker")
        refused = await bus.request(NAME, order("e-1", size="1.00001"), timeout=3.0)
        assert refused.reason is Reason.OFF_INCREMENT
        again = await bus.request(NAME, order("e-2", size="1.00001"), timeout=3.0)
        assert again.reason is Reason.OFF_INCREMENT
        assert isinstance(await bus.request(NAME, order("e-3"), timeout=3.0), Accepted)
        assert (await bus.request(NAME, order("e-4"), timeout=3.0)).reason is Reason.ORDER_RATE

    exchange_world(body)
