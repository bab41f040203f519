"""Two processes with one key at one venue, and the limits of that venue."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.simulator.box import VenueBox
from engine.simulator.config import BoxConfig, BoxInfo
from engine.simulator.faults import Fault

pytestmark = pytest.mark.processes

CLIENT = Path(__file__).with_name("busy_client.py")
WEIGHT, ORDERS = 400, 20


@asynccontextmanager
async def venue(**limits: Any) -> AsyncIterator[tuple[VenueBox, BoxInfo]]:
    box = VenueBox(BoxConfig(activity=1.0, **limits))
    info = await box.start()
    try:
        yield box, info
    finally:
        await box.stop()


async def stats(info: BoxInfo) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{info.admin}/stats") as answer:
            found: dict[str, Any] = await answer.json()
            return found


async def struck(box: VenueBox, fault: dict[str, Any]) -> None:
    """Arm a fault, and wait until a request met it."""
    happened = asyncio.Event()
    count = box.faults.count

    def counting(kind: str) -> None:
        count(kind)
        happened.set()

    box.faults.count = counting
    box.inflict([msgspec.convert(fault, Fault)])
    await happened.wait()


@asynccontextmanager
async def clients(info: BoxInfo, seconds: float, **options: Any) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Two busy clients that have begun."""
    settings = ConnectorSettings(
        connector="box",
        venue="binance",
        pairs=("BTC-USDT",),
        endpoints=Endpoints(rest=info.rest, ws=info.ws, ws_api=info.ws_api),
        credentials=Credentials(api_key=info.api_key, api_secret=info.api_secret),
        options=options,
    )
    arguments = [str(CLIENT), msgspec.json.encode(settings).decode(), str(seconds)]
    found = [
        await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        for client in found:
            assert client.stdout is not None
            assert await client.stdout.readline() == b"begun\n"
        yield found
    finally:
        for client in found:
            if client.returncode is None:
                client.kill()
            await client.wait()


async def told(client: asyncio.subprocess.Process) -> Counter[str]:
    """What a client was told until its end."""
    assert client.stdout is not None
    counts = Counter(json.loads(await client.stdout.read()))
    assert not [name for name in counts if name.startswith("failed")], counts
    return counts


def test_two_processes_with_one_key_never_pass_its_limits(run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        async with venue(weight_limit=WEIGHT, order_limit_10s=ORDERS) as (_box, info):
            async with clients(info, 2.5, shared_limits=str(tmp_path / "limits")) as pair:
                results = [await told(client) for client in pair]
            limits = (await stats(info))["limits"]
            assert (limits["refused"], limits["banned"], limits["orders_refused"]) == (0, 0, 0)
            assert WEIGHT // 2 < limits["peak_weight"] <= WEIGHT
            assert all("refused by the venue" not in result for result in results)
            assert ORDERS // 2 <= sum(result["placed"] for result in results) <= 2 * ORDERS
            assert all(result["cancelled"] == result["placed"] for result in results)

    run(work())


def test_two_that_count_each_for_itself_pass_them(run: Any) -> None:
    """The venue's limits bite: what the other test sees is not for want of requests."""

    async def work() -> None:
        async with venue(weight_limit=WEIGHT * 10, order_limit_10s=ORDERS) as (_box, info):
            async with clients(info, 1.0, order_entry="websocket") as pair:
                for client in pair:
                    await told(client)
            assert (await stats(info))["limits"]["orders_refused"] > 0

    run(work())


def test_when_one_process_is_told_to_stop_both_do(run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        async with venue(order_limit_10s=100_000, weight_limit=1_000_000) as (box, info):
            async with clients(info, 30.0, shared_limits=str(tmp_path / "limits")):
                fault = {"kind": "reject", "match": "api/v3/account", "status": 429, "code": -1003, "retry_after_s": 3}
                await struck(box, fault)
                began = asyncio.get_running_loop().time()
                # What was under way at that instant comes in; after it there is nothing, until the three seconds end.
                await asyncio.sleep(0.25)
                before = box.desk.requests
                await asyncio.sleep(2.0)
                assert box.desk.requests == before
                await struck(box, {"kind": "latency", "ms": 0})
                assert asyncio.get_running_loop().time() - began > 2.9

    run(work())
