"""``engine book``: a running engine's order book, read from shared memory as any process on the host can."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.common import (
    CommandError,
    Subparsers,
    add_command,
    new_table,
    positive,
    print_json,
    print_tables,
)

if TYPE_CHECKING:
    from engine.book.views import DepthView


def register(subparsers: Subparsers) -> None:
    """Add the command to the parser."""
    book = add_command(subparsers, "book", _book, "show an order book and how far to trust it", json_output=True)
    book.add_argument("book", metavar="VENUE/PAIR", help="as in binance/BTC-USDT")
    book.add_argument("--depth", type=positive, default=10, metavar="N", help="levels a side (default: 10)")


def _book(args: argparse.Namespace) -> int:
    from engine.book.shared import BookReader
    from engine.commands.client import require_running

    path = book_file(require_running(args.state), args.book)
    reader = BookReader(path)
    try:
        view = reader.depth(args.depth)
    finally:
        reader.close()
    if args.json:
        print_json(as_data(args.book, view))
    else:
        print(heading(args.book, view))
        print_tables(book_table(view))
    return 0


def book_file(shm_dir: Path, name: str) -> Path:
    """The file of a book; CommandError naming the books that there are if it has none."""
    connector, _, pair = name.partition("/")
    path = shm_dir / f"{connector}.{pair}.book"
    if not path.is_file():
        # On a host where the connector is not: its mirror's.
        path = next(iter(sorted(shm_dir.glob(f"{connector}.{pair}.at-*.book"))), path)
    if not pair or "/" in pair or not path.is_file():
        from engine.documents import suggest

        files = (file.name.removesuffix(".book") for file in shm_dir.glob("*.book"))
        known = [f"{c}/{p}" for c, _, p in (file.partition(".") for file in files)]
        raise CommandError(f"there is no book {name}{suggest(name, known) or '; the engine has none yet'}")
    return path


def as_data(name: str, view: DepthView) -> dict[str, Any]:
    """The reading as plain data; prices and sizes are exact decimal strings."""
    return {
        "book": name,
        "state": view.status.name.lower(),
        "age_ms": None if view.age_ns < 0 else round(view.age_ns / 1e6, 3),
        "update_id": view.update_id,
        "bids_total": view.bid_total,
        "asks_total": view.ask_total,
        "bids": [[f"{price:f}", f"{size:f}"] for price, size in view.bids],
        "asks": [[f"{price:f}", f"{size:f}"] for price, size in view.asks],
    }


def heading(name: str, view: DepthView) -> str:
    """The book in a line: how far to trust it, how old it is, how large."""
    age = "never heard of" if view.age_ns < 0 else f"{view.age_ns / 1e6:.1f} ms old"
    sizes = f"{view.bid_total} bids, {view.ask_total} asks"
    return f"{name}  {view.status.name.lower()}, {age}, update {view.update_id}, {sizes}"


def book_table(view: DepthView) -> Any:
    """Bids on the left, asks on the right, best first."""
    data = as_data("", view)
    columns = ["bid size", "bid", "ask", "ask size"]
    table = new_table("", columns, right=columns[:2] + columns[3:])
    for row in range(max(len(view.bids), len(view.asks))):
        bid, bid_size = data["bids"][row] if row < len(view.bids) else ("", "")
        ask, ask_size = data["asks"][row] if row < len(view.asks) else ("", "")
        table.add_row(bid_size, bid, ask, ask_size)
    return table
