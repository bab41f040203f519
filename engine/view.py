"""The live view: a process of its own that asks the engine how it stands twice a second and draws it.

:func:`render` is pure: the answer to ``status`` in, something that rich can draw out. :func:`watch` is the
process. It leaves the terminal as it found it when the engine is gone.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from engine.errors import EngineError

REFRESH_S = 0.5
_START_S = 30.0
_PLAIN_WIDTH = 160
_EVENTS = 6
_ORDERS = 8
_FILLS = 5

_STATE_STYLES = {
    "running": "green",
    "synced": "green",
    "fresh": "green",
    "starting": "cyan",
    "buffering": "cyan",
    "stopping": "cyan",
    "stale": "yellow",
    "unsynced": "yellow",
    "backing_off": "yellow",
    "stalled": "red",
    "failed": "bold red",
    "stopped": "dim",
}
_LEVEL_STYLES = {"warning": "yellow", "error": "red", "critical": "bold red"}

Row = Mapping[str, Any]


# ------------------------------------------------------------------------------------------ the picture


def render(status: Row, width: int = 120) -> RenderableType:
    """The picture of an engine, for a terminal of ``width`` columns. What is not in ``status`` is left out."""
    narrow = width < 90
    parts: list[RenderableType] = [_header(status), "", _actors(status.get("actors", ()), narrow)]
    if status.get("books"):
        parts += ["", _books(status["books"], narrow)]
    parts += ["", _trading(status, narrow)]
    if status.get("events"):
        parts += ["", _events(status["events"], narrow)]
    if status.get("open_orders"):
        parts += ["", _open_orders(status["open_orders"], narrow)]
    if status.get("recent_fills"):
        parts += ["", _fills(status["recent_fills"], narrow)]
    if status.get("balances"):
        parts += ["", _balances(status["balances"])]
    return Group(*parts)


def _header(status: Row) -> Text:
    actors = status.get("actors", ())
    running = sum(actor["state"] == "running" for actor in actors)
    seconds = int(status.get("seconds", 0))
    clock = f"{seconds // 3600:d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f" {status.get('engine', 'engine')} ", style="bold reverse")
    text.append(f"  {clock}", style="bold")
    text.append(f"  {running}/{len(actors)} actors running", style="green" if running == len(actors) else "yellow")
    restarts = sum(actor.get("restarts", 0) for actor in actors)
    if restarts:
        text.append(f"  {restarts} restarts", style="yellow")
    halted = status.get("halted")
    if halted is not None and halted is not False:
        text.append(f"  HALTED {halted if isinstance(halted, str) else ''}", style="bold white on red")
    return text


def _table(columns: Sequence[tuple[str, bool]]) -> Table:
    """``columns``: heading, and whether it holds numbers."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for heading, is_number in columns:
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    return table


def _state(state: str) -> Text:
    return Text(state.replace("_", " "), style=_STATE_STYLES.get(state, ""))


def _actors(actors: Sequence[Row], narrow: bool) -> Table:
    columns = [("actor", False), ("state", False), ("restarts", True), ("ticks", True)]
    table = _table(columns if narrow else [*columns, ("skipped", True), ("late p99", True), ("pid", True)])
    for actor in actors:
        late = actor.get("tick_lateness_ms", {}).get("p99")
        restarts = actor.get("restarts", 0)
        cells: list[RenderableType] = [
            actor["name"],
            _state(actor["state"]),
            Text(str(restarts), style="yellow" if restarts else "dim"),
            "–" if actor.get("kind") == "supervisor" else str(actor.get("ticks", 0)),
        ]
        if not narrow:
            cells.append("–" if actor.get("kind") == "supervisor" else str(actor.get("ticks_skipped", 0)))
            cells.append("–" if late is None else f"{late:.2f} ms")
            cells.append(str(actor.get("pid") or "–"))
        table.add_row(*cells)
    return table


def _books(books: Mapping[str, Row], narrow: bool) -> Table:
    columns = [("book", False), ("state", False), ("bid", True), ("ask", True), ("gaps", True)]
    sizes = [("bid size", True), ("ask size", True), ("updates", True), ("latency p99", True)]
    table = _table(columns if narrow else [*columns, *sizes])
    for name, book in sorted(books.items()):
        bid, bid_size, ask, ask_size = (_text(value) for value in book.get("best") or (None,) * 4)
        latency = book.get("latency_us", {}).get("p99")
        gaps = book.get("gaps", 0)
        cells: list[RenderableType] = [
            name,
            _state(str(book.get("state", "–"))),
            Text(bid, style="green"),
            Text(ask, style="red"),
            Text(str(gaps), style="yellow" if gaps else "dim"),
        ]
        if not narrow:
            cells += [bid_size, ask_size, str(book.get("updates", 0))]
            cells.append("–" if latency is None else f"{latency:.0f} µs")
        table.add_row(*cells)
    return table


def _trading(status: Row, narrow: bool) -> Text:
    orders = status.get("orders", {})
    text = Text(" ")
    text.append("orders ", style="bold cyan")
    shown = ("placed", "open", "filled", "cancelled", "refused", "failed", "unknown")
    counts = [(name, orders.get(name, 0)) for name in shown]
    counts = [(name, count) for name, count in counts if count or name in ("placed", "open")]
    for position, (name, count) in enumerate(counts):
        text.append(", " if position else " ")
        text.append(f"{count} {name}", style="red" if name in ("failed", "unknown") and count else "")
    text.append("\n fills  " if narrow else "   fills ", style="bold cyan")
    text.append(f" {status.get('fills', 0)}")
    pnl = _total_pnl(status.get("pnl", {}))
    if pnl:
        text.append("   profit ", style="bold cyan")
    for asset, amount in pnl.items():
        text.append(f" {amount:+,.2f} {asset}", style="green" if amount >= 0 else "red")
    return text


def _total_pnl(pnl: Row) -> dict[str, Decimal]:
    """``{strategy: {asset: text}}`` or ``{asset: text}``, added up by asset."""
    total: dict[str, Decimal] = {}
    for key, value in pnl.items():
        for asset, amount in (value if isinstance(value, Mapping) else {key: value}).items():
            try:
                total[asset] = total.get(asset, Decimal(0)) + Decimal(str(amount))
            except InvalidOperation:
                continue
    return total


def _open_orders(orders: Sequence[Row], narrow: bool) -> Table:
    columns = [("open order", False), ("side", False), ("price", True), ("size", True), ("filled", True)]
    table = _table(columns if narrow else [*columns, ("state", False), ("strategy", False)])
    for order in orders[:_ORDERS]:
        cells: list[RenderableType] = [
            _book_name(order),
            _side(order),
            _text(order.get("price")),
            _text(order.get("size")),
            _trimmed(order.get("filled", "0")),
        ]
        state, strategy = str(order.get("state", "")).replace("_", " "), str(order.get("strategy", ""))
        table.add_row(*cells if narrow else [*cells, state, strategy])
    if len(orders) > _ORDERS:
        table.add_row(Text(f"and {len(orders) - _ORDERS} more", style="dim"))
    return table


def _fills(fills: Sequence[Row], narrow: bool) -> Table:
    columns = [("fill", False), ("side", False), ("price", True), ("size", True), ("time", False)]
    table = _table(columns if narrow else [*columns, ("strategy", False)])
    newest = sorted(fills, key=lambda row: row.get("fill", row).get("time_ns", 0), reverse=True)
    for row in newest[:_FILLS]:
        fill = row.get("fill", row)
        cells: list[RenderableType] = [
            _book_name(row),
            _side(row),
            _trimmed(fill.get("price")),
            _trimmed(fill.get("size")),
            _clock(fill.get("time_ns", 0)),
        ]
        table.add_row(*cells if narrow else [*cells, str(row.get("strategy", ""))])
    return table


def _book_name(row: Row) -> str:
    connector = row.get("connector")
    return f"{connector}/{row.get('pair', '')}" if connector else str(row.get("pair", ""))


def _side(row: Row) -> Text:
    side = str(row.get("side", ""))
    return Text(side, style="green" if side == "buy" else "red")


def _balances(balances: Mapping[str, Mapping[str, Row]]) -> Table:
    table = _table([("account", False), ("balances", False)])
    table.columns[1].no_wrap = False
    for account, assets in sorted(balances.items()):
        shown = (f"{_amount(balance['total'])} {asset}" for asset, balance in sorted(assets.items()))
        table.add_row(account, "  ".join(shown))
    return table


def _events(events: Sequence[Row], narrow: bool) -> Table:
    table = _table(
        [("time", False), ("event", False)] if narrow else [("time", False), ("actor", False), ("event", False)]
    )
    for event in list(events)[-_EVENTS:]:
        told = dict(event.get("fields") or {})
        about = told.pop("about", "") or event.get("actor", "")
        told.pop("incarnation", None)
        fields = "  ".join(f"{key}={value}" for key, value in told.items() if value != "")
        text = Text(str(event.get("event", "")), style=_LEVEL_STYLES.get(str(event.get("level")), ""))
        text.append(f"  {fields}" if fields else "", style="dim")
        actor = () if narrow else (str(about),)
        if narrow and about:
            text = Text(f"{about}  ").append_text(text)
        table.add_row(Text(_clock(event.get("time_ns", 0)), style="dim"), *actor, _one_line(text))
    return table


def _one_line(text: Text) -> Text:
    plain = Text("".join(char if char.isprintable() else " " for char in text.plain), style=text.style)
    plain.spans = list(text.spans)
    return plain


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _amount(value: Any) -> str:
    """Exact, without trailing zeros, thousands apart."""
    return _trimmed(value, ",f")


def _trimmed(value: Any, form: str = "f") -> str:
    """Exact, without trailing zeros."""
    try:
        text = format(Decimal(str(value)), form)
    except InvalidOperation:
        return _text(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _clock(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000):%H:%M:%S}"


# ------------------------------------------------------------------------------------------ the process


def watch(state_dir: Path, *, beside_run: bool = False) -> int:
    """Draw the engine on that state folder until it is gone or Ctrl-C, or once where there is no terminal to draw on.

    Returns the exit code. ``beside_run``: started by ``engine run``, whose Ctrl-C is for the engine, and which may
    still be starting.
    """
    if beside_run:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _leave)
    if beside_run and not _wait_until_running(state_dir):
        return 0
    try:
        asyncio.run(_watch(state_dir))
    except (KeyboardInterrupt, SystemExit):
        return 0
    return 0


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


async def _watch(state_dir: Path) -> None:
    from engine.commands.client import ControlClient, is_running
    from engine.commands.common import can_be_drawn_on

    drawn = can_be_drawn_on()
    console = Console(file=sys.stdout, width=None if drawn else _PLAIN_WIDTH)
    async with ControlClient(state_dir) as client:
        status = await client.ask("status")
        if not drawn:
            console.print(render(status, console.width))
            return
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(_Fitted(render(status, console.width)), refresh=True)
                await asyncio.sleep(REFRESH_S)
                try:
                    status = await client.ask("status", 3.0)
                except EngineError:
                    if not is_running(state_dir):
                        return


def _wait_until_running(state_dir: Path) -> bool:
    """Wait for an engine that is just starting; False when none answers in time."""
    from engine.commands.client import ask

    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        try:
            ask(state_dir, "status", 1.0)
        except EngineError:
            time.sleep(0.05)
        else:
            return True
    return False


class _Fitted:
    """Cuts a picture at the terminal's height, so that its top always shows."""

    def __init__(self, picture: RenderableType) -> None:
        self._picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = console.render_lines(self._picture, options.update(height=None), pad=False)
        for number, line in enumerate(lines[: options.max_height]):
            if number:
                yield Segment.line()
            yield from line
