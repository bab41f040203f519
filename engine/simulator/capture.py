"""Recordings of real traffic: what a client of this venue can be served from one.

``http`` records hold a body and its URL, ``ws_in`` records what a connection received, ``ws_open`` and ``ws_out`` how
it was opened and what it asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from engine.captures import Record
from engine.captures import read_capture as read_records
from engine.errors import ConfigError

Level = tuple[str, str]


class Snapshot(msgspec.Struct, rename="camel"):
    """A recorded depth reply."""

    last_update_id: int
    bids: list[Level]
    asks: list[Level]


class _Combined(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class _Single(msgspec.Struct):
    s: str
    e: str = ""


class _Asked(msgspec.Struct):
    method: str
    params: list[str] = []


@dataclass(slots=True, frozen=True)
class Frame:
    """One market frame: its stream's name and its data without the combined form's wrapping."""

    t: float
    stream: str
    data: bytes


@dataclass(slots=True, frozen=True)
class Body:
    """One recorded HTTP answer; ``symbol`` is "" where the URL names none."""

    t: float
    path: str
    symbol: str
    data: bytes


@dataclass(slots=True)
class Capture:
    """A whole recording in order of receipt; ``unknown`` counts received frames of no known stream."""

    items: list[Frame | Body] = field(default_factory=list)
    streams: set[str] = field(default_factory=set)
    frames: int = 0
    unknown: int = 0

    def symbols(self) -> list[str]:
        """Every symbol with a stream or a body, in order of appearance."""
        found: dict[str, None] = {}
        for item in self.items:
            symbol = item.symbol if isinstance(item, Body) else item.stream.partition("@")[0].upper()
            if symbol and not symbol.startswith("!"):
                found[symbol] = None
        return list(found)


def read_capture(path: str) -> Capture:
    """Read a file; :class:`ConfigError` when it is absent, damaged, or holds no market frames."""
    capture, asked = Capture(), dict[int | str, list[str]]()
    for number, record in enumerate(read_records(Path(path)), 1):
        try:
            _add(capture, asked, record)
        except ValueError as error:
            raise ConfigError(f"capture {path}, record {number}: {error}") from error
    if not capture.frames:
        raise ConfigError(f"capture {path} holds no market frames in this venue's form")
    return capture


def _add(capture: Capture, asked: dict[int | str, list[str]], record: Record) -> None:
    if record.kind == "http" and record.method == "GET" and record.status == 200:
        url = urlsplit(record.url)
        symbol = parse_qs(url.query).get("symbol", [""])[0]
        if not url.path.endswith("/depth") or _is_snapshot(record.payload):
            capture.items.append(Body(record.t, url.path, symbol, record.payload))
    elif record.kind == "ws_open":
        asked[record.conn] = _streams_of(record.url)
    elif record.kind == "ws_out":
        asked.setdefault(record.conn, []).extend(_subscribed(record.payload))
    elif record.kind == "ws_in":
        frame = _frame(record, asked.get(record.conn, []))
        if frame is None:
            capture.unknown += 1
            return
        capture.items.append(frame)
        capture.streams.add(frame.stream)
        capture.frames += 1


def _is_snapshot(body: bytes) -> bool:
    """Whether it is a book, and not the venue's refusal to give one, whose status was not recorded."""
    try:
        msgspec.json.decode(body, type=Snapshot)
    except msgspec.MsgspecError:
        return False
    return True


def _frame(record: Record, asked: list[str]) -> Frame | None:
    raw = record.payload
    try:
        combined = msgspec.json.decode(raw, type=_Combined)
    except msgspec.MsgspecError:
        name = _name_of_raw(raw, asked)
        return Frame(record.t, name, raw) if name else None
    return Frame(record.t, combined.stream, bytes(combined.data))


_KINDS = {
    "depthUpdate": "depth",
    "aggTrade": "aggTrade",
    "trade": "trade",
    "kline": "kline",
    "24hrTicker": "ticker",
    "24hrMiniTicker": "miniTicker",
    "bookTicker": "bookTicker",
    "": "bookTicker",
}


def _name_of_raw(raw: bytes, asked: list[str]) -> str:
    """The stream of a frame that does not say: by its symbol and kind among those that the connection asked for."""
    try:
        single = msgspec.json.decode(raw, type=_Single)
    except msgspec.MsgspecError:
        return ""
    kind = _KINDS.get(single.e)
    if kind is None:
        return ""
    start = f"{single.s.lower()}@{kind}"
    return next((name for name in asked if name == start or name.startswith((start + "@", start + "_"))), start)


def _streams_of(url: str) -> list[str]:
    parts = urlsplit(url)
    text = parse_qs(parts.query).get("streams", [""])[0] or parts.path.partition("/ws/")[2]
    return [name for name in text.split("/") if name]


def _subscribed(text: bytes) -> list[str]:
    try:
        request = msgspec.json.decode(text, type=_Asked)
    except msgspec.MsgspecError:
        return []
    return request.params if request.method == "SUBSCRIBE" else []
