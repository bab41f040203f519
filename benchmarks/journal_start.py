"""How long an exchange actor with a long run behind it takes to serve, and to know what it judges orders by.

A journal of a million filled orders of the run, written past the account (its rows are what an account writes). Then
what an exchange actor does with it: at its start on the event loop, and on a thread after that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.common import Line, Options, line, say
from engine.actors.account_past import check, read_exposure, read_run
from engine.messages import Fill, Order, OrderFill, OrderState, OrderType, Side
from engine.orders.journal import Journal
from engine.orders.journal_reader import fill_values
from engine.orders.journal_rows import INSERT_FILL, INSERT_ORDER, order_row
from engine.orders.records import WriteFill, WriteOrder

ORDERS = 1_000_000
RUN = "1"
START_NS = 1_700_000_000_000_000_000
PAIR = "BTC-USDT"
FILLED = Order(
    client_order_id="",
    strategy="maker",
    pair=PAIR,
    side=Side.BUY,
    order_type=OrderType.LIMIT,
    size=Decimal("1.25"),
    price=Decimal("54000.25"),
    state=OrderState.FILLED,
    filled=Decimal("1.25"),
    cost=Decimal("67500.3125"),
)


def run(options: Options) -> Iterator[Line]:
    orders = ORDERS // 50 if options.quick else ORDERS
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "a.db"
        _write(path, orders)
        took: dict[str, float] = {}
        journal = _timed(took, "open", lambda: Journal(path, "binance", "main", time, RUN))
        _timed(took, "recover", lambda: (journal.recover(), journal.run_open(RUN)))
        past = _timed(took, "past", journal.past)
        yield _line("on the event loop", took, orders, path)
        took.clear()
        _timed(took, "check", lambda: check(past))
        _timed(took, "exposure", lambda: read_exposure(past, START_NS + orders))
        _timed(took, "run", lambda: read_run(past, RUN))
        yield _line("on a thread", took, orders, path)
        journal.close()


def _write(path: Path, orders: int) -> None:
    """All rows of the orders and their fills, one transaction for all."""
    say(f"journal_start: writing {orders} orders")
    journal = Journal(path, "binance", "main", time, RUN, deferred=False)
    connection = journal._connection
    connection.execute("BEGIN")
    connection.executemany(INSERT_ORDER, map(_order, range(orders)))
    connection.executemany(INSERT_FILL, map(_fill, range(orders)))
    connection.execute("COMMIT")
    journal.close()


def _order(number: int) -> tuple[Any, ...]:
    at_ns = START_NS + number
    order = msgspec.structs.replace(
        FILLED, client_order_id=f"e-{number:09d}", exchange_order_id=str(number), created_ns=at_ns, updated_ns=at_ns
    )
    return order_row(WriteOrder(order=order, send_by_ns=at_ns, acknowledged=True, cancel_requested=False), RUN)


def _fill(number: int) -> tuple[Any, ...]:
    fill = Fill(
        trade_id=str(number),
        price=Decimal("54000.25"),
        size=Decimal("1.25"),
        fee=Decimal("0.001"),
        fee_asset="BNB",
        is_maker=True,
        time_ns=START_NS + number,
    )
    of = OrderFill(client_order_id=f"e-{number:09d}", strategy="maker", pair=PAIR, side=Side.BUY, fill=fill)
    return fill_values(WriteFill(fill=of))


def _timed(took: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    found = work()
    took[name] = time.perf_counter() - began
    return found


def _line(case: str, took: dict[str, float], orders: int, path: Path) -> Line:
    return line(
        "journal_start",
        sum(took.values()) * 1e3,
        "ms",
        case=case,
        orders=orders,
        journal_mb=round(path.stat().st_size / 1e6, 1),
        parts_ms={name: round(seconds * 1e3, 1) for name, seconds in took.items()},
    )
