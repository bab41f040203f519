"""The supervisor: starts every actor, hears whether it lives, starts it again, and stops all in order.

What it decides is :mod:`engine.actors.policy`; what it knows of the actors is :mod:`engine.actors.observed`; what
commands ask of it is :mod:`engine.actors.control`. This module carries decisions out.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

from engine.actors.base import CLOCK, SUPERVISOR
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
    with_endpoint,
    with_halt,
    with_shared_limits,
)
from engine.actors.policy import (
    Action,
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
from engine.attached import load_attached
from engine.bus import Bus, Caller, Overload
from engine.clock import Clock
from engine.config import EngineConfig, RunOptions, StrategyConfig
from engine.errors import BusError, EngineError
from engine.logs import TerminalLog, configure_terminal_logging, register_secret
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
from engine.runtime.base import ActorSpec, Exit, Runtime
from engine.runtime.leftovers import clear_previous
from engine.runtime.paths import EnginePaths

POLITE_S = {"strategy": 3.0, "exchange": 15.0}
POLITE_DEFAULT_S = 3.0
STOP_ORDER = (
    ("strategy",),
    ("exchange",),
    ("risk", "recorder"),
    ("user_stream", "order_book", "mirror"),
    ("clock",),
    ("venue",),
)
RECENT_EVENTS = 200
NAMED_ORDERS = 5
ADDRESSES = ("rest", "ws", "ws_api")
ENDED = (ActorState.STOPPED, ActorState.FAILED)
BETWEEN_LIVES = (ActorState.BACKING_OFF, ActorState.STARTING, ActorState.STALLED)
BETWEEN_LIVES_S = 3.0
"""How long the engine's end waits for an exchange actor that is being started again."""


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
    planned = plan(config, run_id, paths.state)
    with paths.lock_state():
        await clear_previous(paths.run, paths.shm, config.dead_man.grace)
        paths.create()
        try:
            supervisor = Supervisor(config, options, paths, terminal, run_id, planned, ground)
        except BaseException:
            paths.remove()
            raise
        return await supervisor.run()


class Supervisor:
    """One engine on one host. Its single event loop owns all of its state."""

    def __init__(
        self,
        config: EngineConfig,
        options: RunOptions,
        paths: EnginePaths,
        terminal: Any,
        run_id: int,
        planned: list[PlannedActor],
        ground: Ground | None = None,
    ) -> None:
        self.config = config
        self.options = options
        self.paths = paths
        self.ground = ground = ground or LocalGround(paths, config.dead_man.grace)
        self.clock: Clock = ground.clock
        self.run_id = run_id
        self._first = planned
        self.engine_id = f"{config.name}-{self.run_id}"
        self.started_mono_ns = self.clock.monotonic_ns()
        self.events: deque[LogLine] = deque(maxlen=RECENT_EVENTS)
        self.problems: list[str] = []
        self.planned: dict[str, PlannedActor] = {}
        self.strategies: dict[str, StrategyConfig] = dict(config.strategies)
        self.observed = Observations()
        own = self.observed.add_supervisor(SUPERVISOR, os.getpid())
        self.policy = SupervisorPolicy(seed=self.run_id, interval_ns=round(config.clock.interval * 1e9))
        self.runtime: Runtime = ground.runtime(self._fork_server_restarted)
        self.runtime.on_exit = self._on_exit
        incarnation = self.run_id // 1000
        self.log_file = ground.open_log(SUPERVISOR, incarnation, self._on_line)
        self.log = structlog.get_logger()
        self.terminal: TerminalLog | None = configure_terminal_logging(terminal) if terminal else None
        self.bus: Bus = ground.bus(SUPERVISOR, incarnation, self.engine_id)
        self.changes = self.bus.open_stream("actors", overload=Overload.SKIP)
        self.host_clocks = HostClocks(
            self.bus, self.clock, self.observed, own, round(config.cluster.clock_warning * 1e9)
        )
        self.control = Control(self)
        self._incarnation = incarnation
        self._boxes: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._wakeup: asyncio.TimerHandle | None = None
        self._awaiting_box: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._state_changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._goodbyes: set[tuple[str, int]] = set()
        self._keep_orders: set[str] = set()
        self._detaching: set[str] = set()
        self._pumping = False

    # --------------------------------------------------------------------------------------------------------- life

    async def run(self) -> dict[str, Any]:
        """Start everything, wait to be told to stop, stop everything, and report."""
        release_signals = self.ground.catch_signals(self.stop)
        try:
            self.bus.serve(self._on_message)
            await self.bus.start()
            await self.runtime.start()
            self.paths.write_run_json(self.engine_id)
            self.log.info("engine starts", config=self.config.name, state=str(self.paths.state))
            self._add_all()
            self.bus.subscribe(CLOCK, "tick", self._on_tick)
            if self.config.runtime == "cluster":
                self._run(self.host_clocks.keep())
            await self._wait()
            await self._shut_down()
            return self.report()
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
        return (self.clock.monotonic_ns() - self.started_mono_ns) / 1e9

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self.options.seconds):
                await self._stop.wait()
        except TimeoutError:
            self.stop(f"{self.options.seconds:g} s are over")

    async def _shut_down(self) -> None:
        await self._end(self._of_kinds(("strategy",)), "the engine stops")
        await self._exchanges_are_back()
        self.policy.shutdown_requested(self._now())
        self._pump()
        for kinds in STOP_ORDER:
            await self._end(self._of_kinds(kinds), "the engine stops")
        if self.config.stop.open_orders == "cancel":
            self._name_open_orders()

    def _name_open_orders(self) -> None:
        """They were to be cancelled: a run that leaves some is not ok."""
        for record in self.observed:
            left = record.gauge("open_orders", []) if record.kind == "exchange" else []
            if left:
                ids = ", ".join(order["client_order_id"] for order in left[:NAMED_ORDERS])
                more = f" and {len(left) - NAMED_ORDERS} more" if len(left) > NAMED_ORDERS else ""
                self._problem(f"{record.name} leaves orders open at the venue: {ids}{more}", record.name)

    def _of_kinds(self, kinds: tuple[str, ...]) -> list[str]:
        return [name for name, planned in self.planned.items() if planned.kind in kinds]

    async def _exchanges_are_back(self) -> None:
        """An exchange actor between two lives is waited for: nobody else can cancel its account's open orders. So is a
        venue in a box, where they are to be cancelled.
        """
        try:
            async with asyncio.timeout(BETWEEN_LIVES_S):
                while any(map(self._is_between_lives, self._of_kinds(("venue", "exchange")))):
                    self._state_changed.clear()
                    await self._state_changed.wait()
        except TimeoutError:
            self.log.warning("an exchange actor or its venue is not back: open orders may be left as they are")

    def _is_between_lives(self, name: str) -> bool:
        return name not in self._awaiting_box and self.policy.state(name) in BETWEEN_LIVES

    async def _end(self, names: list[str], reason: str) -> None:
        """Stop these actors and wait until they have; the policy kills those that take too long."""
        for name in names:
            self.policy.stop_requested(name, self._now(), reason)
            waiting = self._awaiting_box.pop(name, None)
            if waiting is not None:
                waiting.cancel()
        self._pump()
        while any(name in self.planned and self.policy.state(name) not in ENDED for name in names):
            self._state_changed.clear()
            await self._state_changed.wait()

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
        if self.terminal is not None:
            self.terminal.close()

    async def _cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------------- actors

    def _add_all(self) -> None:
        for planned in self._first:
            self._add(planned)
        for strategy in load_attached(self.paths.state, self.config, self.log):
            if strategy.name not in self.strategies:
                self.strategies[strategy.name] = strategy
                self._add_strategy(strategy)
        self._pump()

    def _add(self, planned: PlannedActor) -> None:
        self.planned[planned.name] = planned
        self.observed.add(planned)
        if planned.kind == "venue":
            self._boxes[planned.name] = asyncio.get_running_loop().create_future()
        self.policy.add(planned.name, planned.kind, planned.connector, self._restart_policy(planned))

    def _add_strategy(self, strategy: StrategyConfig) -> None:
        """With the mirrors that it needs; one that is to follow more pairs starts anew."""
        for mirror in plan_mirrors(self.config, self.strategies.values()):
            known = self.planned.get(mirror.name)
            if known is None:
                self._add(mirror)
            elif known.params != mirror.params:
                self.planned[mirror.name] = mirror
                self.restart(mirror.name)
        self._add(plan_strategy(self.config, strategy))

    def attach(self, strategy: StrategyConfig) -> None:
        """Add a strategy actor to the running engine."""
        self.strategies[strategy.name] = strategy
        self._add_strategy(strategy)
        self.log.info("strategy attached", strategy=strategy.name)
        self._pump()

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

    async def _detach(self, strategy: str, actor: str) -> None:
        await self._end([actor], "detached")
        if self.config.stop.open_orders == "cancel":
            await asyncio.wait([self._run(self._cancel_orders_of(actor))], timeout=CANCEL_ORDERS_S)
        self.policy.remove(actor)
        self.observed.remove(actor)
        del self.planned[actor]
        self.strategies.pop(strategy, None)
        self.log.info("strategy detached", strategy=strategy)

    def restart(self, name: str) -> None:
        """Stop an actor politely and start it anew; open orders stay."""
        if name in self.runtime.living():
            self._keep_orders.add(name)
        self.policy.restart_requested(name, self._now(), "restart requested")
        self._pump()

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
            kill_after_s=POLITE_S.get(planned.kind, POLITE_DEFAULT_S) + 2.0,
        )

    # ---------------------------------------------------------------------------------------------- decisions, done

    def _pump(self) -> None:
        """Carry out what the policy decides now, and wake up when it next has something to decide."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while actions := self.policy.poll(self._now()):
                for action in actions:
                    self._carry_out(action)
        finally:
            self._pumping = False
        if self._wakeup is not None:
            self._wakeup.cancel()
            self._wakeup = None
        due = self.policy.next_wakeup()
        if due is not None:
            delay = max(0.0, (due - self._now()) / 1e9)
            self._wakeup = asyncio.get_running_loop().call_later(delay, self._pump)

    def _carry_out(self, action: Action) -> None:
        match action:
            case Spawn(name):
                self._run(self._spawn(name))
            case Stop(name, reason):
                self._run(self._ask_to_stop(name, reason))
            case Kill(name, reason):
                self.log.warning("killing an actor", about=name, reason=reason)
                self.runtime.send_signal(name, signal.SIGKILL)
            case Changed(name, state, detail):
                self._changed(name, state.value, detail)
            case ConnectorDown(connector, reason, failed):
                self._problem(f"connector {connector} is down: {reason}", failed)
            case ConnectorUp(connector):
                self.log.info("connector is brought up again", connector=connector)
            case StrategyFailed(name, reason) | ActorFailed(name, reason):
                self._problem(reason, name)
            case EngineFailed(reason):
                self._problem(reason, "")
                self.stop(reason)

    def _problem(self, text: str, actor: str) -> None:
        self.problems.append(text)
        self.log.error("given up", about=actor, reason=text)

    def _changed(self, name: str, state: str, detail: str) -> None:
        planned = self.planned[name]
        self.observed.of(name).state = state
        self._state_changed.set()
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
        planned = self.planned[name]
        if planned.box:
            info = await self._box_info(name, planned.box)
            if info is None:
                return
            planned = with_endpoint(planned, info)
        planned = with_shared_limits(planned, self.paths.shm)
        trading = read_trading(self.paths.state)
        if trading.state is TradingState.HALTED:
            planned = with_halt(planned, trading.reason or "halted")
        self._incarnation = max(self._incarnation + 1, self.clock.time_ns() // 1000)
        spec = ActorSpec(
            name=name,
            kind=planned.kind,
            connector=planned.connector,
            incarnation=self._incarnation,
            run_dir=str(self.paths.run),
            shm_dir=str(self.paths.shm),
            state_dir=str(self.paths.state),
            engine_id=self.engine_id,
            entry=self.ground.entry,
            params=planned.params,
            place=planned.place,
            cell=planned.cell,
        )
        try:
            pid = await self.runtime.spawn(spec)
        except EngineError as error:
            self.log.error("an actor could not be started", about=name, error=str(error))
            self.policy.spawn_failed(name, self._now(), str(error))
        else:
            self.observed.spawned(name, pid, self.runtime.host_of(name))
            self.policy.spawned(name, spec.incarnation, self._now())
        self._pump()

    async def _box_info(self, name: str, box: str) -> dict[str, Any] | None:
        """Where the box listens, once it does; None if the actor is to be stopped before that."""
        waiting = asyncio.get_running_loop().create_task(_result_of(self._boxes[box]))
        self._awaiting_box[name] = waiting
        await asyncio.wait([waiting])
        self._awaiting_box.pop(name, None)
        if waiting.cancelled():
            self.policy.spawn_failed(name, self._now(), f"stopped before {box} was there")
            self._pump()
            return None
        return waiting.result()

    async def _ask_to_stop(self, name: str, reason: str) -> None:
        kind = self.planned[name].kind
        keep = name in self._keep_orders or self.config.stop.open_orders == "keep"
        self._keep_orders.discard(name)
        order = StopActor(grace_ns=round(POLITE_S.get(kind, POLITE_DEFAULT_S) * 1e9), reason=reason, keep_orders=keep)
        try:
            await self.bus.request(name, order, timeout=2.0)
        except BusError as error:
            self.log.warning("an actor did not hear that it is to stop", about=name, error=str(error))
            self.runtime.send_signal(name, signal.SIGTERM)

    # --------------------------------------------------------------------------------------------------- what is heard

    def _on_exit(self, ended: Exit) -> None:
        polite = (ended.name, ended.incarnation) in self._goodbyes and ended.code == 0
        self._goodbyes.discard((ended.name, ended.incarnation))
        stopping = self.policy.state(ended.name).value == "stopping"
        if not (polite and stopping):
            self.log.warning(
                "actor ended",
                about=ended.name,
                ended_pid=ended.pid,
                how=ended.reason,
                life=ended.incarnation,
            )
        self.policy.exited(ended.name, ended.incarnation, self._now(), polite and stopping, ended.reason)
        self._pump()
        planned = self.planned[ended.name]
        if planned.kind == "strategy" and not (polite and stopping) and self._cancels_on_crash(planned):
            self._run(self._cancel_orders_of(ended.name))

    def _cancels_on_crash(self, planned: PlannedActor) -> bool:
        strategy = self.strategies.get(planned.params["strategy"]["name"])
        return strategy is not None and strategy.on_crash == "cancel"

    async def _cancel_orders_of(self, actor: str) -> None:
        await cancel_orders_of(self.planned[actor], self.bus, self.clock, self.log)

    def _on_tick(self, message: Message, number: int) -> None:
        if isinstance(message, Tick):
            self.policy.tick_seen(message.n, self._now(), message.interval_ns)
            self._pump()

    def _on_message(self, caller: Caller, message: Message) -> Any:
        match message:
            case TickDone():
                self.policy.answered(message.actor, message.incarnation, message.n, self._now())
                self.observed.answered(message)
            case ActorStats():
                self.observed.stats(message)
                if message.actor == CLOCK:
                    # A sign of life: a clock may have to wait for wall time that stepped back.
                    self.policy.answered(CLOCK, message.incarnation, -1, self._now())
            case LogLine():
                self._on_line(message)
            case ActorStarted():
                self._actor_started(message)
                return ControlReply(ok=True)
            case ActorStopping():
                self._goodbyes.add((message.actor, message.incarnation))
                return ControlReply(ok=True)
            case ControlRequest():
                return self.control.handle(message)
            case _:
                raise BusError(f"the supervisor does not answer {type(message).__name__}")
        return None

    def _actor_started(self, message: ActorStarted) -> None:
        planned = self.planned.get(message.actor)
        if planned is None:
            return
        box = self._boxes.get(message.actor)
        if box is not None:
            register_secret(message.info["api_key"])
            register_secret(message.info["api_secret"])
            self._boxes[message.actor] = asyncio.get_running_loop().create_future()
            self._boxes[message.actor].set_result(message.info)
            if not box.done():
                box.set_result(message.info)
            elif any(box.result()[key] != message.info[key] for key in ADDRESSES):
                self._moved(message.actor)
        self.runtime.announce(message.actor, message.unix, message.tcp)
        self.policy.started(message.actor, message.incarnation, self._now())
        self._pump()

    def _moved(self, box: str) -> None:
        """A venue in a box came back at another address: who works at it has the old one."""
        for name, planned in self.planned.items():
            if planned.box == box and self.policy.state(name) not in ENDED:
                self.log.warning("the venue listens elsewhere now", about=name, box=box)
                self.restart(name)

    def _on_line(self, line: LogLine) -> None:
        self.events.append(line)
        if self.terminal is not None:
            self.terminal.show(line)

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
            self.problems.append(f"supervisor: {error!r}")

    def _now(self) -> int:
        return self.clock.monotonic_ns()


async def _result_of(future: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    """Wait for a future that others wait for as well."""
    return await asyncio.shield(future)
