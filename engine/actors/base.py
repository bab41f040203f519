"""What every actor has in common: its context, its life cycle, its answers to the clock.

An actor is a small object that wires a core from ``engine.book``, ``engine.orders`` or ``engine.connectors`` to the
bus. It never knows whether it runs in a process of its own or beside others on virtual time: all it touches of the
world comes in its :class:`ActorContext`. :class:`ActorHost` drives it::

    start() ──▶ ActorStarted ──▶ on_tick()* ──▶ stop() ──▶ last ActorStats, ActorStopping
                                    └── the supervisor died ──▶ dead_man()
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, ClassVar

import structlog

from engine.bus import Bus, Caller, SubscriptionState, Up
from engine.clock import Clock
from engine.errors import BusError
from engine.logs import redact_text
from engine.messages import (
    ActorStarted,
    ActorStats,
    ActorStopping,
    AskStats,
    AskTime,
    ControlReply,
    Message,
    NetworkStatus,
    StopActor,
    Tick,
    TickDone,
    TimeIs,
)
from engine.metrics import Histogram
from engine.runtime.base import ActorSpec

SUPERVISOR = "supervisor"
CLOCK = "clock"
RISK = "risk"
LIFE = "life"
"""A stream of the supervisor on which nothing ever comes: whoever reads it learns of another supervisor."""
STATS_INTERVAL_S = 0.5
REPORT_TIMEOUT_S = 1.0
TERM_GRACE_NS = 5_000_000_000


class Metrics:
    """An actor's counters, gauges and histograms, by the names that the report reads."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, Any] = {}
        self.histograms: dict[str, Histogram] = {}
        self.network = NetworkStatus.NONE
        self._messages = 0

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        self.counters[name] = self.counters.get(name, 0) + by

    def histogram(self, name: str) -> Histogram:
        """The histogram of that name, made when first asked for."""
        found = self.histograms.get(name)
        if found is None:
            found = self.histograms[name] = Histogram()
        return found

    def message(self, actor: str, incarnation: int) -> ActorStats:
        """All of it as it stands now."""
        self._messages += 1
        return ActorStats(
            actor=actor,
            incarnation=incarnation,
            number=self._messages,
            network=self.network,
            counters=dict(self.counters),
            gauges=dict(self.gauges),
            histograms={name: dict(histogram.buckets) for name, histogram in self.histograms.items()},
        )


class ActorContext:
    """What an actor may touch of the world: its spec, the bus, time, the log, its metrics and its tasks."""

    def __init__(self, spec: ActorSpec, bus: Bus, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
        self.spec = spec
        self.name = spec.name
        self.incarnation = spec.incarnation
        self.connector = spec.connector
        self.params = spec.params
        self.bus = bus
        self.clock = clock
        self.log = log
        self.metrics = Metrics()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.leaving = False
        self._tasks: dict[asyncio.Task[None], None] = {}

    def run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task that belongs to the actor. An error that it does not handle ends the actor."""
        task = asyncio.create_task(work, name=f"{self.name}:{name}")
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def fail(self, error: BaseException) -> None:
        """End the actor with this error; the supervisor starts it anew."""
        if not self.failed.done():
            self.failed.set_result(error)

    async def cancel_tasks(self) -> None:
        """Cancel what is still running and wait for it; from here on nothing new is to be begun."""
        self.leaving = True
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)


class Actor(ABC):
    """Base of all actors. Handlers are called one at a time and must not block."""

    kind: ClassVar[str]
    ticked: ClassVar[bool] = True

    def __init__(self, context: ActorContext) -> None:
        self.context = context
        self.log = context.log
        self.bus = context.bus
        self.clock = context.clock
        self.metrics = context.metrics

    @abstractmethod
    async def start(self) -> dict[str, Any]:
        """Recover (the only way to start) and begin to serve; returns what dependants must know of this actor."""

    def on_tick(self, tick: Tick) -> None:  # noqa: B027 - most actors live by their events alone
        """The clock's beat."""

    def on_message(self, caller: Caller, message: Message) -> Any:
        """A request, command or tell from another actor; returns the reply or an awaitable of it."""
        raise BusError(f"{self.context.name} does not answer {type(message).__name__}")

    def collect(self) -> None:  # noqa: B027 - only actors with gauges have something to do
        """Bring gauges up to date; called right before the metrics are sent."""

    async def stop(self, order: StopActor) -> None:  # noqa: B027 - nothing to do for most
        """Finish politely, within ``order.grace_ns``."""

    async def dead_man(self, grace_s: float) -> None:  # noqa: B027 - only exchange actors hold orders
        """The supervisor is gone: leave nothing behind, within the grace time."""

    def abandon(self) -> None:  # noqa: B027 - only actors with files have something to do
        """Close files as the kernel does when a process is killed: for an actor that ended without one of its own."""


class ActorHost:
    """Drives one actor: start, ticks, statistics, stop. The same under every runtime."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.context = actor.context
        self._stop: asyncio.Future[StopActor] = asyncio.get_running_loop().create_future()
        self._orphaned = asyncio.Event()
        self._pending: Tick | None = None
        self._last_n: int | None = None
        self._ready = False

    def request_stop(self, order: StopActor) -> None:
        """Stop as soon as the actor is idle; only the first order counts."""
        if not self._stop.done():
            self._stop.set_result(order)

    def terminate(self) -> None:
        """SIGTERM: stop within a short grace time, and leave open orders where they are."""
        self.request_stop(StopActor(grace_ns=TERM_GRACE_NS, reason="SIGTERM", keep_orders=True))

    def supervisor_died(self) -> None:
        """Set the dead-man switch off."""
        self._orphaned.set()

    async def run(self, pid: int, dead_man_grace_s: float) -> int:
        """Live until stopped, orphaned or failed; returns the exit code."""
        context = self.context
        context.bus.serve(self._on_message)
        try:
            info = await self._unless_ended(self.actor.start())
            if info is not None:
                self._ready = True
                if self.actor.ticked:
                    context.bus.subscribe(CLOCK, "tick", self._on_tick)
                unix, tcp = context.bus.addresses
                started = ActorStarted(
                    actor=context.name, incarnation=context.incarnation, pid=pid, info=info, unix=unix, tcp=tcp
                )
                context.run(self._report(started), "started")
                if context.spec.link is not None:
                    self._tell_every_supervisor(started)
                context.run(self._send_stats(), "stats")
                await self._until_ended()
            return await self._leave(dead_man_grace_s)
        finally:
            await context.cancel_tasks()

    async def _unless_ended(self, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any] | None:
        task = asyncio.create_task(work)
        try:
            await self._until_ended(task)
            if task.done():
                return task.result()
        finally:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return None

    async def _until_ended(self, *others: asyncio.Future[Any]) -> None:
        orphaned = asyncio.create_task(self._orphaned.wait())
        ends: list[asyncio.Future[Any]] = [self._stop, orphaned, self.context.failed, *others]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            orphaned.cancel()

    async def _leave(self, dead_man_grace_s: float) -> int:
        context = self.context
        if context.failed.done():
            error = context.failed.result()
            context.log.error("actor failed", error=repr(error), exc_info=error)
            await self._say_goodbye(redact_text(repr(error)))
            return 1
        if self._orphaned.is_set():
            context.log.warning("the supervisor is gone: leaving", grace_s=dead_man_grace_s)
            try:
                async with asyncio.timeout(dead_man_grace_s):
                    await self.actor.dead_man(dead_man_grace_s)
            except TimeoutError:
                context.log.error("dead-man grace time is over with work left", grace_s=dead_man_grace_s)
            return 0
        order = self._stop.result()
        context.log.info("stopping", reason=order.reason)
        try:
            async with asyncio.timeout(order.grace_ns / 1e9):
                await self.actor.stop(order)
        except TimeoutError:
            context.log.error("could not finish within the grace time", grace_s=order.grace_ns / 1e9)
        await self._say_goodbye("")
        return 0

    async def _say_goodbye(self, error: str) -> None:
        context = self.context
        context.bus.tell(SUPERVISOR, self._stats())
        await say_goodbye(context.bus, context.spec, error, context.log)

    async def _report(self, started: ActorStarted) -> None:
        while True:
            try:
                await self.context.bus.request(SUPERVISOR, started, timeout=REPORT_TIMEOUT_S)
            except BusError as error:
                self.context.log.info("telling the supervisor again that this actor is ready", error=str(error))
                await asyncio.sleep(0.05)
            else:
                return

    def _tell_every_supervisor(self, started: ActorStarted) -> None:
        """In a cluster another supervisor may follow the first, and takes over what it finds."""

        def heard(state: SubscriptionState) -> None:
            if isinstance(state, Up) and state.incarnation_changed:
                self.context.run(self._report(started), "started")

        self.context.bus.subscribe(SUPERVISOR, LIFE, lambda message, number: None, on_state=heard)

    async def _send_stats(self) -> None:
        context = self.context
        while True:
            await asyncio.sleep(STATS_INTERVAL_S)
            context.bus.tell(SUPERVISOR, self._stats())

    def _stats(self) -> ActorStats:
        self.actor.collect()
        return self.context.metrics.message(self.context.name, self.context.incarnation)

    def _on_message(self, caller: Caller, message: Message) -> Any:
        if isinstance(message, StopActor):
            if caller.name != SUPERVISOR:
                raise BusError(f"only the supervisor stops actors, not {caller.name}")
            self.request_stop(message)
            return ControlReply(ok=True)
        if isinstance(message, AskTime):
            received_ns = self.context.clock.time_ns()
            return TimeIs(received_ns=received_ns, answered_ns=self.context.clock.time_ns())
        if isinstance(message, AskStats):
            return self._stats()
        return self.actor.on_message(caller, message)

    def _on_tick(self, message: Message, number: int) -> None:
        if not isinstance(message, Tick):
            return
        if self._pending is None:
            asyncio.get_running_loop().call_soon(self._handle_tick)
        self._pending = message

    def _handle_tick(self) -> None:
        tick = self._pending
        self._pending = None
        if tick is None or self.context.failed.done() or (self._last_n is not None and tick.n <= self._last_n):
            return
        context = self.context
        began = context.clock.monotonic_ns()
        lateness = max(0, context.clock.time_ns() - tick.time_ns)
        skipped = 0 if self._last_n is None else tick.n - self._last_n - 1
        self._last_n = tick.n
        context.metrics.count("ticks")
        context.metrics.gauges["last_tick"] = tick.n
        if skipped:
            context.metrics.count("ticks_skipped", skipped)
        context.metrics.histogram("tick_lateness_ns").record(lateness)
        try:
            self.actor.on_tick(tick)
        except Exception as error:
            context.fail(error)
            return
        context.bus.tell(
            SUPERVISOR,
            TickDone(
                actor=context.name,
                incarnation=context.incarnation,
                n=tick.n,
                lateness_ns=lateness,
                duration_ns=context.clock.monotonic_ns() - began,
                skipped=skipped,
                streams=context.bus.positions(),
            ),
        )


async def say_goodbye(bus: Bus, spec: ActorSpec, error: str, log: structlog.stdlib.BoundLogger) -> None:
    """Tell the supervisor that the actor ends, and by which ``error``; what was told before is heard as well."""
    stopping = ActorStopping(actor=spec.name, incarnation=spec.incarnation, error=error)
    try:
        await bus.request(SUPERVISOR, stopping, timeout=REPORT_TIMEOUT_S)
    except BusError as lost:
        log.warning("the supervisor did not hear the last word", error=str(lost))
