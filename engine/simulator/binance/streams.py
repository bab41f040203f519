"""Market streams: who listens to what, and a venue's events as frames.

Source: binance-spot-api-docs ``web-socket-streams.md`` (2026). A frame is encoded once, however many listen.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec

from engine.simulator.binance import market_data, shapes
from engine.simulator.binance.api import Api
from engine.simulator.binance.rules import symbol_of
from engine.simulator.events import AggregateTrade, BestQuote, Depth, MarketEvent, Trade
from engine.simulator.faults import Fault
from engine.simulator.history import MINUTE_MS
from engine.simulator.matching import DepthChange

MAX_STREAMS = 1024
SECOND_NS = 1_000_000_000
_PARTIAL = re.compile(r"depth(5|10|20)(@100ms)?")
_KLINE = re.compile(r"kline_(\w+)")


class Sink(Protocol):
    """Where frames go. Sending never waits."""

    def send(self, frame: bytes) -> None: ...

    async def send_now(self, frame: bytes) -> None:
        """Send and wait for a slow reader."""

    def abort(self) -> None: ...


@dataclass(slots=True, eq=False)
class Listener:
    """A connection's subscriptions. ``combined`` frames are wrapped as ``{"stream", "data"}``."""

    sink: Sink
    combined: bool
    names: dict[str, None] = field(default_factory=dict)
    is_muted: bool = False
    request_times: list[float] = field(default_factory=list)


class Hub:
    """All listeners, by stream name."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.listeners: dict[Listener, None] = {}
        self.by_name: dict[str, dict[Listener, None]] = {}
        self.frames_sent = 0

    def add(self, listener: Listener, names: Iterable[str]) -> None:
        self.listeners[listener] = None
        for name in names:
            listener.names[name] = None
            self.by_name.setdefault(name, {})[listener] = None
        self._changed.set()

    def discard(self, listener: Listener, names: Iterable[str]) -> None:
        for name in names:
            listener.names.pop(name, None)
            at_name = self.by_name.get(name)
            if at_name is not None:
                at_name.pop(listener, None)
                if not at_name:
                    del self.by_name[name]
        self._changed.set()

    async def changed(self) -> None:
        """Wait for the next subscription or its end. For one waiter."""
        self._changed.clear()
        await self._changed.wait()

    def remove(self, listener: Listener) -> None:
        self.discard(listener, list(listener.names))
        self.listeners.pop(listener, None)

    def publish(self, name: str, body: Callable[[], object]) -> None:
        """Send to the stream's listeners; ``body`` is made only when there are any."""
        listeners = self.by_name.get(name)
        if listeners:
            self.publish_raw(name, msgspec.json.encode(body()), listeners)

    def publish_now(self, name: str, body: object) -> None:
        """As :meth:`publish`, of a body that is made already."""
        self.publish(name, lambda: body)

    def publish_raw(self, name: str, data: bytes, listeners: Iterable[Listener]) -> None:
        wrapped = b""
        for listener in listeners:
            if listener.is_muted:
                continue
            if listener.combined and not wrapped:
                wrapped = wrap(name, data)
            listener.sink.send(wrapped if listener.combined else data)
            self.frames_sent += 1

    def mute_all(self) -> int:
        """Send nothing more on the market connections that are open now."""
        for listener in self.listeners:
            listener.is_muted = True
        return len(self.listeners)

    def drop_all(self) -> int:
        """Drop every market connection at once."""
        count = len(self.listeners)
        for listener in list(self.listeners):
            listener.sink.abort()
        return count


def wrap(name: str, data: bytes) -> bytes:
    """A frame of the combined form."""
    return b'{"stream":"' + name.encode() + b'","data":' + data + b"}"


@dataclass(slots=True)
class _SlowDepth:
    """The diffs of a second, merged."""

    first: int
    last: int
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)

    def absorb(self, change: DepthChange) -> None:
        self.last = change.last
        self.bids.update(change.bids)
        self.asks.update(change.asks)


class Feed:
    """Turns a venue's events, and the passing of time, into the hub's frames.

    ``strike``: what befalls the next depth diff of a symbol.
    """

    def __init__(self, api: Api, hub: Hub, strike: Callable[[str], Fault | None]) -> None:
        self._api = api
        self._hub = hub
        self._strike = strike
        self._held: dict[str, list[Depth]] = {}
        self._slow: dict[str, _SlowDepth] = {}
        self._second = 0
        self._tenth = 0
        self._kline_open: dict[str, int] = {}

    def tell(self, event: MarketEvent) -> None:
        publish, symbol = self._hub.publish, symbol_of(event.pair).lower()
        if isinstance(event, BestQuote):
            publish(symbol + "@bookTicker", lambda: shapes.book_ticker(event))
        elif isinstance(event, Trade):
            publish(symbol + "@trade", lambda: shapes.trade(event))
        elif isinstance(event, AggregateTrade):
            publish(symbol + "@aggTrade", lambda: shapes.aggregate(event))
        else:
            self._tell_depth(event, symbol + "@depth@100ms", self._strike(symbol.upper()))

    def tick(self, now_ns: int) -> None:
        """The streams that are sent by the clock: once a second, and ten times a second for partial depth."""
        second, tenth = now_ns // SECOND_NS, now_ns // (SECOND_NS // 10)
        if tenth != self._tenth:
            self._tenth = tenth
            self._partial_depths(second != self._second)
        if second != self._second:
            self._second = second
            self._slow_depths(now_ns)
            self._tickers(now_ns)
            self._klines(now_ns)

    def _tell_depth(self, event: Depth, name: str, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        if kind == "skip_depth":
            return
        change = event.change
        self._slow.setdefault(event.pair, _SlowDepth(change.first, change.last)).absorb(change)
        if kind == "reorder_depth":
            self._held.setdefault(name, []).append(event)
            return
        if fault is not None and kind == "late_depth":
            asyncio.get_running_loop().call_later(fault.ms / 1000, self._send_depth, name, event)
            return
        self._send_depth(name, self._crossing(event) if kind == "cross_depth" else event)
        if kind == "duplicate_depth":
            self._send_depth(name, event)
        for held in self._held.pop(name, ()):
            self._send_depth(name, held)

    def _send_depth(self, name: str, event: Depth) -> None:
        self._hub.publish(name, lambda: shapes.depth_update(event))

    def _crossing(self, event: Depth) -> Depth:
        """The same with a bid above the best ask."""
        market = self._api.markets[symbol_of(event.pair)]
        change, stray = event.change, market.book.asks.best_price() or market.flow.mid
        bids = [(stray + market.pair.tick, market.pair.step), *change.bids]
        return Depth(event.pair, DepthChange(change.first, change.last, bids, change.asks), event.time_ns)

    def _slow_depths(self, now_ns: int) -> None:
        for pair, slow in self._slow.items():
            change = DepthChange(
                slow.first, slow.last, sorted(slow.bids.items(), reverse=True), sorted(slow.asks.items())
            )
            depth = Depth(pair, change, now_ns)
            self._hub.publish(symbol_of(pair).lower() + "@depth", partial(shapes.depth_update, depth))
        self._slow.clear()

    def _partial_depths(self, whole_second: bool) -> None:
        for name in [name for name in self._hub.by_name if "@depth" in name]:
            symbol, _, kind = name.partition("@")
            match = _PARTIAL.fullmatch(kind)
            market = self._api.markets.get(symbol.upper())
            if match and market and (match[2] or whole_second):
                book, count = market.book, int(match[1])
                body = {
                    "lastUpdateId": book.update_id,
                    "bids": shapes.levels(book.levels(True, count)),
                    "asks": shapes.levels(book.levels(False, count)),
                }
                self._hub.publish_now(name, body)

    def _tickers(self, now_ns: int) -> None:
        names = [name for name in self._hub.by_name if name.endswith(("icker", "icker@arr"))]
        for name in names:
            symbol, _, kind = name.partition("@")
            shape = _ticker if kind == "ticker" or symbol == "!ticker" else _mini_ticker
            if name in ("!ticker@arr", "!miniTicker@arr"):
                rows = [shape(market_data.day(s, market, now_ns), now_ns) for s, market in self._api.markets.items()]
                self._hub.publish_now(name, rows)
            elif kind in ("ticker", "miniTicker") and symbol.upper() in self._api.markets:
                day = market_data.day(symbol.upper(), self._api.markets[symbol.upper()], now_ns)
                self._hub.publish_now(name, shape(day, now_ns))

    def _klines(self, now_ns: int) -> None:
        for name in [name for name in self._hub.by_name if "@kline_" in name]:
            symbol, _, kind = name.partition("@")
            match = _KLINE.fullmatch(kind)
            market = self._api.markets.get(symbol.upper())
            minutes = market_data.INTERVALS.get(match[1]) if match else None
            if market is None or minutes is None or match is None:
                continue
            length = minutes * MINUTE_MS
            bars = market.history.bars_of(length)
            known = self._kline_open.get(name, 0)
            for bar in [bar for bar in bars[-2:] if bar.open_ms >= known]:
                closed = bar.open_ms + length <= now_ns // 1_000_000
                update = shapes.kline_update(market.pair.name, bar, match[1], length, closed, now_ns)
                self._hub.publish_now(name, update)
                self._kline_open[name] = bar.open_ms + 1 if closed else bar.open_ms


def _ticker(day: shapes.Json, now_ns: int) -> shapes.Json:
    return {
        "e": "24hrTicker",
        "E": shapes.ms(now_ns),
        "s": day["symbol"],
        "p": day["priceChange"],
        "P": day["priceChangePercent"],
        "w": day["weightedAvgPrice"],
        "x": day["prevClosePrice"],
        "c": day["lastPrice"],
        "Q": day["lastQty"],
        "b": day["bidPrice"],
        "B": day["bidQty"],
        "a": day["askPrice"],
        "A": day["askQty"],
        "o": day["openPrice"],
        "h": day["highPrice"],
        "l": day["lowPrice"],
        "v": day["volume"],
        "q": day["quoteVolume"],
        "O": day["openTime"],
        "C": day["closeTime"],
        "F": day["firstId"],
        "L": day["lastId"],
        "n": day["count"],
    }


def _mini_ticker(day: shapes.Json, now_ns: int) -> shapes.Json:
    return {
        "e": "24hrMiniTicker",
        "E": shapes.ms(now_ns),
        "s": day["symbol"],
        "c": day["lastPrice"],
        "o": day["openPrice"],
        "h": day["highPrice"],
        "l": day["lowPrice"],
        "v": day["volume"],
        "q": day["quoteVolume"],
    }
