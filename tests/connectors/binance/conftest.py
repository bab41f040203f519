"""A venue in a box, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints

PAIRS = ("BTC-USDT", "ETH-USDT", "LTC-BTC")


class Box:
    """The process and how to reach it."""

    def __init__(self, state: Path, *options: str) -> None:
        command = [sys.executable, "-m", "engine.simulator", "--venue", "binance", "--print-json"]
        self.process = subprocess.Popen([*command, "--state", str(state), *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.info: dict[str, Any] = json.loads(self.process.stdout.readline())

    def connector(self, secret: str = "", **options: Any) -> Any:
        """A connector for the box's account, or one with another secret."""
        settings = ConnectorSettings(
            connector="box",
            venue="binance",
            pairs=PAIRS,
            endpoints=Endpoints(rest=self.info["rest"], ws=self.info["ws"], ws_api=self.info["ws_api"]),
            credentials=Credentials(api_key=self.info["api_key"], api_secret=secret or self.info["api_secret"]),
            options=options,
        )
        return create(settings)

    async def fault(self, *faults: dict[str, Any]) -> None:
        """Arm faults."""
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{self.info['admin']}/faults", json=list(faults)) as answer:
                assert answer.status == 200, await answer.text()

    async def ledger(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{self.info['admin']}/ledger") as answer:
                found: dict[str, Any] = await answer.json()
                return found

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One box for a module's tests; each uses ids of its own."""
    made = Box(tmp_path_factory.mktemp("box"))
    yield made
    made.stop()


@pytest.fixture
def own_box(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """Makes boxes that a test may kill."""
    boxes: list[Box] = []

    def make(*options: str) -> Box:
        boxes.append(Box(tmp_path / f"box{len(boxes)}", *options))
        return boxes[-1]

    yield make
    for one in boxes:
        one.stop()


class News:
    """A WebSocket handler that keeps what a protocol makes of the frames, and lets tests wait for it."""

    def __init__(self, feed: Callable[[bytes], Any]) -> None:
        self._feed = feed
        self.events: list[Any] = []
        self.opened = 0
        self.closed: list[str] = []
        self._news = asyncio.Event()

    def on_open(self) -> None:
        self.opened += 1
        self._news.set()

    def on_frame(self, data: bytes, received_mono_ns: int) -> None:
        self.events += self._feed(data)
        self._news.set()

    def on_close(self, reason: str) -> None:
        self.closed.append(reason)
        self._news.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for a condition to hold, and give its value."""
        while not (value := condition()):
            self._news.clear()
            await self._news.wait()
        return value


@pytest.fixture
def news() -> type[News]:
    return News
