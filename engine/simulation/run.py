"""Running one seed: its world, its end, and what came of it."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web_app

from engine.actors.inline import shared_logging
from engine.actors.inline_run import repeatable
from engine.logs import own_secrets
from engine.simulation import invariants
from engine.simulation.faults import Injector
from engine.simulation.plan import make_plan
from engine.simulation.venue import plain
from engine.simulation.world import World

MIN_ORDERS = 50
MIN_FILLS = 20


@dataclass
class Outcome:
    """What came of a seed. ``story``: virtual seconds, who, what."""

    seed: int
    broken: list[str]
    orders: int = 0
    fills: int = 0
    kills: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    met: dict[str, dict[str, int]] = field(default_factory=dict)
    digest: str = ""
    virtual_s: float = 0.0
    story: list[tuple[float, str, str]] = field(default_factory=list)


def run_seed(seed: int, *, faults: bool = True, logs: bool = False, folder: str | None = None) -> Outcome:
    """Run a seed to its end. ``logs``: with every actor's log in the story. ``folder``: its files live within."""
    home = Path(tempfile.mkdtemp(prefix="engine-sim-", dir=folder or memory_folder()))
    try:
        with repeatable(f"run/{seed}"), own_secrets(), shared_logging("info" if logs else "critical"):
            return _run(World(make_plan(seed, faults), home), logs)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(world: World, logs: bool) -> Outcome:
    injector = Injector(world)
    quiet = logging.getLogger("asyncio")
    level, quiet.disabled = quiet.level, True
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    # A run's garbage is collected at its end: in between, that is a tenth of its time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: world.place.loop) as runner:
            runner.run(world.run(injector.strike_all, invariants.check_standing))
        books = [invariants.read_books(world, venue) for venue in world.venues.values()]
        for text in invariants.check(world, books):
            world.find(text)
    except Exception as error:
        world.find(f"the run ended early: {type(error).__name__}: {error}")
        books = []
    finally:
        quiet.setLevel(level)
        quiet.disabled = False
        forget_applications()
        gc.collect()
        if collecting:
            gc.enable()
        sys.unraisablehook = unraisable
    orders = sum(len(each.orders) for each in books)
    fills = sum(len(each.venue_fills) for each in books)
    outcome = Outcome(
        seed=world.plan.seed,
        broken=world.findings,
        orders=orders,
        fills=fills,
        kills=dict(world.kills),
        faults=dict(world.struck),
        met={kind: dict(states) for kind, states in world.met.items()},
        virtual_s=world.now_s,
        digest=_digest(world, books),
        story=world.story,
    )
    if logs:
        outcome.story = _with_logs(world, books)
    return outcome


def forget_applications() -> None:
    """Empty a cache of the web server's that would keep every venue of every run, with its world."""
    cached = getattr(web_app, "_cached_build_middleware", None)
    if cached is not None:
        cached.cache_clear()


def _digest(world: World, books: list[invariants.Books]) -> str:
    content: Any = [
        world.story,
        world.place.loop.callbacks,
        [[plain(each.events), plain(each.orders), _rows(each.venue_orders), _rows(each.venue_fills)] for each in books],
    ]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:16]


def _rows(items: list[Any]) -> list[str]:
    return [repr(item) for item in items]


def _with_logs(world: World, books: list[invariants.Books]) -> list[tuple[float, str, str]]:
    """The story with the accounts' events and the actors' logs, in order of time."""
    story = list(world.story)
    start_ns = world.place.clock.time_ns() - round(world.now_s * 1e9)
    for each in books:
        skew = next(venue.skew_ns for venue in world.venues.values() if venue.connector == each.connector)
        for event in each.events:
            order = event.order
            fill = f" {event.fill.size} at {event.fill.price} (trade {event.fill.trade_id})" if event.fill else ""
            text = (
                f"event {event.number} {event.kind.value}{fill}: {order.client_order_id} of {order.strategy}, "
                f"{order.side.value} {order.size} {order.pair} at {order.price}, {order.state.value}"
                f"{f', {order.reason.value} {order.detail}' if order.reason or order.detail else ''}"
            )
            story.append(((event.time_ns - skew - start_ns) / 1e9, f"journal {each.connector}", text))
    for path in sorted((world.paths.state / "logs").glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            story.append(_log_line(msgspec.json.decode(line), start_ns))
    return sorted(story, key=lambda entry: entry[0])


def _log_line(line: dict[str, Any], start_ns: int) -> tuple[float, str, str]:
    from datetime import datetime

    at = datetime.fromisoformat(line["time"]).timestamp()
    shown = {key: value for key, value in line.items() if key not in ("time", "level", "actor", "pid", "event")}
    fields = " ".join(f"{key}={value}" for key, value in shown.items())
    return at - start_ns / 1e9, line["actor"], f"{line['level']} {line['event']} {fields}"


def memory_folder() -> str | None:
    """A folder in memory, where there is one."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() else None
