"""An order's way from a strategy to the wire with its journal in PostgreSQL beside SQLite, in one run.

One engine, two accounts at two venues in boxes of the same kind; a strategy places its orders by turns at both. The
database is on this host, by a Unix socket, and waits for its disk at each commit. A second part is a commit alone.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks import samples
from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import NO_LIMITS, Engine, config
from engine.clock import WallClock
from engine.messages import Order, OrderState, OrderType, Side
from engine.orders.journal import Journal
from engine.orders.postgres import PostgresStore
from engine.orders.records import WriteIntent
from engine.orders.replicated import ReplicatedJournal
from engine.simulation.postgres_server import postgres_server

SECONDS = 15.0
EVERY_S = 0.02
COMMITS = 2000
SQLITE, POSTGRES = "exchange.binance.main", "exchange.shared.main"
PERCENTILES = (50, 90, 99)


def run(options: Options) -> Iterator[Line]:
    with postgres_server(durable=True) as server:
        runs = []
        for number in range(options.times(3)):
            say(f"journal_postgres: run {number + 1}")
            address = server.database()
            runs.append(_once(address, options.seconds(SECONDS)))
            server.drop(address)
        for name in samples.ORDER_LATENCIES:
            for at, percent in enumerate(PERCENTILES):
                yield line(
                    "journal_postgres",
                    median(each[POSTGRES, name][at] for each in runs),
                    "us",
                    case=f"{name.removesuffix('_ns')}_p{percent}",
                    sqlite=round(median(each[SQLITE, name][at] for each in runs), 1),
                    samples=sum(round(each[POSTGRES, name][-1]) for each in runs),
                    runs=len(runs),
                )
        say("journal_postgres: a commit alone")
        commits = 200 if options.quick else COMMITS
        for case, values in _commits(server.database(), commits).items():
            yield line("journal_postgres", median(values), "us", case=case, samples=len(values))


def _once(address: str, seconds: float) -> dict[tuple[str, str], list[float]]:
    """By account and latency."""
    with Engine(
        _config(address), box={**NO_LIMITS, "activity": 1.0}, actors={SQLITE: ["samples"], POSTGRES: ["samples"]}
    ) as engine:
        engine.wait_running()
        time.sleep(seconds)
        engine.finish()
        return {
            (actor, name): _percentiles(engine.state, actor, name)
            for actor in (SQLITE, POSTGRES)
            for name in samples.ORDER_LATENCIES
        }


def _percentiles(state: Path, actor: str, name: str) -> list[float]:
    values = sorted(samples.read(state, actor, name))
    if not values:
        raise RuntimeError(f"{actor} sent nothing")
    return [*(values[len(values) * percent // 100] / 1e3 for percent in PERCENTILES), len(values)]


def _config(address: str) -> dict[str, Any]:
    settings = config()
    box = settings.pop("venue")
    settings["venues"] = {"venue_a": {**box, "seed": 1}, "venue_b": {**box, "seed": 1}}
    settings["connectors"] = {
        "binance": {"at": "venue_a", "pairs": ["BTC-USDT"]},
        "shared": {"venue": "binance", "at": "venue_b", "pairs": ["BTC-USDT"], "journal": address},
    }
    settings["strategies"] = {
        "placer": {
            "strategy": "benchmarks.strategies:TurnPlacer",
            "pairs": ["binance/BTC-USDT", "shared/BTC-USDT"],
            "params": {"every_s": EVERY_S},
        }
    }
    return settings


def _commits(address: str, count: int) -> dict[str, list[float]]:
    """Microseconds that an intent's commit takes: by the file, and at PostgreSQL with its copy."""
    with tempfile.TemporaryDirectory(prefix="engine-bench-") as name, asyncio.Runner() as runner:
        found: dict[str, list[float]] = {}
        with Journal(Path(name) / "own.db", "binance", "main", WallClock(), "run") as journal:
            found["commit_sqlite"] = _timed(count, journal.record)
        store = PostgresStore(address, "binance", "main", 1)
        shared = ReplicatedJournal(Path(name) / "copy.db", "binance", "main", WallClock(), store, "run")
        try:
            runner.run(_take(store, shared))

            def record(writes: list[WriteIntent]) -> None:
                shared.record(writes)
                runner.run(shared.push())

            found["commit_postgres"] = _timed(count, record)
        finally:
            shared.close()
            runner.run(store.close())
        return found


async def _take(store: PostgresStore, journal: ReplicatedJournal) -> None:
    await store.open()
    row = await store.take(await store.look(), "benchmark", "seat", 10**9)
    assert row is not None, "nobody else asks for this lease"
    await journal.catch_up(row.epoch)


def _timed(count: int, record: Callable[[list[WriteIntent]], None]) -> list[float]:
    values = []
    for index in range(count):
        order = Order(
            client_order_id=f"e-{index}",
            strategy="maker",
            pair="BTC-USDT",
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            size=Decimal(1),
            price=Decimal(100),
            state=OrderState.PENDING_CREATE,
            created_ns=1,
            updated_ns=1,
        )
        began = time.perf_counter_ns()
        record([WriteIntent(order=order, send_by_ns=2)])
        values.append((time.perf_counter_ns() - began) / 1e3)
    return values
