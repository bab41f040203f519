"""How many orders a second one strategy places and cancels, through the exchange actor, at a venue without limits.

By the venue's fastest entry, its WebSocket API. After each run the journal and the venue's ledger are compared, order
by order, and a run in which they differ gives no figure. Where the time goes is measured in a run of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import stages
from benchmarks.common import Line, Options, line, median, say
from benchmarks.live import NO_LIMITS, Engine, config, cpu_seconds
from engine.messages import OrderState
from engine.simulation.invariants import check_account, compare
from engine.simulation.venue import read_ledger

IN_FLIGHT = (1, 8, 32)
SECONDS = 4.0
EXCHANGE = "exchange.binance.main"
WATCHED = ("venue", EXCHANGE, "user_stream.binance.main", "strategy.churner", "recorder", "risk", "supervisor")
MEASURED = (EXCHANGE, "venue", "strategy.churner")


def run(options: Options) -> Iterator[Line]:
    seconds = options.seconds(SECONDS)
    for in_flight in IN_FLIGHT if options.span_s is None else IN_FLIGHT[-1:]:
        found = []
        for number in range(options.times(3 if options.span_s is None else 1)):
            say(f"order_rate: {in_flight} in flight, run {number + 1}")
            found.append(_once(in_flight, seconds))
        rates = [each["orders"] / each["seconds"] for each in found]
        best = found[rates.index(sorted(rates)[len(rates) // 2])]
        yield line(
            "order_rate",
            median(rates),
            "orders/s",
            case=f"in_flight_{in_flight}",
            seconds=round(best["seconds"], 1),
            failed=sum(each["failed"] for each in found),
            cpu=best["cpu"],
            ledger=best["ledger"],
            runs=len(rates),
        )
    say(f"order_rate: {IN_FLIGHT[-1]} in flight, measuring where the time goes")
    measured = _once(IN_FLIGHT[-1], min(seconds, 10.0), MEASURED)
    for actor, table in measured["stages"].items():
        yield line("order_rate", sum(table.values()), "us", case=f"cpu_per_order of {actor}", stages=table)


def _once(in_flight: int, seconds: float, measured: Sequence[str] = ()) -> dict[str, Any]:
    """One run, its books compared. ``cpu``: of each process, in processors."""
    with ExitStack() as stack:
        file = Path(stack.enter_context(TemporaryDirectory(prefix="bench-"))) / "churned.json"
        params = {"in_flight": in_flight, "seconds": seconds, "file": str(file)}
        settings, box = config({"name": "Churner", "params": params}), {**NO_LIMITS, "activity": 1.0}
        engine = stack.enter_context(Engine(settings, box=box, actors={name: ["stages"] for name in measured}))
        engine.wait_running()
        pids = engine.pids()
        cpu, began = {name: cpu_seconds(pids[name]) for name in WATCHED}, time.monotonic()
        while not file.exists():
            if time.monotonic() - began > seconds + 20:
                raise RuntimeError("the strategy did not finish")
            time.sleep(0.02)
        found: dict[str, Any] = json.loads(file.read_text())
        used = {name: round((cpu_seconds(pids[name]) - before) / found["seconds"], 2) for name, before in cpu.items()}
        report = engine.finish().report
        ledger = _compared(engine.state, report)
        tables = {name: stages.table(engine.state, name, ledger["venue"]) for name in measured}
    return {**found, "cpu": used, "ledger": ledger, "stages": tables}


def _compared(state: Path, report: dict[str, Any]) -> dict[str, int]:
    """How many orders each side has written down. Raises RuntimeError where the two differ in anything."""
    saved, balances = read_ledger(state / "venues" / "venue")
    books = compare("binance", state / "accounts" / "binance.main.db", saved, balances)
    broken = list(check_account(books, report))
    if broken:
        raise RuntimeError(f"the journal and the venue's ledger differ {len(broken)} times: {'; '.join(broken[:5])}")
    return {
        "journal": len(books.orders),
        "venue": len(books.venue_orders),
        "cancelled": sum(order.state is OrderState.CANCELLED for order in books.orders),
        "fills": len(books.fills),
        "differences": len(broken),
    }
