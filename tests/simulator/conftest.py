"""A box and a hand-made client of its protocol, independent of the box's own code."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from engine.simulator import BoxConfig, BoxInfo, PairConfig, VenueBox

BTC = PairConfig(pair="BTC-USDT", price="60000")
ETH = PairConfig(pair="ETH-USDT", price="3000", size_increment="0.0001")


class Client:
    """Signs and sends requests; replies are (status, body, headers)."""

    def __init__(self, session: aiohttp.ClientSession, info: BoxInfo) -> None:
        self.session, self.info = session, info

    def signed(self, params: dict[str, Any]) -> str:
        params = {"timestamp": int(time.time() * 1000), **params}
        query = urlencode({name: value for name, value in params.items() if value is not None})
        return f"{query}&signature={self.sign(query)}"

    def sign(self, text: str) -> str:
        return hmac.new(self.info.api_secret.encode(), text.encode(), hashlib.sha256).hexdigest()

    async def raw(
        self, method: str, path_and_query: str, body: str | None = None, key: str | None = None
    ) -> tuple[int, Any, Any]:
        from yarl import URL

        headers = {"X-MBX-APIKEY": self.info.api_key if key is None else key}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = URL(self.info.rest + path_and_query, encoded=True)
        async with self.session.request(method, url, data=body, headers=headers) as response:
            text = await response.text()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(text) if is_json else text, response.headers

    async def get(self, path: str, **params: Any) -> Any:
        status, body, _ = await self.raw("GET", f"{path}?{urlencode(params)}")
        assert status == 200, body
        return body

    async def send(self, method: str, path: str, **params: Any) -> tuple[int, Any]:
        status, body, _ = await self.raw(method, f"{path}?{self.signed(params)}")
        return status, body

    async def ok(self, method: str, path: str, **params: Any) -> Any:
        status, body = await self.send(method, path, **params)
        assert status == 200, body
        return body

    async def limit(self, side: str, quantity: str, price: str, symbol: str = "BTCUSDT", **more: Any) -> Any:
        order = {"symbol": symbol, "side": side, "type": "LIMIT", "timeInForce": "GTC"}
        return await self.ok("POST", "/api/v3/order", **order, quantity=quantity, price=price, **more)

    async def refused(self, method: str, path: str, **params: Any) -> tuple[int, str]:
        status, body = await self.send(method, path, **params)
        assert status >= 400, body
        return body["code"], body["msg"]

    async def ledger(self) -> Any:
        return await self.get("/admin/ledger")

    @contextlib.asynccontextmanager
    async def user_data(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self.session.ws_connect(self.info.ws_api) as socket:
            params = {"apiKey": self.info.api_key, "timestamp": int(time.time() * 1000)}
            params["signature"] = self.sign("&".join(f"{name}={params[name]}" for name in sorted(params)))
            await socket.send_json({"id": "1", "method": "userDataStream.subscribe.signature", "params": params})
            reply = await socket.receive_json()
            assert reply["status"] == 200, reply
            assert reply["result"] == {"subscriptionId": 0}
            yield socket


Scenario = Callable[[VenueBox, Client], Awaitable[None]]


def run_box(scenario: Scenario, seconds: float = 15, **config: Any) -> None:
    """Run a scenario against a box of its own."""

    async def main() -> None:
        async with asyncio.timeout(seconds):
            box = VenueBox(BoxConfig(**{"pairs": [BTC, ETH], **config}))
            info = await box.start()
            try:
                async with aiohttp.ClientSession() as session:
                    await scenario(box, Client(session, info))
            finally:
                await box.stop()

    asyncio.run(main())


@pytest.fixture
def in_box() -> Callable[..., None]:
    return run_box


@pytest.fixture
def make_client() -> type[Client]:
    return Client
