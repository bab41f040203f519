"""The compiled hot path beside the general way: two feeds on the same frames, which must never tell apart.

Most mutated frames belong to no book in sync, and the hot path has nothing to do with them. So these books are kept in
sync, and the frames that are mutated for them continue where they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any

from engine.book import BookSync, OrderBook, SyncCounters, SyncState
from engine.book.events import BestQuote, DepthDiff
from engine.connectors.base import ConnectionPlan, MarketEvent
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.binance.scanner import BinanceScanner
from engine.connectors.feed import MarketDataFeed
from engine.connectors.symbols import SymbolMap

_PAIR, _SYMBOL = "BTC-USDT", "BTCUSDT"
_CONN = ConnectionPlan(url="wss://venue/stream", pairs=(_PAIR,))
_FIRST_ID = 156
_FRAMES_A_BOOK = 2_000
_PRICE_EXPONENT, _SIZE_EXPONENT = -2, -5
_SCALES = ((-8, -8), (_PRICE_EXPONENT, _SIZE_EXPONENT), (-18, 0), (2, -11))
_COUNTS = [name for name in dir(SyncCounters) if not name.startswith("_")]


class _General(BinanceMarketData):
    """The protocol without its hot path."""

    def hot_path(self) -> Any:
        return None


class HotTwins:
    """Two feeds of one pair. ``hot`` counts the frames that took the hot path."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._scanner = BinanceScanner()
        self._fed = 0
        self.hot = 0
        self._begin()

    def frame(self) -> bytes:
        """A depth frame that continues the books, or a best quote from around there, as the venue spells it."""
        return self._quote() if self._random.random() < 0.3 else self._diff()

    def _quote(self) -> bytes:
        feed, choose = self._feeds[0], self._random
        sync = feed.books[_PAIR]
        bids, asks = sync.book.depth_strings(1) if sync.book.is_valid else ([], [])
        (bid, bid_size), (ask, ask_size) = (*bids, ("1", "0"))[0], (*asks, ("9", "0"))[0]
        if choose.random() < 0.1:
            bid_size = "7.5"
        event = f'{{"u":{sync.update_id + choose.choice((-1, 0, 0, 1, 1, 2, 5))},"s":"{_SYMBOL}",'
        event += f'"b":"{bid}","B":"{bid_size}","a":"{ask}","A":"{ask_size}"}}'
        if choose.random() < 0.2:
            return event.encode()
        return f'{{"stream":"{_SYMBOL.lower()}@bookTicker","data":{event}}}'.encode()

    def _diff(self) -> bytes:
        first = self._feeds[0].books[_PAIR].update_id + 1
        last = first + self._random.choice((0, 0, 1, 7))
        bids, asks = self._levels("59999"), self._levels("60001")
        event = f'{{"e":"depthUpdate","E":{1_700_000_000_000 + self._fed},"s":"{_SYMBOL}","U":{first},"u":{last},'
        event += f'"b":[{bids}],"a":[{asks}]}}'
        if self._random.random() < 0.2:
            return event.encode()
        speed = self._random.choice(("", "@100ms", "@1000ms"))
        return f'{{"stream":"{_SYMBOL.lower()}@depth{speed}","data":{event}}}'.encode()

    def compare(self, frame: bytes) -> str:
        """Puts a frame on both; what differs between them, "" if nothing does."""
        self._fed += 1
        if self._fed % _FRAMES_A_BOOK == 0:
            self._begin()
        took = self._feeds[0].hot
        answers = [feed.on_frame(_CONN, frame, self._fed) for feed in self._feeds]
        self.hot += self._feeds[0].hot - took
        seen = [_seen(feed) for feed in self._feeds]
        if answers[0] != answers[1] or seen[0] != seen[1]:
            self._begin()
            return f"hot {answers[0]} {seen[0]}\ngeneral {answers[1]} {seen[1]}"
        if not _is_synced(self._feeds[0]):
            at = self._feeds[0].books[_PAIR].update_id
            for feed in self._feeds:
                feed.on_snapshot(_PAIR, _snapshot(at))
        if not all(_is_synced(feed) for feed in self._feeds):
            self._begin()
        return ""

    def scanned(self, frame: bytes, expected: Sequence[MarketEvent] | None) -> str:
        """What is wrong with the scanner's own reading of a frame that means ``expected`` (None: that is none).

        "" if it is read alike, or declined; or if nobody knows its symbol.
        """
        scales = self._random.choice(_SCALES)
        if expected is not None and not expected:
            return ""
        event = expected[0] if expected else None
        quote = self._scanner.scan_quote(frame)
        if quote is not None:
            alike = isinstance(event, BestQuote) and event == BestQuote(event.pair, *quote[1:])
            return "" if alike else f"scanned as {quote!r}"
        found = self._scanner.scan(frame, *scales)
        if found is None:
            return ""
        if isinstance(event, DepthDiff):
            _, first, last, time_ns, *sides = found
            told = [
                [(Decimal(price).scaleb(scales[0]), Decimal(size).scaleb(scales[1])) for price, size in side]
                for side in sides
            ]
            meant = [[(Decimal(price), Decimal(size)) for price, size in side] for side in (event.bids, event.asks)]
            if (event.first_id, event.last_id, event.time_ns, meant) == (first, last, time_ns, told):
                return ""
        return f"at exponents {scales} scanned as {found!r}"

    def _begin(self) -> None:
        self._feeds = [_opened(BinanceMarketData), _opened(_General)]

    def _levels(self, whole: str) -> str:
        choose = self._random
        return ",".join(
            f'["{whole}.{choose.randrange(40):02}000000","{choose.choice(("0", "1", "25", "1234567"))}.'
            f'{choose.choice(("00000000", "12345000", "5"))}"]'
            for _ in range(choose.choice((0, 1, 3, 9)))
        )


def _opened(protocol: type[BinanceMarketData]) -> MarketDataFeed:
    symbols = SymbolMap(lambda base, quote: base + quote, (_PAIR,))
    made = protocol("wss://venue", symbols)
    book = BookSync(
        OrderBook(_PAIR, _PRICE_EXPONENT, _SIZE_EXPONENT), made.sequence_rule(), max_mismatches=made.max_mismatches
    )
    feed = MarketDataFeed(made, {_PAIR: book})
    feed.on_open(_CONN)
    feed.on_snapshot(_PAIR, _snapshot(_FIRST_ID))
    return feed


def _snapshot(update_id: int) -> str:
    return f'{{"lastUpdateId":{update_id},"bids":[["59999.01","1"]],"asks":[["60001.39","1"]]}}'


def _is_synced(feed: MarketDataFeed) -> bool:
    return feed.books[_PAIR].state is SyncState.SYNCED


def _seen(feed: MarketDataFeed) -> Sequence[object]:
    """All that can be told of a feed and its book."""
    sync, counters = feed.books[_PAIR], feed.counters
    return (
        *(sync.state, sync.update_id, sync.time_ns, sync.buffered, sync.awaiting_snapshot),
        *(getattr(sync.counters, name) for name in _COUNTS),
        *(counters.frames, counters.unparsed, counters.diffs, counters.quotes, counters.trades, counters.unknown),
        sync.book.depth_strings() if sync.book.is_valid else sync.book.invalid_reason,
    )
