"""Actors in one process: a bus in memory, and a supervisor that listens."""

import asyncio
from decimal import Decimal
from itertools import count

import structlog

from engine.actors.base import ActorContext, ActorHost
from engine.bus import Limits, MemoryBus, MemoryNetwork, Overload
from engine.clock import WallClock
from engine.messages import (
    ActorStats,
    ControlReply,
    LogLine,
    StopActor,
    Tick,
    TickDone,
    TradingRule,
)
from engine.runtime.base import ActorSpec

QUICK = Limits(backoff_min=0.001, backoff_max=0.01, tell_ttl=0.5)
PAIR = "BTC-USDT"
RULE = TradingRule(
    pair=PAIR,
    symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    price_increment=Decimal("0.01"),
    size_increment=Decimal("0.0001"),
    min_size=Decimal("0.0001"),
    min_notional=Decimal(5),
)


async def until(condition):
    """Let the event loop turn until a condition without an event of its own holds."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.0005)


class Listener:
    """The supervisor, as actors see it: it hears everything and answers."""

    def __init__(self, bus):
        self.bus = bus
        self.heard = []
        bus.serve(self._heard)

    def _heard(self, caller, message):
        self.heard.append(message)
        return None if isinstance(message, TickDone | ActorStats | LogLine) else ControlReply(ok=True)

    def of(self, kind, actor=None):
        return [m for m in self.heard if isinstance(m, kind) and actor in (None, m.actor)]

    async def stop(self, name, **fields):
        fields = {"grace_ns": 2_000_000_000, **fields}
        return await self.bus.request(name, StopActor(**fields))


class Running:
    """One incarnation of an actor and the task that drives it."""

    def __init__(self, world, actor, host, bus, task):
        self.world = world
        self.actor = actor
        self.host = host
        self.bus = bus
        self.task = task

    @property
    def ended(self):
        return self.task.done()

    async def code(self):
        """Wait for its end."""
        code = await self.task
        await self._release()
        return code

    async def stop(self, **fields):
        self.host.request_stop(StopActor(**{"grace_ns": 2_000_000_000, **fields}))
        return await self.code()

    async def kill(self):
        """End it as SIGKILL would: not a word to anyone, and what it held is free."""
        self.world.network.kill(self.bus.name)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self._release()

    async def _release(self):
        await self.bus.close()
        for name, leave in (("journal", "abandon"), ("store", "close")):
            held = getattr(self.actor, name, None)
            if held is not None and asyncio.iscoroutine(left := getattr(held, leave)()):
                await left
        for reader in getattr(self.actor, "readers", {}).values():
            reader.close()
        for writer in getattr(self.actor, "writers", {}).values():
            if not writer.closed:
                writer.close(unlink=True)


class World:
    """The actors of one engine, each with a bus of its own in one network."""

    until = staticmethod(until)
    pair = PAIR
    rule = RULE

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.network = MemoryNetwork()
        self.buses = []
        self.running = []
        self.clock = WallClock()
        self._incarnations = count(1_000)

    async def bus(self, name, incarnation=None, *, start=True, clock=None):
        bus = MemoryBus(
            self.network,
            name,
            next(self._incarnations) if incarnation is None else incarnation,
            clock or self.clock,
            limits=QUICK,
        )
        self.buses.append(bus)
        if start:
            await bus.start()
        return bus

    async def supervisor(self):
        return Listener(await self.bus("supervisor"))

    async def publisher(self, name, stream, **options):
        """A bus that publishes one stream, for an actor that is to hear of it."""
        options.setdefault("overload", Overload.CLOSE)
        bus = await self.bus(name)
        return bus, bus.open_stream(stream, **options)

    async def clock_stream(self):
        """The clock, in the test's hand: ``tick(n)``."""
        _, stream = await self.publisher("clock", "tick", overload=Overload.MERGE)

        def tick(n, interval_ns=1_000_000_000):
            return stream.publish(
                Tick(n=n, time_ns=n * interval_ns, interval_ns=interval_ns, sent_mono_ns=0), key="tick"
            )

        return tick, stream

    async def start(self, actor_class, name, *, connector="", params=None, clock=None, dead_man_s=1.0, wait=True):
        """Run an actor; with ``wait`` until it serves or has ended."""
        bus = await self.bus(name, clock=clock)
        spec = ActorSpec(
            name=name,
            kind=actor_class.kind,
            connector=connector,
            incarnation=bus.incarnation,
            run_dir=str(self.folder / "run"),
            shm_dir=str(self.folder / "shm"),
            state_dir=str(self.folder / "state"),
            engine_id="",
            entry="",
            params=params or {},
        )
        for folder in ("run", "shm", "state"):
            (self.folder / folder).mkdir(exist_ok=True)
        actor = actor_class(ActorContext(spec, bus, clock or self.clock, structlog.get_logger()))
        host = ActorHost(actor)
        task = asyncio.create_task(host.run(4242, dead_man_s))
        running = Running(self, actor, host, bus, task)
        self.running.append(running)
        if wait:
            await until(lambda: host._ready or task.done())
        return running

    async def close(self):
        for running in self.running:
            if not running.ended:
                await running.kill()
            else:
                await asyncio.gather(running.task, return_exceptions=True)
                await running._release()
        await asyncio.gather(*(bus.close() for bus in self.buses))
