"""A connection to PostgreSQL that comes back: for whatever is kept there, one statement at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from engine.errors import ConfigError, JournalError
from engine.orders.store import StoreLost

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")

TIMEOUT_S: Final = 2.0
CONNECT_S: Final = 3.0
LOCK_S: Final = 1.5
"""How long a statement waits at the server for what another has locked. Less than its answer is waited for here: the
server does not notice that nobody waits any more, and would take a connection for each time that it is asked again.
"""
_PASSING: Final = ("08", "53", "57")
"""Classes of errors that pass: connections, resources, and an operator who stops the server."""
_PASSING_STATES: Final = ("25006", "55P03")
"""The server is, for now, somebody's copy; another has locked the row."""


class Line:
    """A connection that is made when it is needed, and one statement at a time on it."""

    def __init__(self, address: str, schema: str) -> None:
        self._address = address
        self._schema = schema
        self._connection: asyncpg.Connection | None = None
        self._busy = asyncio.Lock()

    async def connection(self) -> asyncpg.Connection:
        """The open connection. StoreLost if there is none to be had."""
        if self._connection is None or self._connection.is_closed():
            library = _library()
            with explained_postgres():
                async with asyncio.timeout(CONNECT_S):
                    self._connection = await library.connect(
                        self._address,
                        server_settings={
                            "search_path": f'"{self._schema}"',
                            "synchronous_commit": "on",
                            "application_name": "engine",
                            "idle_in_transaction_session_timeout": "60000",
                            "lock_timeout": f"{round(LOCK_S * 1000)}",
                        },
                    )
        return self._connection

    async def call(self, work: Callable[[Any], Awaitable[T]], timeout_s: float = TIMEOUT_S) -> T:
        """Do something on the connection. Without an answer in time it is cut: what it has is nobody's to wait for."""
        async with self._busy:
            connection = await self.connection()
            try:
                with explained_postgres():
                    async with asyncio.timeout(timeout_s):
                        return await work(connection)
            except (StoreLost, asyncio.CancelledError):
                connection.terminate()
                self._connection = None
                raise

    async def batches(
        self, query: str, *values: Any, at_once: int, timeout_s: float
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """The rows of a query, as of one moment, some at a time; each answer is waited for as in :meth:`call`."""
        async with self._busy:
            connection = await self.connection()
            done = False
            try:
                with explained_postgres():
                    async with asyncio.timeout(TIMEOUT_S):
                        await connection.execute("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
                    async with asyncio.timeout(timeout_s):
                        cursor = await connection.cursor(query, *values)
                while True:
                    with explained_postgres():
                        async with asyncio.timeout(timeout_s):
                            rows = await cursor.fetch(at_once)
                    if not rows:
                        break
                    yield [tuple(row) for row in rows]
                with explained_postgres():
                    async with asyncio.timeout(TIMEOUT_S):
                        await connection.execute("COMMIT")
                done = True
            finally:
                if not done:
                    connection.terminate()
                    self._connection = None

    async def row(self, statement: str, *values: Any) -> Any:
        """The one row of a statement."""
        row = await self.call(lambda connection: connection.fetchrow(statement, *values))
        if row is None:
            raise JournalError(f"{self._schema}: incomplete: a row is missing; restore the database")
        return row

    async def value(self, statement: str, *values: Any) -> Any:
        """The first value of a statement's first row; None without one."""
        return await self.call(lambda connection: connection.fetchval(statement, *values))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()


@contextmanager
def explained_postgres() -> Iterator[None]:
    """PostgreSQL's and the network's errors as the engine's; none of them shows the address."""
    library = _library()
    try:
        yield
    except library.PostgresError as error:
        state = str(error.sqlstate or "")
        if state[:2] in _PASSING or state in _PASSING_STATES:
            raise StoreLost(f"PostgreSQL: {error}") from None
        raise JournalError(f"PostgreSQL refused: {error}") from None
    except TimeoutError:
        raise StoreLost("PostgreSQL: no answer in time") from None
    except (library.InterfaceError, library.InternalClientError, OSError) as error:
        raise StoreLost(f"PostgreSQL: {_brief(error)}") from None


def _brief(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__ if isinstance(error, OSError) else str(error)


def _library() -> Any:
    try:
        import asyncpg
    except ImportError:
        raise ConfigError("a journal in PostgreSQL needs asyncpg: pip install 'engine[postgres]'") from None
    return asyncpg
