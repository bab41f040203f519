"""Real processes: what is killed comes back as it was, and what is told to stop leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from engine.simulator import BoxInfo

pytestmark = pytest.mark.processes


@contextlib.asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, BoxInfo]]:
    """``python -m engine.simulator`` once it listens; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "engine.simulator",
        "--venue",
        "binance",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        yield process, msgspec.json.decode(line, type=BoxInfo)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def place_until_killed(client: Any, acknowledged: dict[str, Any], enough: asyncio.Event) -> None:
    """Place, take and cancel as fast as replies come, and remember what was acknowledged."""
    number = 0
    with contextlib.suppress(aiohttp.ClientError, ConnectionError):
        while True:
            if number == 100:
                enough.set()
            number += 1
            params = {"symbol": "BTCUSDT", "newClientOrderId": f"n{number}", "quantity": "0.001"}
            if number % 3:
                params |= {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "50000"}
            else:
                params |= {"side": "SELL", "type": "MARKET"}
            acknowledged[f"n{number}"] = await client.ok("POST", "/api/v3/order", **params)
            if number % 3 == 1:
                where = {"symbol": "BTCUSDT", "origClientOrderId": f"n{number}"}
                acknowledged[f"n{number}"] = await client.ok("DELETE", "/api/v3/order", **where)


def test_a_killed_venue_comes_back_with_the_same_ledger(tmp_path: Path, make_client: Any) -> None:
    state = ("--state", str(tmp_path), "--no-limits")

    async def main() -> None:
        acknowledged: dict[str, Any] = {}
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            async with program(*state) as (process, info):
                client = make_client(session, info)
                enough = asyncio.Event()
                work = asyncio.create_task(place_until_killed(client, acknowledged, enough))
                await enough.wait()
                depth = await client.get("/api/v3/depth", symbol="BTCUSDT", limit=5)
                ticker = await client.get("/api/v3/trades", symbol="BTCUSDT", limit=1)
                process.kill()
                await process.wait()
                await work
            started = time.monotonic()
            async with program(*state) as (process, again):
                assert time.monotonic() - started < 3
                assert (again.api_key, again.api_secret, again.port) == (info.api_key, info.api_secret, info.port)
                client = make_client(session, again)
                ledger = await client.ledger()
                orders = {order["client_order_id"]: order for order in ledger["orders"]}
                for client_id, reply in acknowledged.items():
                    assert orders[client_id]["order_id"] == str(reply["orderId"])
                    assert orders[client_id]["status"] == reply["status"]
                assert len(orders) <= len(acknowledged) + 1
                sold = [fill["tradeId"] for reply in acknowledged.values() for fill in reply.get("fills", [])]
                known = [fill["trade_id"] for fill in ledger["fills"]]
                assert {str(trade) for trade in sold} <= set(known)
                assert len(set(known)) == len(known)
                open_now = await client.ok("GET", "/api/v3/openOrders", symbol="BTCUSDT")
                assert {o["clientOrderId"] for o in open_now} == {n for n, o in orders.items() if o["status"] == "NEW"}
                after = await client.get("/api/v3/depth", symbol="BTCUSDT", limit=5000)
                assert after["lastUpdateId"] > depth["lastUpdateId"]
                assert [p for p, _ in after["bids"] if p == "50000.00000000"] == ["50000.00000000"]
                drift = abs(float(after["bids"][0][0]) / float(depth["bids"][0][0]) - 1)
                assert drift < 0.01
                placed = await client.limit("BUY", "0.001", "49000")
                assert placed["orderId"] > max(reply["orderId"] for reply in acknowledged.values())
                bought = await client.ok(
                    "POST", "/api/v3/order", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="0.001"
                )
                assert bought["fills"][0]["tradeId"] > ticker[0]["id"]
                cancelled = await client.ok("DELETE", "/api/v3/openOrders", symbol="BTCUSDT")
                assert len(cancelled) == len(open_now) + 1
                account = await client.ok("GET", "/api/v3/account")
                assert all(float(balance["locked"]) == 0 for balance in account["balances"])

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(number: signal.Signals) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with program() as (process, info), aiohttp.ClientSession() as session:
                async with session.ws_connect(info.ws + "/ws/btcusdt@depth"):
                    assert os.path.isdir(info.state)
                    process.send_signal(number)
                    _, stderr = await process.communicate()
                assert (process.returncode, stderr) == (0, b"")
                assert not os.path.exists(info.state)

    asyncio.run(main())


@pytest.mark.parametrize(
    "arguments",
    [["--venue", "nowhere"], ["--port", "99999"], ["--capture", "/no/such/file"], ["--speed", "x"], ["--what"]],
)
def test_a_bad_command_line_is_one_clear_line_and_exit_2(arguments: list[str]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "engine.simulator",
                *(["--venue", "binance"] if "--venue" not in arguments else []),
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            stdout, stderr = await process.communicate()
            assert process.returncode == 2
            assert stdout == b""
            assert len(stderr.splitlines()) == 1, stderr

    asyncio.run(main())


def test_a_state_folder_in_use_and_a_taken_port_are_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with program("--state", str(tmp_path)) as (_, info):
                for arguments in (["--state", str(tmp_path)], ["--port", str(info.port)]):
                    second = await asyncio.create_subprocess_exec(
                        sys.executable,
                        "-m",
                        "engine.simulator",
                        "--venue",
                        "binance",
                        *arguments,
                        stderr=asyncio.subprocess.PIPE,
                    )
                    _, stderr = await second.communicate()
                    assert second.returncode == 2
                    assert len(stderr.splitlines()) == 1

    asyncio.run(main())


def test_tls_is_served_with_the_named_certificate(tmp_path: Path) -> None:
    import ssl

    async def main() -> None:
        async with asyncio.timeout(20):
            async with program("--tls", "--state", str(tmp_path)) as (_, info):
                assert info.rest.startswith("https://")
                trusted = ssl.create_default_context(cafile=info.ca)
                async with aiohttp.ClientSession() as session:
                    async with session.get(info.rest + "/api/v3/ping", ssl=trusted) as response:
                        assert json.loads(await response.text()) == {}
                    async with session.ws_connect(info.ws + "/ws/btcusdt@bookTicker", ssl=trusted) as socket:
                        assert "u" in await socket.receive_json()

    asyncio.run(main())


def test_a_last_port_that_is_taken_gives_way_to_a_free_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with program("--state", str(tmp_path)) as (process, info):
                process.kill()
                await process.wait()
            other = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", info.port)
            async with other, program("--state", str(tmp_path)) as (_, again):
                assert again.port != info.port
                assert again.api_key == info.api_key

    asyncio.run(main())
