"""Actors in one process, at a venue or under a supervisor of the test's."""

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
import structlog
import uvloop

from engine.actors import base as actor_base
from engine.actors import exchange as exchange_module
from engine.actors import reconciler as reconciler_module
from engine.actors.candidate import CandidateActor
from engine.actors.exchange import ExchangeActor
from engine.actors.plan import plan
from engine.actors.succession import Succession
from engine.actors.supervisor import Supervisor, engine_id
from engine.book import SyncState
from engine.config import RunOptions, parse_config
from engine.logs import forget_secrets
from engine.messages import (
    ActorStarted,
    ActorStats,
    ActorStopping,
    OrderType,
    PlaceOrder,
    Side,
    TickDone,
)
from engine.orders.memory_store import forget_lines, name_line
from engine.runtime.paths import EnginePaths
from tests.actors.book_desk import BookDesk
from tests.actors.fake_engine import ENGINE, Engine, FakeGround
from tests.actors.fake_venue import FakeClient, FakeConnector, FakeVenue
from tests.actors.policy_shell import Shell
from tests.actors.world import PAIR, World, until

LEASE = {"ttl_ns": 900_000_000, "renew_ns": 50_000_000, "clock_error_ns": 50_000_000, "look_ns": 20_000_000}


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


@pytest.fixture
def fakes():
    """The classes of the fake venue, for tests that need one of their own making."""

    class Fakes:
        venue = FakeVenue
        client = FakeClient
        connector = FakeConnector

    return Fakes


@pytest.fixture
def book_world(run, fakes, monkeypatch):
    """``book_world(body)``: ``await body(world, desk)``, with an order-book actor at its :class:`BookDesk`."""

    def go(body, pairs=(PAIR,), listed=None):
        async def main(world):
            await body(world, BookDesk(world, fakes, monkeypatch, pairs, pairs if listed is None else listed))

        return run(main)

    return go


@pytest.fixture
def exchange_world(run, monkeypatch):
    """``exchange_world(body)``: ``await body(world, venue)``, with an exchange actor to be had at the venue."""
    monkeypatch.setattr(reconciler_module, "POLL_S", 0.05)
    monkeypatch.setattr(reconciler_module, "POLL_PAIR_S", 0.0)

    def go(body, seconds=10):
        async def main(world):
            venue = FakeVenue(world.clock)

            def connector_of(params):
                return FakeConnector(client=FakeClient(venue), pairs=venue.pairs)

            monkeypatch.setattr(exchange_module, "connector_of", connector_of)

            async def exchange(*, ready=True, **params):
                params = {
                    "account": "main",
                    "user_stream": "user_stream.box.main",
                    "run_id": str(world.run_id),
                    "id_prefix": "e-",
                    "keep_orders": False,
                    **params,
                }
                running = await world.start(ExchangeActor, "exchange.box.main", connector="box", params=params)
                if ready:
                    await until(lambda: (running.actor.ready and running.actor.exposure.known) or running.ended)
                return running

            async def candidate(line, *, held=True, at=world, **params):
                """An exchange actor of a shared account, on the host ``at``, with its line to the arbiter."""
                params = {
                    "account": "main",
                    "user_stream": "user_stream.box.main",
                    "run_id": str(world.run_id),
                    "id_prefix": "e-",
                    "keep_orders": True,
                    "journal": {"address": name_line(f"{id(line)}", line), "lease": LEASE},
                    **params,
                }
                running = await at.start(CandidateActor, "exchange.box.main", connector="box", params=params)
                if held:
                    await until(lambda: running.ended or (running.actor.exchange and running.actor.exchange.ready))
                return running

            world.run_id = world.clock.time_ns()
            world.exchange = exchange
            world.candidate = candidate
            await venue.open_stream(world)
            try:
                await body(world, venue)
            finally:
                forget_lines()

        return run(main, seconds)

    return go


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
                succession = Succession(engine_id(config, run_id), world.clock.monotonic_ns(), legacy)
                succession.save()
                supervisor = Supervisor(config, options, paths, None, run_id, planned, ground, succession)
                if before is not None:
                    before(supervisor)
                return await begun(supervisor, wait)

            async def successor(first, *, dead=(), seconds=None, wait=True):
                """The supervisor that follows one which is killed now; ``dead``: actors that die before it comes."""
                await first.kill(*dead)
                old = first.supervisor
                options = RunOptions(state_dir=old.paths.state, seconds=seconds)
                planned = plan(old.config, old.run_id, old.paths.state)
                succession = Succession(old.engine_id, world.clock.monotonic_ns(), legacy)
                assert succession.inherited
                supervisor = Supervisor(
                    old.config, options, old.paths, None, old.run_id, planned, old.ground, succession
                )
                return await begun(supervisor, wait)

            async def begun(supervisor, wait):
                made = Engine(supervisor, supervisor.ground.fake_runtime, asyncio.create_task(supervisor.run()))
                engines.append(made)
                if wait:
                    await made.all_run()
                return made

            legacy = tmp_path / "succession.json"
            world.engine = engine
            world.successor = successor
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


@pytest.fixture
def shell():
    """A supervisor's policy, and what carries out its decisions."""
    return Shell()
