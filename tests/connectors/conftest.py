"""What the connectors' tests share: an event loop with a deadline, a clock to turn by hand, captures."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from tests.captures import captured


class HandClock:
    """Both readings stand still until moved."""

    def __init__(self, wall_ns: int = 1_700_000_000_000_000_000, monotonic_ns: int = 5_000_000_000) -> None:
        self.wall_ns = wall_ns
        self.mono_ns = monotonic_ns

    def time_ns(self) -> int:
        return self.wall_ns

    def monotonic_ns(self) -> int:
        return self.mono_ns

    def pass_ms(self, ms: float) -> None:
        self.wall_ns += int(ms * 1e6)
        self.mono_ns += int(ms * 1e6)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(scope="session")
def make_clock() -> type[HandClock]:
    return HandClock


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine within 20 s, in a loop that must be empty of tasks at its end."""

    def run_it(work: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                result = await work
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"
            return result

        return asyncio.run(bounded())

    return run_it


TcpHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@pytest.fixture
def tcp_server() -> Callable[[TcpHandler], AbstractAsyncContextManager[int]]:
    """A TCP server of one handler a connection; gives its port, and waits for its handlers at the end."""

    @asynccontextmanager
    async def serving(handler: TcpHandler) -> AsyncIterator[int]:
        handlers: set[asyncio.Task[Any]] = set()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            try:
                await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
        if handlers:
            await asyncio.wait(handlers)

    return serving


@pytest.fixture
def read_capture() -> Callable[[str], Iterator[dict[str, Any]]]:
    """Gives the records of a recorded file; skips by its name where it is absent."""

    def read(name: str) -> Iterator[dict[str, Any]]:
        path = captured(name)

        def records() -> Iterator[dict[str, Any]]:
            with gzip.open(path, "rt") as lines:
                for line in lines:
                    yield json.loads(line)

        return records()

    return read
