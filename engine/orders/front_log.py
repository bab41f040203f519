"""A small file in front of a journal: what was committed and is not in the database yet.

A commit is one ``pwrite`` of a record: it is with the kernel when the call returns, and outlives the process like any
commit of SQLite's. The database takes many of them in one transaction a moment later and says in it how far it has
come; then the file is written from its beginning again, so that it stays as small as what was ever pending at once.

A record is a header (``HEADER``: length of its body, CRC-32, its number) and a body. The sum is over the incarnation
of the journal that it belongs to, the number and the body: nothing fits in a file beside a journal that is not its own.
Numbers grow by one. What is there after the last record that fits (the rest of older ones, or of one whose writer was
killed in the middle of it) is nothing: whatever was to follow such a record has not been done.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final
from zlib import crc32

from engine.errors import JournalError
from engine.orders.database import explained

HEADER: Final = struct.Struct("<IIQ")
_NUMBER: Final = struct.Struct("<Q")


def front_of(path: Path) -> Path:
    """Where a journal's front log is, if it has one."""
    return path.with_name(f"{path.name}.front")


class FrontLog:
    """The front log at ``path``, for one writer; made if it is missing. Errors are :class:`JournalError`.

    ``incarnation``: of the journal that it is in front of.
    """

    def __init__(self, path: Path, incarnation: int) -> None:
        self.path = path
        self._at = 0
        self._seed = _seed(incarnation)
        with explained(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def append(self, number: int, body: bytes) -> None:
        """Write a record. It is there for whoever reads the file next, however this process ends, once this returns."""
        record = HEADER.pack(len(body), _sum(self._seed, number, body), number) + body
        with explained(self.path):
            written = os.pwrite(self._file, record, self._at)
        if written != len(record):
            raise JournalError(f"{self.path}: only {written} of {len(record)} bytes were taken; free some space")
        self._at += written

    def rewind(self) -> None:
        """Everything in it is in the database: begin anew."""
        self._at = 0

    def close(self) -> None:
        """Give the descriptor back. Safe more than once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read_front(path: Path, after: int, incarnation: int) -> list[tuple[int, bytes]]:
    """What the database, which has everything up to number ``after``, still lacks; nothing if there is no such file.

    ``incarnation``: of the journal. A first record that does not follow is of another life of the database (one from a
    copy, or one that a power cut took back): nothing of it can be used then.
    """
    with explained(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
    lacking: list[tuple[int, bytes]] = []
    for number, body in _records(content, _seed(incarnation)):
        if number == after + 1 + len(lacking):
            lacking.append((number, body))
        elif number > after:
            return []
    return lacking


def _records(content: bytes, seed: int) -> list[tuple[int, bytes]]:
    """The records from the beginning of the file on that fit, each number one more than the last."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at + HEADER.size <= len(content):
        length, check, number = HEADER.unpack_from(content, at)
        body = content[at + HEADER.size : at + HEADER.size + length]
        follows = not found or number == found[-1][0] + 1
        if len(body) != length or not follows or _sum(seed, number, body) != check:
            break
        found.append((number, body))
        at += HEADER.size + length
    return found


def _seed(incarnation: int) -> int:
    return crc32(_NUMBER.pack(incarnation))


def _sum(seed: int, number: int, body: bytes) -> int:
    return crc32(body, crc32(_NUMBER.pack(number), seed))
