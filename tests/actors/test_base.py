"""The life of an actor: start, ticks, statistics, and each way to end."""

import asyncio

import pytest

from engine.actors.base import Actor, Metrics
from engine.bus import Overload
from engine.errors import RemoteError
from engine.messages import (
    ActorStarted,
    ActorStats,
    ActorStopping,
    AskStats,
    ControlReply,
    GetAccount,
    LogLine,
    NetworkStatus,
    OrderFate,
    StopActor,
    TickDone,
)

NAME = "small.one"


class Small(Actor):
    """Does what its params say."""

    kind = "small"

    def __init__(self, context):
        super().__init__(context)
        self.ticks = []
        self.stopped = []
        self.dead = []
        self.stream = context.bus.open_stream("news", overload=Overload.SKIP)
        self.go = asyncio.Event()

    async def start(self):
        if self.context.params.get("start_waits"):
            await self.go.wait()
        if self.context.params.get("start_fails"):
            raise RuntimeError("cannot start")
        return {"listens": "here"}

    def on_tick(self, tick):
        self.ticks.append(tick.n)
        if tick.n == self.context.params.get("tick_fails"):
            raise ValueError(f"tick {tick.n}")

    def on_message(self, caller, message):
        if isinstance(message, GetAccount):
            return ControlReply(ok=True, data=caller.name)
        return super().on_message(caller, message)

    def collect(self):
        self.metrics.gauges["collected"] = self.metrics.gauges.get("collected", 0) + 1

    async def stop(self, order):
        self.stopped.append(order)
        if self.context.params.get("stop_waits"):
            await self.go.wait()
        if self.context.params.get("stop_fails"):
            raise RuntimeError("cannot stop")

    async def dead_man(self, grace_s):
        self.dead.append(grace_s)
        if self.context.params.get("dead_man_waits"):
            await self.go.wait()


class Unticked(Small):
    kind = "unticked"
    ticked = False


def errors(logs):
    return [line for line in logs if line["log_level"] == "error"]


def test_an_actor_reports_that_it_serves(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME)
        await world.until(lambda: supervisor.of(ActorStarted))
        assert supervisor.of(ActorStarted) == [
            ActorStarted(actor=NAME, incarnation=small.bus.incarnation, pid=4242, info={"listens": "here"})
        ]

    run(body)


def test_the_report_is_repeated_until_the_supervisor_hears_it(run):
    async def body(world):
        await world.start(Small, NAME)
        supervisor = await world.supervisor()
        await world.until(lambda: supervisor.of(ActorStarted))

    run(body)


def test_the_report_is_repeated_when_its_answer_does_not_come(run):
    async def body(world):
        supervisor = await world.supervisor()
        answer = asyncio.Event()

        async def late():
            await answer.wait()
            return ControlReply(ok=True)

        def heard(caller, message):
            supervisor.heard.append(message)
            return late() if isinstance(message, ActorStarted) else None

        supervisor.bus.serve(heard)
        await world.start(Small, NAME)
        await world.until(lambda: len(supervisor.of(ActorStarted)) >= 2)
        answer.set()
        supervisor.heard.clear()
        await world.until(lambda: len(supervisor.of(ActorStats)) >= 3)
        assert len(supervisor.of(ActorStarted)) <= 1

    run(body)


def test_a_tick_is_answered_with_where_the_streams_stand(run):
    async def body(world):
        supervisor = await world.supervisor()
        tick, _ = await world.clock_stream()
        small = await world.start(Small, NAME)
        small.actor.stream.publish(LogLine(actor="x", level="info", event="x", time_ns=1))
        await world.until(lambda: supervisor.of(ActorStarted))
        tick(7)
        await world.until(lambda: supervisor.of(TickDone))
        (done,) = supervisor.of(TickDone)
        assert (done.actor, done.incarnation, done.n, done.skipped) == (NAME, small.bus.incarnation, 7, 0)
        assert done.lateness_ns > 0
        assert done.duration_ns >= 0
        assert done.streams["news"].number == 1
        assert done.streams["news"].incarnation == small.bus.incarnation

    run(body)


def test_a_busy_actor_handles_the_newest_tick_and_says_how_many_it_skipped(run):
    async def body(world):
        supervisor = await world.supervisor()
        tick, _ = await world.clock_stream()
        small = await world.start(Small, NAME)
        await world.until(lambda: supervisor.of(ActorStarted))
        tick(1)
        await world.until(lambda: small.actor.ticks == [1])
        world.network.stall(NAME)
        for n in (2, 3, 4):
            tick(n)
        world.network.resume(NAME)
        await world.until(lambda: len(supervisor.of(TickDone)) == 2)
        assert small.actor.ticks == [1, 4]
        assert [done.skipped for done in supervisor.of(TickDone)] == [0, 2]
        assert small.actor.metrics.counters == {"ticks": 2, "ticks_skipped": 2}

    run(body)


def test_a_tick_that_is_not_newer_is_not_handled(run):
    async def body(world):
        supervisor = await world.supervisor()
        tick, _ = await world.clock_stream()
        small = await world.start(Small, NAME)
        await world.until(lambda: supervisor.of(ActorStarted))
        for n in (5, 5, 4, 6):
            tick(n)
            await asyncio.sleep(0.002)
        await world.until(lambda: small.actor.ticks[-1:] == [6])
        assert small.actor.ticks == [5, 6]

    run(body)


def test_an_actor_without_ticks_hears_none(run):
    async def body(world):
        supervisor = await world.supervisor()
        _, stream = await world.clock_stream()
        await world.start(Unticked, NAME)
        await world.until(lambda: supervisor.of(ActorStarted))
        assert stream.readers == 0

    run(body)


def test_an_error_in_a_tick_ends_the_actor_with_a_last_word(run):
    async def body(world):
        supervisor = await world.supervisor()
        tick, _ = await world.clock_stream()
        small = await world.start(Small, NAME, params={"tick_fails": 2})
        await world.until(lambda: supervisor.of(ActorStarted))
        tick(1)
        await world.until(lambda: supervisor.of(TickDone))
        tick(2)
        assert await small.code() == 1
        assert [done.n for done in supervisor.of(TickDone)] == [1]
        assert [word.error for word in supervisor.of(ActorStopping)] == ["ValueError('tick 2')"]
        assert small.actor.stopped == []

    logs = run(body)
    assert [line["event"] for line in errors(logs)] == ["actor failed"]


def test_an_error_in_a_task_ends_the_actor(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME)

        async def breaks():
            await asyncio.sleep(0)
            raise OSError("no disk")

        small.actor.context.run(breaks(), "work")
        assert await small.code() == 1
        assert "no disk" in supervisor.of(ActorStopping)[0].error

    run(body)


def test_the_first_error_is_the_one_that_is_told(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME)
        small.actor.context.fail(ValueError("first"))
        small.actor.context.fail(ValueError("second"))
        await small.code()
        assert [word.error for word in supervisor.of(ActorStopping)] == ["ValueError('first')"]

    run(body)


def test_a_cancelled_task_is_no_error(run):
    async def body(world):
        small = await world.start(Small, NAME)
        task = small.actor.context.run(asyncio.sleep(100), "work")
        task.cancel()
        await asyncio.wait([task])
        assert await small.stop() == 0

    run(body)


def test_an_actor_that_cannot_start_raises_what_kept_it(run):
    async def body(world):
        small = await world.start(Small, NAME, params={"start_fails": True})
        with pytest.raises(RuntimeError, match="cannot start"):
            await small.task

    run(body)


def test_an_actor_can_be_stopped_while_it_starts(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME, params={"start_waits": True}, wait=False)
        reply = await supervisor.stop(NAME, reason="changed my mind")
        assert (reply.ok, await small.code()) == (True, 0)
        assert supervisor.of(ActorStarted) == []
        assert len(supervisor.of(ActorStopping)) == 1

    run(body)


def test_an_actor_that_is_told_to_stop_sends_its_last_numbers_and_leaves(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME)
        await world.until(lambda: supervisor.of(ActorStarted))
        small.actor.metrics.count("work", 3)
        await supervisor.stop(NAME, reason="the end", keep_orders=True)
        assert await small.code() == 0
        assert [(order.reason, order.keep_orders) for order in small.actor.stopped] == [("the end", True)]
        assert supervisor.heard[-1] == ActorStopping(actor=NAME, incarnation=small.bus.incarnation)
        last = supervisor.of(ActorStats)[-1]
        assert (last.counters["work"], last.gauges["collected"] > 0) == (3, True)

    run(body)


def test_only_the_first_order_to_stop_counts(run):
    async def body(world):
        small = await world.start(Small, NAME, params={"stop_waits": True})
        small.host.request_stop(StopActor(grace_ns=2_000_000_000, reason="first"))
        small.host.request_stop(StopActor(grace_ns=1, reason="second"))
        await world.until(lambda: small.actor.stopped)
        small.actor.go.set()
        assert await small.code() == 0
        assert [order.reason for order in small.actor.stopped] == ["first"]

    run(body)


def test_nobody_but_the_supervisor_stops_an_actor(run):
    async def body(world):
        small = await world.start(Small, NAME)
        stranger = await world.bus("strategy.evil")
        with pytest.raises(RemoteError, match="only the supervisor"):
            await stranger.request(NAME, StopActor(grace_ns=0))
        assert not small.ended
        assert small.actor.stopped == []

    run(body)


def test_a_stop_takes_no_longer_than_its_grace(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME, params={"stop_waits": True})
        assert await small.stop(grace_ns=20_000_000) == 0
        assert len(supervisor.of(ActorStopping)) == 1

    logs = run(body)
    assert [line["event"] for line in errors(logs)] == ["could not finish within the grace time"]


def test_an_error_while_stopping_is_no_polite_end(run):
    async def body(world):
        small = await world.start(Small, NAME, params={"stop_fails": True})
        small.host.request_stop(StopActor(grace_ns=1_000_000_000))
        with pytest.raises(RuntimeError, match="cannot stop"):
            await small.task

    run(body)


def test_an_actor_leaves_when_nobody_hears_its_last_word(run):
    async def body(world):
        small = await world.start(Small, NAME)
        assert await small.stop() == 0

    logs = run(body)
    assert "the supervisor did not hear the last word" in [line["event"] for line in logs]


def test_the_dead_man_switch(run):
    async def body(world):
        small = await world.start(Small, NAME, dead_man_s=0.5)
        small.host.supervisor_died()
        assert await small.code() == 0
        assert (small.actor.dead, small.actor.stopped) == ([0.5], [])

    run(body)


def test_the_dead_man_has_no_longer_than_its_grace(run):
    async def body(world):
        small = await world.start(Small, NAME, params={"dead_man_waits": True}, dead_man_s=0.02)
        small.host.supervisor_died()
        assert await small.code() == 0

    logs = run(body)
    assert [line["event"] for line in errors(logs)] == ["dead-man grace time is over with work left"]


def test_the_supervisor_may_die_while_an_actor_starts(run):
    async def body(world):
        small = await world.start(Small, NAME, params={"start_waits": True}, wait=False)
        small.host.supervisor_died()
        assert await small.code() == 0
        assert small.actor.dead == [1.0]

    run(body)


def test_tasks_end_with_their_actor(run):
    async def body(world):
        small = await world.start(Small, NAME)
        task = small.actor.context.run(asyncio.sleep(100), "work")
        await small.stop()
        assert task.cancelled()

    run(body)


def test_statistics_are_sent_again_and_again(run):
    async def body(world):
        supervisor = await world.supervisor()
        small = await world.start(Small, NAME)
        metrics = small.actor.metrics
        metrics.count("things")
        metrics.histogram("took_ns").record(5)
        metrics.network = NetworkStatus.CONNECTED
        await world.until(lambda: any(stats.counters for stats in supervisor.of(ActorStats)))
        metrics.count("things", 2)
        await world.until(lambda: supervisor.of(ActorStats)[-1].counters == {"things": 3})
        last = supervisor.of(ActorStats)[-1]
        assert (last.actor, last.incarnation) == (NAME, small.bus.incarnation)
        assert (last.network, last.histograms) == (NetworkStatus.CONNECTED, {"took_ns": {5: 1}})
        assert last.gauges["collected"] >= 2

    run(body)


def test_statistics_are_given_when_asked_for(run):
    async def body(world):
        small = await world.start(Small, NAME)
        other = await world.bus("supervisor")
        small.actor.metrics.count("things")
        first = await other.request(NAME, AskStats())
        small.actor.metrics.count("things")
        second = await other.request(NAME, AskStats())
        assert (first.counters, second.counters) == ({"things": 1}, {"things": 2})
        assert second.number > first.number
        assert second.gauges["collected"] > first.gauges["collected"]

    run(body)


def test_statistics_are_a_copy():
    metrics = Metrics()
    metrics.count("a")
    metrics.histogram("h").record(1)
    message = metrics.message("x", 1)
    metrics.count("a")
    metrics.histogram("h").record(1)
    assert (message.counters, message.histograms) == ({"a": 1}, {"h": {1: 1}})


def test_requests_reach_the_actor_and_what_it_does_not_know_is_an_error(run):
    async def body(world):
        await world.start(Small, NAME)
        other = await world.bus("other")
        assert (await other.request(NAME, GetAccount())).data == "other"
        with pytest.raises(RemoteError, match="does not answer OrderFate"):
            await other.request(NAME, OrderFate(client_order_id="x"))

    run(body)
