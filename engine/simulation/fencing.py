"""Two hosts, one account: holders that are stopped at the worst instant, cut off while they live, killed and replaced.

A run is two hosts with clocks of their own, an arbiter in memory that each reaches by a line of its own, and a venue in
a box that both reach. The venue must never accept an order of a host after another host's epoch has begun, every order
that it accepts must have been journaled at the arbiter first, and in the end both must agree on everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import gc
import hashlib
import logging
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec

from engine.actors.inline import shared_logging
from engine.actors.inline_run import START_NS, repeatable
from engine.actors.plan import plan, with_endpoint
from engine.actors.tenure import Tenure, seat_of
from engine.config import parse_config
from engine.errors import JournalError
from engine.logs import own_secrets
from engine.orders.journal import Journal
from engine.orders.lease import Lease, LeaseState
from engine.orders.memory_store import MemoryLine, MemoryStore, forget_lines
from engine.runtime.inline import Place
from engine.runtime.memory_net import Connection
from engine.simulation import invariants
from engine.simulation.hosts import Host
from engine.simulation.plan import make_plan
from engine.simulation.run import Outcome, forget_applications, memory_folder
from engine.simulation.venue import SimulatedVenue
from engine.simulation.weather import RequestFault, Storm
from engine.simulation.wire import ORDER, Wire

TRADING_S: Final = 50.0
LAST_FAULT_S: Final = 40.0
QUIET_WITHIN_S: Final = 90.0
STILL_S: Final = 8.0
LONGEST_RUN_S: Final = 400.0
FAULTS: Final = ("stop", "stop_at_commit", "stop_at_send", "cut_arbiter", "cut_all", "kill", "slow_arbiter")
MIN_ORDERS: Final = 20
MIN_EPOCHS: Final = 2


class FencingWorld:
    """One run. ``fenced`` False: nobody asks whose epoch it is, and holders do not look at the end of their lease."""

    def __init__(self, seed: int, folder: Path, fenced: bool) -> None:
        self.seed = seed
        self.fenced = fenced
        self.findings: list[str] = []
        self.story: list[tuple[float, str, str]] = []
        self.struck: Counter[str] = Counter()
        self.rng = random.Random(f"fencing/{seed}")
        weather = random.Random(f"fencing/weather/{seed}")
        wire = _Sight(lambda: self.place.clock.time_ns(), self.find)
        self.storm = Storm(weather, 2_000_000, 2_000_000, lambda kind, port: self.count(kind), wire)
        self.place = Place(START_NS, self.storm, lambda: weather.expovariate(1.0) * 0.000_05)
        self.place.loop.set_exception_handler(self._unhandled)
        self.arbiter = MemoryStore(f"arbiter-{seed}", lambda: self.place.clock.time_ns(), fenced=fenced)
        self.books: invariants.Books | None = None
        self._slow: dict[MemoryLine, float] = {}
        calm = dataclasses.replace(make_plan(seed, faults=False), activity=1.0, step_s=0.1)
        self.venue = SimulatedVenue("b", self.place, folder, calm)
        self.hosts = [self._host(name, folder) for name in ("left", "right")]

    async def run(self) -> None:
        """The whole run."""
        try:
            async with asyncio.timeout(LONGEST_RUN_S):
                await self._run()
        except TimeoutError:
            self.find(f"the run does not end within {LONGEST_RUN_S:g} s")
        finally:
            for host in self.hosts:
                host.kill()
            self.venue.kill()
            forget_lines()

    async def _run(self) -> None:
        self.venue.start(lambda error: self.find(f"the venue cannot serve: {error!r}"))
        for host in self.hosts:
            await host.start(lambda: self.now_s < TRADING_S)
        await self._strike_all()
        await self._sleep_until(TRADING_S)
        self.tell("world", "trading ends")
        if await self._quiet():
            self.tell("world", "quiet")

    @property
    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return (self.place.clock.time_ns() - START_NS) / 1e9

    def tell(self, who: str, text: str) -> None:
        """Add a line to the story."""
        self.story.append((self.now_s, who, text))

    def count(self, kind: str) -> None:
        """A fault has struck."""
        self.struck[kind] += 1

    def find(self, text: str) -> None:
        """Something is broken."""
        self.findings.append(text)
        self.tell("BROKEN", text)

    # -------------------------------------------------------------------------------------------------------- faults

    async def _strike_all(self) -> None:
        rng = self.rng
        count = rng.randint(3, 6)
        pending = []
        for at_s in sorted(rng.uniform(4.0, LAST_FAULT_S) for _ in range(count)):
            await self._sleep_until(at_s)
            kind, for_s = rng.choice(FAULTS), round(rng.choice((rng.uniform(0.3, 5), rng.uniform(5, 18))), 3)
            holder = self._holder()
            host = holder if holder is not None and rng.random() < 0.8 else rng.choice(self.hosts)
            self.tell("plan", f"{kind} on {host.name} for {for_s:g} s")
            pending.append(asyncio.create_task(self._strike(kind, host, for_s)))
        await asyncio.gather(*pending)
        self.storm.faults.clear()

    async def _strike(self, kind: str, host: Host, for_s: float) -> None:
        self.count(kind)
        match kind:
            case "stop":
                host.stop_for(for_s)
            case "stop_at_commit":
                self._stop_at_commit(host, for_s)
            case "stop_at_send":
                self._stop_at_send(host, for_s)
            case "cut_arbiter" | "cut_all":
                host.line.cut = True
                end = self.storm.part(host.exchange, self.venue.port) if kind == "cut_all" else None
                await asyncio.sleep(for_s)
                host.line.cut = False
                if end is not None:
                    end()
            case "kill":
                seat = host.seat()
                if seat is not None:
                    seat.process.light_fuse(self.rng.randint(1, 300), partial(_kill, host))
            case "slow_arbiter":
                self._slow[host.line] = self.rng.uniform(0.05, 1.2)
                await asyncio.sleep(for_s)
                self._slow.pop(host.line, None)

    def _stop_at_commit(self, host: Host, for_s: float) -> None:
        """Stopped while what it wants to send is being journaled: it wakes up with leave to send."""

        def heard(kind: str) -> None:
            if kind == "commit":
                host.line.heard = lambda kind: None
                host.stop_for(for_s)

        host.line.heard = heard

    def _stop_at_send(self, host: Host, for_s: float) -> None:
        """Stopped between its look at the lease and the wire: the bytes leave when it goes on."""

        def then(owner: str) -> None:
            # Whoever writes is stopped: that is this host's, or the other's that has taken its place since.
            writer = next(other for other in self.hosts if other.exchange == owner)
            writer.stop_for(for_s)

        delay_ns = round(for_s * 1e9)
        self.storm.faults.append(("order_held", RequestFault(self.venue.port, ORDER, delay_ns=delay_ns, then=then)))

    # ----------------------------------------------------------------------------------------------------------- end

    async def _quiet(self) -> bool:
        """Wait until nothing is open or on its way, and has not been for a while."""
        since_s = None
        until_s = self.now_s + QUIET_WITHIN_S
        while True:
            unrest = self._unrest()
            if unrest:
                since_s = None
            elif since_s is None:
                since_s = self.now_s
            elif self.now_s - since_s > STILL_S:
                return True
            if self.now_s > until_s:
                self.find(f"not quiet after {QUIET_WITHIN_S:g} s: {unrest}")
                return False
            await asyncio.sleep(0.5)

    def _unrest(self) -> str:
        holder = self._holder()
        if holder is None:
            return "nobody holds the account"
        if self.venue.has_open_orders():
            return "open orders at the venue"
        try:
            with Journal.open_readonly(holder.journal_path) as journal:
                open_orders = journal.orders(open_only=True, limit=3)
                known = {order.client_order_id for order in journal.orders(limit=10**9)}
        except JournalError as error:
            return str(error)
        if open_orders:
            return f"open orders in the journal: {', '.join(order.client_order_id for order in open_orders)}"
        lacking = {row[0] for row in self.arbiter.changed("orders", 0)} ^ known
        return f"{holder.name}'s copy and the arbiter differ in {sorted(lacking)[:3]}" if lacking else ""

    def check(self) -> Iterator[str]:
        """Everything that is broken after the run; the venue must be down."""
        saved, balances = self.venue.ledger()
        for order in saved.orders:
            if order.client_order_id.startswith("sim-"):
                yield from self._check_order(order.client_order_id, order.created_ns - self.venue.skew_ns)
        holder = self._holder()
        if holder is not None:
            self.books = invariants.compare("binance", holder.journal_path, saved, balances)
            yield from invariants.check_trades(self.books)

    def _check_order(self, client_order_id: str, accepted_ns: int) -> Iterator[str]:
        epochs = self.arbiter.epochs
        epoch = self.arbiter.journaled_by.get(client_order_id)
        if epoch is None:
            yield f"order {client_order_id} was accepted and never journaled at the arbiter"
            return
        seat = epochs[epoch].seat
        others = [number for number in epochs if number > epoch and epochs[number].seat != seat]
        if others and accepted_ns >= epochs[others[0]].began_ns:
            late_s = (accepted_ns - epochs[others[0]].began_ns) / 1e9
            yield (
                f"order {client_order_id} of epoch {epoch} was accepted {late_s:.3f} s after epoch {others[0]} began "
                "on another host"
            )

    # --------------------------------------------------------------------------------------------------------- parts

    def _host(self, name: str, folder: Path) -> Host:
        rng = random.Random(f"fencing/{name}/{self.seed}")
        line: MemoryLine

        def delay() -> float:
            slow = self._slow.get(line)
            return rng.expovariate(1 / 0.002) if slow is None else rng.uniform(0, slow)

        line = MemoryLine(self.arbiter, delay)
        config = parse_config(
            {
                "name": "sim",
                "runtime": "inline",
                "venues": {"b": self.venue.described()},
                "connectors": {
                    "binance": {
                        "at": "b",
                        "venue": "binance",
                        "pairs": ["BTC-USDT"],
                        "options": {"timeout_s": 2.0, "order_entry": rng.choice(("websocket", "rest"))},
                    }
                },
                "risk": {"check_balance": False},
                "recorder": {"enabled": False},
            }
        )
        planned = [
            with_endpoint(actor, self.venue.info)
            for actor in plan(config, START_NS, folder / name / "state")
            if actor.kind in ("exchange", "user_stream")
        ]
        return Host(name, self.place, folder / name, line, planned, rng, self.tell)

    def _holder(self) -> Host | None:
        """Whose seat the arbiter's row names."""
        for host in self.hosts:
            lock = host.journal_path.with_name(host.journal_path.name + ".lock")
            if lock.exists() and seat_of(host.journal_path) == self.arbiter.row.seat:
                return host
        return None

    async def _sleep_until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self.now_s))

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and "never retrieved" not in context["message"]:
            self.find(f"unhandled: {context['message']}: {error!r}")


def _kill(host: Host) -> None:
    host.runtime.send_signal(host.exchange, signal.SIGKILL)


class _Sight(Wire):
    """Hosts' clocks are wrong here, so that no order's age can be told from its id; when it is accepted can."""

    def look(self, connection: Connection, data: bytes) -> None:
        return


def run_seed(seed: int, *, fenced: bool = True, logs: bool = False, folder: str | None = None) -> Outcome:
    """Run a seed to its end. ``fenced`` False: without the fence, which must then be missed."""
    home = Path(tempfile.mkdtemp(prefix="engine-fence-", dir=folder or memory_folder()))
    try:
        fence = contextlib.nullcontext() if fenced else unfenced()
        with repeatable(f"fencing/{seed}"), fence, own_secrets(), shared_logging("info" if logs else "critical"):
            return _run(FencingWorld(seed, home, fenced))
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def unfenced() -> Iterator[None]:
    """Holders take and sign orders for as long as they believe to have the lease, however long ago that was."""

    def always(lease: Lease, horizon_ns: int) -> int:
        return 1 << 62 if lease.state is LeaseState.HELD else 0

    with mock.patch.object(Lease, "sign_by", always), mock.patch.object(Tenure, "refusal", return_value=""):
        yield


def _run(world: FencingWorld) -> Outcome:
    quiet = logging.getLogger("asyncio")
    quiet.disabled = True
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings(), asyncio.Runner(loop_factory=lambda: world.place.loop) as runner:
            # What a killed process had not begun is never awaited.
            warnings.simplefilter("ignore", RuntimeWarning)
            runner.run(world.run(), context=contextvars.Context())
        for text in world.check():
            world.find(text)
    except Exception as error:
        world.find(f"the run ended early: {type(error).__name__}: {error}")
    finally:
        quiet.disabled = False
        forget_applications()
        gc.collect()
        sys.unraisablehook = unraisable
    books = world.books
    world.struck["takeovers"] = len({epoch.seat for epoch in world.arbiter.epochs.values()})
    world.struck["epochs"] = len(world.arbiter.epochs)
    return Outcome(
        seed=world.seed,
        broken=world.findings,
        orders=len(books.orders) if books is not None else 0,
        fills=len(books.venue_fills) if books is not None else 0,
        faults=dict(world.struck),
        virtual_s=world.now_s,
        digest=_digest(world),
        story=world.story,
    )


def _digest(world: FencingWorld) -> str:
    orders = sorted(world.arbiter.journaled_by.items())
    began = [(epoch.first_commit, epoch.began_ns) for epoch in world.arbiter.epochs.values()]
    content = [world.story, world.place.loop.callbacks, orders, began]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:16]
