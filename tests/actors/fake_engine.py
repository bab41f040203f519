"""A supervisor at work, with actors that do as they are told."""

import asyncio
from contextlib import suppress
from signal import Signals

from engine.bus import MemoryBus
from engine.errors import BusError, NoHost, RemoteError, RuntimeFailure
from engine.messages import (
    ActorStarted,
    ActorStopping,
    ControlReply,
    ControlRequest,
    StopActor,
)
from engine.runtime.base import Exit, Living, Runtime
from tests.actors.world import QUICK, until

LATE_S = 2.2


class FakeRuntime(Runtime):
    """Actors that do as they are told: they report, stop politely, and end when the test says so.

    ``ways[name]``: how an actor differs: "silent" never reports, "deaf" does not stop, "late" hears after
    :data:`LATE_S` that it is to, "refused" cannot be spawned,
    "homeless" has no host for now, and where there is "no code" no strategy's can be had.
    ``holds[name]``: an event to wait for before it ends. ``answers``: what exchange actors say to a kind of query.
    """

    def __init__(self, ground):
        super().__init__()
        self.ground = ground
        self.log = []
        self.specs = []
        self.ways = {}
        self.holds = {}
        self.answers = {}
        self.found = ()
        self.buses = {}
        self.tried = []
        self.tasks = set()

    async def start(self):
        self.log.append(("start", ""))
        for living in self.found:
            # As actors do when they hear of another supervisor.
            self._run(self._report(living.spec, self.buses[living.spec.name]))
        return self.found

    async def spawn(self, spec):
        self.tried.append(spec.name)
        if "refused" in self.ways.get(spec.name, ()):
            raise RuntimeFailure(f"{spec.name} cannot be started")
        if "homeless" in self.ways.get(spec.name, ()):
            raise NoHost("no living node has the place tokyo")
        self.specs.append(spec)
        self.log.append(("spawn", spec.name))
        self._lives(spec.name)
        bus = MemoryBus(
            self.ground.network, spec.name, spec.incarnation, self.ground.clock, engine_id=spec.engine_id, limits=QUICK
        )
        bus.serve(lambda caller, message: self._heard(spec, bus, message))
        await bus.start()
        self.buses[spec.name] = bus
        if "silent" not in self.ways.get(spec.name, ()):
            self._run(self._report(spec, bus))
        return 10_000 + len(self.specs)

    async def cannot_load(self, path, place, cell):
        return "on beta: there is no module mine" if any("no code" in ways for ways in self.ways.values()) else ""

    async def _report(self, spec, bus):
        info = {key: f"{key}.of.the.box" for key in ("rest", "ws", "ws_api", "api_key", "api_secret")}
        started = ActorStarted(actor=spec.name, incarnation=spec.incarnation, pid=1, info=info)
        with suppress(BusError):
            while True:
                try:
                    await bus.request("supervisor", started)
                except RemoteError:
                    await asyncio.sleep(0.001)
                else:
                    return

    def _heard(self, spec, bus, message):
        if isinstance(message, StopActor):
            self.log.append(("stop", spec.name))
            self.stops = [*getattr(self, "stops", ()), (spec.name, message)]
            if "late" in self.ways.get(spec.name, ()):
                return self._hear_late(spec, bus)
            if "deaf" not in self.ways.get(spec.name, ()):
                self._run(self._leave(spec, bus))
            return ControlReply(ok=True)
        self.log.append((type(message).__name__, spec.name))
        answer = self.answers.get(type(message), ControlReply(ok=True))
        if isinstance(answer, dict):
            answer = answer[spec.name]
        if isinstance(answer, Exception):
            raise answer
        return answer(message) if callable(answer) else answer

    async def _hear_late(self, spec, bus):
        await asyncio.sleep(LATE_S)
        self._run(self._leave(spec, bus))
        return ControlReply(ok=True)

    async def _leave(self, spec, bus):
        if spec.name in self.holds:
            await self.holds[spec.name].wait()
        with suppress(BusError):
            await bus.request("supervisor", ActorStopping(actor=spec.name, incarnation=spec.incarnation))
        self.end(spec.name, code=0, incarnation=spec.incarnation)

    def end(self, name, *, code=None, signal=None, incarnation=None):
        """The actor's process ends, one way or another."""
        spec = next(spec for spec in reversed(self.specs) if spec.name == name)
        if name in self._exits and incarnation in (None, spec.incarnation):
            self.ground.network.kill(name)
            self.log.append(("end", name))
            self._ended(Exit(name=name, incarnation=spec.incarnation, pid=1, code=code, signal=signal))

    def send_signal(self, name, number):
        if name not in self._exits:
            return False
        self.log.append((Signals(number).name, name))
        self.end(name, signal=int(number))
        return True

    async def close(self, grace_s=5.0):
        self.log.append(("close", ",".join(self.living())))
        for name in self.living():
            self.end(name, signal=15)
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def of(self, what):
        return [name for kind, name in self.log if kind == what]

    def _run(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class FakeGround:
    """Where a supervisor stands in these tests."""

    entry = "nowhere:main"

    def __init__(self, network, clock):
        self.network = network
        self.clock = clock
        self.fake_runtime = FakeRuntime(self)
        self.log_closed = 0

    def bus(self, name, incarnation, engine_id):
        return MemoryBus(self.network, name, incarnation, self.clock, engine_id=engine_id, limits=QUICK)

    def runtime(self, replaced):
        return self.fake_runtime

    def open_log(self, actor, incarnation, on_line):
        return self

    def close(self):
        self.log_closed += 1

    def catch_signals(self, stop):
        return lambda: None


ENGINE = {
    "name": "test",
    "venue": {"pairs": ["BTC-USDT"]},
    "connectors": {"binance": {"at": "venue", "pairs": ["BTC-USDT"]}},
    "strategies": {
        "maker": {"strategy": "engine.strategies.market_maker:MarketMaker", "pairs": ["binance/BTC-USDT"]},
    },
}


class Engine:
    """A supervisor at work, and what its actors heard."""

    def __init__(self, supervisor, runtime, task):
        self.supervisor = supervisor
        self.runtime = runtime
        self.task = task

    def incarnations(self):
        return {name: self.supervisor.policy.incarnation(name) for name in self.supervisor.planned}

    async def kill(self, *dead):
        """End the supervisor as its process's death would, and then some actors, unseen."""
        supervisor, runtime = self.supervisor, self.runtime

        async def nothing():
            """The dead clean nothing up."""

        supervisor._clean_up = nothing
        if supervisor._wakeup is not None:
            supervisor._wakeup.cancel()
        for task in list(supervisor._tasks):
            task.cancel()
        supervisor.ground.network.kill("supervisor")
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        runtime.on_exit = lambda ended: None
        for name in dead:
            runtime.end(name, signal=9)
        specs = {spec.name: spec for spec in runtime.specs}
        runtime.found = [Living(spec=specs[name], pid=1) for name in runtime.living()]

    def state(self, name):
        return self.supervisor.policy.state(name).value

    async def all_run(self):
        planned = self.supervisor.planned
        await until(lambda: planned and all(self.state(name) == "running" for name in planned))

    async def stop(self):
        self.supervisor.stop("the test is over")
        return await self.task

    async def ask(self, verb, **args):
        return await self.supervisor.control.handle(ControlRequest(verb=verb, args=args))
