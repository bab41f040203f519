"""Recorded traffic on disk: JSON lines, plain or compressed with gzip or zstd, in order of receipt.

::

    {"t": 1.5, "kind": "http",     "url": "https://…", "data": "body"}    also "status", "method", "sent"
    {"t": 1.6, "kind": "ws_open",  "conn": 1, "url": "wss://…"}
    {"t": 1.7, "kind": "ws_out",   "conn": 1, "data": "text the client sent"}
    {"t": 1.8, "kind": "ws_in",    "conn": 1, "data": "text received"}    or "data64": a binary frame in base64
    {"t": 1.9, "kind": "ws_close", "conn": 1}
"""

from __future__ import annotations

import gzip
import sys
import zlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from engine.errors import ConfigError

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_CHUNK = 1 << 20
KINDS = frozenset({"http", "ws_open", "ws_out", "ws_in", "ws_close"})


class _Damaged(Exception):
    """Compressed data that are none."""


class Record(msgspec.Struct, gc=False):
    """One line. ``t``: receipt, in seconds since the epoch. ``payload`` is what ``data`` or ``data64`` hold."""

    t: float
    kind: str
    conn: int | str = 0
    url: str = ""
    data: str | None = None
    data64: str | None = None
    status: int = 200
    method: str = "GET"

    @property
    def payload(self) -> bytes:
        """The frame or body as it came. ValueError if ``data64`` is no base64."""
        if self.data64 is not None:
            try:
                return b64decode(self.data64, validate=True)
            except Base64Error as error:
                raise ValueError(f"data64: {error}") from None
        return (self.data or "").encode()


_decode = msgspec.json.Decoder(Record).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode


def _read(line: bytes) -> Record:
    """A field that is null is one that is not there."""
    try:
        return _decode(line)
    except msgspec.ValidationError:
        fields = _decode_fields(line)
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, Record)


def read_capture(
    path: Path,
    on_progress: Callable[[int], None] | None = None,
    on_cut: Callable[[int], None] | None = None,
) -> Iterator[Record]:
    """The records of a file; ConfigError naming the line if it cannot be read, or is no capture.

    ``on_progress`` is told now and then how many bytes of the file have been read. ``on_cut`` is told after which line
    a file ends in the middle of a record, as one does whose recorder was killed: otherwise that is an error.
    """
    number = 0
    known = False
    line = b"\n"
    try:
        with path.open("rb") as file:
            for line in _lines(file):
                number += 1
                if on_progress is not None and number % 1000 == 0:
                    on_progress(file.tell())
                if not line.strip():
                    continue
                record = _read(line)
                known = known or record.kind in KINDS
                yield record
    except (msgspec.MsgspecError, UnicodeError) as error:
        if not known or on_cut is None or line.endswith(b"\n"):
            raise ConfigError(f"{path} is not a capture: line {number}: {error}") from None
        on_cut(number - 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except EOFError as error:
        if not known or on_cut is None:
            raise ConfigError(f"{path} is damaged after line {number}: {error}") from None
        on_cut(number)
    except (zlib.error, gzip.BadGzipFile, _Damaged) as error:
        raise ConfigError(f"{path} is damaged after line {number}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    if not known:
        raise ConfigError(f"{path} is not a capture: it holds no record of traffic")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP):
        yield from gzip.GzipFile(fileobj=file)
    elif magic == _ZSTD:
        yield from _zstd_lines(file)
    else:
        yield from file


def _zstd_lines(file: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in _zstd_chunks(file):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _zstd_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The content, frame after frame; EOFError if the last frame has no end, _Damaged if it is none."""
    if sys.version_info >= (3, 14):
        from compression.zstd import ZstdDecompressor, ZstdError

        begin: Callable[[], Any] = ZstdDecompressor
    else:
        import zstandard

        begin, ZstdError = zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
    frame: Any = None
    try:
        while data := file.read(_CHUNK):
            while data:
                frame = frame or begin()
                yield frame.decompress(data)
                data = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    except ZstdError as error:
        raise _Damaged(str(error)) from None
    if frame is not None:
        raise EOFError("the compressed data end too early")
