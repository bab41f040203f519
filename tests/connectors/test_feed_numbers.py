"""Venues that count the frames of a connection, and books that come in the stream."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.book import BookSync, ContiguousRule, DepthDiff, DepthSnapshot, OrderBook, RangeRule, SyncState
from engine.connectors.base import ConnectionPlan, MarketEvent, SequenceNumber
from engine.connectors.feed import MarketDataFeed
from engine.connectors.okx.market_data import OkxMarketData
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.connectors.symbols import SymbolMap

PAIRS = ("BTC-USDT", "ETH-USDT")
CONN, OTHER = (ConnectionPlan(url="ws://venue", pairs=(pair,)) for pair in PAIRS)
BOTH = ConnectionPlan(url="ws://venue", pairs=PAIRS)


class Counting(OkxMarketData):
    """A frame is ``number pair``: an update of a pair's book with a number of its connection."""

    def feed(self, data: str | bytes) -> Sequence[MarketEvent]:
        number, pair = str(data).split()
        return SequenceNumber(int(number)), DepthSnapshot(pair, int(number), [("1", "1")], [("2", "1")])


@pytest.fixture
def feed() -> MarketDataFeed:
    books = {pair: BookSync(OrderBook(pair, 0, 0), ContiguousRule()) for pair in PAIRS}
    return MarketDataFeed(Counting("ws://venue", SymbolMap(lambda base, quote: f"{base}-{quote}", PAIRS)), books)


def test_a_hole_in_a_connection_s_numbers_costs_every_book_on_it_its_sync(feed: MarketDataFeed) -> None:
    feed.on_open(BOTH)
    for number, pair in enumerate(PAIRS):
        assert feed.on_frame(BOTH, f"{number} {pair}", 1).updated == (pair,)
    result = feed.on_frame(BOTH, "3 BTC-USDT", 1)
    assert {need.pair for need in result.snapshots} == set(PAIRS)
    assert all(need.request is None and need.resubscribe for need in result.snapshots)
    assert [problem.kind for problem in result.problems] == ["gap", "gap"]
    # The frame behind the hole was itself a whole book.
    assert [feed.books[pair].state for pair in PAIRS] == [SyncState.SYNCED, SyncState.BUFFERING]
    assert feed.on_frame(BOTH, "4 ETH-USDT", 1).updated == ("ETH-USDT",)
    assert not feed.on_frame(BOTH, "4 ETH-USDT", 1).problems


def test_each_connection_counts_for_itself_and_a_new_one_from_its_own_beginning(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    feed.on_open(OTHER)
    feed.on_frame(CONN, "70 BTC-USDT", 1)
    feed.on_frame(OTHER, "5 ETH-USDT", 1)
    assert not feed.on_frame(CONN, "71 BTC-USDT", 1).problems
    assert not feed.on_frame(OTHER, "6 ETH-USDT", 1).problems
    feed.on_close(CONN)
    feed.on_open(CONN)
    assert not feed.on_frame(CONN, "900 BTC-USDT", 1).problems


def test_nothing_but_old_quotes_asks_for_a_new_snapshot() -> None:
    protocol = create(ConnectorSettings(connector="b", venue="binance", pairs=PAIRS)).market_data()
    sync = BookSync(OrderBook("BTC-USDT", 0, 0), RangeRule(), max_old_quotes=3)
    feed = MarketDataFeed(protocol, {"BTC-USDT": sync})
    feed.on_open(CONN)
    sync.on_snapshot(DepthSnapshot("BTC-USDT", 10**15, [("1", "1")], [("2", "1")]))
    assert not sync.on_diff(DepthDiff("BTC-USDT", 5, 5)).applied
    frame = b'{"u":7,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}'
    results = [feed.on_frame(CONN, frame, 1) for _ in range(3)]
    assert [bool(result.snapshots) for result in results] == [False, False, True]
    assert results[-1].updated == ("BTC-USDT",)
    assert results[-1].problems[0].kind == "old_run"
