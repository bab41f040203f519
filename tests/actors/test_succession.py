"""What one supervisor of an engine leaves to the next, and what that one makes of it."""

import asyncio

import pytest

from engine.actors import cluster
from engine.actors.succession import Succession
from engine.actors.supervisor import supervise_run
from engine.config import RunOptions, parse_config
from engine.errors import ConfigError
from engine.messages import CancelAll, CancelAllResult
from engine.runtime.paths import EnginePaths
from tests.actors.fake_engine import ENGINE, FakeGround
from tests.actors.world import until

EXTRA = {"name": "extra", "strategy": "engine.strategies.market_maker:MarketMaker", "pairs": ["binance/BTC-USDT"]}
EXCHANGE, MAKER, CLOCK = "exchange.binance.main", "strategy.maker", "clock"
CRASHED = {
    "maker": {
        "strategy": "engine.strategies.market_maker:MarketMaker",
        "pairs": ["binance/BTC-USDT"],
        "on_crash": "cancel",
    }
}


def test_what_is_left_is_there_for_the_same_engine_alone(tmp_path):
    file = tmp_path / "succession.json"
    first = Succession("e-1", 5, file)
    assert not first.inherited
    first.problem("a connector is down")
    first.detached("maker")
    first.to_stop("engine stop")
    second = Succession("e-1", 99, file)
    assert second.inherited
    assert second.legacy == first.legacy
    assert second.legacy.began_mono_ns == 5
    other = Succession("e-2", 99, file)
    assert not other.inherited
    assert (other.legacy.stop, other.legacy.problems, other.legacy.detached) == ("", [], [])


def test_incarnations_rise_over_all_engines_of_a_folder_whatever_the_clock_says(tmp_path):
    """A checkpoint that hosts share goes by them: after a clock was set back no strategy could begin."""
    file = tmp_path / "succession.json"
    first = Succession("e-1", 5, file)
    given = [first.next_incarnation(at) for at in (1000, 1000, 900, 2000)]
    second = Succession("e-1", 5, file)
    given += [second.next_incarnation(1500), second.next_incarnation(1500)]
    given += [Succession("e-2", 5, file).next_incarnation(1600)]
    assert given == [1000, 1001, 1002, 2000, 2001, 2002, 2003]


def test_a_strategy_that_is_attached_again_is_wanted_again(tmp_path):
    first = Succession("e-1", 5, tmp_path / "succession.json")
    first.detached("maker")
    first.attached("maker")
    assert Succession("e-1", 5, tmp_path / "succession.json").legacy.detached == []


def test_a_disk_that_takes_nothing_keeps_nobody_from_the_end(tmp_path):
    first = Succession("e-1", 5, tmp_path / "gone" / "succession.json")
    first.to_stop("engine stop")
    assert first.next_incarnation(7) == 7
    assert first.legacy.stop == "engine stop"


def test_a_legacy_that_cannot_be_read_is_refused(tmp_path):
    file = tmp_path / "succession.json"
    file.write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        Succession("e-1", 5, file)


def test_the_next_supervisor_takes_over_who_lives_and_starts_who_does_not(engine_world):
    async def body(world):
        first = await world.engine()
        before = first.incarnations()
        second = await world.successor(first, dead=[EXCHANGE])
        after = second.incarnations()
        assert second.runtime.of("spawn")[len(first.supervisor.planned) :] == [EXCHANGE]
        assert {name for name in after if after[name] != before[name]} == {EXCHANGE}
        assert after[EXCHANGE] > max(before.values())
        report = await second.stop()
        assert report["ok"]

    engine_world(body)


def test_a_strategy_that_died_unseen_has_its_orders_cancelled_if_its_configuration_says_so(engine_world):
    async def body(world):
        first = await world.engine(strategies=CRASHED)
        second = await world.successor(first, dead=[MAKER])
        await until(lambda: ("CancelAll", EXCHANGE) in second.runtime.log)
        await second.stop()

    engine_world(body)


def test_who_works_at_a_box_that_died_unseen_is_started_anew_with_its_address(engine_world):
    async def body(world):
        first = await world.engine()
        before = first.incarnations()
        second = await world.successor(first, dead=["venue"])
        at_it = [name for name, planned in second.supervisor.planned.items() if planned.box == "venue"]
        await until(lambda: all(second.incarnations()[name] > before[name] for name in at_it))
        assert second.incarnations()[CLOCK] == before[CLOCK]
        await second.stop()

    engine_world(body)


def test_an_actor_that_is_not_wanted_any_more_is_ended(engine_world):
    async def body(world):
        first = await world.engine()
        first.supervisor.succession.detached("maker")
        second = await world.successor(first)
        assert MAKER not in second.supervisor.planned
        assert ("SIGTERM", MAKER) in second.runtime.log
        assert MAKER not in second.runtime.living()
        await second.stop()

    engine_world(body)


def test_an_engine_that_was_told_to_stop_stops_and_starts_nothing(engine_world):
    async def body(world):
        first = await world.engine()
        first.supervisor.succession.to_stop("engine stop")
        first.supervisor.succession.problem("a connector is down")
        second = await world.successor(first, dead=[MAKER], wait=False)
        report = await second.task
        assert second.runtime.of("spawn")[len(first.supervisor.planned) :] == []
        assert EXCHANGE in second.runtime.of("stop")
        assert report["problems"] == ["a connector is down"]
        assert not report["ok"]

    engine_world(body)


def test_the_time_of_a_run_is_counted_from_its_first_supervisor(engine_world):
    async def body(world):
        first = await world.engine()
        first.supervisor.succession.legacy.began_mono_ns -= 3600 * 10**9
        first.supervisor.succession.save()
        second = await world.successor(first, seconds=1800, wait=False)
        report = await second.task
        assert report["seconds"] >= 3600

    engine_world(body)


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("attach", EXTRA),
        ("detach", {"name": "maker"}),
        ("restart", {"actor": CLOCK}),
        ("halt", {}),
        ("cancel_all", {}),
        ("status", {}),
    ],
)
def test_a_command_that_comes_before_the_next_supervisor_knows_who_lives_is_carried_out_once_it_does(
    engine_world, verb, args
):
    """A halt was answered with that there is nothing to halt, and of the orders to be cancelled none was."""

    async def body(world):
        first = await world.engine()
        runtime = first.runtime
        runtime.answers = {CancelAll: CancelAllResult(cancelled=["e-1"])}
        began, known, start = asyncio.Event(), asyncio.Event(), runtime.start

        async def slowly():
            began.set()
            await known.wait()
            return await start()

        runtime.start = slowly
        second = await world.successor(first, wait=False)
        await began.wait()
        asked = asyncio.create_task(second.ask(verb, **args))
        await asyncio.sleep(0)
        assert not asked.done()
        known.set()
        reply = await asked
        assert reply.ok, reply.error
        await second.all_run()
        if verb == "halt":
            assert ("SetTrading", "risk") in runtime.log
        if verb == "status":
            assert {row["name"] for row in reply.data["actors"]} >= {CLOCK, MAKER, EXCHANGE}
        if verb == "cancel_all":
            assert reply.data["cancelled"] == ["e-1"]
        assert (await second.stop())["ok"]

    engine_world(body)


def test_a_detach_that_nobody_answered_was_none(engine_world):
    """Half of one left the strategy's orders open, with nobody to cancel them."""

    async def body(world):
        first = await world.engine()
        assert (await first.ask("attach", **EXTRA)).ok
        await first.all_run()
        first.runtime.holds["strategy.extra"] = asyncio.Event()
        asked = asyncio.create_task(first.ask("detach", name="extra"))
        await until(lambda: "strategy.extra" in first.runtime.of("stop"))
        second = await world.successor(first, dead=["strategy.extra"])
        asked.cancel()
        assert "strategy.extra" in second.runtime.living()
        second.runtime.holds.clear()
        second.runtime.answers = {CancelAll: CancelAllResult(cancelled=["e-1"])}
        reply = await second.ask("detach", name="extra")
        assert reply.data == {"strategy": "extra", "was_attached": True}
        assert ("CancelAll", EXCHANGE) in second.runtime.log
        assert not list(second.supervisor.paths.state.glob("attached/*"))
        assert (await second.stop())["ok"]

    engine_world(body)


def test_a_supervisor_that_dies_after_the_engine_has_ended_is_followed_by_one_that_starts_nothing(
    engine_world, tmp_path, monkeypatch
):
    """Its process stays for a while with the report. Killed then, Ray begins another, which began the engine again."""
    paths = EnginePaths(tmp_path / "engine", tmp_path / "run", tmp_path / "shm")
    monkeypatch.setattr(EnginePaths, "for_state", lambda state_dir: paths)
    supervised = []

    async def body(world):
        monkeypatch.setattr(cluster, "ClusterGround", lambda *fields: FakeGround(world.network, world.clock))
        monkeypatch.setattr(cluster, "make_identity", lambda: b"")
        monkeypatch.setattr(cluster, "own_node", lambda: None)

        async def watched(config, options, paths, shown, run_id, ground, legacy_file):
            supervised.append(ground.fake_runtime)
            return await supervise_run(config, options, paths, None, run_id, ground, legacy_file)

        monkeypatch.setattr(cluster, "supervise_run", watched)
        options = RunOptions(state_dir=paths.state, seconds=0.2)
        kept = cluster.kept(parse_config(ENGINE), options, world.clock.time_ns(), None)
        first = await cluster.supervise_kept(kept, None)
        assert not paths.run.exists()
        second = await cluster.supervise_kept(kept, None)
        assert second == first
        assert supervised[0].of("spawn")
        assert not supervised[1].of("spawn")

    engine_world(body)
