"""The supervisor: starts every actor, hears whether it lives, starts it again, and stops all in order.

What it decides is :mod:`engine.actors.policy`; what it knows of the actors is :mod:`engine.actors.observed`; what
commands ask of it is :mod:`engine.actors.control`; how it ends them is :mod:`engine.actors.shutdown`; what it leaves to
another is :mod:`engine.actors.succession`. This module carries decisions out.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from engine.actors.base import CLOCK, LIFE, SUPERVISOR
from engine.actors.boxes import Boxes
from engine.actors.control import Control
from engine.actors.ground import Ground, LocalGround
from engine.actors.host_clocks import HostClocks
from engine.actors.observed import Observations, profits
from engine.actors.orphans import CANCEL_ORDERS_S, cancel_orders_of
from engine.actors.plan import (
    PlannedActor,
    plan,
    plan_mirrors,
    plan_strategy,
    strategy_name,
    with_endpoint,
    with_halt,
    with_shared_limits,
)
from engine.actors.policy import (
    Action,
    ActorFailed,
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
from engine.actors.shutdown import ENDED, Shutdown
from engine.actors.succession import Succession
from engine.attached import load_attached
from engine.bus import Bus, Caller, Overload
from engine.clock import Clock
from engine.config import EngineConfig, RunOptions, StrategyConfig
from engine.errors import BusError, EngineError, NoHost
from engine.logs import configure_terminal_logging
from engine.messages import (
    ActorChanged,
    ActorStarted,
    ActorStats,
    ActorStopping,
    ControlReply,
    ControlRequest,
    LogLine,
    Message,
    StopActor,
    Tick,
    TickDone,
)
from engine.orders.halt import read_trading
from engine.orders.risk import TradingState
from engine.report import ActorRecord, build_report, build_status
from engine.runtime.base import ActorSpec, Exit, Living, Runtime
from engine.runtime.leftovers import clear_previous
from engine.runtime.paths import EnginePaths
from engine.runtime.scheduling import RANKS

POLITE_S = {"strategy": 3.0, "exchange": 15.0}
POLITE_DEFAULT_S = 3.0
ENFORCED_S = 2.0
"""How much longer than its politeness may take a stopping actor has until it is killed."""
RECENT_EVENTS = 200
LAST_WORD = 300
"""So many characters of what an actor said of its end are told on."""


async def supervise(
    config: EngineConfig,
    options: RunOptions,
    terminal: Any = None,
    make_ground: Callable[[EnginePaths], Ground] | None = None,
) -> dict[str, Any]:
    """Run an engine until it is told to stop; returns its report.

    ``terminal``: the stream that events are shown on, None for none. ``make_ground``: where it is to run, by default
    on this host. Raises ConfigError before anything has started when the state folder cannot be used.
    """
    paths = EnginePaths.for_state(options.state_dir)
    ground = LocalGround(paths, config.dead_man.grace) if make_ground is None else make_ground(paths)
    run_id = ground.clock.time_ns()
    shown = configure_terminal_logging(terminal) if terminal else None
    return await supervise_run(config, options, paths, shown, run_id, ground)


async def supervise_run(
    config: EngineConfig,
    options: RunOptions,
    paths: EnginePaths,
    shown: Shown | None,
    run_id: int,
    ground: Ground,
    legacy_file: Path | None = None,
) -> dict[str, Any]:
    """The same for a run that has its ``run_id`` already. ``shown``: where lines are shown. ``legacy_file``: where what
    an earlier supervisor of this run left is found, and what this one leaves; None where none can follow another.
    JournalError before anything has started if it cannot be told whether trading is halted.
    """
    planned = plan(config, run_id, paths.state)
    with paths.lock_state():
        succession = Succession(engine_id(config, run_id), ground.clock.monotonic_ns(), legacy_file)
        if not succession.inherited:
            read_trading(paths.state)
            await clear_previous(paths.run, None if paths.others_live() else paths.shm, config.dead_man.grace)
        paths.create()
        succession.save()
        try:
            supervisor = Supervisor(config, options, paths, shown, run_id, planned, ground, succession)
        except BaseException:
            paths.remove()
            raise
        return await supervisor.run()


def engine_id(config: EngineConfig, run_id: int) -> str:
    """What one run of an engine is called: its bus speaks to nobody of another."""
    return f"{config.name}-{run_id}"


class Shown(Protocol):
    """Where lines of the log are shown."""

    def show(self, line: LogLine) -> None: ...

    def close(self) -> None: ...


class Supervisor:
    """One engine. Its single event loop owns all of its state."""

    def __init__(
        self,
        config: EngineConfig,
        options: RunOptions,
        paths: EnginePaths,
        shown: Shown | None,
        run_id: int,
        planned: list[PlannedActor],
        ground: Ground | None = None,
        succession: Succession | None = None,
    ) -> None:
        self.config = config
        self.options = options
        self.paths = paths
        self.ground = ground = ground or LocalGround(paths, config.dead_man.grace)
        self.clock: Clock = ground.clock
        self.run_id = run_id
        self._first = planned
        self.engine_id = engine_id(config, run_id)
        self.succession = succession or Succession(self.engine_id, self.clock.monotonic_ns())
        self.events: deque[LogLine] = deque(maxlen=RECENT_EVENTS)
        self.planned: dict[str, PlannedActor] = {}
        self.strategies: dict[str, StrategyConfig] = dict(config.strategies)
        self.observed = Observations()
        own = self.observed.add_supervisor(SUPERVISOR, os.getpid())
        self.policy = SupervisorPolicy(seed=self.run_id, interval_ns=round(config.clock.interval * 1e9))
        self.runtime: Runtime = ground.runtime(self._fork_server_restarted)
        self.runtime.on_exit = self._on_exit
        incarnation = self.succession.next_incarnation(max(self.run_id, self.clock.time_ns()) // 1000)
        self.log_file = ground.open_log(SUPERVISOR, incarnation, self._on_line)
        self.log = structlog.get_logger()
        self.shown = shown
        self.bus: Bus = ground.bus(SUPERVISOR, incarnation, self.engine_id)
        self.changes = self.bus.open_stream("actors", overload=Overload.SKIP)
        self.host_clocks = HostClocks(
            self.bus, self.clock, self.observed, own, round(config.cluster.clock_warning * 1e9)
        )
        self.control = Control(self)
        self.boxes = Boxes()
        self.shutdown = Shutdown(self)
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._wakeup: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self.knows = asyncio.Event()
        """Set once it is known which actors there are, and who of them lives."""
        self._goodbyes: dict[tuple[str, int], str] = {}
        self._detaching: set[str] = set()
        self._pumping = False

    # --------------------------------------------------------------------------------------------------------- life

    async def run(self) -> dict[str, Any]:
        """Start everything, wait to be told to stop, stop everything, and report."""
        release_signals = self.ground.catch_signals(self.stop)
        try:
            self.bus.serve(self._on_message)
            await self.bus.start()
            found = await self.runtime.start()
            self.paths.write_run_json(self.engine_id)
            if self.succession.inherited:
                self.log.warning("the supervisor was started again", living=len(found))
                self.observed.of(SUPERVISOR).restarts = 1
            else:
                self.log.info("engine starts", config=self.config.name, state=str(self.paths.state))
            if self.succession.legacy.stop:
                self._stop.set()
            self._add_all(found)
            self.bus.open_stream(LIFE, overload=Overload.SKIP)
            self.bus.subscribe(CLOCK, "tick", self._on_tick)
            if self.config.runtime == "cluster":
                self._run(self.host_clocks.keep())
            await self._wait()
            await self.shutdown.end_all()
            return self.succession.ended(self.report())
        finally:
            release_signals()
            await self._clean_up()

    @property
    def stopping(self) -> bool:
        """Whether the run is to end."""
        return self._stop.is_set()

    def stop(self, reason: str) -> None:
        """End the run politely; asking again changes nothing."""
        if not self._stop.is_set():
            self.log.info("engine stops", reason=reason)
            self.succession.to_stop(reason)
            self._stop.set()

    def report(self) -> dict[str, Any]:
        """The report of the run so far."""
        report = build_report(
            self._records(), seconds=self.seconds, runtime=self.config.runtime, problems=list(self.problems)
        )
        return {**report, "hosts": self.host_clocks.rows()}

    def status(self) -> dict[str, Any]:
        """The answer to ``engine status``."""
        records = self._records()
        status = build_status(
            records,
            engine=self.config.name,
            runtime=self.config.runtime,
            seconds=self.seconds,
            events=self.events,
            halted=self.observed.halted(),
            problems=self.problems,
        )
        hosts = self.host_clocks.rows()
        return {**status, "hosts": hosts, "state_dir": str(self.paths.state), "pnl": profits(records)}

    def _records(self) -> list[ActorRecord]:
        for record in self.observed:
            if record.name in self.planned:
                record.restarts = self.policy.restarts(record.name)
        return list(self.observed)

    @property
    def seconds(self) -> float:
        """How long the engine has been running."""
        return (self.clock.monotonic_ns() - self.succession.legacy.began_mono_ns) / 1e9

    @property
    def problems(self) -> list[str]:
        """What keeps the run from being ok, a line each."""
        return self.succession.legacy.problems

    async def _wait(self) -> None:
        left_s = None if self.options.seconds is None else max(0.0, self.options.seconds - self.seconds)
        try:
            async with asyncio.timeout(left_s):
                await self._stop.wait()
        except TimeoutError:
            self.stop(f"{self.options.seconds:g} s are over")

    async def _clean_up(self) -> None:
        if self._wakeup is not None:
            self._wakeup.cancel()
        await self._cancel_tasks()
        await self.bus.close()
        await self.runtime.close()
        await self._cancel_tasks()
        self.paths.remove()
        self.log.info("engine stopped", seconds=round(self.seconds, 1))
        self.log_file.close()
        if self.shown is not None:
            self.shown.close()

    async def _cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------------- actors

    def _add_all(self, found: Sequence[Living]) -> None:
        """Plan everything; take over what runs of it, and start the rest, unless the run is to stop."""
        planned = {actor.name: actor for actor in self._first}
        for strategy in load_attached(self.paths.state, self.config, self.log):
            if strategy.name not in self.strategies:
                self.strategies[strategy.name] = strategy
                planned |= {actor.name: actor for actor in self._with_mirrors(strategy)}
        for name in self.succession.legacy.detached:
            if planned.pop(strategy_name(name), None) is not None:
                self.strategies.pop(name, None)
        living = {each.spec.name for each in found}
        for actor in planned.values():
            self._add(actor, start=actor.name not in living and not self.stopping)
        for each in found:
            self._take_over(each)
        if self.succession.inherited:
            self._mend(living)
        self.knows.set()
        self.pump()

    def _take_over(self, living: Living) -> None:
        name, incarnation = living.spec.name, living.spec.incarnation
        self.succession.legacy.newest = max(self.succession.legacy.newest, incarnation)
        if name not in self.planned:
            self.log.warning("ending an actor that is not wanted any more", about=name, left_pid=living.pid)
            self.runtime.send_signal(name, signal.SIGTERM)
            return
        self.observed.spawned(name, living.pid, self.runtime.host_of(name))
        self.policy.adopt(name, incarnation, self.now())

    def _mend(self, living: set[str]) -> None:
        """What the supervisor would have done had it been there when the missing died."""
        for name, planned in self.planned.items():
            if name not in living and planned.kind == "venue":
                self.boxes.died_unseen(name)
            elif name not in living and planned.kind == "strategy" and self._cancels_on_crash(planned):
                self._run(self._cancel_orders_of(planned))

    def _add(self, planned: PlannedActor, *, start: bool = True) -> None:
        self.planned[planned.name] = planned
        self.observed.add(planned)
        if planned.kind == "venue":
            self.boxes.add(planned.name)
        self.policy.add(planned.name, planned.kind, planned.connector, self._restart_policy(planned), start=start)

    def _with_mirrors(self, strategy: StrategyConfig) -> list[PlannedActor]:
        """A strategy's actor, after all mirrors that the strategies need."""
        return [*plan_mirrors(self.config, self.strategies.values()), plan_strategy(self.config, strategy)]

    def _add_strategy(self, strategy: StrategyConfig) -> None:
        """With the mirrors that it needs; one that is to follow more pairs starts anew."""
        for actor in self._with_mirrors(strategy):
            known = self.planned.get(actor.name)
            if known is None:
                self._add(actor)
            elif known.params != actor.params:
                self.planned[actor.name] = actor
                self.restart(actor.name)

    def attach(self, strategy: StrategyConfig) -> None:
        """Add a strategy actor to the running engine."""
        self.strategies[strategy.name] = strategy
        self.succession.attached(strategy.name)
        self._add_strategy(strategy)
        self.log.info("strategy attached", strategy=strategy.name)
        self.pump()

    async def detach(self, strategy: str, actor: str) -> None:
        """Stop a strategy's actor and forget it; its open orders are cancelled unless the configuration says keep.

        EngineError while it is being detached already.
        """
        if actor in self._detaching:
            raise EngineError(f"strategy {strategy!r} is being detached already")
        self._detaching.add(actor)
        try:
            await self._detach(strategy, actor)
        finally:
            self._detaching.discard(actor)

    def is_detaching(self, actor: str) -> bool:
        """Whether the actor is being ended and forgotten."""
        return actor in self._detaching

    async def _detach(self, strategy: str, actor: str) -> None:
        await self.shutdown.end([actor], "detached")
        if self.config.stop.open_orders == "cancel":
            cancelling = self._run(self._cancel_orders_of(self.planned[actor]))
            await asyncio.wait([cancelling], timeout=CANCEL_ORDERS_S)
        self.policy.remove(actor)
        self.observed.remove(actor)
        del self.planned[actor]
        self.strategies.pop(strategy, None)
        if strategy in self.config.strategies:
            self.succession.detached(strategy)
        self.log.info("strategy detached", strategy=strategy)

    def restart(self, name: str) -> None:
        """Stop an actor politely and start it anew; open orders stay."""
        self.policy.restart_requested(name, self.now(), "restart requested")
        self.pump()

    def _restart_policy(self, planned: PlannedActor) -> RestartPolicy:
        settings = self.config.supervision
        stall_s = settings.strategy_stall if planned.kind == "strategy" else settings.stall
        return RestartPolicy(
            budget=settings.budget,
            window_s=settings.window,
            backoff_initial_s=settings.backoff_initial,
            backoff_max_s=settings.backoff_max,
            stall_s=max(stall_s, self.config.cluster.stall) if planned.place else stall_s,
            start_timeout_s=settings.start_timeout,
            kill_after_s=POLITE_S.get(planned.kind, POLITE_DEFAULT_S) + ENFORCED_S,
        )

    # ---------------------------------------------------------------------------------------------- decisions, done

    def pump(self) -> None:
        """Carry out what the policy decides now, and wake up when it next has something to decide."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while actions := self.policy.poll(self.now()):
                for action in actions:
                    self._carry_out(action)
        finally:
            self._pumping = False
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        due = self.policy.next_wakeup()
        if due is not None:
            delay = max(0.0, (due - self.now()) / 1e9)
            self._wakeup = asyncio.get_running_loop().call_later(delay, self.pump)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Spawn(name):
                self._run(self._spawn(name))
            case Stop():
                self._run(self._ask_to_stop(action))
            case Kill(name, reason):
                self.log.warning("killing an actor", about=name, reason=reason)
                self.runtime.send_signal(name, signal.SIGKILL)
            case Changed(name, state, detail):
                self._changed(name, state.value, detail)
            case ConnectorDown(connector, reason, failed):
                self.problem(f"connector {connector} is down: {reason}", failed)
            case ConnectorUp(connector):
                self.log.info("connector is brought up again", connector=connector)
            case StrategyFailed(name, reason) | ActorFailed(name, reason):
                self.problem(reason, name)
            case EngineFailed(reason):
                self.problem(reason, "")
                self.stop(reason)

    def problem(self, text: str, actor: str) -> None:
        """Something that keeps the run from being ok."""
        self.succession.problem(text)
        self.log.error("given up", about=actor, reason=text)

    def _changed(self, name: str, state: str, detail: str) -> None:
        planned = self.planned[name]
        self.observed.of(name).state = state
        self.shutdown.changed()
        level = self.log.warning if state in ("stalled", "backing_off", "failed") else self.log.info
        level(f"actor {state}", about=name, detail=detail)
        self.changes.publish(
            ActorChanged(
                actor=name,
                kind=planned.kind,
                connector=planned.connector,
                state=state,
                incarnation=self.policy.incarnation(name),
                endpoint=str(self.paths.socket(name)),
                detail=detail,
            )
        )

    async def _spawn(self, name: str) -> None:
        """Start an actor. Whatever comes in the way is a failed start: one that is neither there nor known not to be
        could not even be stopped.
        """
        try:
            await self._try_to_spawn(name)
        except NoHost as error:
            self.policy.spawn_postponed(name, self.now(), str(error))
        except Exception as error:
            unexpected = None if isinstance(error, EngineError) else error
            self.log.error("an actor could not be started", about=name, error=str(error), exc_info=unexpected)
            self.policy.spawn_failed(name, self.now(), str(error) or repr(error))
        self.pump()

    async def _try_to_spawn(self, name: str) -> None:
        planned = self.planned[name]
        if planned.box:
            info = await self.boxes.info(planned.box, name)
            if info is None:
                self.policy.spawn_failed(name, self.now(), f"stopped before {planned.box} was there")
                return
            planned = with_endpoint(planned, info)
        planned = with_shared_limits(planned, self.paths.shm)
        trading = read_trading(self.paths.state)
        if trading.state is TradingState.HALTED:
            planned = with_halt(planned, trading.reason or "halted")
        incarnation = self.succession.next_incarnation(self.clock.time_ns() // 1000)
        spec = ActorSpec(
            name=name,
            kind=planned.kind,
            connector=planned.connector,
            incarnation=incarnation,
            run_dir=str(self.paths.run),
            shm_dir=str(self.paths.shm),
            state_dir=str(self.paths.state),
            engine_id=self.engine_id,
            entry=self.ground.entry,
            params=planned.params,
            place=planned.place,
            cell=planned.cell,
            rank=RANKS.get(planned.kind, 0) if self.config.scheduling == "realtime" else 0,
            awake=planned.kind in RANKS and self.config.processors == "awake",
        )
        if planned.kind == "strategy" and (lacking := await self.cannot_run(planned)):
            self.policy.spawn_refused(name, self.now(), lacking)
            return
        pid = await self.runtime.spawn(spec)
        self.observed.spawned(name, pid, self.runtime.host_of(name))
        self.policy.spawned(name, incarnation, self.now())

    async def cannot_run(self, planned: PlannedActor) -> str:
        """Why the code of a strategy cannot be had where it is to run; empty if it can. EngineError like a spawn."""
        path = planned.params["strategy"]["strategy"]
        return await self.runtime.cannot_load(path, planned.place, planned.cell)

    async def _ask_to_stop(self, stop: Stop) -> None:
        name = stop.name
        kind = self.planned[name].kind
        keep = stop.comes_back or self.config.stop.open_orders == "keep"
        polite_s = POLITE_S.get(kind, POLITE_DEFAULT_S)
        order = StopActor(grace_ns=round(polite_s * 1e9), reason=stop.reason, keep_orders=keep)
        try:
            # One that is held up hears it late, and must not hear a signal first, which leaves open orders as they are.
            await self.bus.request(name, order, timeout=polite_s)
        except BusError as error:
            self.log.warning("an actor did not hear that it is to stop", about=name, error=str(error))
            self.runtime.send_signal(name, signal.SIGTERM)

    # --------------------------------------------------------------------------------------------------- what is heard

    def _on_exit(self, ended: Exit) -> None:
        planned = self.planned.get(ended.name)
        if planned is None:
            return
        last_word = self._goodbyes.pop((ended.name, ended.incarnation), None)
        polite = last_word is not None and ended.code == 0
        stopping = self.policy.state(ended.name).value == "stopping"
        if not (polite and stopping):
            self.log.warning(
                "actor ended",
                about=ended.name,
                ended_pid=ended.pid,
                how=ended.reason,
                life=ended.incarnation,
            )
        reason = f"{ended.reason}: {last_word[:LAST_WORD]}" if last_word else ended.reason
        self.policy.exited(ended.name, ended.incarnation, self.now(), polite and stopping, reason)
        self.pump()
        if planned.kind == "strategy" and not (polite and stopping) and self._cancels_on_crash(planned):
            self._run(self._cancel_orders_of(planned))

    def _cancels_on_crash(self, planned: PlannedActor) -> bool:
        strategy = self.strategies.get(planned.params["strategy"]["name"])
        return strategy is not None and strategy.on_crash == "cancel"

    async def _cancel_orders_of(self, strategy: PlannedActor) -> None:
        await cancel_orders_of(strategy, self.bus, self.clock, self.log)

    def _on_tick(self, message: Message, number: int) -> None:
        if isinstance(message, Tick):
            self.policy.tick_seen(message.n, self.now(), message.interval_ns)
            self.pump()

    def _on_message(self, caller: Caller, message: Message) -> Any:
        match message:
            case TickDone():
                self.policy.answered(message.actor, message.incarnation, message.n, self.now())
                self.observed.answered(message)
            case ActorStats():
                self.observed.stats(message)
                if message.actor == CLOCK:
                    # A sign of life: a clock may have to wait for wall time that stepped back.
                    self.policy.answered(CLOCK, message.incarnation, -1, self.now())
            case LogLine():
                self._on_line(message)
            case ActorStarted():
                self._actor_started(message)
                return ControlReply(ok=True)
            case ActorStopping():
                self._goodbyes[message.actor, message.incarnation] = message.error
                return ControlReply(ok=True)
            case ControlRequest():
                return self.control.handle(message)
            case _:
                raise BusError(f"the supervisor does not answer {type(message).__name__}")
        return None

    def _actor_started(self, message: ActorStarted) -> None:
        if not self.knows.is_set():
            raise BusError("the supervisor does not know yet who lives")
        planned = self.planned.get(message.actor)
        if planned is None:
            return
        if self.boxes.listens(message.actor, message.info):
            self._moved(message.actor)
        self.runtime.announce(message.actor, message.unix, message.tcp)
        self.policy.started(message.actor, message.incarnation, self.now())
        self.pump()

    def _moved(self, box: str) -> None:
        """A venue in a box came back at another address: who works at it has the old one."""
        for name, planned in self.planned.items():
            if planned.box == box and self.policy.state(name) not in ENDED:
                self.log.warning("the venue listens elsewhere now", about=name, box=box)
                self.restart(name)

    def _on_line(self, line: LogLine) -> None:
        self.events.append(line)
        if self.shown is not None:
            self.shown.show(line)

    def _fork_server_restarted(self, old_pid: int, new_pid: int) -> None:
        self.log.warning("the fork server died and was started again", old_pid=old_pid, new_pid=new_pid)

    # ------------------------------------------------------------------------------------------------------- helpers

    def _run(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("the supervisor failed at a task", error=repr(error), exc_info=error)
            self.succession.problem(f"supervisor: {error!r}")

    def now(self) -> int:
        """Monotonic, in nanoseconds."""
        return self.clock.monotonic_ns()
