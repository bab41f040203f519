"""Opening the engine's SQLite files: what they are, which version, and errors that say what to do.

Files are in WAL mode with ``synchronous=NORMAL``: what was committed survives the death of the process, whenever it
comes. A power cut may take the newest commits, but never leaves the file inconsistent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import JournalError

Migration = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class Schema:
    """What a kind of file holds.

    ``application_id`` marks the file's kind; ``version`` is that of ``script``; ``migrations[n]`` takes a file from
    version n to n + 1.
    """

    kind: str
    application_id: int
    version: int
    script: str
    migrations: Mapping[int, Migration] = field(default_factory=dict)


def open_database(path: Path, schema: Schema, *, readonly: bool = False) -> sqlite3.Connection:
    """Open a file, made or brought up to date unless ``readonly``. Raises :class:`JournalError`."""
    with explained(path):
        if not readonly:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        elif not path.is_file():
            raise JournalError(f"{path}: no such file; has the engine run with this state folder?")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}",
            uri=True,
            isolation_level=None,
            timeout=5.0,
            cached_statements=64,
        )
        try:
            _prepare(connection, path, schema, readonly)
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
        raise JournalError(f"{path}: {error}; restore the file, or move it away to begin anew") from error
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}; check the folder's rights and space") from error


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
