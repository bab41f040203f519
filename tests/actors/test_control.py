"""What commands ask of an engine, and what they are answered."""

import asyncio
from decimal import Decimal

import pytest

from engine.actors import control as module
from engine.errors import BusError
from engine.messages import (
    AccountSnapshot,
    ActorStats,
    AskStats,
    Balance,
    CancelAll,
    CancelAllResult,
    ControlReply,
    Fill,
    Fills,
    GetAccount,
    GetFills,
    GetOrders,
    Order,
    OrderFill,
    Orders,
    OrderState,
    OrderType,
    Side,
)

MARKET_MAKER = "engine.strategies.market_maker:MarketMaker"
EXTRA = {"name": "extra", "strategy": MARKET_MAKER, "pairs": ["binance/BTC-USDT"]}
TWO = {
    "venue": None,
    "venues": {"a": {"pairs": ["BTC-USDT"]}, "b": {"pairs": ["BTC-USDT"]}},
    "connectors": {
        "one": {"venue": "binance", "at": "a", "pairs": ["BTC-USDT"]},
        "two": {"venue": "binance", "at": "b", "pairs": ["BTC-USDT"]},
    },
    "strategies": {},
}
EXCHANGES = ("exchange.one.main", "exchange.two.main")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "ASK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(module, "CANCEL_TIMEOUT_S", 0.1)
    monkeypatch.setattr(module, "CANCEL_SLACK_S", 0.1)
    monkeypatch.setattr(module, "AGAIN_S", 0.02, raising=False)


def placed(name, created_ns):
    return Order(
        client_order_id=name,
        strategy="maker",
        pair="BTC-USDT",
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        size=Decimal("0.10"),
        price=Decimal(1),
        state=OrderState.OPEN,
        created_ns=created_ns,
    )


def filled(trade_id, time_ns):
    fill = Fill(
        trade_id=trade_id,
        price=Decimal(1),
        size=Decimal("0.10"),
        fee=Decimal(0),
        fee_asset="",
        is_maker=True,
        time_ns=time_ns,
    )
    return OrderFill(client_order_id="e-1", strategy="maker", pair="BTC-USDT", side=Side.BUY, fill=fill)


def each(one, two):
    return dict(zip(EXCHANGES, (one, two), strict=True))


def test_an_unknown_command_is_named(engine_world):
    async def body(world):
        engine = await world.engine()
        reply = await engine.ask("dance")
        assert (reply.ok, "'dance'" in reply.error) == (False, True)

    engine_world(body)


def test_status(engine_world):
    async def body(world):
        engine = await world.engine()
        reply = await engine.ask("status")
        assert reply.ok
        assert (reply.data["engine"], reply.data["runtime"]) == ("test", "local")
        assert reply.data["state_dir"] == str(engine.supervisor.paths.state)
        assert {row["name"] for row in reply.data["actors"]} >= {"supervisor", "clock", "strategy.maker"}

    engine_world(body)


def test_stop_is_answered_and_then_carried_out(engine_world):
    async def body(world):
        engine = await world.engine()
        reply = await engine.ask("stop")
        assert reply.ok
        assert (await engine.task)["ok"]

    engine_world(body)


def test_restart(engine_world):
    async def body(world):
        engine = await world.engine()
        before = engine.supervisor.observed.of("clock").pid
        reply = await engine.ask("restart", actor="clock")
        assert reply == ControlReply(ok=True, data={"actor": "clock", "pid_before": before})
        await world.until(lambda: engine.runtime.of("spawn").count("clock") == 2)
        for args in ({"actor": "nobody"}, {"actor": "supervisor"}):
            reply = await engine.ask("restart", **args)
            assert not reply.ok
            assert "strategy.maker" in reply.error
        assert not (await engine.ask("restart")).ok

    engine_world(body)


def test_attach_and_detach(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=[])}
        file = engine.supervisor.paths.state / "attached" / "extra.yml"
        reply = await engine.ask("attach", **EXTRA)
        assert reply.data["actor"] == "strategy.extra"
        await engine.all_run()
        assert file.exists()
        again = await engine.ask("attach", **EXTRA)
        assert (again.ok, "'extra' is running" in again.error) == (False, True)
        reply = await engine.ask("detach", name="extra")
        assert reply.data == {"strategy": "extra", "was_attached": True}
        assert not file.exists()
        assert "strategy.extra" not in engine.runtime.living()
        reply = await engine.ask("detach", name="maker")
        assert reply.data == {"strategy": "maker", "was_attached": False}
        assert (await engine.ask("attach", **{**EXTRA, "name": "maker"})).ok
        await engine.all_run()

    engine_world(body)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Not A Name"}, "name"),
        ({"pairs": []}, "pairs"),
        ({"pairs": ["binance/ETH-USDT"]}, "ETH-USDT"),
        ({"pairs": ["kraken/BTC-USDT"]}, "kraken"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_attached_leaves_nothing_behind(engine_world, changes, why):
    async def body(world):
        engine = await world.engine()
        reply = await engine.ask("attach", **{**EXTRA, **changes})
        assert not reply.ok
        assert why in reply.error
        assert "\n" not in reply.error
        assert not list(engine.supervisor.paths.state.glob("attached/*"))
        assert "extra" not in engine.supervisor.strategies

    engine_world(body)


def test_nothing_is_attached_while_the_engine_stops(engine_world):
    async def body(world):
        engine = await world.engine()
        hold = engine.runtime.holds["exchange.binance.main"] = asyncio.Event()
        engine.supervisor.stop("the end")
        await world.until(lambda: "exchange.binance.main" in engine.runtime.of("stop"))
        reply = await engine.ask("attach", **EXTRA)
        assert (reply.ok, "stop" in reply.error) == (False, True)
        assert not list(engine.supervisor.paths.state.glob("attached/*"))
        hold.set()
        await engine.task
        assert "strategy.extra" not in engine.runtime.of("spawn")

    engine_world(body)


def test_of_two_that_attach_one_name_at_once_one_is_refused(engine_world):
    """Whether the code can be had is asked of another host, which takes its time."""

    async def body(world):
        engine = await world.engine()
        asked, answer = [], asyncio.Event()

        async def cannot_load(path, place, cell):
            asked.append(path)
            await answer.wait()
            return ""

        engine.runtime.cannot_load = cannot_load
        params = [{"size": "1"}, {"size": "2"}]
        attaching = [asyncio.create_task(engine.ask("attach", **EXTRA, params=each)) for each in params]
        await world.until(lambda: len(asked) == 2)
        answer.set()
        first, second = await asyncio.gather(*attaching)
        assert (first.ok, second.ok, "is running" in second.error) == (True, False, True)
        await engine.all_run()
        (spec,) = [spec for spec in engine.runtime.specs if spec.name == "strategy.extra"]
        assert spec.params["strategy"]["params"] == params[0]

    engine_world(body)


def test_nothing_is_attached_where_the_engine_stops_while_its_code_is_looked_for(engine_world):
    async def body(world):
        engine = await world.engine()
        asked, answer = asyncio.Event(), asyncio.Event()

        async def cannot_load(path, place, cell):
            asked.set()
            await answer.wait()
            return ""

        engine.runtime.cannot_load = cannot_load
        attaching = asyncio.create_task(engine.ask("attach", **EXTRA))
        await asked.wait()
        engine.supervisor.stop("the end")
        answer.set()
        reply = await attaching
        assert (reply.ok, "stopping" in reply.error) == (False, True)
        assert not list(engine.supervisor.paths.state.glob("attached/*"))
        await engine.task

    engine_world(body)


@pytest.mark.parametrize("ending", ["stop", "detach"])
def test_what_is_ending_is_not_restarted(engine_world, ending):
    """It would come back, and whoever waits for its end would wait for ever."""

    async def body(world):
        engine = await world.engine()
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=[])}
        hold = engine.runtime.holds["strategy.maker"] = asyncio.Event()
        asked = asyncio.create_task(engine.ask(ending, **({"name": "maker"} if ending == "detach" else {})))
        await world.until(lambda: "strategy.maker" in engine.runtime.of("stop"))
        reply = await engine.ask("restart", actor="strategy.maker")
        hold.set()
        assert (reply.ok, ending in reply.error) == (False, True)
        assert (await asked).ok
        assert (await engine.stop())["ok"]
        assert engine.runtime.of("spawn").count("strategy.maker") == 1

    engine_world(body)


def test_a_strategy_is_detached_once(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=[])}
        hold = engine.runtime.holds["strategy.maker"] = asyncio.Event()
        first = asyncio.create_task(engine.ask("detach", name="maker"))
        await world.until(lambda: "strategy.maker" in engine.runtime.of("stop"))
        second = asyncio.create_task(engine.ask("detach", name="maker"))
        await asyncio.sleep(0.01)
        hold.set()
        assert (await first).ok
        reply = await second
        assert not reply.ok
        assert "detach" in reply.error or "no strategy" in reply.error
        reply = await engine.ask("detach", name="maker")
        assert reply.error == "there is no strategy 'maker'; running are: none"

    engine_world(body)


def test_orders_of_all_accounts_newest_first(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        asked = []

        def one(message):
            asked.append(message)
            return Orders(orders=[placed("e-3", 3), placed("e-1", 1)])

        engine.runtime.answers = {GetOrders: each(one, Orders(orders=[placed("e-2", 2)]))}
        engine.runtime.answers[GetOrders] = lambda message: one(message)
        reply = await engine.ask("orders", since_ns=1, open_only=True)
        assert asked == [GetOrders(since_ns=1, open_only=True)] * 2
        engine.runtime.answers = {
            GetOrders: each(Orders(orders=[placed("e-3", 3), placed("e-1", 1)]), Orders(orders=[placed("e-2", 2)]))
        }
        reply = await engine.ask("orders")
        assert [(row["client_order_id"], row["connector"]) for row in reply.data["rows"]] == [
            ("e-3", "one"),
            ("e-2", "two"),
            ("e-1", "one"),
        ]
        assert reply.data["rows"][0]["size"] == "0.10"

    engine_world(body)


def test_fills_of_all_accounts_newest_first(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        engine.runtime.answers = {
            GetFills: each(Fills(fills=[filled("3", 3), filled("1", 1)]), Fills(fills=[filled("2", 2)]))
        }
        reply = await engine.ask("fills", since_ns="0")
        assert [(row["fill"]["trade_id"], row["connector"]) for row in reply.data["rows"]] == [
            ("3", "one"),
            ("2", "two"),
            ("1", "one"),
        ]

    engine_world(body)


def test_balances_by_account(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)

        def snapshot(connector):
            return AccountSnapshot(
                connector=connector,
                account="main",
                incarnation=1,
                number=1,
                orders=[],
                balances={"BTC": Balance(total=Decimal("1.0"), available=Decimal("0.5"))},
            )

        engine.runtime.answers = {GetAccount: each(snapshot("one"), snapshot("two"))}
        reply = await engine.ask("balances")
        held = {"BTC": {"total": "1.0", "available": "0.5"}}
        assert reply.data == {"rows": {"one/main": held, "two/main": held}, "unanswered": {}}

    engine_world(body)


def test_cancel_all_over_all_accounts(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        engine.runtime.answers = {
            CancelAll: each(
                CancelAllResult(cancelled=["e-1"], failed={"e-2": "open"}),
                CancelAllResult(cancelled=["e-3"], ended={"e-4": "filled"}),
            )
        }
        reply = await engine.ask("cancel_all")
        assert reply.data == {
            "cancelled": ["e-1", "e-3"],
            "failed": {"e-2": "open"},
            "ended": {"e-4": "filled"},
            "unanswered": {},
        }

    engine_world(body)


@pytest.mark.parametrize(
    ("verb", "args"), [("cancel_all", {}), ("detach", {"name": "maker"}), ("halt", {}), ("resume", {})]
)
def test_after_a_command_the_status_shows_what_it_did(engine_world, verb, args):
    async def body(world):
        engine = await world.engine()
        name = "exchange.binance.main"
        row = {"connector": "binance", "client_order_id": "e-1", "strategy": "maker", "created_ns": 1}
        incarnation = next(spec.incarnation for spec in engine.runtime.specs if spec.name == name)
        before = ActorStats(actor=name, incarnation=incarnation, number=7, gauges={"open_orders": [row]})
        engine.supervisor.observed.stats(before)
        after = ActorStats(actor=name, incarnation=incarnation, number=8, gauges={"open_orders": []})
        other = ControlReply(ok=True)
        engine.runtime.answers = {
            CancelAll: CancelAllResult(cancelled=["e-1"]),
            AskStats: {name: after, "risk": other},
        }
        assert (await engine.ask("status")).data["open_orders"] == [row]
        assert (await engine.ask(verb, **args)).ok
        engine.supervisor.observed.stats(before)
        assert (await engine.ask("status")).data["open_orders"] == []

    engine_world(body)


def test_a_command_is_done_though_an_account_does_not_say_how_it_stands(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=["e-1"]), AskStats: BusError("cannot")}
        assert (await engine.ask("cancel_all")).data["cancelled"] == ["e-1"]

    engine_world(body)


def test_what_one_account_cancelled_is_told_though_another_does_not_answer(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        asked = []

        def answer(message):
            asked.append(message)
            if len(asked) == 1:
                return CancelAllResult(cancelled=["e-1"])
            raise BusError("cannot")

        engine.runtime.answers = {CancelAll: answer}
        reply = await engine.ask("cancel_all", within_s=0.1)
        assert reply.ok
        assert reply.data["cancelled"] == ["e-1"]
        ((name, why),) = reply.data["unanswered"].items()
        assert name in ("exchange.one.main", "exchange.two.main")
        assert name in why
        assert asked[0] == CancelAll(within_ns=100_000_000)

    engine_world(body)


@pytest.mark.parametrize("verb", ["orders", "fills", "balances"])
def test_an_account_that_does_not_answer_is_named_and_hides_no_other(engine_world, verb):
    async def body(world):
        engine = await world.engine(**TWO)
        here = AccountSnapshot(connector="one", account="main", incarnation=1, number=1, orders=[], balances={})
        answers = {GetOrders: Orders(orders=[placed("e-1", 1)]), GetFills: Fills(fills=[filled("1", 1)])}
        engine.runtime.answers = {
            query: each(answer, BusError("cannot")) for query, answer in {**answers, GetAccount: here}.items()
        }
        reply = await engine.ask(verb)
        assert list(reply.data["unanswered"]) == ["exchange.two.main"]
        assert "cannot" in reply.data["unanswered"]["exchange.two.main"]
        rows = reply.data["rows"]
        assert list(rows) == ["one/main"] if verb == "balances" else [row["connector"] for row in rows] == ["one"]

    engine_world(body)


def test_nothing_is_cancelled_where_no_account_answers(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        engine.runtime.answers = {CancelAll: BusError("cannot")}
        reply = await engine.ask("cancel_all")
        assert not reply.ok
        assert "exchange.one.main" in reply.error
        assert "exchange.two.main" in reply.error

    engine_world(body)


def test_an_account_that_answers_something_else_is_named(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        engine.runtime.answers = {GetOrders: each(Orders(orders=[]), Fills(fills=[]))}
        reply = await engine.ask("orders")
        assert reply.data == {"rows": [], "unanswered": {"exchange.two.main": "exchange.two.main answered with Fills"}}

    engine_world(body)


def test_an_account_that_was_given_up_is_not_waited_for(engine_world):
    async def body(world):
        engine = await world.engine(supervision={"budget": 0})
        engine.runtime.end("exchange.binance.main", code=1)
        reply = await engine.ask("orders")
        assert reply.data["unanswered"]["exchange.binance.main"] == (
            "exchange.binance.main is failed: see engine logs exchange.binance.main, "
            "then engine restart exchange.binance.main"
        )

    engine_world(body)


def test_a_strategy_that_cannot_be_kept_is_not_attached(engine_world, monkeypatch):
    def full(state_dir, strategy):
        raise OSError(28, "No space left on device", "/state/attached/x.new")

    async def body(world):
        engine = await world.engine()
        monkeypatch.setattr(module, "save_attached", full)
        reply = await engine.ask("attach", name="x", strategy=MARKET_MAKER, pairs=["binance/BTC-USDT"])
        assert (reply.ok, reply.error) == (False, "[Errno 28] No space left on device: '/state/attached/x.new'")
        assert "x" not in engine.supervisor.strategies

    engine_world(body)


def test_an_account_that_has_not_reached_its_venue_says_so(engine_world):
    async def body(world):
        engine = await world.engine(**TWO)
        engine.runtime.answers = {GetAccount: ControlReply(ok=False, error="not reached yet")}
        reply = await engine.ask("balances")
        assert reply.data == {"rows": {}, "unanswered": dict.fromkeys(EXCHANGES, "not reached yet")}

    engine_world(body)


@pytest.mark.parametrize("args", [{"since_ns": "soon"}, {"since_ns": None}, {"since_ns": []}])
def test_an_argument_of_the_wrong_kind_is_an_error_of_one_line(engine_world, args):
    async def body(world):
        engine = await world.engine(strategies={})
        reply = await engine.ask("orders", **args)
        assert not reply.ok
        assert reply.error
        assert "\n" not in reply.error

    engine_world(body)


def test_without_accounts_there_is_nothing_to_ask(engine_world):
    async def body(world):
        books = {"binance": {"at": "venue", "pairs": ["BTC-USDT"], "trade": False}}
        engine = await world.engine(connectors=books, strategies={})
        assert (await engine.ask("orders")).data == {"rows": [], "unanswered": {}}
        assert (await engine.ask("balances")).data == {"rows": {}, "unanswered": {}}
        nothing = {"cancelled": [], "failed": {}, "ended": {}, "unanswered": {}}
        assert (await engine.ask("cancel_all")).data == nothing
        for verb in ("halt", "resume"):
            reply = await engine.ask(verb)
            assert (reply.ok, "nothing" in reply.error) == (False, True)

    engine_world(body)
