"""``engine replay``: recorded traffic through the code that runs live."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.commands.common import Subparsers, add_command, new_table, positive, print_json, print_tables
from engine.errors import ConfigError


def register(subparsers: Subparsers) -> None:
    """Add the command to the parser."""
    parser = add_command(
        subparsers, "replay", _replay, "rebuild books from recorded traffic, and check them", json_output=True
    )
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="recorded traffic (.jsonl, .gz or .zst)")
    parser.add_argument("--venue", required=True, metavar="V", help="whose traffic it is, as in engine venues")
    parser.add_argument("--depth", type=positive, default=25, metavar="N", help="levels a side to print (default: 25)")


def _replay(args: argparse.Namespace) -> int:
    from engine.connectors.registry import split_venue

    split_venue(args.venue)
    report = _with_progress(args.capture, args.venue, args.depth)
    if (line := report["cut_off_after_line"]) is not None:
        print(f"engine replay: {args.capture} ends in the middle of the record after line {line}", file=sys.stderr)
    if args.json:
        print_json(report)
    else:
        _print(report)
    return 0


def _with_progress(path: Path, venue: str, depth: int) -> dict[str, Any]:
    """Replays, with a bar on standard error where that is a terminal."""
    from engine.replay import replay

    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    if not sys.stderr.isatty():
        return replay(path, venue, depth)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)
        return replay(path, venue, depth, lambda done: progress.update(task, completed=done))


def _print(report: dict[str, Any]) -> None:
    rate = report["frames"] / report["seconds"] if report["seconds"] else 0.0
    print(
        f"{report['venue']}  {report['frames']} frames in {report['seconds']:.2f} s ({rate:,.0f} a second), "
        f"{report['unparsed']} unparsed"
    )
    columns = ["updates", "gaps", "resyncs", "rescales", "checksums", "failed", "checked", "equal", "trades"]
    table = new_table("", ["pair", "synced", *columns, "sequence", "best bid", "best ask"], right=columns)
    names = (
        *("updates", "gaps", "resyncs", "rescales", "checksums_ok", "checksums_failed"),
        *("bbo_checked", "bbo_equal", "trades"),
    )
    for pair, row in report["pairs"].items():
        best = [f"{side[0][1]} @ {side[0][0]}" if side else "–" for side in (row["bids"], row["asks"])]
        figures = [str(row[name]) for name in names]
        table.add_row(pair, "yes" if row["synced"] else "no", *figures, str(row["sequence"]), *best)
    print_tables(table)
