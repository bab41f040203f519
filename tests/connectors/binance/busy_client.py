"""A client that places, cancels and asks as fast as its limits let it. Arguments: its settings as JSON, seconds.

Prints a line when it begins, and at its end what it was told.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable
from decimal import Decimal

import msgspec

from engine.clock import WallClock
from engine.connectors.errors import RateLimited
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.errors import VenueError
from engine.messages import Order, OrderState, OrderType, Side

counts: Counter[str] = Counter()


async def counted(name: str, request: Awaitable[object]) -> bool:
    try:
        await request
    except RateLimited as error:
        counts["held back" if error.local else "refused by the venue"] += 1
    except VenueError as error:
        counts[f"failed: {error}"] += 1
    else:
        counts[name] += 1
        return True
    return False


async def main(settings: ConnectorSettings, seconds: float) -> None:
    clock = WallClock()
    client = create(settings).exchange(clock)
    try:
        await client.start()
        await client.trading_rules(["BTC-USDT"])
        print("begun", flush=True)
        end = clock.monotonic_ns() + round(seconds * 1e9)
        number = 0
        while clock.monotonic_ns() < end:
            number += 1
            order = Order(
                client_order_id=f"busy{os.getpid()}-{number}",
                strategy="busy",
                pair="BTC-USDT",
                side=Side.BUY,
                order_type=OrderType.LIMIT,
                size=Decimal("0.001"),
                price=Decimal(30000),
                state=OrderState.PENDING_CREATE,
            )
            if await counted("placed", client.place(order, lambda _at: None, clock.monotonic_ns() + 50_000_000)):
                await counted("cancelled", client.cancel(order))
            try:
                async with asyncio.timeout(0.1):
                    await counted("asked", client.balances())
            except TimeoutError:
                counts["waited in vain"] += 1
    finally:
        await client.close()
    print(json.dumps(counts), flush=True)


asyncio.run(main(msgspec.json.decode(sys.argv[1], type=ConnectorSettings), float(sys.argv[2])))
