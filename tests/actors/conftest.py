"""Actors in one process: a bus in memory, a supervisor that listens, a venue that does what it is told."""

import asyncio
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from itertools import count
from pathlib import Path
from signal import Signals

import pytest
import structlog
import uvloop

from engine.actors import base as actor_base
from engine.actors.base import ActorContext, ActorHost
from engine.actors.plan import plan
from engine.actors.supervisor import Supervisor
from engine.book import SyncState
from engine.bus import Limits, MemoryBus, MemoryNetwork, Overload
from engine.clock import WallClock
from engine.config import RunOptions, parse_config
from engine.connectors.base import Dated, ExchangeClient, PlaceResult, VenueFill
from engine.connectors.errors import OrderNotFound
from engine.connectors.settings import ConnectorSettings
from engine.errors import BusError, RuntimeFailure
from engine.logs import forget_secrets
from engine.messages import (
    ActorStarted,
    ActorStats,
    ActorStopping,
    Balance,
    ControlReply,
    ControlRequest,
    FeeSchema,
    Fill,
    LogLine,
    OrderState,
    OrderType,
    PlaceOrder,
    Side,
    StopActor,
    Tick,
    TickDone,
    TradingRule,
    UserStreamState,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)
from engine.runtime.base import ActorSpec, Exit, Runtime
from engine.runtime.paths import EnginePaths

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
        for name in ("journal", "store"):
            held = getattr(self.actor, name, None)
            if held is not None:
                held.close()
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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(body)``: ``await body(world)`` in an event loop of its own, with nothing left behind; returns the log."""
    monkeypatch.setattr(actor_base, "STATS_INTERVAL_S", 0.02)
    monkeypatch.setattr(actor_base, "REPORT_TIMEOUT_S", 0.2)

    @asynccontextmanager
    async def made():
        world = World(tmp_path, monkeypatch)
        try:
            yield world
        finally:
            await world.close()

    def run(body, seconds=10):
        async def main():
            async with asyncio.timeout(seconds):
                async with made() as world:
                    await body(world)
                others = asyncio.all_tasks() - {asyncio.current_task()}
                if others:
                    await asyncio.wait(others, timeout=0.5)
                others = {task for task in others if not task.done()}
                assert not others, f"left running: {others}"

        with structlog.testing.capture_logs() as logs:
            uvloop.run(main())
        return logs

    return run


# ------------------------------------------------------------------------------------------------------- a venue


class FakeTime:
    """The venue's clock, which is ours."""

    lead_ns = 0

    def __init__(self, clock):
        self._clock = clock
        self.forgotten = 0

    def now_ns(self):
        return self._clock.time_ns()

    def now_ms(self):
        return self.now_ns() // 1_000_000

    def forget(self):
        self.forgotten += 1


class FakeVenue:
    """A venue with one account. ``script[call]`` holds what is to come of the next calls: an error to raise
    (``before`` it is carried out or ``after``), or an event to wait for first.
    """

    def __init__(self, clock):
        self.clock = clock
        self.time = FakeTime(clock)
        self.orders = {}
        self.fill_list = []
        self.balance = {
            "BTC": Balance(total=Decimal(10), available=Decimal(10)),
            "USDT": Balance(total=Decimal(1_000_000), available=Decimal(1_000_000)),
        }
        self.rules = {PAIR: RULE}
        self.calls = []
        self.script = {}
        self.stream = None
        self.session = 0
        self._ids = count(1)

    # what tests do

    def next(self, call, *, before=None, after=None, wait=None, forever=False):
        self.script.setdefault(call, []).append((before, after, wait, forever))

    def count(self, call):
        return sum(name == call for name, _ in self.calls)

    def asked(self, call):
        return [about for name, about in self.calls if name == call]

    async def open_stream(self, world, name="user_stream.box.main"):
        self.stream_bus, self.stream = await world.publisher(name, "events", queue=1000)
        self.subscribed()

    def subscribed(self):
        self.session += 1
        self.stream.publish(UserStreamState(connected=True, session=self.session))

    def unsubscribed(self):
        self.stream.publish(UserStreamState(connected=False, session=self.session))

    def trade(self, client_order_id, size, *, told=True, price=None):
        """An execution; told on the stream or not."""
        order = self.orders[client_order_id]
        trade = Fill(
            trade_id=str(next(self._ids)),
            price=order.price if price is None else Decimal(price),
            size=Decimal(size),
            fee=Decimal("0.01"),
            fee_asset="USDT",
            is_maker=True,
            time_ns=self.clock.time_ns(),
        )
        filled = order.filled + trade.size
        state = OrderState.FILLED if filled == order.size else OrderState.PARTIALLY_FILLED
        self.fill_list.append(
            VenueFill(
                pair=order.pair,
                side=order.side,
                exchange_order_id=order.exchange_order_id,
                fill=trade,
                client_order_id=client_order_id,
            )
        )
        update = self._change(client_order_id, state=state, filled=filled)
        if told:
            self.tell(update, fill=trade)
        return trade

    def end(self, client_order_id, state=OrderState.CANCELLED, *, told=True):
        update = self._change(client_order_id, state=state)
        if told:
            self.tell(update)

    def tell(self, update, fill=None):
        self.stream.publish(VenueOrderUpdate(**{**_fields(update), "fill": fill}))

    @property
    def open(self):
        return [order for order in self.orders.values() if not order.state.is_final]

    def _change(self, client_order_id, **changes):
        order = self.orders[client_order_id]
        fields = {**_fields(order), **changes, "venue_time_ns": self.clock.time_ns()}
        self.orders[client_order_id] = VenueOrderUpdate(**fields)
        return self.orders[client_order_id]

    async def call(self, name, about, work):
        self.calls.append((name, about))
        queue = self.script.get(name)
        before, after, wait, forever = queue[0] if queue else (None, None, None, False)
        if queue and not forever:
            queue.pop(0)
        if wait is not None:
            await wait.wait()
        if before is not None:
            raise before
        found = work()
        if after is not None:
            raise after
        return found

    def dated(self, value, requested_ns):
        return Dated(
            value=value, requested_ns=requested_ns, requested_mono_ns=self.clock.monotonic_ns(), venue_ns=requested_ns
        )

    # what the exchange's client does with it

    def take(self, order):
        assert order.client_order_id not in self.orders, "the venue was given an id twice"
        update = VenueOrderUpdate(
            client_order_id=order.client_order_id,
            exchange_order_id=f"x{order.client_order_id}",
            pair=order.pair,
            side=order.side,
            order_type=order.order_type,
            size=order.size,
            price=order.price,
            state=OrderState.OPEN,
            filled=Decimal(0),
            venue_time_ns=self.clock.time_ns(),
        )
        self.orders[order.client_order_id] = update
        return update

    def find(self, client_order_id):
        if client_order_id not in self.orders:
            raise OrderNotFound(-2013, "no such order")
        return self.orders[client_order_id]

    def remove(self, client_order_id):
        if self.find(client_order_id).state.is_final:
            raise OrderNotFound(-2011, "unknown order")
        return self._change(client_order_id, state=OrderState.CANCELLED)


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


class FakeClient(ExchangeClient):
    """The exchange's client at the fake venue."""

    def __init__(self, venue):
        self.venue = venue
        self.time = venue.time
        self.closed = 0

    @property
    def acceptance_horizon_ns(self):
        return 5_000_000_000

    async def start(self):
        await self.venue.call("start", None, lambda: None)

    async def close(self):
        self.closed += 1

    async def server_time_ms(self):
        return self.time.now_ms()

    async def trading_rules(self, pairs=None):
        return await self.venue.call("rules", pairs, lambda: dict(self.venue.rules))

    async def fetch(self, request):
        return await self.venue.call("fetch", request, lambda: b"")

    async def place(self, order, on_sent, send_by_mono_ns=None):
        requested = self.time.now_ns()

        def work():
            on_sent(self.venue.clock.monotonic_ns())
            return self.venue.take(order)

        update = await self.venue.call("place", order.client_order_id, work)
        return PlaceResult(update=update, requested_ns=requested, requested_mono_ns=0, venue_ns=requested)

    async def cancel(self, order):
        requested, name = self.time.now_ns(), order.client_order_id
        return self.venue.dated(await self.venue.call("cancel", name, lambda: self.venue.remove(name)), requested)

    async def cancel_pair(self, pair):
        raise AssertionError("the engine cancels by id")

    async def query(self, pair, client_order_id):
        requested = self.time.now_ns()
        found = await self.venue.call("query", client_order_id, lambda: self.venue.find(client_order_id))
        return self.venue.dated(found, requested)

    async def open_orders(self, pairs=None):
        requested = self.time.now_ns()
        return self.venue.dated(await self.venue.call("open_orders", pairs, lambda: self.venue.open), requested)

    async def fills(self, pair, since_ns=0, from_trade_id=None, exchange_order_id=None):
        requested = self.time.now_ns()

        def work():
            return [
                fill
                for fill in self.venue.fill_list
                if fill.pair == pair
                and fill.fill.time_ns >= since_ns
                and exchange_order_id in (None, fill.exchange_order_id)
            ]

        return self.venue.dated(await self.venue.call("fills", pair, work), requested)

    async def balances(self):
        requested = self.time.now_ns()

        def work():
            return VenueBalanceUpdate(balances=dict(self.venue.balance), venue_time_ns=0)

        return self.venue.dated(await self.venue.call("balances", None, work), requested)


class FakeConnector:
    """A connector whose parts are the test's."""

    fees = FeeSchema()
    real_time_balances = True

    def __init__(self, *, client=None, market_data=None, user_data=None, pairs=(PAIR,)):
        self.settings = ConnectorSettings(connector="box", venue="fake", pairs=tuple(pairs))
        self.name = "box"
        self._client, self._market_data, self._user_data = client, market_data, user_data

    def market_data(self):
        return self._market_data

    def user_data(self):
        return self._user_data()

    def books(self, clock):
        return self._client

    def public(self, clock):
        return self._client

    def exchange(self, clock):
        return self._client


@pytest.fixture
def fakes():
    """The classes of the fake venue, for tests that need one of their own making."""

    class Fakes:
        venue = FakeVenue
        client = FakeClient
        connector = FakeConnector

    return Fakes


@pytest.fixture
def exchange_world(run, monkeypatch):
    """``exchange_world(body)``: ``await body(world, venue)``, with an exchange actor to be had at the venue."""
    from engine.actors import exchange as module

    monkeypatch.setattr(module, "POLL_S", 0.05)
    monkeypatch.setattr(module, "POLL_PAIR_S", 0.0, raising=False)

    def go(body, seconds=10):
        async def main(world):
            venue = FakeVenue(world.clock)

            def connector_of(params):
                return FakeConnector(client=FakeClient(venue))

            monkeypatch.setattr(module, "connector_of", connector_of)

            async def exchange(*, ready=True, **params):
                params = {
                    "account": "main",
                    "user_stream": "user_stream.box.main",
                    "run_id": str(world.run_id),
                    "id_prefix": "e-",
                    "keep_orders": False,
                    **params,
                }
                running = await world.start(module.ExchangeActor, "exchange.box.main", connector="box", params=params)
                if ready:
                    await until(lambda: running.actor.ready or running.ended)
                return running

            world.run_id = world.clock.time_ns()
            world.exchange = exchange
            await venue.open_stream(world)
            await body(world, venue)

        return run(main, seconds)

    return go


# -------------------------------------------------------------------------------------------------- a supervisor


class FakeRuntime(Runtime):
    """Actors that do as they are told: they report, stop politely, and end when the test says so.

    ``ways[name]``: how an actor differs: "silent" never reports, "deaf" does not stop, "refused" cannot be spawned.
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
        self.tasks = set()

    async def start(self):
        self.log.append(("start", ""))

    async def spawn(self, spec):
        if "refused" in self.ways.get(spec.name, ()):
            raise RuntimeFailure(f"{spec.name} cannot be started")
        self.specs.append(spec)
        self.log.append(("spawn", spec.name))
        self._lives(spec.name)
        bus = MemoryBus(
            self.ground.network, spec.name, spec.incarnation, self.ground.clock, engine_id=spec.engine_id, limits=QUICK
        )
        bus.serve(lambda caller, message: self._heard(spec, bus, message))
        await bus.start()
        if "silent" not in self.ways.get(spec.name, ()):
            self._run(self._report(spec, bus))
        return 10_000 + len(self.specs)

    async def _report(self, spec, bus):
        info = {key: f"{key}.of.the.box" for key in ("rest", "ws", "ws_api", "api_key", "api_secret")}
        started = ActorStarted(actor=spec.name, incarnation=spec.incarnation, pid=1, info=info)
        with suppress(BusError):
            await bus.request("supervisor", started)

    def _heard(self, spec, bus, message):
        if isinstance(message, StopActor):
            self.log.append(("stop", spec.name))
            self.stops = [*getattr(self, "stops", ()), (spec.name, message)]
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


@pytest.fixture
def engine_world(run, tmp_path, monkeypatch):
    """``engine_world(body)``: ``await body(world)``, with ``await world.engine(**changes of the configuration)``."""

    def go(body, seconds=10):
        async def main(world):
            engines = []

            async def engine(*, ways=None, seconds=None, wait=True, before=None, **changes):
                config = parse_config({**ENGINE, **changes})
                paths = EnginePaths(tmp_path / "engine", Path("/tmp/no-engine/run"), Path("/tmp/no-engine/shm"))
                paths.create_state()
                ground = FakeGround(world.network, world.clock)
                ground.fake_runtime.ways = ways or {}
                run_id = world.clock.time_ns()
                options = RunOptions(state_dir=paths.state, seconds=seconds)
                planned = plan(config, run_id, paths.state)
                supervisor = Supervisor(config, options, paths, None, run_id, planned, ground)
                if before is not None:
                    before(supervisor)
                made = Engine(supervisor, ground.fake_runtime, asyncio.create_task(supervisor.run()))
                engines.append(made)
                if wait:
                    await made.all_run()
                return made

            world.engine = engine
            try:
                await body(world)
            finally:
                for made in engines:
                    if not made.task.done():
                        made.task.cancel()
                    await asyncio.gather(made.task, return_exceptions=True)
                forget_secrets()

        return run(main, seconds)

    return go


@pytest.fixture
def order():
    """``order("e-1", …)``: a command to place one."""

    def make(client_order_id="e-1", *, side=Side.BUY, size="1", price="100", strategy="maker", pair=PAIR):
        return PlaceOrder(
            client_order_id=client_order_id,
            strategy=strategy,
            pair=pair,
            side=side,
            order_type=OrderType.LIMIT if price is not None else OrderType.MARKET,
            size=Decimal(size),
            price=None if price is None else Decimal(price),
        )

    return make


@pytest.fixture
def synced():
    return SyncState.SYNCED


@pytest.fixture
def messages_of():
    """The kinds of messages that the supervisor hears."""

    class Kinds:
        started, stopping, stats, done = ActorStarted, ActorStopping, ActorStats, TickDone

    return Kinds
