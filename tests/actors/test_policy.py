"""The supervisor's policy, with time and events of the tests' making."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.actors.policy import (
    HEARTBEAT_NS,
    SECOND_NS,
    ActorFailed,
    ActorState,
    Changed,
    ConnectorDown,
    ConnectorUp,
    EngineFailed,
    Kill,
    RestartPolicy,
    Spawn,
    Stop,
    StrategyFailed,
    SupervisorPolicy,
)
from tests.actors.policy_shell import Shell

MS = SECOND_NS // 1000


def test_an_added_actor_is_spawned_and_runs_once_it_says_so(shell):
    shell.auto_start = False
    shell.add("exchange.binance.main", "exchange", "binance")
    assert shell.taken(Spawn, Changed) == [
        Changed("exchange.binance.main", ActorState.STARTING),
        Spawn("exchange.binance.main"),
    ]
    shell.policy.started("exchange.binance.main", 99, shell.now)
    assert shell.policy.state("exchange.binance.main") == "starting"
    shell.policy.started("exchange.binance.main", 1, shell.now)
    assert shell.policy.state("exchange.binance.main") == "running"
    with pytest.raises(ValueError, match="supervised already"):
        shell.policy.add("exchange.binance.main", "exchange")


def test_an_actor_that_is_not_to_start_waits_until_asked_for(shell):
    shell.add("a", "recorder", start=False)
    assert shell.taken() == []
    assert shell.policy.state("a") == "stopped"
    shell.policy.restart_requested("a", shell.now)
    shell.step()
    assert shell.policy.state("a") == "running"
    assert shell.policy.restarts("a") == 0


def test_the_first_restart_is_almost_at_once_and_each_further_one_waits_longer(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(budget=20, jitter=0.0, backoff_max_s=0.3))
    waits = []
    for _ in range(5):
        shell.crash("a")
        assert shell.policy.state("a") == "backing_off"
        crashed = shell.now
        while shell.policy.state("a") == "backing_off":
            shell.advance(MS)
        waits.append(round((shell.now - crashed) / MS))
    assert waits == [50, 100, 200, 300, 300]
    assert shell.policy.restarts("a") == 5


def test_jitter_varies_the_wait_by_its_fraction_and_the_seed_decides(shell):
    def waits(seed):
        policy = SupervisorPolicy(seed)
        policy.add("a", "exchange", "x", RestartPolicy(jitter=0.2))
        found = []
        now = 0
        for incarnation in range(5):
            policy.poll(now)
            policy.spawned("a", incarnation, now)
            policy.exited("a", incarnation, now, False)
            policy.poll(now)
            while policy.state("a") == "backing_off":
                now += MS
                policy.poll(now)
            found.append(now)
        return found

    assert waits(1) == waits(1) != waits(2)
    assert 40 * MS <= waits(3)[0] <= 61 * MS


def test_running_longer_than_the_window_earns_a_fresh_back_off(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(budget=2, jitter=0.0, window_s=60))
    for _ in range(6):
        shell.crash("a")
        shell.advance(50 * MS)
        assert shell.policy.state("a") == "running"
        shell.advance(61 * SECOND_NS)
    assert shell.policy.restarts("a") == 6


def test_a_connectors_spent_budget_takes_that_connector_down_and_nothing_else(shell):
    for name, kind, connector in (
        ("order_book.x.0", "order_book", "x"),
        ("exchange.x.main", "exchange", "x"),
        ("exchange.y.main", "exchange", "y"),
        ("strategy.maker", "strategy", ""),
        ("venue.x", "venue", "x"),
    ):
        shell.add(name, kind, connector)
    for _ in range(5):
        shell.crash("exchange.x.main")
        shell.advance(2 * SECOND_NS)
    shell.taken()
    shell.crash("exchange.x.main")
    (down,) = [action for action in shell.log if isinstance(action, ConnectorDown)]
    assert (down.connector, down.failed_actor) == ("x", "exchange.x.main")
    assert [a.name for a in shell.taken(Stop)] == ["order_book.x.0"]
    states = {name: shell.policy.state(name).value for name in shell.policy.names()}
    assert states == {
        "order_book.x.0": "stopped",
        "exchange.x.main": "failed",
        "exchange.y.main": "running",
        "strategy.maker": "running",
        "venue.x": "running",
    }
    assert shell.policy.is_down("x")
    shell.advance(100 * SECOND_NS)
    assert shell.taken(Spawn) == []

    shell.policy.restart_requested("order_book.x.0", shell.now)
    shell.step()
    assert shell.taken(ConnectorUp, Spawn) == [
        ConnectorUp("x"),
        Spawn("order_book.x.0"),
        Spawn("exchange.x.main"),
    ]
    assert not shell.policy.is_down("x")


def test_a_connector_brought_up_while_its_actors_still_stop_loses_none(shell):
    shell.auto_die = False
    shell.add("a", "order_book", "x")
    shell.add("b", "exchange", "x", policy=RestartPolicy(budget=0))
    shell.crash("b")
    assert shell.policy.state("a") == "stopping"
    shell.policy.restart_requested("b", shell.now)
    shell.step()
    assert shell.policy.state("b") == "running"
    shell.exit("a", expected=True)
    shell.step()
    assert shell.policy.state("a") == "running"


@pytest.mark.parametrize(
    ("kind", "failure"),
    [("strategy", StrategyFailed), ("clock", EngineFailed), ("venue", ActorFailed), ("recorder", ActorFailed)],
)
def test_who_hears_of_a_spent_budget_depends_on_the_kind(shell, kind, failure):
    shell.add("a", kind, policy=RestartPolicy(budget=1))
    shell.add("other", "exchange", "x")
    shell.crash("a")
    shell.advance(SECOND_NS)
    shell.taken()
    shell.crash("a")
    assert [type(a) for a in shell.taken(EngineFailed, StrategyFailed, ActorFailed, ConnectorDown)] == [failure]
    assert shell.policy.state("a") == "failed"
    assert shell.policy.state("other") == "running"


def test_a_critical_actors_failure_is_the_engines(shell):
    shell.add("risk", "risk", policy=RestartPolicy(budget=0), critical=True)
    shell.crash("risk")
    (failed,) = shell.taken(EngineFailed)
    assert "risk used up 0 restarts" in failed.reason
    assert "exit code 1" in failed.reason


def test_an_actor_that_does_not_start_in_time_is_killed_and_counted(shell):
    shell.auto_start = False
    shell.add("a", "exchange", "x", policy=RestartPolicy(start_timeout_s=10))
    shell.advance(10 * SECOND_NS - 1)
    assert shell.taken(Kill) == []
    shell.advance(1)
    assert [a.reason for a in shell.taken(Kill)] == ["not started within 10 s"]
    assert shell.policy.state("a") == "backing_off"


def test_a_process_that_cannot_be_made_counts_as_a_failure(shell):
    policy = shell.policy
    policy.add("a", "exchange", "x", RestartPolicy(budget=1, jitter=0.0))
    policy.poll(0)
    policy.spawn_failed("a", 0, "no memory")
    assert policy.poll(0) == [Changed("a", ActorState.BACKING_OFF, "no memory")]
    assert Spawn("a") in policy.poll(50 * MS)
    policy.spawn_failed("a", 50 * MS, "no memory")
    assert policy.state("a") == "failed"


def test_an_unanswered_tick_makes_stale_and_then_stalled_with_sigkill(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(stall_s=3))
    shell.tick(1)
    shell.advance(999 * MS)
    assert shell.policy.state("a") == "running"
    shell.advance(MS)
    assert shell.policy.state("a") == "stale"
    shell.auto_die = False
    shell.tick(2)
    shell.advance(2 * SECOND_NS - 1)
    assert shell.policy.state("a") == "stale"
    shell.advance(1)
    assert shell.policy.state("a") == "stalled"
    assert [a.name for a in shell.taken(Kill)] == ["a"]
    shell.advance(10 * SECOND_NS)
    assert [a.name for a in shell.taken(Kill)] == ["a"]
    shell.crash("a")
    assert shell.policy.state("a") == "backing_off"


def test_a_late_answer_ends_staleness(shell):
    shell.add("a", "exchange", "x")
    shell.tick(1)
    shell.advance(2 * SECOND_NS)
    assert shell.policy.state("a") == "stale"
    shell.policy.answered("a", 1, 1, shell.now)
    assert shell.policy.state("a") == "running"
    shell.advance(100 * SECOND_NS)
    assert shell.taken(Kill) == []


def test_an_answer_that_overtakes_the_tick_counts(shell):
    shell.add("a", "exchange", "x")
    shell.policy.answered("a", 1, 1, shell.now)
    shell.tick(1)
    shell.advance(100 * SECOND_NS)
    assert shell.taken(Kill) == []


def test_an_actor_that_answers_old_ticks_slowly_is_behind_but_not_stalled(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(stall_s=3))
    for n in range(1, 30):
        shell.tick(n)
        shell.policy.answered("a", 1, n - 1, shell.now)
        shell.advance(SECOND_NS)
    assert shell.taken(Kill) == []


def test_without_ticks_nobody_is_stalled_but_the_clock(shell):
    shell.add("clock", "clock", policy=RestartPolicy(stall_s=3))
    shell.add("a", "exchange", "x")
    shell.tick(1, "a")
    shell.advance(10 * SECOND_NS - 1)
    assert shell.taken(Kill) == []
    shell.advance(1)
    assert [a.name for a in shell.taken(Kill)] == ["clock"]
    assert shell.policy.state("a") == "running"


def test_a_clock_that_ends_in_the_middle_of_a_tick_brings_nobody_down_who_was_not_told(shell):
    """It told the supervisor of tick 2 and not the actor; its successor's first tick proves nothing about it."""
    shell.add("clock", "clock", policy=RestartPolicy(stall_s=1))
    shell.add("a", "exchange", "x", policy=RestartPolicy(stall_s=1))
    shell.tick(1, "a")
    shell.advance(SECOND_NS)
    shell.tick(2)
    shell.advance(20 * SECOND_NS)
    assert {a.name for a in shell.taken(Kill)} == {"clock"}
    shell.tick(22)
    shell.advance(200 * MS)
    shell.policy.answered("a", shell.policy.incarnation("a"), 22, shell.now)
    shell.advance(5 * SECOND_NS)
    assert "a" not in [a.name for a in shell.taken(Kill)]
    assert shell.policy.state("a") == "running"


def test_an_actor_that_does_not_answer_is_found_although_the_clock_pauses(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(stall_s=3))
    shell.tick(1)
    shell.advance(30 * SECOND_NS)
    for n in range(31, 34):
        shell.tick(n)
        assert shell.taken(Kill) == []
        shell.advance(SECOND_NS)
    assert [a.name for a in shell.taken(Kill)] == ["a"]


def test_a_fast_clock_is_given_its_stall_time(shell):
    shell = Shell(interval_ns=10 * MS)
    shell.add("clock", "clock", policy=RestartPolicy(stall_s=3))
    shell.advance(3 * SECOND_NS - 1)
    assert shell.taken(Kill) == []
    shell.advance(1)
    assert len(shell.taken(Kill)) == 1


def test_a_clock_that_waits_for_wall_time_and_says_so_lives(shell):
    shell.add("clock", "clock")
    for _ in range(30):
        shell.policy.answered("clock", 1, 7, shell.now)
        shell.advance(SECOND_NS)
    assert shell.taken(Kill) == []


def test_a_starting_actor_is_not_asked_for_answers(shell):
    shell.auto_start = False
    shell.add("a", "exchange", "x", policy=RestartPolicy(start_timeout_s=100))
    shell.tick(1)
    shell.policy.started("a", 1, shell.now + 20 * SECOND_NS)
    shell.advance(20 * SECOND_NS)
    assert shell.taken(Kill) == []


def test_a_supervisor_that_was_held_up_blames_nobody(shell):
    shell.add("clock", "clock")
    shell.add("a", "exchange", "x", policy=RestartPolicy(stall_s=3))
    shell.auto_start = False
    shell.add("b", "exchange", "y", policy=RestartPolicy(start_timeout_s=5))
    shell.tick(1)
    shell.now += 60 * SECOND_NS
    shell.step()
    assert shell.taken(Kill) == []
    shell.policy.answered("a", 1, 1, shell.now)
    shell.tick(61)
    shell.advance(2 * SECOND_NS)
    assert shell.taken(Kill) == []
    shell.tick(62)
    shell.advance(SECOND_NS)
    assert [a.name for a in shell.taken(Kill)] == ["a"]


def test_a_supervisor_that_is_always_late_still_finds_a_stalled_actor(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(stall_s=3))
    for n in range(1, 60):
        shell.tick(n)
        shell.now += 2 * SECOND_NS
        shell.step()
    assert "a" in [a.name for a in shell.taken(Kill)]


def test_stopping_is_asked_for_then_enforced(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(kill_after_s=4))
    shell.auto_die = False
    shell.policy.stop_requested("a", shell.now, "detached")
    shell.step()
    assert shell.taken(Stop) == [Stop("a", "detached")]
    shell.tick(1)
    shell.advance(4 * SECOND_NS)
    assert shell.taken(Kill) == [Kill("a", "detached")]
    with pytest.raises(ValueError, match="living"):
        shell.policy.remove("a")
    shell.crash("a")
    assert shell.policy.state("a") == "stopped"
    shell.policy.remove("a")
    assert shell.policy.names() == []
    assert shell.policy.next_wakeup() is None


def test_a_requested_restart_stops_first_and_costs_no_budget(shell):
    shell.add("a", "exchange", "x", policy=RestartPolicy(budget=0))
    for _ in range(3):
        shell.policy.restart_requested("a", shell.now)
        shell.step()
    asked = shell.taken(Stop, Spawn)
    assert [type(action) for action in asked] == [Spawn, Stop, Spawn, Stop, Spawn, Stop, Spawn]
    assert {action.comes_back for action in asked if isinstance(action, Stop)} == {True}
    assert shell.policy.restarts("a") == 3
    assert shell.policy.state("a") == "running"


def test_a_stop_that_comes_while_the_process_is_being_made_is_kept(shell):
    policy = shell.policy
    policy.add("a", "exchange", "x")
    policy.poll(0)
    policy.stop_requested("a", 0, "enough")
    policy.poll(0)
    policy.spawned("a", 1, 0)
    assert policy.poll(0) == [Stop("a", "enough")]
    policy.started("a", 1, 0)
    assert policy.state("a") == "stopping"


def test_a_back_off_ends_with_a_stop_or_with_a_restart(shell):
    shell.add("a", "exchange", "x")
    shell.crash("a")
    shell.policy.stop_requested("a", shell.now)
    shell.step()
    assert shell.policy.state("a") == "stopped"
    shell.advance(100 * SECOND_NS)
    assert shell.policy.state("a") == "stopped"
    shell.policy.restart_requested("a", shell.now)
    shell.step()
    assert shell.policy.state("a") == "running"


def test_an_actor_that_finished_its_work_is_not_started_again(shell):
    shell.add("a", "strategy")
    shell.exit("a", expected=True, detail="done")
    shell.step()
    assert shell.log[-1] == Changed("a", ActorState.STOPPED, "done")
    shell.advance(100 * SECOND_NS)
    assert shell.policy.state("a") == "stopped"


def test_nothing_is_spawned_once_the_engine_stops(shell):
    shell.add("a", "exchange", "x")
    shell.add("b", "exchange", "y")
    shell.add("c", "exchange", "z")
    shell.crash("b")
    shell.taken()
    shell.policy.shutdown_requested(shell.now)
    shell.step()
    assert shell.policy.state("b") == "stopped"
    shell.crash("a")
    shell.policy.restart_requested("c", shell.now)
    shell.policy.stop_requested("c", shell.now)
    shell.step()
    shell.advance(100 * SECOND_NS)
    assert shell.taken(Spawn) == []
    assert {shell.policy.state(name).value for name in "abc"} == {"stopped"}


def test_events_of_the_past_are_ignored(shell):
    shell.add("a", "exchange", "x")
    shell.policy.exited("a", 7, shell.now, False)
    shell.policy.exited("nobody", 1, shell.now, False)
    shell.policy.answered("nobody", 1, 1, shell.now)
    shell.policy.started("a", 0, shell.now)
    shell.policy.spawned("a", 9, shell.now)
    shell.policy.spawn_failed("a", shell.now, "late")
    shell.step()
    assert shell.policy.state("a") == "running"
    assert shell.policy.incarnation("a") == 1


# ---------------------------------------------------------------------------------------------- whatever happens

KINDS = (
    ("clock", "clock", ""),
    ("b", "order_book", "x"),
    ("e", "exchange", "x"),
    ("s", "strategy", ""),
    ("v", "venue", "v"),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "spawned",
                "failed",
                "started",
                "tick",
                "answer",
                "exit",
                "leave",
                "restart",
                "stop",
                "shutdown",
                "poll",
                "pause",
            )
        ),
        st.sampled_from([name for name, _, _ in KINDS]),
        st.integers(0, 3_000),
    ),
    max_size=120,
)
POLICY = RestartPolicy(budget=3, window_s=20.0, stall_s=2.0, start_timeout_s=3.0, kill_after_s=1.0, backoff_max_s=1.0)


class World:
    """Random histories: processes that live, and everything that the policy must hold of them."""

    def __init__(self):
        self.policy = SupervisorPolicy(5)
        self.now = 0
        self.last_tick = 0
        self.incarnation = 0
        self.asked = set()
        self.living = {}
        self.ended = set()
        self.ticked_since_start = {}
        self.spawns = {name: [] for name, _, _ in KINDS}
        self.forgiven = {name: 0 for name, _, _ in KINDS}
        for name, kind, connector in KINDS:
            self.policy.add(name, kind, connector, POLICY)

    def apply(self, event, name, ms):
        self.now += ms * MS if event == "pause" else (ms % 250) * MS
        policy, now = self.policy, self.now
        incarnation = self.living.get(name, 0)
        if event == "spawned" and name in self.asked:
            self.asked.discard(name)
            assert name not in self.living
            self.incarnation += 1
            self.living[name] = self.incarnation
            self.ticked_since_start[name] = False
            policy.spawned(name, self.incarnation, now)
        elif event == "failed" and name in self.asked:
            self.asked.discard(name)
            self.ended.add(name)
            policy.spawn_failed(name, now, "no")
        elif event == "started":
            policy.started(name, incarnation, now)
        elif event == "tick":
            self.last_tick += 1
            policy.tick_seen(self.last_tick, now)
            for each in self.living:
                self.ticked_since_start[each] = True
        elif event == "answer":
            policy.answered(name, incarnation, self.last_tick, now)
        elif event in ("exit", "leave") and name in self.living:
            del self.living[name]
            self.ended.add(name)
            policy.exited(name, incarnation, now, event == "leave")
        elif event == "restart":
            self.forgiven = {each: now for each in self.forgiven}
            policy.restart_requested(name, now)
        elif event == "stop":
            policy.stop_requested(name, now)
        elif event == "shutdown" and ms > 2_900:
            policy.shutdown_requested(now)
        self.take(policy.poll(now))

    def take(self, actions):
        for action in actions:
            if isinstance(action, Spawn):
                assert action.name not in self.asked, "asked for twice"
                assert action.name not in self.living, "two living incarnations"
                self.asked.add(action.name)
                self.spawns[action.name].append(self.now)
            elif isinstance(action, Kill | Stop):
                assert action.name in self.living, "there is nothing to end"
                if isinstance(action, Kill) and action.reason.startswith("no answer"):
                    assert self.ticked_since_start[action.name], "stalled without a tick seen"
        for name in self.ended:
            if name not in self.living and name not in self.asked:
                assert self.policy.state(name) in ("backing_off", "failed", "stopped"), "lost sight of"
        self.check_budget()

    def check_budget(self):
        for name, times in self.spawns.items():
            counted = [at for at in times if at > self.forgiven[name]]
            window = [at for at in counted if at > self.now - 20 * SECOND_NS]
            assert len(window) <= POLICY.budget + 1, "more restarts than the budget grants"


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_whatever_happens_the_policy_keeps_its_promises(events):
    world = World()
    world.take(world.policy.poll(0))
    for event in events:
        world.apply(*event)
    settle(world)


def settle(world):
    """With every wish carried out, each actor comes to run, or its end is told."""
    for _ in range(60):
        for name in list(world.asked):
            world.apply("spawned", name, 0)
        for name in list(world.living):
            if world.policy.state(name) in ("stopping", "stalled"):
                world.apply("leave", name, 0)
            else:
                world.apply("started", name, 0)
        world.apply("tick", "clock", 240)
        for name in list(world.living):
            world.apply("answer", name, 0)
    states = {world.policy.state(name).value for name in world.policy.names()}
    assert states <= {"running", "failed", "stopped"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_the_wakeup_is_never_in_the_past_and_never_far_while_a_deadline_runs(seed):
    chance = random.Random(seed)
    shell = Shell(seed)
    shell.add("clock", "clock")
    shell.add("a", "exchange", "x")
    for n in range(50):
        shell.tick(n, *chance.choice(((), ("a",))))
        if chance.random() < 0.2:
            shell.crash("a")
        wakeup = shell.policy.next_wakeup()
        assert wakeup is not None
        assert shell.now <= wakeup <= shell.now + HEARTBEAT_NS
        shell.advance(chance.randrange(SECOND_NS))
