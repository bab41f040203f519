"""Serving a capture: the recorded frames in their time, and depth snapshots that fit what has been sent.

The recorded timeline starts a quarter of a second after the first client has subscribed to a market stream, so that a
client with several connections or subscriptions misses nothing. There is one timeline for all connections: who joins
later gets what follows. When the last connection has gone, the timeline is over, and the next subscription starts it
from the beginning. A depth request that arrives before its symbol's first snapshot was recorded is held until the
frames recorded before that snapshot have been sent. It is answered with the newest snapshot whose time has been
reached: the recorded body as it is to the first request of a timeline on which all listeners to the symbol's diffs have
been from the start; to others that snapshot brought forward by the diffs sent since, so that a client may join, or lose
its place, at any time and be in sync again. With no client on a stream the first recorded snapshot is the answer.
Frames wait for slow readers and are never dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from engine.pairs import split_symbol
from engine.simulator.amounts import ONE, parse_amount
from engine.simulator.binance import params as read
from engine.simulator.binance.errors import bad_symbol
from engine.simulator.binance.streams import Hub, Listener, wrap
from engine.simulator.capture import Body, Capture, Frame, Level, Snapshot
from engine.simulator.config import PairConfig

LEAD_SECONDS = 0.25
_YIELD_EVERY = 64


class _Diff(msgspec.Struct):
    u: int
    b: list[Level]
    a: list[Level]


@dataclass(slots=True)
class ReplayedBook:
    """One symbol's book as of a place in the timeline: a recorded snapshot and the diffs since."""

    body: bytes = b""
    last: int = 0
    moved: bool = False
    bids: dict[int, Level] = field(default_factory=dict)
    asks: dict[int, Level] = field(default_factory=dict)

    def reset(self, body: bytes) -> None:
        """Begin anew from a snapshot, unless it is older than what is known."""
        snapshot = msgspec.json.decode(body, type=Snapshot)
        if self.body and snapshot.last_update_id < self.last:
            return
        self.body, self.last, self.moved = body, snapshot.last_update_id, False
        self.bids = {parse_amount(level[0]): level for level in snapshot.bids}
        self.asks = {parse_amount(level[0]): level for level in snapshot.asks}

    def apply(self, data: bytes) -> None:
        diff = msgspec.json.decode(data, type=_Diff)
        if not self.body or diff.u <= self.last:
            return
        self.last, self.moved = diff.u, True
        for side, levels in ((self.bids, diff.b), (self.asks, diff.a)):
            for level in levels:
                if parse_amount(level[1]):
                    side[parse_amount(level[0])] = level
                else:
                    side.pop(parse_amount(level[0]), None)

    def answer(self, limit: int) -> bytes:
        """The recorded body where nothing has changed since and all of it was asked for."""
        if not self.moved and limit >= max(len(self.bids), len(self.asks)):
            return self.body
        bids = [self.bids[price] for price in sorted(self.bids, reverse=True)[:limit]]
        asks = [self.asks[price] for price in sorted(self.asks)[:limit]]
        return msgspec.json.encode({"lastUpdateId": self.last, "bids": bids, "asks": asks})


class Replay:
    """A capture on its timeline. ``speed`` 0: as fast as the clients read."""

    def __init__(self, capture: Capture, hub: Hub, speed: float) -> None:
        self._items = capture.items
        self._hub = hub
        self._speed = speed
        self._aliases = _aliases(capture.streams)
        self._first_snapshot: dict[str, int] = {}
        for index, item in enumerate(capture.items):
            if isinstance(item, Body) and item.symbol and item.path.endswith("/depth"):
                self._first_snapshot.setdefault(item.symbol, index)
        self._books: dict[str, ReplayedBook] = {}
        self._booked: dict[str, int] = {}
        self._from_start: set[tuple[Listener, str]] = set()
        self._answered: set[str] = set()
        self._waiting: list[tuple[int, asyncio.Event]] = []
        self.position = 0
        self.frames_total = capture.frames
        self.frames_sent = 0
        self.frames_played = 0
        self.timelines = 0
        self.done = False

    async def run(self) -> None:
        """Play the timeline for whoever listens, again and again, until cancelled."""
        while True:
            await self._until(listened=True)
            await asyncio.sleep(LEAD_SECONDS)
            self.timelines += 1
            self.frames_sent = self.frames_played = 0
            self.done = False
            await self._play()
            await self._until(listened=False)
            self._rewind()

    async def body(self, path: str, params: Mapping[str, str]) -> bytes | None:
        """The recorded answer to a public request; None where the recording has none. Raises ApiError."""
        symbol = params.get("symbol", "")
        if path.endswith("/depth"):
            read.required(params, "symbol")
            if symbol not in self._first_snapshot:
                raise bad_symbol()
            return await self._depth(symbol, read.bounded(params, "limit", 100, 5000))
        found = None
        for index, item in enumerate(self._items):
            if found is not None and index >= self.position:
                break
            if isinstance(item, Body) and item.path == path and item.symbol in ("", symbol):
                found = item.data
        if found is not None and path.endswith("/exchangeInfo"):
            return _only_asked(found, params)
        return found

    def stats(self) -> dict[str, object]:
        """``frames_sent``: frames of this timeline that at least one client was sent."""
        return {
            "frames_sent": self.frames_sent,
            "frames_played": self.frames_played,
            "frames_total": self.frames_total,
            "timelines": self.timelines,
            "done": self.done,
        }

    # -- the timeline

    async def _until(self, listened: bool) -> None:
        while bool(self._hub.by_name) is not listened:
            await self._hub.changed()

    async def _play(self) -> None:
        self._from_start = {(one, name) for name, heard in self._hub.by_name.items() for one in heard}
        loop = asyncio.get_running_loop()
        started = loop.time()
        first = next(item.t for item in self._items if isinstance(item, Frame))
        for index, item in enumerate(self._items):
            if self._speed:
                delay = started + (item.t - first) / self._speed - loop.time()
                if delay > 0:
                    await asyncio.sleep(delay)
            if index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
            if not self._hub.by_name:
                return
            if isinstance(item, Frame):
                await self._send(item)
            self._reach(index + 1)
        self.done = True

    async def _send(self, frame: Frame) -> None:
        self.frames_played += 1
        heard = False
        for name in self._aliases[frame.stream]:
            for listener in list(self._hub.by_name.get(name, ())):
                await listener.sink.send_now(wrap(name, frame.data) if listener.combined else frame.data)
                self._hub.frames_sent += 1
                heard = True
        self.frames_sent += heard

    def _reach(self, position: int) -> None:
        self.position = position
        if self._waiting and self._waiting[0][0] < position:
            for _, event in [waiting for waiting in self._waiting if waiting[0] < position]:
                event.set()
            self._waiting = [waiting for waiting in self._waiting if waiting[0] >= position]

    def _rewind(self) -> None:
        """Back to the beginning; the counts stay until the next timeline starts."""
        self.position = 0
        self._from_start.clear()
        self._answered.clear()
        self._books.clear()
        self._booked.clear()
        for _, event in self._waiting:
            event.set()
        self._waiting.clear()

    # -- depth

    async def _depth(self, symbol: str, limit: int) -> bytes:
        first = self._first_snapshot[symbol]
        if self._hub.by_name and self.position <= first:
            event = asyncio.Event()
            self._waiting.append((first, event))
            self._waiting.sort(key=lambda waiting: waiting[0])
            await event.wait()
        if self.position <= first or (symbol not in self._answered and self._all_from_start(symbol)):
            self._answered.add(symbol)
            return self._recorded(symbol, first).answer(limit)
        return self._book(symbol).answer(limit)

    def _all_from_start(self, symbol: str) -> bool:
        """Whether every present listener to the symbol's diffs has heard them all."""
        names = {name for stream in self._diffs(symbol) for name in self._aliases[stream]}
        present = {(one, name) for name in names for one in self._hub.by_name.get(name, ())}
        return bool(present) and present <= self._from_start

    def _diffs(self, symbol: str) -> set[str]:
        start = f"{symbol.lower()}@depth"
        return {name for name in self._aliases if name == start or name.startswith(start + "@")}

    def _recorded(self, symbol: str, first: int) -> ReplayedBook:
        """The newest recorded snapshot that has been reached, and at least the first."""
        book = ReplayedBook()
        for item in self._items[first : max(self.position, first + 1)]:
            if isinstance(item, Body) and item.symbol == symbol and item.path.endswith("/depth"):
                book.reset(item.data)
        return book

    def _book(self, symbol: str) -> ReplayedBook:
        """The symbol's book at the present position, carried on from where it was last asked for."""
        book = self._books.setdefault(symbol, ReplayedBook())
        diffs = self._diffs(symbol)
        for item in self._items[self._booked.get(symbol, 0) : self.position]:
            if isinstance(item, Frame):
                if item.stream in diffs:
                    book.apply(item.data)
            elif item.symbol == symbol and item.path.endswith("/depth"):
                book.reset(item.data)
        self._booked[symbol] = self.position
        return book


def _aliases(streams: set[str]) -> dict[str, list[str]]:
    """Under which names each recorded stream is served: a recording of one depth speed serves a wish for the other."""
    served = {}
    for stream in streams:
        other = stream.removesuffix("@100ms") if stream.endswith("@depth@100ms") else stream + "@100ms"
        wanted = stream.endswith(("@depth", "@depth@100ms")) and other not in streams
        served[stream] = [stream, other] if wanted else [stream]
    return served


def _only_asked(body: bytes, params: Mapping[str, str]) -> bytes:
    """exchangeInfo cut down to ``symbol`` or ``symbols``; the whole body where neither is asked for."""
    symbol, symbols = params.get("symbol"), read.names(params, "symbols")
    wanted = [symbol] if symbol is not None else symbols
    if wanted is None:
        return body
    info = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    listed = {
        msgspec.json.decode(raw, type=_Named).symbol: raw
        for raw in msgspec.json.decode(info.get("symbols", msgspec.Raw(b"[]")), type=list[msgspec.Raw])
    }
    if any(name not in listed for name in wanted):
        raise bad_symbol()
    return msgspec.json.encode({**info, "symbols": [listed[name] for name in wanted]})


class _Named(msgspec.Struct, rename="camel"):
    symbol: str
    base_asset: str = ""
    quote_asset: str = ""


class _Listing(msgspec.Struct):
    symbols: list[_Named] = []


def pairs_of(capture: Capture) -> list[PairConfig]:
    """The recording's symbols as pairs, for the private endpoints: names from its exchangeInfo where it has one."""
    listed: dict[str, _Named] = {}
    precision: dict[str, tuple[str, str, str]] = {}
    for item in capture.items:
        if isinstance(item, Body) and item.path.endswith("/exchangeInfo"):
            listing = msgspec.json.decode(item.data, type=_Listing)
            listed |= {named.symbol: named for named in listing.symbols}
        elif isinstance(item, Body) and item.path.endswith("/depth"):
            precision.setdefault(item.symbol, _precision(item.data))
    pairs = []
    for symbol in capture.symbols():
        named = listed.get(symbol) or _guess(symbol)
        price, tick, step = precision.get(symbol, ("1", "0.00000001", "0.00000001"))
        if named.base_asset and named.quote_asset:
            pair = f"{named.base_asset}-{named.quote_asset}"
            pairs.append(
                PairConfig(
                    pair=pair,
                    price=price,
                    price_increment=tick,
                    size_increment=step,
                    min_notional="0.00000001",
                    levels=0,
                )
            )
    return pairs


def _guess(symbol: str) -> _Named:
    base, _, quote = (split_symbol(symbol) or "").partition("-")
    return _Named(symbol, base, quote)


def _precision(body: bytes) -> tuple[str, str, str]:
    """A price of the book, and the finest price and size increments that the book's levels show."""
    snapshot = msgspec.json.decode(body, type=Snapshot)
    levels = snapshot.bids + snapshot.asks
    if not levels:
        return "1", "0.00000001", "0.00000001"
    tick, step = (_finest([parse_amount(level[which]) for level in levels]) for which in (0, 1))
    return levels[0][0], tick, step


def _finest(amounts: list[int]) -> str:
    unit = ONE
    while unit > 1 and any(amount % unit for amount in amounts):
        unit //= 10
    return f"{unit // ONE}.{unit % ONE:08d}"
