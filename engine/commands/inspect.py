"""Commands that show a running engine: status, orders, fills, balances, positions, view.

Orders and fills are read from the journals where no engine runs, or an account does not answer; positions and the
history of balances are what the recorder wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.commands import journals
from engine.commands.common import (
    CommandError,
    Subparsers,
    add_command,
    local_time,
    new_table,
    one_line,
    plain,
    positive,
    print_json,
    print_tables,
    since,
)

if TYPE_CHECKING:
    from engine.recorder_store import RecorderReader

Row = Mapping[str, Any]
Accounts = set[str] | None
"""Accounts as ``connector.account``; None for all."""
_PAGE = 1000


def register(subparsers: Subparsers) -> None:
    """Add the commands to the parser."""
    add_command(subparsers, "status", _status, "show the running engine's actors, books and orders", json_output=True)
    orders = add_command(subparsers, "orders", _orders, "list orders, newest first", json_output=True)
    orders.add_argument("--open", action="store_true", help="only orders that have not ended")
    fills = add_command(subparsers, "fills", _fills, "list fills, newest first", json_output=True)
    for parser in (orders, fills):
        parser.add_argument(
            "--since", type=since, default=0, metavar="T", help="an ISO time, epoch seconds, or 10m, 2h ago"
        )
        parser.add_argument(
            "--limit", type=positive, default=1000, metavar="N", help="list the newest N (default: 1000)"
        )
    positions = add_command(
        subparsers, "positions", _positions, "show what each account's fills add up to, by pair", json_output=True
    )
    positions.add_argument(
        "--since", type=since, default=None, metavar="T", help="after each fill since then, instead of as it stands"
    )
    balances = add_command(subparsers, "balances", _balances, "show each account's balances", json_output=True)
    balances.add_argument(
        "--since", type=since, default=None, metavar="T", help="each change since then, instead of as they stand"
    )
    view = add_command(subparsers, "view", _view, "watch the running engine")
    view.add_argument("--beside-run", action="store_true", help=argparse.SUPPRESS)


def _status(args: argparse.Namespace) -> int:
    from engine.commands.client import ask

    status = ask(args.state, "status")
    if args.json:
        print_json(status)
        return 0
    print(f"{status['engine']}  running {status['seconds']:.0f} s  runtime {status['runtime']}")
    if status.get("halted") is not None:
        print(f"HALTED: {one_line(status['halted'])}; no new order goes out until engine resume")
    print_tables(*status_tables(status))
    for problem in status.get("problems", ()):
        print(f"problem  {one_line(problem)}")
    return 0


def _orders(args: argparse.Namespace) -> int:
    in_journals = partial(journals.orders, args.state, args.since, args.open, args.limit + 1)
    rows = _newest(args, "orders", {"since_ns": args.since, "open_only": args.open}, _order_key, in_journals)
    return _show(args, _cut(args, rows), orders_table)


def _fills(args: argparse.Namespace) -> int:
    in_journals = partial(journals.fills, args.state, args.since, args.limit + 1)
    rows = _newest(args, "fills", {"since_ns": args.since}, _fill_key, in_journals)
    return _show(args, _cut(args, rows), fills_table)


def _balances(args: argparse.Namespace) -> int:
    from engine.commands.client import ask

    if args.since is not None:
        with _recorder(args) as recorder:
            return _show(args, recorder.balances(args.since), balance_history_table)
    answer = ask(args.state, "balances")
    _show(args, answer["rows"], balances_table)
    for why in answer["unanswered"].values():
        print(f"engine: {why}; its balances are not known", file=sys.stderr)
    return 1 if answer["unanswered"] else 0


def _positions(args: argparse.Namespace) -> int:
    with _recorder(args) as recorder:
        return _show(args, recorder.positions(args.since), positions_table)


def _recorder(args: argparse.Namespace) -> RecorderReader:
    """What the recorder wrote; it is read beside a running engine and without one."""
    from engine.recorder_store import FILE_NAME, RecorderReader

    path = args.state / FILE_NAME
    if not path.is_file():
        raise CommandError(f"there is no {path}; has the engine run with this state folder and its recorder enabled?")
    return RecorderReader(path)


def _view(args: argparse.Namespace) -> int:
    from engine.view import watch

    return watch(args.state, beside_run=args.beside_run)


def _newest(
    args: argparse.Namespace,
    verb: str,
    arguments: dict[str, Any],
    key: Callable[[Row], object],
    in_journals: Callable[[Accounts], list[Any]],
) -> list[Any]:
    """The newest rows, newest first, one more than is to be shown if there is one.

    The running engine is asked for them in pages, so that no actor is kept busy; what is new meanwhile moves the rest
    on. Of accounts that do not answer, and where no engine runs, they are what the journals hold.
    """
    from engine.commands.client import NotRunning, ask

    wanted = args.limit + 1
    page = min(wanted, _PAGE)
    found: dict[object, Any] = {}
    silent: dict[str, str] = {}
    for offset in range(0, wanted, page):
        try:
            answer = ask(args.state, verb, **arguments, limit=page, offset=offset)
        except NotRunning:
            if not journals.exist(args.state):
                raise
            return in_journals(None)
        silent |= answer["unanswered"]
        found |= {key(row): row for row in answer["rows"]}
        if len(answer["rows"]) < page:
            break
    if silent and not journals.exist(args.state):
        raise CommandError("; ".join(silent.values()))
    if silent:
        found |= {key(row): row for row in in_journals({name.partition(".")[2] for name in silent})}
        for why in silent.values():
            print(f"engine: {why}; its {verb} are as its journal has them", file=sys.stderr)
    return sorted(found.values(), key=_time_of, reverse=True)[:wanted]


def _cut(args: argparse.Namespace, rows: list[Any]) -> list[Any]:
    """As many rows as are to be shown; that there are more is told."""
    if len(rows) > args.limit:
        print(f"engine: there are more; these are the newest {args.limit} (see --limit, --since)", file=sys.stderr)
    return rows[: args.limit]


def _order_key(row: Row) -> object:
    return row["connector"], row["client_order_id"]


def _fill_key(row: Row) -> object:
    return row["connector"], row["client_order_id"], row["fill"]["trade_id"]


def _time_of(row: Row) -> int:
    fill = row.get("fill")
    return int(row.get("created_ns", 0) if fill is None else fill["time_ns"])


def _show(args: argparse.Namespace, rows: Any, table: Any) -> int:
    if args.json:
        print_json(rows)
    elif rows:
        print_tables(table(rows))
    else:
        print("none")
    return 0


# ----------------------------------------------------------------------------------------------- tables


def status_tables(status: Row) -> list[Any]:
    """The tables of ``engine status``: actors, books, orders."""
    tables = [actors_table(status["actors"])]
    hosts = status.get("hosts", ())
    if len(hosts) > 1 or any(host["databases"] for host in hosts):
        tables.append(hosts_table(hosts))
    if status["books"]:
        tables.append(books_table(status["books"]))
    counts = {name: count for name, count in status["orders"].items() if count}
    orders = new_table("orders", [*counts, "fills"], right=[*counts, "fills"])
    orders.add_row(*(str(count) for count in counts.values()), str(status["fills"]))
    return [*tables, orders]


def actors_table(actors: Sequence[Row]) -> Any:
    """Name, state, how it is connected to its venue, process, restarts, ticks."""
    table = new_table(
        "actors",
        ["name", "state", "network", "pid", "restarts", "ticks", "skipped", "late p50", "p99", "max ms"],
        right=["pid", "restarts", "ticks", "skipped", "late p50", "p99", "max ms"],
    )
    for actor in actors:
        late = actor["tick_lateness_ms"]
        table.add_row(
            actor["name"],
            actor["state"],
            actor["network"] if actor["state"] == "running" and actor["network"] != "none" else "",
            _text(actor["pid"]),
            _text(actor["restarts"]),
            _text(actor["ticks"]),
            _text(actor["ticks_skipped"]),
            *(_text(late[key]) for key in ("p50", "p99", "max")),
        )
    return table


def hosts_table(hosts: Sequence[Row]) -> Any:
    """How far each host's clock is ahead of the supervisor's, and of the databases of accounts there, in ms."""
    table = new_table("hosts", ["host", "clock ahead of", "ms", "±"], right=["ms", "±"])
    for host in hosts:
        table.add_row(host["host"], "the supervisor's", _text(host["clock_offset_ms"]), _text(host["clock_error_ms"]))
        for account, clock in sorted(host["databases"].items()):
            measured = (_text(clock["clock_offset_ms"]), _text(clock["clock_error_ms"]))
            table.add_row(host["host"], f"the database of {account}", *measured)
    return table


def books_table(books: Mapping[str, Row]) -> Any:
    """State, updates, gaps, latency of each book."""
    columns = ["updates", "gaps", "resyncs", "bids", "asks", "checked", "equal", "µs p50", "p99"]
    table = new_table("books", ["book", "state", *columns], right=columns)
    for name, book in sorted(books.items()):
        numbers = [book[key] for key in ("updates", "gaps", "resyncs", "bids", "asks", "bbo_checked", "bbo_equal")]
        latency = book["latency_us"]
        state = str(book.get("state", ""))
        table.add_row(name, state, *(_text(value) for value in (*numbers, latency["p50"], latency["p99"])))
    return table


def orders_table(orders: Sequence[Row]) -> Any:
    """Orders as :class:`engine.messages.Order` with their ``connector``."""
    table = new_table(
        "",
        [
            "time",
            "book",
            "side",
            "type",
            "size",
            "price",
            "filled",
            "state",
            "reason",
            "strategy",
            "client order id",
        ],
        right=["size", "price", "filled"],
    )
    for order in orders:
        table.add_row(
            local_time(order.get("created_ns", 0)),
            f"{order['connector']}/{order['pair']}",
            order["side"],
            order["order_type"],
            plain(order["size"]),
            _text(order.get("price")),
            plain(order.get("filled", "0")),
            order["state"],
            order.get("reason", ""),
            order["strategy"],
            order["client_order_id"],
        )
    return table


def fills_table(fills: Sequence[Row]) -> Any:
    """Fills as :class:`engine.messages.OrderFill` with their ``connector``."""
    table = new_table(
        "",
        ["time", "book", "side", "size", "price", "fee", "maker", "trade", "strategy", "client order id"],
        right=["size", "price", "fee"],
    )
    for row in fills:
        fill = row["fill"]
        table.add_row(
            local_time(fill["time_ns"]),
            f"{row['connector']}/{row['pair']}",
            row["side"],
            plain(fill["size"]),
            plain(fill["price"]),
            f"{plain(fill['fee'])} {fill['fee_asset']}",
            "maker" if fill["is_maker"] else "taker",
            fill["trade_id"],
            row["strategy"],
            row["client_order_id"],
        )
    return table


def balances_table(balances: Mapping[str, Mapping[str, Row]]) -> Any:
    """``{"<venue>/<account>": {asset: {"total", "available"}}}``."""
    table = new_table("", ["account", "asset", "total", "available"], right=["total", "available"])
    for account, assets in sorted(balances.items()):
        for asset, balance in sorted(assets.items()):
            table.add_row(account, asset, plain(balance["total"]), plain(balance["available"]))
    return table


def positions_table(rows: Sequence[Row]) -> Any:
    """Positions by account and pair, newest first."""
    table = new_table("", ["time", "account", "pair", "base"], right=["base"])
    for row in rows:
        account = f"{row['connector']}/{row['account']}"
        table.add_row(local_time(row["time_ns"]), account, row["pair"], row["base"])
    return table


def balance_history_table(rows: Sequence[Row]) -> Any:
    """Changes of balances, newest first."""
    table = new_table("", ["time", "account", "asset", "total", "available"], right=["total", "available"])
    for row in rows:
        account = f"{row['connector']}/{row['account']}"
        table.add_row(local_time(row["time_ns"]), account, row["asset"], plain(row["total"]), plain(row["available"]))
    return table


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
