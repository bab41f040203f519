"""``engine logs``: the actors' log files, in the order in which things happened, and as they grow."""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from engine.commands.common import CommandError, Subparsers, add_command, holds_all, positive

_FOLLOW_EVERY_S = 0.2
_BLOCK = 1 << 16
_OWN = ("time", "level", "actor", "event", "pid", "incarnation")


def register(subparsers: Subparsers) -> None:
    """Add the command to the parser."""
    logs = add_command(subparsers, "logs", _logs, "show what the actors logged", json_output=True)
    logs.add_argument("actor", metavar="ACTOR", nargs="?", help="one actor; all, in order of time, where left out")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing what is added")
    logs.add_argument(
        "-n",
        "--lines",
        type=positive,
        default=50,
        metavar="N",
        help="how many of the last lines (default: 50)",
    )


def _logs(args: argparse.Namespace) -> int:
    folder = args.state / "logs"
    files = {path: LogFile(path) for path in _paths(folder, args.actor)}
    if not files and not args.follow:
        from engine.documents import suggest

        known = [path.stem for path in _paths(folder, None)]
        wanted = f"{args.actor} has logged nothing under {folder}" if args.actor else f"there are no logs in {folder}"
        raise CommandError(f"{wanted}{suggest(args.actor or '', known)}")
    tails = [file.last(args.lines) for file in files.values()]
    for line in list(heapq.merge(*tails, key=_time))[-args.lines :]:
        _print(line, args.json)
    if args.follow:
        _follow(folder, args.actor, files, args.json)
    return 0


def _follow(folder: Path, actor: str | None, files: dict[Path, LogFile], as_json: bool) -> None:
    while True:
        sys.stdout.flush()
        time.sleep(_FOLLOW_EVERY_S)
        for path in _paths(folder, actor):
            files.setdefault(path, LogFile(path))
        for line in sorted((line for file in files.values() for line in file.added()), key=_time):
            _print(line, as_json)


def _paths(folder: Path, actor: str | None) -> list[Path]:
    if actor is not None:
        return [path for path in (folder / f"{actor}.jsonl",) if path.is_file()]
    return sorted(folder.glob("*.jsonl"))


def _time(line: dict[str, Any]) -> str:
    return str(line.get("time", ""))


class LogFile:
    """A log file that grows, and is replaced by an empty one when it has grown too far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0
        self._rest = b""

    def last(self, count: int) -> list[dict[str, Any]]:
        """The last lines, of the file before this one too if need be; :meth:`added` goes on from here."""
        try:
            with self._path.open("rb") as file:
                self._inode = os.fstat(file.fileno()).st_ino
                lines = self._whole_lines(_end_of(file, count))
                self._offset = file.tell()
        except FileNotFoundError:
            return []
        before = self._path.with_name(f"{self._path.name}.1")
        if len(lines) < count and before.exists():
            with before.open("rb") as file:
                lines = [*_end_of(file, count).splitlines(), *lines]
        return list(_parsed(lines[-count:]))

    def added(self) -> list[dict[str, Any]]:
        """Whole lines that were written since the last call."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                lines = list(self._end_of_replaced()) if self._replaced(status) else []
                file.seek(self._offset)
                lines += self._whole_lines(file.read())
                self._offset = file.tell()
        except FileNotFoundError:
            return []
        return list(_parsed(lines))

    def _replaced(self, status: os.stat_result) -> bool:
        before, self._inode = self._inode, status.st_ino
        return before not in (0, status.st_ino)

    def _end_of_replaced(self) -> Iterable[bytes]:
        rotated = self._path.with_name(f"{self._path.name}.1")
        try:
            with rotated.open("rb") as file:
                file.seek(self._offset)
                return self._whole_lines(file.read())
        except FileNotFoundError:
            return []
        finally:
            self._offset, self._rest = 0, b""

    def _whole_lines(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


def _end_of(file: BinaryIO, count: int) -> bytes:
    """The end of a file with ``count`` whole lines or all there are, perhaps begun within one before them.

    The file stands at its end then.
    """
    end = at = file.seek(0, os.SEEK_END)
    found, block = b"", _BLOCK
    while at > 0 and found.count(b"\n") <= count:
        at, until = max(0, at - block), at
        file.seek(at)
        found = file.read(until - at) + found
        block *= 2
    file.seek(end)
    return found


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            value = {"event": line.decode("utf-8", "replace"), "level": "error"}
        if isinstance(value, dict):
            yield value


def _print(line: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(line, ensure_ascii=not holds_all()))
        return
    from engine.logs import format_line
    from engine.messages import LogLine

    fields = {key: value for key, value in line.items() if key not in _OWN}
    trace = fields.pop("exception", None)
    shown = LogLine(
        actor=str(line.get("actor", "?")),
        level=str(line.get("level", "info")),
        event=str(line.get("event", "")),
        time_ns=_time_ns(str(line.get("time", ""))),
        fields=fields,
    )
    print(format_line(shown, sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    if trace:
        print("\n".join(f"    {part}" for part in str(trace).splitlines()))


def _time_ns(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1000
    except ValueError:
        return 0
