"""An independent client that was pointed at the box and knows nothing of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import ccxt.pro
import pytest

InBox = Callable[..., None]


def pointed_at(info: Any, urls: Any) -> Any:
    """All of a client's URLs with the box's hosts in place of the real ones."""
    if isinstance(urls, dict):
        return {name: pointed_at(info, url) for name, url in urls.items()}
    return re.sub(r"^https?://[^/]+", info.rest, re.sub(r"^wss?://[^/]+", info.ws, urls))


def exchange(info: Any) -> Any:
    client = ccxt.pro.binance({"apiKey": info.api_key, "secret": info.api_secret, "enableRateLimit": False})
    client.urls["api"] = pointed_at(info, client.urls["api"])
    return client


def test_it_trades(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        venue = exchange(client.info)
        try:
            markets = await venue.load_markets()
            assert set(markets) == {"BTC/USDT", "ETH/USDT"}
            assert (await venue.fetch_balance())["free"]["USDT"] == 100_000
            book = await venue.fetch_order_book("BTC/USDT", 5)
            assert book["bids"][0][0] < book["asks"][0][0]
            placed = await venue.create_order("BTC/USDT", "limit", "buy", 0.01, 50_000)
            assert placed["status"] == "open"
            assert (await venue.fetch_order(placed["id"], "BTC/USDT"))["status"] == "open"
            assert len(await venue.fetch_open_orders("BTC/USDT")) == 1
            assert (await venue.cancel_order(placed["id"], "BTC/USDT"))["status"] == "canceled"
            bought = await venue.create_order("BTC/USDT", "market", "buy", 0.01)
            assert bought["status"] == "closed"
            trades = await venue.fetch_my_trades("BTC/USDT")
            assert {trade["order"] for trade in trades} == {bought["id"]}
            assert (await venue.fetch_ticker("BTC/USDT"))["bid"] > 0
            assert await venue.fetch_ohlcv("BTC/USDT", "1m")
            with pytest.raises(ccxt.InsufficientFunds):
                await venue.create_order("BTC/USDT", "limit", "buy", 100, 50_000)
            with pytest.raises(ccxt.OrderNotFound):
                await venue.cancel_order("424242", "BTC/USDT")
            with pytest.raises(ccxt.OrderImmediatelyFillable):
                await venue.create_order("BTC/USDT", "limit", "buy", 0.01, 70_000, {"postOnly": True})
        finally:
            await venue.close()

    in_box(scenario)


def test_it_watches(in_box: InBox) -> None:
    async def scenario(box: Any, client: Any) -> None:
        venue = exchange(client.info)
        try:
            nonces = [(await venue.watch_order_book("BTC/USDT"))["nonce"] for _ in range(5)]
            assert nonces == sorted(nonces)
            assert (await venue.watch_trades("BTC/USDT"))[0]["symbol"] == "BTC/USDT"
            assert (await venue.watch_ticker("BTC/USDT"))["last"] > 0
            first = asyncio.create_task(venue.watch_balance())
            watched = asyncio.create_task(venue.watch_orders("BTC/USDT"))
            while (await client.get("/admin/stats"))["user_connections"] == 0:
                assert not watched.done()
            placed = await venue.create_order_ws("BTC/USDT", "limit", "buy", 0.01, 50_000)
            (seen,) = await watched
            assert (await first)["used"]["USDT"] == 500
            assert (seen["id"], seen["status"]) == (placed["id"], "open")
            assert (await venue.cancel_order_ws(placed["id"], "BTC/USDT"))["status"] == "canceled"
        finally:
            await venue.close()

    in_box(scenario, activity=100.0)
