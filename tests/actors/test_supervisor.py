"""The supervisor over actors of the test's making."""

import asyncio
from itertools import pairwise

import msgspec
import pytest

from engine.actors import host_clocks
from engine.actors import supervisor as module
from engine.attached import save_attached
from engine.config import StrategyConfig
from engine.connectors.settings import ConnectorSettings
from engine.errors import BusError
from engine.messages import ActorStarted, ActorStats, ActorStopping, AskTime, CancelAll, CancelAllResult, TimeIs

EXCHANGE, MAKER = "exchange.binance.main", "strategy.maker"
MARKET_MAKER = "engine.strategies.market_maker:MarketMaker"


def strategies(**fields):
    return {"maker": {"strategy": MARKET_MAKER, "pairs": ["binance/BTC-USDT"], **fields}}


def order_of(names, *groups):
    """Whether the names come group by group."""
    at = {name: number for number, group in enumerate(groups) for name in group}
    return [at[name] for name in names] == sorted(at[name] for name in names)


def test_a_run_from_its_start_to_its_end(engine_world):
    async def body(world):
        engine = await world.engine()
        assert sorted(engine.runtime.living()) == sorted(engine.supervisor.planned)
        report = await engine.stop()
        assert (report["ok"], report["problems"]) == (True, [])
        assert engine.runtime.log[0] == ("start", "")
        assert engine.runtime.log[-1] == ("close", "")
        assert not (engine.supervisor.paths.state / "run.json").exists()
        assert engine.supervisor.ground.log_closed == 1

    engine_world(body)


def test_actors_end_in_their_order_each_kind_after_the_one_before_has_ended(engine_world):
    async def body(world):
        engine = await world.engine()
        await engine.stop()
        groups = [[MAKER], [EXCHANGE], ["risk"], ["user_stream.binance.main", "order_book.binance.0"], ["clock"]]
        groups.append(["venue"])
        known = [name for group in groups for name in group]
        assert order_of([name for name in engine.runtime.of("end") if name in known], *groups)
        assert sorted(engine.runtime.of("stop")) == sorted(engine.supervisor.planned)
        log = engine.runtime.log
        for earlier, later in pairwise(groups):
            assert max(log.index(("end", name)) for name in earlier) < min(log.index(("stop", name)) for name in later)
        assert {stop.keep_orders for _, stop in engine.runtime.stops} == {False}

    engine_world(body)


def test_orders_are_kept_if_the_configuration_says_so(engine_world):
    async def body(world):
        engine = await world.engine(stop={"open_orders": "keep"})
        await engine.stop()
        assert dict(engine.runtime.stops)[EXCHANGE].keep_orders is True

    engine_world(body)


def test_a_run_ends_when_its_time_is_over(engine_world):
    async def body(world):
        engine = await world.engine(seconds=0.05, wait=False)
        report = await engine.task
        assert report["ok"]

    engine_world(body)


def test_actors_at_a_box_are_started_with_its_address_once_it_listens(engine_world):
    async def body(world):
        engine = await world.engine()
        spawned = engine.runtime.of("spawn")
        assert spawned.index("venue") < spawned.index("order_book.binance.0")
        spec = next(spec for spec in engine.runtime.specs if spec.name == EXCHANGE)
        settings = msgspec.convert(spec.params["settings"], ConnectorSettings)
        assert settings.endpoints.rest == "rest.of.the.box"
        assert settings.credentials.api_secret == "api_secret.of.the.box"
        assert (spec.entry, spec.kind, spec.connector) == ("nowhere:main", "exchange", "binance")

    engine_world(body)


def test_a_box_that_never_comes_up_can_be_stopped(engine_world, monkeypatch):
    monkeypatch.setattr("engine.actors.shutdown.BETWEEN_LIVES_S", 0.1)

    async def body(world):
        engine = await world.engine(ways={"venue": {"silent"}}, wait=False)
        await world.until(lambda: engine.supervisor.planned)
        await world.until(lambda: engine.state(MAKER) == "running")
        assert EXCHANGE not in engine.runtime.living()
        await engine.stop()
        assert EXCHANGE not in engine.runtime.of("spawn")

    engine_world(body)


@pytest.mark.parametrize("with_strategy", [True, False])
def test_an_engine_can_be_stopped_before_its_box_is_there(engine_world, monkeypatch, with_strategy):
    monkeypatch.setattr("engine.actors.shutdown.BETWEEN_LIVES_S", 0.1)

    async def body(world):
        changes = {} if with_strategy else {"strategies": {}}
        engine = await world.engine(
            ways={"venue": {"silent"}}, wait=False, before=lambda supervisor: supervisor.stop("at once"), **changes
        )
        async with asyncio.timeout(8):
            await engine.task

    engine_world(body)


def test_an_actor_that_crashes_comes_back_as_a_newer_incarnation(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.end(EXCHANGE, code=1)
        assert engine.state(EXCHANGE) == "backing_off"
        await engine.all_run()
        incarnations = [spec.incarnation for spec in engine.runtime.specs if spec.name == EXCHANGE]
        assert len(incarnations) == 2
        assert incarnations[0] < incarnations[1]
        rows = {row["name"]: row for row in engine.supervisor.status()["actors"]}
        assert (rows[EXCHANGE]["restarts"], rows[MAKER]["restarts"]) == (1, 0)
        assert rows[EXCHANGE]["state"] == "running"

    engine_world(body)


def test_clocks_of_other_hosts_are_measured_while_the_engine_runs_and_are_in_status_and_report(engine_world):
    ahead_ns = 700_000_000

    async def body(world):
        def tell_time(message):
            now_ns = world.clock.time_ns() + ahead_ns
            return TimeIs(received_ns=now_ns, answered_ns=now_ns)

        def elsewhere(supervisor):
            supervisor.runtime.host_of = lambda name: "far" if name == EXCHANGE else supervisor.observed.of(name).host
            supervisor.runtime.answers[AskTime] = tell_time

        world.monkeypatch.setattr(host_clocks, "EVERY_S", 0.01)
        engine = await world.engine(runtime="cluster", before=elsewhere)

        def far():
            return {row["host"]: row for row in engine.supervisor.status()["hosts"]}["far"]

        await world.until(lambda: far()["clock_offset_ms"] is not None)
        assert abs(far()["clock_offset_ms"] - 700) <= far()["clock_error_ms"]
        report = await engine.stop()
        assert [row["host"] for row in report["hosts"]][1:] == ["far"]
        assert abs(report["hosts"][1]["clock_offset_ms"] - 700) <= report["hosts"][1]["clock_error_ms"]

    engine_world(body)


@pytest.mark.parametrize("on_crash", ["cancel", "keep"])
def test_the_orders_of_a_strategy_that_crashed(engine_world, on_crash):
    async def body(world):
        engine = await world.engine(strategies=strategies(on_crash=on_crash))
        asked = []
        engine.runtime.answers = {
            m: (lambda message: asked.append(message) or CancelAllResult(cancelled=["e-1"])) for m in [CancelAll]
        }
        engine.runtime.end(MAKER, signal=9)
        await engine.all_run()
        if on_crash == "cancel":
            await world.until(lambda: asked)
        assert [(message.strategy, message.pair) for message in asked] == ([("maker", None)] if asked else [])
        assert bool(asked) == (on_crash == "cancel")
        await engine.stop()
        assert engine.runtime.of("CancelAll") == ([EXCHANGE] if on_crash == "cancel" else [])

    engine_world(body)


def test_the_orders_of_a_strategy_that_crashed_are_cancelled_once_the_exchange_answers(engine_world):
    async def body(world):
        engine = await world.engine(strategies=strategies(on_crash="cancel"))
        left = [2]

        def later(message):
            left[0] -= 1
            if left[0] >= 0:
                raise BusError("not now")
            return CancelAllResult(cancelled=[])

        engine.runtime.answers = {CancelAll: later}
        engine.runtime.end(MAKER, signal=9)
        await world.until(lambda: left[0] == -1)

    engine_world(body)


def test_a_polite_end_of_a_strategy_cancels_nothing_by_itself(engine_world):
    async def body(world):
        engine = await world.engine(strategies=strategies(on_crash="cancel"))
        await engine.stop()
        assert engine.runtime.of("CancelAll") == []

    engine_world(body)


def test_a_restart_on_request_keeps_open_orders(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.supervisor.restart(EXCHANGE)
        await world.until(lambda: engine.runtime.of("spawn").count(EXCHANGE) == 2)
        await engine.all_run()
        assert [(name, stop.keep_orders) for name, stop in engine.runtime.stops] == [(EXCHANGE, True)]
        report = await engine.stop()
        assert dict(engine.runtime.stops)[EXCHANGE].keep_orders is False
        assert report["ok"]

    engine_world(body)


def test_a_detached_strategy_is_waited_for_and_then_its_orders_are_cancelled(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=["e-1"])}
        hold = engine.runtime.holds[MAKER] = asyncio.Event()
        detaching = asyncio.create_task(engine.supervisor.detach("maker", MAKER))
        await world.until(lambda: MAKER in engine.runtime.of("stop"))
        await asyncio.sleep(0.02)
        assert not detaching.done()
        assert engine.runtime.of("CancelAll") == []
        hold.set()
        await detaching
        log = engine.runtime.log
        assert log.index(("end", MAKER)) < log.index(("CancelAll", EXCHANGE))
        assert MAKER not in engine.supervisor.planned
        assert "maker" not in engine.supervisor.strategies
        assert MAKER not in [row["name"] for row in engine.supervisor.status()["actors"]]
        assert (await engine.stop())["ok"]

    engine_world(body)


def test_a_detached_strategy_leaves_its_orders_if_the_configuration_says_so(engine_world):
    async def body(world):
        engine = await world.engine(stop={"open_orders": "keep"})
        await engine.supervisor.detach("maker", MAKER)
        assert engine.runtime.of("CancelAll") == []

    engine_world(body)


def test_the_orders_of_a_strategy_that_crashes_while_it_is_detached_are_cancelled_if_it_says_so(
    engine_world,
):
    async def body(world):
        engine = await world.engine(stop={"open_orders": "keep"}, strategies=strategies(on_crash="cancel"))
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=["e-1"])}
        engine.runtime.holds[MAKER] = asyncio.Event()
        detaching = asyncio.create_task(engine.supervisor.detach("maker", MAKER))
        await world.until(lambda: MAKER in engine.runtime.of("stop"))
        engine.runtime.end(MAKER, signal=9)
        await detaching
        await world.until(lambda: ("CancelAll", EXCHANGE) in engine.runtime.log)
        assert (await engine.stop())["problems"] == []

    engine_world(body)


def test_an_engine_can_be_stopped_while_a_strategy_is_detached(engine_world):
    async def body(world):
        two = {**strategies(), "other": strategies()["maker"]}
        engine = await world.engine(strategies=two)
        engine.runtime.answers = {CancelAll: CancelAllResult(cancelled=[])}
        hold = engine.runtime.holds["strategy.other"] = asyncio.Event()
        detaching = asyncio.create_task(engine.supervisor.detach("maker", MAKER))
        engine.supervisor.stop("at the same time")
        await detaching
        hold.set()
        report = await engine.task
        assert report["ok"]
        assert EXCHANGE in engine.runtime.of("stop")
        assert engine.runtime.log[-1] == ("close", "")

    engine_world(body)


def test_a_strategy_that_is_attached_runs_and_ends_with_the_engine(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.supervisor.attach(StrategyConfig(name="extra", strategy=MARKET_MAKER, pairs=["binance/BTC-USDT"]))
        await engine.all_run()
        assert "strategy.extra" in engine.runtime.living()
        await engine.stop()
        assert "strategy.extra" in engine.runtime.of("stop")

    engine_world(body)


def test_attached_strategies_return_with_the_next_run(engine_world, tmp_path):
    async def body(world):
        (tmp_path / "engine").mkdir()
        save_attached(
            tmp_path / "engine", StrategyConfig(name="extra", strategy=MARKET_MAKER, pairs=["binance/BTC-USDT"])
        )
        save_attached(
            tmp_path / "engine", StrategyConfig(name="maker", strategy=MARKET_MAKER, pairs=["binance/BTC-USDT"])
        )
        (tmp_path / "engine" / "attached" / "odd.yml").write_text("name: odd")
        engine = await world.engine()
        assert sorted(engine.supervisor.strategies) == ["extra", "maker"]
        assert engine.runtime.of("spawn").count(MAKER) == 1
        await engine.stop()

    engine_world(body)


def test_an_actor_that_does_not_stop_is_killed(engine_world, monkeypatch):
    monkeypatch.setattr(module, "POLITE_S", {"strategy": 0.1})
    monkeypatch.setattr(module, "ENFORCED_S", 0.1)

    async def body(world):
        engine = await world.engine(ways={MAKER: {"deaf"}})
        await engine.stop()
        assert engine.runtime.of("SIGKILL") == [MAKER]

    engine_world(body)


def test_a_restart_that_is_asked_for_twice_lets_no_later_stop_leave_orders_open(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.holds[EXCHANGE] = asyncio.Event()
        engine.supervisor.restart(EXCHANGE)
        await world.until(lambda: engine.runtime.of("stop") == [EXCHANGE])
        engine.supervisor.restart(EXCHANGE)
        engine.runtime.holds.pop(EXCHANGE).set()
        await world.until(lambda: engine.runtime.of("spawn").count(EXCHANGE) == 2)
        await engine.all_run()
        await engine.stop()
        assert [stop.keep_orders for name, stop in engine.runtime.stops if name == EXCHANGE] == [True, False]

    engine_world(body)


def test_an_actor_that_hears_late_that_it_is_to_stop_hears_no_signal_before(engine_world, monkeypatch):
    async def body(world):
        engine = await world.engine(ways={EXCHANGE: {"late"}})
        await engine.stop()
        assert engine.runtime.of("SIGTERM") == []
        assert dict(engine.runtime.stops)[EXCHANGE].keep_orders is False

    engine_world(body)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError()])
def test_an_actor_whose_start_fails_for_a_reason_that_nobody_foresaw_can_be_tried_again_and_stopped(
    engine_world, error
):
    async def body(world):
        engine = await world.engine(wait=False, before=lambda supervisor: _spoil(supervisor, error))
        await world.until(lambda: engine.supervisor.planned and engine.state(MAKER) == "backing_off")
        await world.until(lambda: engine.runtime.tried.count(MAKER) > 1)
        async with asyncio.timeout(8):
            await engine.stop()

    engine_world(body)


def _spoil(supervisor, error):
    """No maker can be started, for that reason."""
    spawn = supervisor.runtime.spawn

    async def spoilt(spec):
        if spec.name != MAKER:
            return await spawn(spec)
        supervisor.runtime.tried.append(MAKER)
        raise error

    supervisor.runtime.spawn = spoilt


def test_an_actor_that_cannot_be_spawned_is_tried_again(engine_world):
    async def body(world):
        engine = await world.engine(ways={MAKER: {"refused"}}, wait=False)
        await world.until(lambda: engine.supervisor.planned)
        await world.until(lambda: engine.state(MAKER) == "backing_off")
        engine.runtime.ways.clear()
        await engine.all_run()

    engine_world(body)


def test_a_strategy_that_spent_its_budget_harms_nobody(engine_world):
    async def body(world):
        engine = await world.engine(supervision={"budget": 0})
        engine.runtime.end(MAKER, code=1)
        assert engine.state(MAKER) == "failed"
        assert sorted(engine.runtime.living()) == sorted(set(engine.supervisor.planned) - {MAKER})
        report = await engine.stop()
        assert not report["ok"]
        assert any(MAKER in problem for problem in report["problems"])

    engine_world(body)


def test_what_an_actor_said_of_its_end_is_in_the_report(engine_world):
    async def body(world):
        engine = await world.engine(supervision={"budget": 0})
        spec = next(spec for spec in engine.runtime.specs if spec.name == MAKER)
        last = ActorStopping(actor=MAKER, incarnation=spec.incarnation, error="ValueError('no such size')")
        await engine.runtime.buses[MAKER].request("supervisor", last)
        engine.runtime.end(MAKER, code=1)
        (problem,) = (await engine.stop())["problems"]
        assert problem.endswith("the last time: exit code 1: ValueError('no such size')")

    engine_world(body)


def test_an_exchange_that_spent_its_budget_takes_its_connector_down(engine_world):
    async def body(world):
        engine = await world.engine(supervision={"budget": 0})
        engine.runtime.end(EXCHANGE, code=1)
        connector = ["order_book.binance.0", "user_stream.binance.main"]
        await world.until(lambda: all(engine.state(name) == "stopped" for name in connector))
        assert {"clock", "venue", MAKER} <= set(engine.runtime.living())
        report = await engine.stop()
        assert any("connector binance is down" in problem for problem in report["problems"])

    engine_world(body)


def test_nothing_runs_without_the_clock(engine_world):
    async def body(world):
        engine = await world.engine(supervision={"budget": 0})
        engine.runtime.end("clock", code=1)
        report = await engine.task
        assert not report["ok"]
        assert EXCHANGE in engine.runtime.of("stop")

    engine_world(body)


def test_whoever_listens_hears_of_every_change(engine_world):
    async def body(world):
        engine = await world.engine()
        heard = []
        listener = engine.supervisor.ground.bus("listener", 1, engine.supervisor.engine_id)
        await listener.start()
        listener.subscribe("supervisor", "actors", lambda change, number: heard.append(change))
        await world.until(lambda: engine.supervisor.changes.readers)
        engine.runtime.end(MAKER, code=1)
        await world.until(lambda: [change.state for change in heard] == ["backing_off", "starting", "running"])
        assert {(change.actor, change.kind) for change in heard} == {(MAKER, "strategy")}
        assert heard[-1].endpoint.endswith("/strategy.maker.sock")
        await engine.stop()
        await listener.close()

    engine_world(body)


def test_an_old_incarnation_is_not_mistaken_for_the_present_one(engine_world):
    async def body(world):
        engine = await world.engine()
        old = next(spec for spec in engine.runtime.specs if spec.name == MAKER)
        engine.runtime.end(MAKER, code=1)
        await engine.all_run()
        engine.supervisor._on_exit(
            module.Exit(name=MAKER, incarnation=old.incarnation, pid=1, code=1),
        )
        assert engine.state(MAKER) == "running"

    engine_world(body)


def test_a_cancel_for_a_strategy_that_crashed_does_not_meet_its_next_life(engine_world):
    async def body(world):
        asked = []
        engine = await world.engine(strategies=strategies(on_crash="cancel"))
        engine.runtime.answers = {CancelAll: lambda message: asked.append(message) or CancelAllResult(cancelled=[])}
        before = world.clock.time_ns()
        engine.runtime.end(MAKER, signal=9)
        await world.until(lambda: asked)
        await engine.all_run()
        assert before <= asked[0].made_by_ns <= world.clock.time_ns()
        await engine.stop()

    engine_world(body)


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_that_leaves_orders_open_which_were_to_be_cancelled_is_not_ok(engine_world, keep):
    async def body(world):
        engine = await world.engine(stop={"open_orders": "keep" if keep else "cancel"})
        spec = next(spec for spec in engine.runtime.specs if spec.name == EXCHANGE)
        left = [{"client_order_id": f"e-{number}"} for number in range(7)]
        engine.supervisor.observed.stats(
            ActorStats(actor=EXCHANGE, incarnation=spec.incarnation, gauges={"open_orders": left})
        )
        report = await engine.stop()
        assert report["ok"] is keep
        if not keep:
            (problem,) = report["problems"]
            assert problem == f"{EXCHANGE} leaves orders open at the venue: e-0, e-1, e-2, e-3, e-4 and 2 more"

    engine_world(body)


def test_who_works_at_a_box_that_came_back_elsewhere_is_started_anew_with_its_address(engine_world):
    async def body(world):
        engine = await world.engine()
        spec = next(spec for spec in engine.runtime.specs if spec.name == EXCHANGE)
        info = {key: f"{key}.elsewhere" for key in ("rest", "ws", "ws_api", "api_key", "api_secret")}
        venue = next(spec for spec in engine.runtime.specs if spec.name == "venue")
        moved = ActorStarted(actor="venue", incarnation=venue.incarnation, pid=1, info=info)
        engine.supervisor._on_message(None, moved)
        names = (EXCHANGE, "order_book.binance.0", "user_stream.binance.main")
        await world.until(lambda: all(engine.runtime.of("spawn").count(name) == 2 for name in names))
        await engine.all_run()
        newer = next(each for each in reversed(engine.runtime.specs) if each.name == EXCHANGE)
        settings = msgspec.convert(newer.params["settings"], ConnectorSettings)
        assert newer.incarnation > spec.incarnation
        assert settings.endpoints.rest == "rest.elsewhere"
        assert engine.runtime.of("spawn").count("venue") == 1
        assert engine.runtime.of("spawn").count(MAKER) == 1
        engine.supervisor._on_message(None, moved)
        assert all(engine.runtime.of("spawn").count(name) == 2 for name in names)
        await engine.stop()

    engine_world(body)


def test_an_actor_without_a_host_waits_for_one_and_spends_nothing(engine_world, monkeypatch):
    monkeypatch.setattr("engine.actors.policy.POSTPONED_NS", 10_000_000)

    async def body(world):
        engine = await world.engine(ways={MAKER: {"homeless"}}, wait=False, supervision={"budget": 0})
        tried = engine.runtime.tried
        await world.until(lambda: tried.count(MAKER) > 3)
        assert engine.state(MAKER) in ("backing_off", "starting")
        engine.runtime.ways.clear()
        await engine.all_run()
        assert (await engine.stop())["ok"]

    engine_world(body)


def test_a_strategy_whose_code_is_not_on_its_host_is_given_up_with_that_said(engine_world):
    async def body(world):
        engine = await world.engine(ways={MAKER: {"no code"}}, wait=False)
        await world.until(lambda: engine.supervisor.planned and engine.state(MAKER) == "failed")
        assert MAKER not in engine.runtime.tried
        report = await engine.stop()
        assert report["problems"] == ["strategy.maker cannot be started: on beta: there is no module mine"]

    engine_world(body)


def test_a_strategy_whose_code_is_not_on_its_host_is_not_attached(engine_world):
    async def body(world):
        engine = await world.engine()
        engine.runtime.ways["strategy.extra"] = {"no code"}
        answer = await engine.ask("attach", name="extra", strategy=MARKET_MAKER, pairs=["binance/BTC-USDT"])
        assert (answer.ok, answer.error) == (False, "on beta: there is no module mine")
        assert "strategy.extra" not in engine.supervisor.planned
        assert not list((engine.supervisor.paths.state / "attached").glob("*"))

    engine_world(body)


def test_the_status_names_the_place_of_each_actor(engine_world):
    async def body(world):
        config = strategies(place="tokyo")
        engine = await world.engine(runtime="cluster", strategies=config)
        rows = {row["name"]: row for row in engine.supervisor.status()["actors"]}
        assert (rows[MAKER]["place"], rows[EXCHANGE]["place"]) == ("tokyo", "")

    engine_world(body)
