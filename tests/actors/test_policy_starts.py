"""The supervisor's policy for those who live already, and for those who cannot be started where they belong."""

import pytest

from engine.actors.policy import (
    POSTPONED_NS,
    SECOND_NS,
    ActorState,
    Changed,
    Kill,
    RestartPolicy,
    Spawn,
    Stop,
    StrategyFailed,
)

MS = SECOND_NS // 1000


# --------------------------------------------------------------------------------------- taken over from another


def adopted(shell, name="exchange.a.main", kind="exchange", incarnation=7, **policy):
    shell.policy.add(name, kind, "a" if kind == "exchange" else "", RestartPolicy(**policy), start=False)
    shell.policy.adopt(name, incarnation, shell.now)
    shell.step()


def test_an_actor_that_is_taken_over_is_not_spawned_and_runs_once_it_says_so(shell):
    adopted(shell)
    assert shell.taken(Changed, Spawn) == [Changed("exchange.a.main", ActorState.STARTING, "taken over")]
    shell.policy.started("exchange.a.main", 6, shell.now)
    assert shell.policy.state("exchange.a.main") == "starting"
    shell.policy.started("exchange.a.main", 7, shell.now)
    assert shell.policy.state("exchange.a.main") == "running"
    assert (shell.policy.incarnation("exchange.a.main"), shell.policy.restarts("exchange.a.main")) == (7, 0)


@pytest.mark.parametrize(("start_timeout_s", "stall_s"), [(4.0, 30.0), (30.0, 4.0)])
def test_one_that_is_taken_over_and_never_speaks_is_killed_after_what_a_start_or_a_stall_may_take(
    shell, start_timeout_s, stall_s
):
    adopted(shell, start_timeout_s=start_timeout_s, stall_s=stall_s)
    shell.advance(29 * SECOND_NS)
    assert shell.taken(Kill) == []
    shell.advance(2 * SECOND_NS)
    assert [kill.name for kill in shell.taken(Kill)] == ["exchange.a.main"]


def test_the_end_of_one_that_was_taken_over_is_met_like_any_other(shell):
    adopted(shell, backoff_initial_s=0.05)
    shell.crash("exchange.a.main")
    assert shell.policy.state("exchange.a.main") == "backing_off"
    shell.advance(SECOND_NS)
    assert shell.policy.state("exchange.a.main") == "running"
    assert shell.policy.restarts("exchange.a.main") == 1


def test_one_that_was_taken_over_can_be_stopped_before_it_speaks(shell):
    adopted(shell)
    shell.policy.stop_requested("exchange.a.main", shell.now, "the engine stops")
    shell.step()
    assert [stop.name for stop in shell.taken(Stop)] == ["exchange.a.main"]
    assert shell.policy.state("exchange.a.main") == "stopped"


def test_a_clock_that_was_taken_over_is_judged_by_its_ticks_once_it_spoke(shell):
    adopted(shell, "clock", "clock", stall_s=3.0)
    shell.policy.started("clock", 7, shell.now)
    shell.advance(20 * SECOND_NS)
    assert "clock" in [kill.name for kill in shell.taken(Kill)]


def test_only_an_actor_that_is_known_and_does_not_live_can_be_taken_over(shell):
    shell.add("a", "recorder")
    with pytest.raises(ValueError, match="living"):
        shell.policy.adopt("a", 9, shell.now)
    with pytest.raises(KeyError):
        shell.policy.adopt("nobody", 9, shell.now)


# ------------------------------------------------------------------------------------------ nowhere to start


def unstarted(shell, name="exchange.a.main", kind="exchange", **policy):
    shell.policy.add(name, kind, "a" if kind == "exchange" else "", RestartPolicy(**policy))
    assert [action for action in shell.policy.poll(shell.now) if isinstance(action, Spawn)] == [Spawn(name)]


def test_an_actor_without_a_place_is_tried_again_however_long_it_takes_and_spends_nothing(shell):
    unstarted(shell, budget=1, window_s=1000.0)
    for _ in range(50):
        shell.policy.spawn_postponed("exchange.a.main", shell.now, "no living node has the place tokyo")
        assert shell.policy.state("exchange.a.main") == "backing_off"
        shell.now += POSTPONED_NS
        assert Spawn("exchange.a.main") in shell.policy.poll(shell.now)
    shell.policy.spawned("exchange.a.main", 1, shell.now)
    shell.policy.started("exchange.a.main", 1, shell.now)
    assert shell.policy.restarts("exchange.a.main") == 0
    shell.crash("exchange.a.main")
    shell.advance(SECOND_NS)
    assert shell.policy.state("exchange.a.main") == "running"


def test_an_actor_without_a_place_can_be_stopped(shell):
    unstarted(shell)
    shell.policy.spawn_postponed("exchange.a.main", shell.now, "no living node has the place tokyo")
    shell.policy.stop_requested("exchange.a.main", shell.now)
    shell.advance(10 * SECOND_NS)
    assert shell.policy.state("exchange.a.main") == "stopped"
    assert shell.taken(Spawn) == []


def test_one_that_was_to_stop_meanwhile_is_not_tried_again(shell):
    unstarted(shell)
    shell.policy.stop_requested("exchange.a.main", shell.now)
    shell.policy.spawn_postponed("exchange.a.main", shell.now, "no living node has the place tokyo")
    assert shell.policy.state("exchange.a.main") == "stopped"


def test_a_strategy_that_cannot_be_started_as_things_are_is_given_up_at_once_until_it_is_asked_for(shell):
    unstarted(shell, "strategy.s", "strategy")
    shell.policy.spawn_refused("strategy.s", shell.now, "on beta: there is no module mine")
    shell.step()
    assert shell.policy.state("strategy.s") == "failed"
    (failed,) = shell.taken(StrategyFailed)
    assert failed.reason == "strategy.s cannot be started: on beta: there is no module mine"
    shell.policy.restart_requested("strategy.s", shell.now)
    shell.step()
    assert shell.policy.state("strategy.s") == "running"
