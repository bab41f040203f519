"""An order-book actor on a real socket, for benchmarks: a process that sends depth frames, and the actor that reads.

The actor is the engine's own, with its socket, its feed, its books in shared memory and its bus; only its REST client
gives the snapshot that the frames continue.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from benchmarks.book_workloads import Workload
from engine.actors.base import STATS_INTERVAL_S, ActorContext
from engine.actors.order_book import OrderBookActor
from engine.actors.settings import pack_settings
from engine.book import SyncState
from engine.bus import MemoryBus, MemoryNetwork
from engine.clock import WallClock
from engine.connectors.base import HttpRequest, MarketDataClient
from engine.connectors.settings import ConnectorSettings, Endpoints
from engine.messages import TradingRule
from engine.runtime.base import ActorSpec

_log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def framed(payload: bytes) -> bytes:
    """A text frame as a server sends it."""
    size = len(payload)
    head = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + struct.pack(">H", size)
    return head + payload


@contextmanager
def sender(connections: int, send: Callable[[list[socket.socket]], None]) -> Iterator[int]:
    """A process that accepts so many WebSockets and then lets ``send`` loose on them; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    pid = os.fork()
    if pid == 0:
        try:
            links = [_accepted(listener.accept()[0]) for _ in range(connections)]
            send(links)
            signal.pause()
        finally:
            os._exit(0)
    listener.close()
    try:
        yield port
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _accepted(link: socket.socket) -> socket.socket:
    request = b""
    while b"\r\n\r\n" not in request:
        request += link.recv(65_536)
    found = re.search(rb"Sec-WebSocket-Key: *(\S+)", request, re.IGNORECASE)
    assert found is not None
    accept = base64.b64encode(hashlib.sha1(found[1] + _ACCEPT).digest())
    link.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    return link


class Rest(MarketDataClient):
    """The snapshot that a workload begins with, of each of its pairs."""

    def __init__(self, rules: dict[str, TradingRule], first: bytes) -> None:
        self._rules = rules
        self._first = first

    async def start(self) -> None:
        """Nothing is connected."""

    async def close(self) -> None:
        """Nothing is connected."""

    async def trading_rules(self, pairs: object = None) -> dict[str, TradingRule]:
        return self._rules

    async def fetch(self, request: HttpRequest) -> bytes:
        return self._first


class Reading:
    """The actor, come up with all its books in sync."""

    def __init__(self, folder: Path, port: int, workload: Workload, pairs: list[str]) -> None:
        rules = {
            pair: msgspec.structs.replace(workload.rule, pair=pair, symbol=pair.replace("-", "")) for pair in pairs
        }
        settings = ConnectorSettings(
            connector="bench",
            venue="binance",
            pairs=tuple(pairs),
            endpoints=Endpoints(rest=f"http://127.0.0.1:{port}", ws=f"ws://127.0.0.1:{port}"),
        )
        spec = ActorSpec(
            name="order_book.bench.0",
            kind="order_book",
            connector="bench",
            incarnation=1,
            run_dir=str(folder),
            shm_dir=str(folder),
            state_dir=str(folder),
            engine_id="",
            entry="",
            params={"settings": pack_settings(settings), "pairs": pairs, "depth": 50, "keep_warm_s": 0.0},
        )
        clock = WallClock()
        self.bus = MemoryBus(MemoryNetwork(), spec.name, 1, clock)
        self.actor = OrderBookActor(ActorContext(spec, self.bus, clock, _log))
        self.actor.client = Rest(rules, workload.first)
        self.actor.feed.protocol.ping_every_s = 0.0  # type: ignore[misc]  # the sender answers none
        self.pairs = pairs
        self.statistics_ms = 0.0

    async def __aenter__(self) -> Reading:
        await self.bus.start()
        await self.actor.start()
        self.actor.context.run(self._tell_statistics(), "statistics")
        return self

    async def _tell_statistics(self) -> None:
        """As every actor does for its supervisor."""
        while True:
            await asyncio.sleep(STATS_INTERVAL_S)
            began = time.thread_time()
            self.actor.collect()
            msgspec.msgpack.encode(self.actor.metrics.message("order_book.bench.0", 1))
            self.statistics_ms = 1e3 * (time.thread_time() - began)

    async def __aexit__(self, *error: object) -> None:
        await self.actor._close()
        await self.actor.context.cancel_tasks()
        await self.bus.close()

    @property
    def frames(self) -> int:
        return int(self.actor.feed.counters.frames)

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not within {within_s:g} s: {self.frames} frames read")
            await asyncio.sleep(0.005)

    def check(self) -> None:
        """Figures of books that lost something say nothing."""
        for pair in self.pairs:
            sync = self.actor.feed.books[pair]
            if sync.state is not SyncState.SYNCED or sync.counters.gaps:
                raise RuntimeError(f"{pair} is {sync.state.name} after {sync.counters.gaps} gaps")
