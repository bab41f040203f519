"""The strategy actor, with strategies of the test's making."""

import asyncio
import copy
import sys
import types
from decimal import Decimal

import pytest

from engine.actors import account_link
from engine.actors.strategy import StrategyActor
from engine.book import BookWriter, OrderBook, SyncState
from engine.bus import Overload
from engine.errors import ConfigError, StrategyError
from engine.messages import (
    BEATS,
    ActorStopping,
    BooksBeat,
    BookUpdated,
    OrderEventKind,
    OrderState,
    OrderType,
    Side,
    Trade,
)
from engine.orders.strategy_postgres import SharedStrategyStore
from engine.strategies import Strategy
from engine.strategies.loading import load_strategy

MODULE = "strategies_of_the_test"
PAIR = "box/BTC-USDT"
EXCHANGE = "exchange.box.main"
BOOKS = "order_book.box.0"


class Diary(Strategy):
    """Writes down everything that it is given, and keeps the numbers of its events in its state."""

    lives: list = []  # noqa: RUF012 - of one test, oldest first

    def on_load(self):
        self.lives.append(self)
        self.told = [("load", copy.deepcopy(self.state))]
        self.state.setdefault("numbers", [])

    def on_start(self):
        self.told.append(("start", len(self.open_orders())))

    def on_stop(self):
        self.told.append(("stop", None))

    def on_tick(self, tick):
        self.told.append(("tick", tick.n))

    def on_book(self, pair):
        self.told.append(("book", pair))

    def on_trade(self, trade):
        self.told.append(("trade", trade.trade_id))

    def on_order(self, event):
        self.told.append((event.kind.value, event.number))
        self.state["numbers"].append(event.number)
        if self.params.get("checkpoints", True):
            self.checkpoint()

    def of(self, *kinds):
        return [what for kind, what in self.told if kind in kinds]


ENDS = {"exit": SystemExit, "interrupt": KeyboardInterrupt, "cancel": asyncio.CancelledError}


class Dazed(Diary):
    """Raises where its params say, ``after`` so many calls."""

    def _raise(self, where):
        self.calls = getattr(self, "calls", 0) + (self.params["where"] == where)
        if self.params["where"] == where and self.calls > self.params.get("after", 0):
            raise ENDS.get(self.params.get("end"), ZeroDivisionError)(where)

    def on_load(self):
        super().on_load()
        self._raise("load")

    def on_start(self):
        super().on_start()
        self._raise("start")

    def on_tick(self, tick):
        super().on_tick(tick)
        self._raise("tick")

    def on_book(self, pair):
        super().on_book(pair)
        self._raise("book")

    def on_trade(self, trade):
        super().on_trade(trade)
        self._raise("trade")

    def on_order(self, event):
        super().on_order(event)
        self._raise("order")

    def on_stop(self):
        super().on_stop()
        self._raise("stop")


class EarlySaver(Diary):
    """Saves its state before it knows its accounts."""

    def on_load(self):
        super().on_load()
        self.state["loads"] = self.state.get("loads", 0) + 1
        self.checkpoint()


class NoStrategy:
    pass


class Later(Diary):
    async def on_book(self, pair):
        pass


@pytest.fixture
def strategy_world(exchange_world, monkeypatch):
    """``strategy_world(body)``: ``await body(world, venue)``, with ``world.strategy(Class)`` for a strategy's actor."""
    module = types.ModuleType(MODULE)
    module.__dict__.update(Diary=Diary, Dazed=Dazed, EarlySaver=EarlySaver, NoStrategy=NoStrategy, Later=Later)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(Diary, "lives", [])
    monkeypatch.setattr(account_link, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(account_link, "RETRY_S", 0.005)

    def go(body):
        async def main(world, venue):
            async def strategy(
                kind, *, exchange=EXCHANGE, pairs=(PAIR,), wait=True, checkpoint=None, at=world, **params
            ):
                settings = {
                    "checkpoint": checkpoint,
                    "name": "maker",
                    "strategy": f"{MODULE}:{kind.__name__}",
                    "pairs": list(pairs),
                    "markets": {"box": {"order_book": BOOKS, "exchange": exchange}},
                    "id_prefix": "e-",
                    "params": params,
                    "stale_after_ns": 10**12,
                }
                running = await at.start(StrategyActor, "strategy.maker", params={"strategy": settings})
                if wait:
                    await world.until(lambda: running.actor._running or running.ended)
                return running

            world.strategy = strategy
            await body(world, venue)

        return exchange_world(main)

    return go


async def market(world):
    """The order-book actor's streams, in the test's hand: ``book(pair)`` and ``trade(id)``."""
    bus = await world.bus(BOOKS)
    books = bus.open_stream("book", overload=Overload.MERGE)
    trades = bus.open_stream("trade", overload=Overload.SKIP)

    def book(pair="BTC-USDT"):
        now = world.clock.monotonic_ns()
        books.publish(BookUpdated(connector="box", pair=pair, update_id=1, received_mono_ns=now), key=pair)

    def trade(trade_id, pair="BTC-USDT"):
        trades.publish(
            Trade(
                connector="box",
                pair=pair,
                trade_id=trade_id,
                price=Decimal(1),
                size=Decimal(1),
                side=Side.BUY,
                time_ns=1,
                received_mono_ns=1,
            ),
            key=pair,
        )

    book.stream, trade.stream = books, trades
    return book, trade


def placed(strategy, price="100"):
    return strategy.buy(PAIR, "1", price)


def test_a_strategy_is_loaded_then_started_and_stopped_once(strategy_world):
    async def body(world, venue):
        supervisor = await world.supervisor()
        await world.exchange()
        running = await world.strategy(Diary)
        assert await running.stop() == 0
        assert Diary.lives[0].told == [("load", {}), ("start", 0), ("stop", None)]
        assert supervisor.of(ActorStopping)[0].error == ""

    strategy_world(body)


def test_a_strategy_is_stopped_before_it_started(strategy_world):
    async def body(world, venue):
        running = await world.strategy(Diary, wait=False)
        assert await running.stop() == 0
        assert Diary.lives[0].told == [("load", {})]

    strategy_world(body)


def test_a_strategy_without_an_account_starts_at_once(strategy_world):
    async def body(world, venue):
        running = await world.strategy(Diary, exchange="")
        (diary,) = Diary.lives
        assert diary.told == [("load", {}), ("start", 0)]
        for call in (lambda: placed(diary), lambda: diary.balance(PAIR, "BTC"), lambda: diary.ready(PAIR)):
            with pytest.raises(ConfigError, match="not among"):
                call()
        assert running.actor.metrics.counters.get("orders_sent") is None

    strategy_world(body)


def test_the_events_since_the_checkpoint_come_before_the_start_and_each_is_folded_once(strategy_world):
    async def body(world, venue):
        await world.exchange()
        for life in range(3):
            running = await world.strategy(Diary)
            diary = Diary.lives[-1]
            name = placed(diary)
            await world.until(lambda d=diary: "created" in [kind for kind, _ in d.told[d.told.index(("start", 0)) :]])
            venue.trade(name, "0.5")
            await world.until(lambda life=life, d=diary: len(d.state["numbers"]) == 4 * life + 2)
            await running.kill()
            venue.trade(name, "0.5")
        running = await world.strategy(Diary)
        last = Diary.lives[-1]
        assert last.state["numbers"] == list(range(1, 13))
        kinds = [kind for kind, _ in last.told]
        assert kinds == ["load", "fill", "completed", "start"]
        assert last.told[0][1]["numbers"] == list(range(1, 11))

    strategy_world(body)


def test_a_strategy_that_may_move_finds_its_checkpoint_in_the_database(strategy_world, database):
    async def body(world, venue):
        await world.exchange()
        where = {"address": database, "schema": "strategy.test.maker"}
        for life in range(3):
            running = await world.strategy(Diary, checkpoint=where)
            diary = Diary.lives[-1]
            name = placed(diary)
            await world.until(lambda d=diary: "created" in [kind for kind, _ in d.told[d.told.index(("start", 0)) :]])
            venue.trade(name, "0.5")
            await world.until(lambda life=life, d=diary: len(d.state["numbers"]) == 4 * life + 2)
            if life:
                await running.kill()
            else:
                assert await running.stop() == 0
            venue.trade(name, "0.5")
        await world.strategy(Diary, checkpoint=where)
        assert Diary.lives[-1].state["numbers"] == list(range(1, 13))
        assert not (world.folder / "state" / "strategies").exists()
        assert Diary.lives[1].told[0] == ("load", {"numbers": [1, 2]})

    strategy_world(body)


def test_a_strategy_ends_when_a_later_life_of_it_has_begun_elsewhere(strategy_world, database):
    async def body(world, venue):
        where = {"address": database, "schema": "strategy.test.maker"}
        running = await world.strategy(Diary, exchange="", checkpoint=where)
        later = SharedStrategyStore(database, where["schema"], running.actor.context.incarnation + 1)
        await later.begin()
        await later.close()
        Diary.lives[-1].checkpoint()
        assert await running.code() == 1

    strategy_world(body)


def test_without_a_checkpoint_a_restart_begins_with_what_is_open(strategy_world):
    async def body(world, venue):
        await world.exchange()
        running = await world.strategy(Diary, checkpoints=False)
        name = placed(Diary.lives[-1])
        await world.until(lambda: Diary.lives[-1].of("created"))
        await running.kill()
        venue.trade(name, "0.25")
        await world.strategy(Diary, checkpoints=False)
        last = Diary.lives[-1]
        await world.until(lambda: [o.filled for o in last.open_orders()] == [Decimal("0.25")])
        assert last.told[0] == ("load", {})
        assert ("start", 1) in last.told

    strategy_world(body)


def test_a_checkpoint_while_loading_keeps_the_place_in_the_accounts_events(strategy_world):
    async def body(world, venue):
        await world.exchange()
        first = await world.strategy(EarlySaver)
        name = placed(Diary.lives[-1])
        await world.until(lambda: Diary.lives[-1].state["numbers"] == [1])
        await first.kill()
        venue.trade(name, "1")
        world.network.stall("strategy.maker")
        second = await world.strategy(EarlySaver, wait=False)
        await second.kill()
        world.network.resume("strategy.maker")
        await world.strategy(EarlySaver)
        assert Diary.lives[-1].state == {"numbers": [1, 2, 3], "loads": 3}

    strategy_world(body)


def test_ticks_books_and_trades_come_once_it_runs(strategy_world):
    async def body(world, venue):
        tick, ticks = await world.clock_stream()
        book, trade = await market(world)
        running = await world.strategy(Diary, wait=False)
        (diary,) = Diary.lives
        await world.until(lambda: ticks.readers and book.stream.readers and trade.stream.readers)
        tick(1)
        book()
        trade("1")
        await world.until(lambda: running.actor.metrics.counters.get("ticks") == 1)
        await world.exchange()
        await world.until(lambda: running.actor._running)
        tick(2)
        book()
        trade("2")
        await world.until(lambda: diary.of("tick") and diary.of("book") and diary.of("trade"))
        assert (diary.of("tick"), diary.of("book"), diary.of("trade")) == ([2], [PAIR], ["2"])

    strategy_world(body)


def test_a_beat_is_no_change_of_a_book(strategy_world):
    async def body(world, venue):
        book, _ = await market(world)
        await world.exchange()
        running = await world.strategy(Diary)
        (diary,) = Diary.lives
        await world.until(lambda: book.stream.readers)
        for _ in range(3):
            book.stream.publish(BooksBeat(mono_ns=1), key=BEATS)
        book()
        await world.until(lambda: diary.of("book"))
        assert diary.of("book") == [PAIR]
        assert running.actor.metrics.histograms["frame_to_strategy_ns"].count == 1

    strategy_world(body)


def test_changes_of_a_book_are_merged_and_pairs_are_told_apart(strategy_world):
    async def body(world, venue):
        book, _ = await market(world)
        other = "box/ETH-USDT"
        await world.exchange()
        running = await world.strategy(Diary, pairs=(PAIR, other))
        (diary,) = Diary.lives
        await world.until(lambda: book.stream.readers)
        for _ in range(50):
            book("BTC-USDT")
            book("ETH-USDT")
            book("SOL-USDT")
        await world.until(lambda: set(diary.of("book")) == {PAIR, other})
        assert len(diary.of("book")) < 20
        assert running.actor.metrics.histograms["frame_to_strategy_ns"].count == len(diary.of("book"))

    strategy_world(body)


def test_orders_are_sent_rounded_and_counted(strategy_world):
    async def body(world, venue):
        await world.exchange()
        running = await world.strategy(Diary)
        (diary,) = Diary.lives
        name = diary.sell(PAIR, "1.00009", "100.019", OrderType.LIMIT_MAKER)
        (order,) = diary.open_orders(PAIR)
        assert (order.client_order_id, order.state) == (name, OrderState.PENDING_CREATE)
        assert (order.side, order.size, order.price) == (Side.SELL, Decimal("1.0000"), Decimal("100.01"))
        await world.until(lambda: diary.of("created"))
        assert venue.orders[name].order_type is OrderType.LIMIT_MAKER
        diary.cancel(name)
        await world.until(lambda: diary.of("cancelled"))
        diary.cancel(name)
        diary.cancel("never was")
        assert diary.open_orders() == []
        assert running.actor.metrics.counters["orders_sent"] == 1
        assert name.startswith("e-")

    strategy_world(body)


def test_what_the_account_says_is_at_hand(strategy_world):
    async def body(world, venue):
        exchange = await world.exchange()
        await world.strategy(Diary)
        (diary,) = Diary.lives
        await world.until(lambda: diary.ready(PAIR))
        assert diary.rule(PAIR) == world.rule
        assert diary.balance(PAIR, "BTC").total == 10
        assert diary.balance(PAIR, "XXX").total == 0
        assert abs(diary.now_ns - world.clock.time_ns()) < 10**9
        await exchange.kill()
        await world.until(lambda: not diary.ready(PAIR))

    strategy_world(body)


def test_books_are_read_from_shared_memory(strategy_world, tmp_path):
    async def body(world, venue):
        await world.exchange()
        await world.strategy(Diary)
        (diary,) = Diary.lives
        assert not diary.book(PAIR).fresh
        assert diary.depth(PAIR) == ([], [])
        writer = BookWriter(tmp_path / "shm" / "box.BTC-USDT.book", "BTC-USDT", -2, -4)
        book = OrderBook("BTC-USDT", -2, -4)
        book.apply_snapshot([("100.00", "1"), ("99.00", "2")], [("101.00", "3")])
        now = world.clock.monotonic_ns()
        writer.publish(book, 7, 0, now, SyncState.SYNCED)
        writer.heartbeat(now)
        view = diary.book(PAIR)
        assert (view.fresh, view.bid, view.ask, view.mid, view.update_id) == (
            True,
            Decimal(100),
            Decimal(101),
            Decimal("100.5"),
            7,
        )
        bought = diary.fill(PAIR, Side.BUY, "0.5")
        assert (bought.size, bought.complete, bought.fresh) == (Decimal("0.5"), True, True)
        assert bought.cost == bought.worst * bought.size
        assert diary.fill_quote(PAIR, Side.BUY, bought.cost).size == Decimal("0.5")
        assert diary.volume(PAIR, Side.BUY, bought.worst).base >= bought.size
        assert diary.top(PAIR, 1).asks.shape == (1, 2)
        assert diary.book(PAIR).spread == diary.book(PAIR).ask - diary.book(PAIR).bid
        with pytest.raises(TypeError):
            diary.fill(PAIR, Side.BUY, 0.5)
        assert diary.depth(PAIR, 5) == (
            [(Decimal(100), Decimal(1)), (Decimal(99), Decimal(2))],
            [(Decimal(101), Decimal(3))],
        )
        writer.set_state(SyncState.BUFFERING)
        assert not diary.book(PAIR).fresh
        assert diary.depth(PAIR) == ([], [])
        writer.close(unlink=True)

    strategy_world(body)


def test_floats_and_pairs_that_are_not_its_own_are_refused(strategy_world):
    async def body(world, venue):
        await world.exchange()
        await world.strategy(Diary)
        (diary,) = Diary.lives
        with pytest.raises(TypeError, match="not the float"):
            diary.buy(PAIR, 0.1, "100")
        with pytest.raises(TypeError, match="not the float"):
            diary.buy(PAIR, "0.1", 100.0)
        for pair in ("box/ETH-USDT", "other/BTC-USDT", "BTC-USDT"):
            for call in (
                lambda pair=pair: diary.buy(pair, "1", "100"),
                lambda pair=pair: diary.book(pair),
                lambda pair=pair: diary.depth(pair),
                lambda pair=pair: diary.open_orders(pair),
                lambda pair=pair: diary.rule(pair),
            ):
                with pytest.raises(ConfigError, match=PAIR):
                    call()
        assert venue.count("place") == 0

    strategy_world(body)


@pytest.mark.parametrize("where", ["start", "tick", "book", "trade", "order"])
def test_an_error_in_a_handler_ends_the_actor_alone(strategy_world, where):
    async def body(world, venue):
        supervisor = await world.supervisor()
        tick, ticks = await world.clock_stream()
        book, trade = await market(world)
        exchange = await world.exchange()
        running = await world.strategy(Dazed, where=where)
        (dazed,) = Diary.lives
        if where != "start":
            await world.until(lambda: ticks.readers and book.stream.readers and trade.stream.readers)
            {"tick": lambda: tick(1), "book": book, "trade": lambda: trade("1"), "order": lambda: placed(dazed)}[
                where
            ]()
        assert await running.code() == 1
        assert where in supervisor.of(ActorStopping, "strategy.maker")[0].error
        assert dazed.of("stop") == []
        assert not exchange.ended

    strategy_world(body)


@pytest.mark.parametrize("end", sorted(ENDS))
@pytest.mark.parametrize("where", ["load", "start", "tick", "book"])
def test_what_would_end_more_than_the_strategy_ends_it_alone_and_is_named(strategy_world, where, end):
    async def body(world, venue):
        supervisor = await world.supervisor()
        tick, ticks = await world.clock_stream()
        book, _ = await market(world)
        await world.exchange()
        running = await world.strategy(Dazed, where=where, end=end, wait=where != "load")
        if where == "load":
            with pytest.raises(StrategyError, match="on_load raised "):
                await running.task
            return
        await world.until(lambda: running.ended or (ticks.readers and book.stream.readers))
        {"start": lambda: None, "tick": lambda: tick(1), "book": book}[where]()
        assert await running.code() == 1
        assert f"on_{where} raised {ENDS[end].__name__}" in supervisor.of(ActorStopping, "strategy.maker")[0].error

    strategy_world(body)


def test_an_error_while_starting_after_events_were_replayed_ends_the_actor(strategy_world):
    async def body(world, venue):
        supervisor = await world.supervisor()
        await world.exchange()
        first = await world.strategy(Diary)
        name = placed(Diary.lives[-1])
        await world.until(lambda: Diary.lives[-1].of("created"))
        await first.kill()
        venue.trade(name, "1")
        second = await world.strategy(Dazed, where="start")
        assert await second.code() == 1
        assert "start" in supervisor.of(ActorStopping, "strategy.maker")[-1].error

    strategy_world(body)


def test_an_error_while_loading_is_told(strategy_world):
    async def body(world, venue):
        running = await world.strategy(Dazed, where="load", wait=False)
        with pytest.raises(ZeroDivisionError):
            await running.task

    strategy_world(body)


def test_an_event_that_its_handler_did_not_survive_comes_again(strategy_world):
    async def body(world, venue):
        await world.exchange()
        first = await world.strategy(Dazed, where="order", after=1, checkpoints=False)
        dazed = Diary.lives[-1]
        dazed.checkpoint()
        placed(dazed)
        placed(dazed, "90")
        assert await first.code() == 1
        assert dazed.state["numbers"] == [1, 2]
        await world.strategy(Diary)
        assert Diary.lives[-1].state["numbers"] == [1, 2]
        assert [kind for kind, _ in Diary.lives[-1].told] == ["load", "created", "created", "start"]

    strategy_world(body)


def test_after_an_error_no_other_handler_is_called(strategy_world):
    async def body(world, venue):
        await world.exchange()
        running = await world.strategy(Dazed, where="order")
        (dazed,) = Diary.lives
        for price in ("100", "90", "80"):
            placed(dazed, price)
        assert await running.code() == 1
        assert dazed.of("created") == [1]

    strategy_world(body)


def test_a_refused_order_is_told_to_the_strategy(strategy_world):
    async def body(world, venue):
        await world.exchange()
        await world.strategy(Diary)
        (diary,) = Diary.lives
        diary.buy(PAIR, "0.0001", "1")
        await world.until(lambda: diary.of("failed"))
        assert (diary.of("failed"), diary.open_orders()) == ([0], [])
        assert OrderEventKind.FAILED.value == "failed"

    strategy_world(body)


def test_state_that_cannot_be_saved_ends_the_actor(strategy_world):
    async def body(world, venue):
        supervisor = await world.supervisor()
        await world.exchange()
        running = await world.strategy(Diary)
        (diary,) = Diary.lives
        diary.state["strange"] = object()
        placed(diary)
        assert await running.code() == 1
        assert "cannot be saved" in supervisor.of(ActorStopping, "strategy.maker")[0].error

    strategy_world(body)


def test_ids_differ_between_incarnations(strategy_world):
    async def body(world, venue):
        await world.exchange()
        names = []
        for _ in range(2):
            running = await world.strategy(Diary)
            await world.until(lambda: Diary.lives[-1].ready(PAIR))
            names += [placed(Diary.lives[-1], price) for price in ("100", "90")]
            await world.until(lambda: set(names) == set(venue.orders))  # noqa: B023
            await running.kill()
        assert len(set(names)) == 4
        assert names[0][:-11] == names[1][:-11] != names[2][:-11]

    strategy_world(body)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("no.such.module:Class", "there is no module no"),
        (f"{MODULE}:Nobody", "has no Nobody"),
        (f"{MODULE}:NoStrategy", "is no strategy"),
        (f"{MODULE}:Later", "on_book is async and would never run; write it as a plain function"),
        (MODULE, f"{MODULE} has no "),
    ],
)
def test_what_is_no_strategy_is_named(strategy_world, path, why):
    with pytest.raises(ConfigError, match=why):
        load_strategy(path)


def test_a_stop_while_orders_are_under_way_leaves_them_to_the_account(strategy_world):
    async def body(world, venue):
        exchange = await world.exchange()
        running = await world.strategy(Diary)
        held = asyncio.Event()
        venue.next("place", wait=held)
        placed(Diary.lives[-1])
        await world.until(lambda: venue.count("place"))
        assert await running.stop() == 0
        held.set()
        await world.until(lambda: [o.state for o in exchange.actor.core.open_orders()] == [OrderState.OPEN])

    strategy_world(body)
