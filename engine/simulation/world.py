"""One simulated run: two venues, an engine with three strategies on them, and what goes wrong according to the plan."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from engine.actors.base import SUPERVISOR
from engine.actors.inline import InlineGround
from engine.actors.inline_run import START_NS
from engine.actors.plan import PlannedActor, plan, with_endpoint
from engine.actors.policy import ActorState
from engine.actors.supervisor import Supervisor
from engine.config import EngineConfig, RunOptions, parse_config
from engine.messages import ControlReply, ControlRequest
from engine.orders.journal import Journal
from engine.runtime.inline import InlineRuntime, Place
from engine.runtime.leftovers import clean_stale
from engine.runtime.paths import EnginePaths
from engine.runtime.virtual_loop import CURRENT, VirtualProcess
from engine.simulation.meetings import states_present
from engine.simulation.plan import CONNECTORS, TRADING_S, VENUES, Plan
from engine.simulation.venue import SimulatedVenue
from engine.simulation.weather import Storm
from engine.simulation.wire import Wire

QUIET_WITHIN_S: Final = 400.0
LONGEST_RUN_S: Final = 700.0
LOOK_EVERY_S: Final = 0.5
RECONCILE_S: Final = 6.0
DEAD_MAN_S: Final = 3.0
DRAIN_S: Final = 1.5
MARK_SIZES: Final = {"BTC-USDT": "0.002", "ETH-USDT": "0.04"}
ACTS_A_SECOND: Final = 0.4
STRATEGY: Final = "engine.simulation.strategies:Busy"


class SimulationGround(InlineGround):
    """The supervisor's ground in a run: nobody sends it signals."""

    def catch_signals(self, stop: Callable[[str], None]) -> Callable[[], None]:
        return lambda: None


class World:
    """Everything that a run consists of. ``told`` collects the story: virtual seconds, who, what."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.story: list[tuple[float, str, str]] = []
        self.struck: Counter[str] = Counter()
        self.met: dict[str, Counter[str]] = {}
        """By kind of fault, how many of its strikes met an order in which state (:mod:`engine.simulation.meetings`)."""
        self.kills: Counter[str] = Counter()
        self.findings: list[str] = []
        self.report: dict[str, Any] = {}
        rng = random.Random(f"bus/{plan.seed}")
        mean_s = plan.bus_latency_us / 1e6
        self.wire = Wire(lambda: self.place.clock.time_ns(), self.find)
        self.storm = Storm(
            random.Random(f"weather/{plan.seed}"),
            int(plan.latency_ms * 1e6),
            int(plan.jitter_ms * 1e6),
            lambda kind, port: self.count(kind, next(v.name for v in self.venues.values() if v.port == port)),
            self.wire,
        )
        self.place = Place(START_NS, self.storm, lambda: rng.expovariate(1.0) * mean_s)
        self.place.loop.set_exception_handler(self._unhandled)
        self.venues = {name: SimulatedVenue(name, self.place, folder, plan) for name in VENUES}
        self.paths = EnginePaths(folder / "state", folder / "run", folder / "shm")
        self.config = self._configure()
        self.supervisor: Supervisor | None = None
        self.engine: VirtualProcess | None = None
        self._ended: asyncio.Task[dict[str, Any]] | None = None

    # ------------------------------------------------------------------------------------------------------- the run

    async def run(
        self, strike: Callable[[World], Awaitable[None]], look: Callable[[World], Iterable[str]] = lambda world: ()
    ) -> None:
        """The whole run, from the first start to the last stop.

        ``strike`` does what goes wrong and returns when that is over; ``look`` says what is broken while all stands
        still, before the engine stops.
        """
        try:
            async with asyncio.timeout(LONGEST_RUN_S):
                await self._run(strike, look)
        except TimeoutError:
            self.find(f"the run does not end within {LONGEST_RUN_S:g} s")
        finally:
            self._end_all()

    async def _run(self, strike: Callable[[World], Awaitable[None]], look: Callable[[World], Iterable[str]]) -> None:
        for venue in self.venues.values():
            self.start_venue(venue)
        self.start_engine()
        await strike(self)
        await self._sleep_until(TRADING_S)
        self._snuff()
        self.tell("world", "trading ends")
        if await self._quiet():
            for venue in self.venues.values():
                venue.freeze_market()
            await asyncio.sleep(DRAIN_S)
            for text in look(self):
                self.find(text)
            self.tell("world", "quiet: the engine stops")
        await self._stop()

    def _snuff(self) -> None:
        """Faults end: what was to die later lives."""
        runtime = self.runtime
        seats = [runtime.seat(name) for name in runtime.residents] if runtime is not None else []
        processes = [self.engine, *(venue.process for venue in self.venues.values())]
        for process in (*processes, *(seat.process for seat in seats if seat is not None)):
            if process is not None:
                process.snuff()

    def _end_all(self) -> None:
        """Nothing of the run lives on, however it ended."""
        runtime = self.runtime
        for name in runtime.residents if runtime is not None else ():
            assert runtime is not None
            runtime.send_signal(name, signal.SIGKILL)
        if self.engine is not None:
            self.engine.kill()
        for venue in self.venues.values():
            venue.kill()

    @property
    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return (self.place.clock.time_ns() - START_NS) / 1e9

    def tell(self, who: str, text: str) -> None:
        """Add a line to the story."""
        self.story.append((self.now_s, who, text))

    def count(self, kind: str, venue: str = "", present: set[str] | None = None) -> None:
        """A fault has struck, at one venue or everywhere. ``present``: the orders' states as it did."""
        self.struck[kind] += 1
        self.met.setdefault(kind, Counter()).update(self.states(venue) if present is None else present)
        self.tell("fault", kind)

    def states(self, venue: str = "") -> set[str]:
        """The states that orders of a venue's account, or of all, are in now."""
        accounts = [self.venues[venue]] if venue else self.venues.values()
        return {state for account in accounts for state in states_present(self, account)}

    def find(self, text: str) -> None:
        """Something is broken."""
        self.findings.append(text)
        self.tell("BROKEN", text)

    # ------------------------------------------------------------------------------------------------------ the parts

    def start_venue(self, venue: SimulatedVenue) -> None:
        """Bring a venue up."""
        venue.start(lambda error: self.find(f"venue {venue.name} cannot serve: {error!r}"))

    def start_engine(self) -> None:
        """Start an engine on the state that the last one left."""
        if not clean_stale(self.paths.run, self.paths.shm):
            self.find("processes of the last engine live")
        self.paths.create()
        self.engine = self.place.process(SUPERVISOR)
        self._ended = self.place.start(self.engine, self._supervise())

    async def kill_engine(self) -> None:
        """SIGKILL the supervisor, and wait until its actors have seen to themselves."""
        runtime, engine = self.runtime, self.engine
        assert engine is not None
        self.supervisor = None
        engine.kill()
        if runtime is None:
            return
        runtime.supervisor_died()
        until = self.now_s + DEAD_MAN_S + 1.0
        while runtime.residents and self.now_s < until:  # noqa: ASYNC110 - a kernel tells nobody of orphans' ends
            await asyncio.sleep(0.05)
        for name in runtime.residents:
            self.tell("world", f"{name} outlived its grace time")
            runtime.send_signal(name, signal.SIGKILL)

    @property
    def runtime(self) -> InlineRuntime | None:
        """Where the present engine's actors run."""
        runtime = self.supervisor.runtime if self.supervisor is not None else None
        return runtime if isinstance(runtime, InlineRuntime) else None

    async def operate(self, verb: str) -> ControlReply | None:
        """What the engine answers to an operator's command; None if there is none, or it dies over it."""
        engine, supervisor = self.engine, self.supervisor
        if engine is None or engine.gone or supervisor is None:
            return None
        over = asyncio.Event()
        engine.on_death.append(over.set)
        handled = supervisor.control.handle(ControlRequest(verb=verb))
        task: asyncio.Task[ControlReply] = self.place.start(engine, handled)
        task.add_done_callback(lambda _: over.set(), context=contextvars.Context())
        await over.wait()
        return task.result() if task.done() else None

    async def _supervise(self) -> dict[str, Any]:
        run_id = self.place.clock.time_ns()
        planned = [
            self._settled(actor) for actor in plan(self.config, run_id, self.paths.state) if actor.kind != "venue"
        ]
        ground = SimulationGround(self.place, self.paths)
        options = RunOptions(state_dir=self.paths.state)
        self.supervisor = Supervisor(self.config, options, self.paths, None, run_id, planned, ground)
        return await self.supervisor.run()

    def _settled(self, actor: PlannedActor) -> PlannedActor:
        """The actor with the address of its venue, which no supervisor of ours runs."""
        if not actor.box:
            return actor
        venue = self.venues[actor.box.removeprefix("venue.")]
        found = dataclasses.replace(with_endpoint(actor, venue.info), box="")
        if found.kind == "exchange":
            found.params["reconcile_s"] = RECONCILE_S
        return found

    def _configure(self) -> EngineConfig:
        until_ns = START_NS + round(TRADING_S * 1e9)
        books = [f"{venue.connector}/{pair}" for venue in self.venues.values() for pair in venue.pairs]
        params = {
            "seed": str(self.plan.seed),
            "until_ns": until_ns,
            "size": {pair: MARK_SIZES[pair.partition("/")[2]] for pair in books},
            "takes": self.plan.takes,
            "acts": ACTS_A_SECOND * self.plan.interval_s,
        }
        shares = (books, books[:1], books[1:])
        return parse_config(
            {
                "name": "sim",
                "runtime": "inline",
                "clock": {"interval": self.plan.interval_s},
                "dead_man": {"grace": DEAD_MAN_S},
                "supervision": {"budget": 1000, "backoff_max": 1.0, "stall": self.plan.stall_s, "strategy_stall": 5.0},
                "venues": {name: venue.described() for name, venue in self.venues.items()},
                "connectors": {
                    CONNECTORS[name]: {
                        "at": name,
                        "venue": "binance",
                        "pairs": list(venue.pairs),
                        "options": {"timeout_s": 2.0, "order_entry": self.plan.order_entry[name]},
                    }
                    for name, venue in self.venues.items()
                },
                "strategies": {
                    f"busy_{index}": {
                        "strategy": STRATEGY,
                        "pairs": pairs,
                        "on_crash": "cancel" if index == 1 else "keep",
                        "params": {**params, "checkpoint_every": self.plan.checkpoint_every[index]},
                    }
                    for index, pairs in enumerate(shares)
                },
            }
        )

    # -------------------------------------------------------------------------------------------------------- the end

    async def _quiet(self) -> bool:
        """Wait until nothing is open anywhere and every account has been reconciled since; whether that came."""
        until_s = self.now_s + QUIET_WITHIN_S
        marks: dict[str, int] | None = None
        while True:
            unrest = self._unrest()
            if unrest:
                marks = None
            elif marks is None:
                marks = self._reconciliations()
            elif all(count >= marks[name] + 2 for name, count in self._reconciliations().items()):
                return True
            if self.now_s > until_s:
                self.find(f"not quiet after {QUIET_WITHIN_S:g} s: {unrest or 'an account is not reconciled'}")
                return False
            await asyncio.sleep(LOOK_EVERY_S)

    def _unrest(self) -> str:
        supervisor = self.supervisor
        if supervisor is None or not supervisor.planned:
            return "there is no engine"
        for name in supervisor.planned:
            if supervisor.policy.state(name) is not ActorState.RUNNING:
                return f"{name} is {supervisor.policy.state(name).value}"
        for venue in self.venues.values():
            if venue.has_open_orders():
                return f"open orders at venue {venue.name}"
            path = self.journal_path(venue)
            if not path.exists():
                return f"{path.name} is not there"
            with Journal.open_readonly(path) as journal:
                open_orders = journal.orders(open_only=True, limit=3)
            if open_orders:
                listed = ", ".join(f"{order.client_order_id} {order.state.value}" for order in open_orders)
                return f"open orders in {path.name}: {listed}"
        return ""

    def journal_path(self, venue: SimulatedVenue) -> Path:
        """Where the account at a venue is journaled."""
        return self.paths.state / "accounts" / f"{venue.connector}.main.db"

    def journaled_fills(self, venue: SimulatedVenue) -> set[tuple[str, str]]:
        """The pair and id of every trade that is in the journal of the account at a venue."""
        path = self.journal_path(venue)
        if not path.exists():
            return set()
        with Journal.open_readonly(path) as journal:
            return {(each.pair, each.fill.trade_id) for each in journal.fills(limit=10**9)}

    def _reconciliations(self) -> dict[str, int]:
        assert self.supervisor is not None
        return {
            record.name: record.counter("reconciliations")
            for record in self.supervisor.observed
            if record.kind == "exchange"
        }

    async def _stop(self) -> None:
        if self.supervisor is None or self._ended is None or self.engine is None:
            self.find("there is no engine to stop")
            return
        self.supervisor.stop("the run is over")
        try:
            async with asyncio.timeout(120):
                self.report = await asyncio.shield(self._ended)
        except TimeoutError:
            self.find("the engine does not stop")
        except Exception as error:
            self.find(f"the supervisor failed: {error!r}")

    async def _sleep_until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.now_s))

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody caught is a finding, unless it is the dead's."""
        process = CURRENT.get()
        error = context.get("exception")
        if error is None or (process is not None and process.gone):
            return
        if process is None and "never retrieved" in context["message"]:
            return  # found by the collector, which does not know whose it was
        name = process.name if process is not None else "nobody"
        self.find(f"unhandled in {name}: {context['message']}: {error!r}")
