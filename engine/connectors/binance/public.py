"""Binance's REST interface, as far as it needs no key.

Source: "General endpoints" and "Market Data endpoints" of the Spot API documentation (2026).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from engine.connectors.base import Clock, HttpRequest, PublicClient
from engine.connectors.binance import constants
from engine.connectors.binance.auth import encode
from engine.connectors.binance.errors import classify
from engine.connectors.binance.rules import parse_exchange_info
from engine.connectors.decoding import UNREADABLE, Millis
from engine.connectors.errors import MalformedReply, VenueRefused
from engine.connectors.rest import RestClient, RestReply
from engine.connectors.symbols import SymbolMap
from engine.connectors.throttler import Priority, Throttler
from engine.connectors.time_sync import TimeSynchronizer
from engine.messages import TradingRule

T = TypeVar("T")

_MOST_NAMED_RULES = 50
_TIME_EVERY_S = 30.0
_POLL_WAIT_S = 15.0
_USAGE_HEADERS = {
    "x-mbx-used-weight-": "REQUEST_WEIGHT_",
    "x-mbx-order-count-": "ORDERS_",
}


class _ServerTime(msgspec.Struct, rename="camel"):
    server_time: Millis


_decode_time = msgspec.json.Decoder(_ServerTime)


def read_usage(headers: Mapping[str, str]) -> dict[str, int]:
    """The venue's own counts, by the names of its limits: ``X-MBX-USED-WEIGHT-1M`` is
    ``REQUEST_WEIGHT_1M``.
    """
    counts: dict[str, int] = {}
    for name, value in headers.items():
        lowered = name.lower()
        for prefix, limit in _USAGE_HEADERS.items():
            if lowered.startswith(prefix) and value.isdecimal() and len(value) < 19:
                counts[limit + lowered.removeprefix(prefix).upper()] = int(value)
    return counts


def decoded(decoder: msgspec.json.Decoder[T], reply: RestReply) -> T:
    """The body of a reply; MalformedReply if it is not what the decoder is for."""
    try:
        return decoder.decode(reply.body)
    except UNREADABLE as error:
        raise MalformedReply(f"a reply that cannot be read: {error}") from error


class BinancePublic(PublicClient):
    """Requests without a key."""

    def __init__(
        self,
        rest: str,
        symbols: SymbolMap,
        clock: Clock,
        *,
        timeout_s: float = 5.0,
        ca: str | None = None,
        headers: Mapping[str, str] | None = None,
        shared_limits: str | None = None,
        account: str = "",
    ) -> None:
        self.time = TimeSynchronizer(clock, self.server_time_ms)
        self.throttler = Throttler(
            constants.DEFAULT_LIMITS,
            clock=clock,
            venue_now_ns=self.time.now_ns,
            address=urlsplit(rest).netloc,
            account=account,
            shared=shared_limits,
        )
        self._symbols = symbols
        self._rest = RestClient(
            rest,
            clock=clock,
            classify=classify,
            throttler=self.throttler,
            read_usage=read_usage,
            headers=headers,
            timeout_s=timeout_s,
            ca=ca,
        )
        self._timekeeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._rest.start()
        await self.time.ensure()
        if self._timekeeper is None:
            self._timekeeper = asyncio.create_task(self.time.keep(_TIME_EVERY_S), name="timekeeper")

    async def close(self) -> None:
        task, self._timekeeper = self._timekeeper, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.throttler.close()
        await self._rest.close()

    async def admit_stream(self) -> None:
        costs = {constants.WEIGHT: constants.CONNECT_WEIGHT + constants.SUBSCRIBE_WEIGHT}
        await self.throttler.acquire(costs, Priority.QUERY, self._patience())

    def silence(self, seconds: float) -> None:
        self.throttler.silence(seconds)

    async def server_time_ms(self) -> int:
        # Not by ``read``, nor after a wait: a sample whose request took long tells a time that may be far off.
        reply = await self._rest.send("GET", constants.PATH_TIME, costs={constants.WEIGHT: 1}, priority=Priority.QUERY)
        return decoded(_decode_time, reply).server_time

    async def trading_rules(self, pairs: Iterable[str] | None = None) -> dict[str, TradingRule]:
        wanted = None if pairs is None else set(pairs)
        rules = await self._rules_of(wanted)
        self._symbols.learn(rules.values())
        return rules if wanted is None else {pair: rules[pair] for pair in wanted if pair in rules}

    async def fetch(self, request: HttpRequest) -> bytes:
        costs = {constants.WEIGHT: request.weight}
        until = self._patience()
        if request.method == "GET":
            return (await self._rest.read(request.path, request.query, costs=costs, until_mono_ns=until)).body
        reply = await self._rest.send(request.method, request.path, request.query, costs=costs, until_mono_ns=until)
        return reply.body

    async def _rules_of(self, wanted: set[str] | None) -> dict[str, TradingRule]:
        query = ""
        if wanted is not None and len(wanted) <= _MOST_NAMED_RULES:
            names = sorted(self._symbols.symbol(pair) for pair in wanted)
            query = encode([("symbols", msgspec.json.encode(names).decode())])
        costs = {constants.WEIGHT: 20}
        try:
            reply = await self._rest.read(constants.PATH_RULES, query, costs=costs, until_mono_ns=self._patience())
        except VenueRefused as error:
            if not query or error.code not in (-1121, -1100):
                raise
            # One name that the venue does not list makes it refuse them all: ask for the whole list.
            reply = await self._rest.read(constants.PATH_RULES, costs=costs, until_mono_ns=self._patience())
        info = parse_exchange_info(reply.body)
        self.throttler.set_limits(info.limits)
        return info.rules

    def _patience(self, seconds: float = _POLL_WAIT_S) -> int:
        """Until when a request that begins now may wait for the venue's limits to leave room."""
        return self.time.clock.monotonic_ns() + round(seconds * 1e9)
