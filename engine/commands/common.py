"""What commands share: their common options, times on the command line, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from rich.table import Table

Handler = Callable[[argparse.Namespace], int]
Subparsers = Any
MOST = 1_000_000_000
_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


class CommandError(EngineError):
    """A command could not do its work; the text is all that its user needs."""


def add_command(
    subparsers: Subparsers, name: str, handler: Handler, text: str, *, json_output: bool = False
) -> argparse.ArgumentParser:
    """A command with the options that all of them take."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + "."
    )
    parser.set_defaults(handler=handler)
    parser.add_argument(
        "--state",
        metavar="DIR",
        type=Path,
        default=Path(os.environ.get("ENGINE_STATE", "state")),
        help="the engine's state folder, which names one of several engines (default: ./state)",
    )
    if json_output:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def duration(text: str) -> float:
    """Seconds of ``90``, ``1.5h``, ``10m``; argparse's error otherwise."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write seconds, or 10m, 2h, 1d")
    return float(match[1]) * _UNITS[match[2]]


def since(text: str, now_ns: int | None = None) -> int:
    """Nanoseconds since the epoch of an ISO time (local unless it says), epoch seconds, or a duration ago."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    text = text.strip()
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        found = int(Decimal(text) * 1_000_000_000)
    elif _DURATION.fullmatch(text):
        found = max(0, now_ns - int(duration(text) * 1_000_000_000))
    else:
        try:
            moment = datetime.fromisoformat(text).astimezone()
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a time; write 2026-01-31T12:00, epoch seconds, or 10m, 2h ago"
            ) from None
        found = max(0, int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000)
    if found >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is later than any order can be")
    return found


def positive(text: str) -> int:
    """A whole number above 0 and up to :data:`MOST`; argparse's error otherwise."""
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:20]) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {MOST}")
    return int(text)


def say_nothing_more() -> None:
    """Standard output has nobody to read it: what is left to say there, at exit too, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any) -> None:
    """One JSON document on standard output; decimals as exact strings."""
    json.dump(value, sys.stdout, indent=2, default=str, ensure_ascii=not holds_all())
    sys.stdout.write("\n")


def holds_all() -> bool:
    """Whether standard output can hold every character."""
    return (sys.stdout.encoding or "").lower().replace("_", "-") in ("utf-8", "utf8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None


def check_writable(path: Path) -> None:
    """Raise ConfigError now rather than fail to write at the end."""
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {path.absolute().parent}; make it first")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written; choose another place")


def can_be_drawn_on() -> bool:
    """Whether standard output is a terminal on which a picture can be drawn anew."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def new_table(title: str, columns: Sequence[str], right: Sequence[str] = ()) -> Table:
    """An unboxed table; the columns in ``right`` are aligned to the right."""
    from rich.table import Table

    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return table


def print_tables(*tables: Any) -> None:
    """Print tables, as wide as they are where standard output is no terminal."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=250)
    for table in tables:
        console.print(table)


def plain(number: str) -> str:
    """An exact decimal string for a person to read: without an exponent."""
    return f"{Decimal(number):f}"


def one_line(text: object) -> str:
    """A text without what a terminal would take as a command or as the end of the line."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def local_time(time_ns: int) -> str:
    """``2026-01-31 12:00:00.123`` in local time."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns % 1_000_000_000 // 1_000_000:03d}"
