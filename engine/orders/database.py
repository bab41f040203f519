"""Opening the engine's SQLite files: what they are, which version, and errors that say what to do.

Files are in WAL mode with ``synchronous=NORMAL``: what was committed survives the death of the process, whenever it
comes. A power cut may take the newest commits, but never leaves the file inconsistent. ``synchronous=FULL`` syncs each
commit; :mod:`engine.orders.wal` syncs many at once.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import JournalError

Migration = Callable[[sqlite3.Connection], None]

BUSY_S = 1.0
"""How long a file that another program has locked is waited for: less than it takes to count as stalled."""

DAMAGED = (
    "restore the file from a copy; without one, see at the venue that no order of this engine is open, then move it "
    "away to begin anew"
)
_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another program holds it; close that program",
    sqlite3.SQLITE_LOCKED: "another program holds it; close that program",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_IOERR: "check the disk",
    sqlite3.SQLITE_READONLY: "check the file's rights",
    sqlite3.SQLITE_CANTOPEN: "check the folder's rights",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}


@dataclass(frozen=True, slots=True)
class Schema:
    """What a kind of file holds.

    ``application_id`` marks the file's kind; ``version`` is that of ``script``; ``migrations[n]`` takes a file from
    version n to n + 1. ``page_size``: of new files; small pages make small commits cheap.
    """

    kind: str
    application_id: int
    version: int
    script: str
    migrations: Mapping[int, Migration] = field(default_factory=dict)
    page_size: int = 4096


def open_database(
    path: Path, schema: Schema, *, readonly: bool = False, shared: bool = False, full_sync: bool = False
) -> sqlite3.Connection:
    """Open a file, made or brought up to date unless ``readonly``. Raises :class:`JournalError`.

    ``shared``: the connection goes from one thread to another, never used by two at a time. ``full_sync``: every commit
    is on disk when it returns.
    """
    with explained(path):
        if not readonly:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not path.is_file():
            raise JournalError(f"{path}: no such file; has the engine run with this state folder?")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_S,
            cached_statements=64,
            check_same_thread=not shared,
        )
        try:
            _prepare(connection, path, schema, readonly)
            if full_sync:
                connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's and the file system's errors as :class:`JournalError` with the file's name."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        remedy = _REMEDIES.get(code, "leave the file where it is and see what the disk says")
        raise JournalError(f"{path}: {error}; {remedy}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise JournalError(f"{path}: {error.strerror}; free some space") from error
        raise JournalError(f"{path}: {error.strerror or error}; check the folder's rights and space") from error


def verify(connection: sqlite3.Connection, path: Path) -> None:
    """Raise :class:`JournalError` for a file whose pages do not fit together: parts of it are lost or foreign."""
    with explained(path):
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        first = str(found).splitlines()[-1]
        raise JournalError(f"{path}: damaged ({first}); {DAMAGED}")


def _prepare(connection: sqlite3.Connection, path: Path, schema: Schema, readonly: bool) -> None:
    found_id = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and found_id != schema.application_id:
        raise JournalError(f"{path}: not {schema.kind}; move the file away or name another state folder")
    if version > schema.version:
        raise JournalError(
            f"{path}: written by a newer engine (schema {version}, this one knows {schema.version}); "
            "use that engine, or another state folder"
        )
    if readonly:
        if version != schema.version:
            raise JournalError(f"{path}: schema {version} is not up to date; start the engine on it once")
        return
    if not tables:
        connection.execute(f"PRAGMA page_size={schema.page_size}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    if version < schema.version:
        with transaction(connection):
            _upgrade(connection, path, schema, version if tables else 0)


def _upgrade(connection: sqlite3.Connection, path: Path, schema: Schema, version: int) -> None:
    if version == 0:
        for statement in filter(None, map(str.strip, schema.script.split(";"))):
            connection.execute(statement)
    else:
        for step in range(version, schema.version):
            if step not in schema.migrations:
                raise JournalError(f"{path}: no way from schema {step} to {step + 1}; use another state folder")
            schema.migrations[step](connection)
    connection.execute(f"PRAGMA application_id={schema.application_id}")
    connection.execute(f"PRAGMA user_version={schema.version}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
