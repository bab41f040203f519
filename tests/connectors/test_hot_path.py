"""The hot path beside the general one: the same answers, the same books, the same counts, whatever comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book import BookSync, OrderBook, RangeRule, SyncCounters, SyncState, Verdict
from engine.book.events import DepthDiff
from engine.connectors.base import ConnectionPlan
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.feed import FeedResult, MarketDataFeed
from engine.connectors.symbols import SymbolMap
from engine.messages import TradingRule

PAIRS = ("BTC-USDT", "ETH-USDT")
CONN = ConnectionPlan(url="ws://venue/stream", pairs=PAIRS)
COUNTS = [name for name in dir(SyncCounters) if not name.startswith("_")]


class _General(BinanceMarketData):
    def hot_path(self) -> Any:
        return None


def make(protocol: type[BinanceMarketData] = BinanceMarketData) -> MarketDataFeed:
    symbols = SymbolMap(lambda base, quote: base + quote, PAIRS)
    books = {pair: BookSync(OrderBook(pair, -2, -5), RangeRule(), max_old_diffs=4, max_mismatches=2) for pair in PAIRS}
    return MarketDataFeed(protocol("wss://venue", symbols), books)


def depth(first: int, last: int, bids: Any, asks: Any, symbol: str = "BTCUSDT") -> bytes:
    event = {"e": "depthUpdate", "E": last, "s": symbol, "U": first, "u": last, "b": bids, "a": asks}
    return json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": event}, separators=(",", ":")).encode()


def quote(update_id: int, bid: str, ask: str) -> bytes:
    event = {"u": update_id, "s": "BTCUSDT", "b": bid, "B": "1", "a": ask, "A": "1"}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": event}, separators=(",", ":")).encode()


def snapshot(last: int) -> bytes:
    bids = [[f"{100 - n / 100:.2f}", "1"] for n in range(20)]
    asks = [[f"{100.01 + n / 100:.2f}", "1"] for n in range(20)]
    return json.dumps({"lastUpdateId": last, "bids": bids, "asks": asks}).encode()


def seen(feed: MarketDataFeed) -> list[Any]:
    """All that can be told of a feed's books."""
    return [
        (
            *(pair, sync.state, sync.update_id, sync.time_ns, sync.buffered, sync.awaiting_snapshot),
            {name: getattr(sync.counters, name) for name in COUNTS},
            sync.book.depth_strings() if sync.book.is_valid else sync.book.invalid_reason,
        )
        for pair, sync in feed.books.items()
    ] + [getattr(feed.counters, name) for name in ("frames", "unparsed", "diffs", "quotes", "trades", "unknown")]


def opened(protocol: type[BinanceMarketData] = BinanceMarketData) -> MarketDataFeed:
    feed = make(protocol)
    feed.on_open(CONN)
    for pair in PAIRS:
        feed.on_snapshot(pair, snapshot(10))
    feed.on_frame(CONN, depth(11, 11, [], []), 1)
    return feed


def test_diffs_that_continue_a_book_in_sync_take_the_hot_path_and_give_one_and_the_same_answer() -> None:
    feed = opened()
    first = feed.on_frame(CONN, depth(12, 13, [["99.99", "0.00000000"]], [["100.015", "0"]][:0]), 2)
    assert feed.hot == 1
    assert feed.on_frame(CONN, depth(13, 14, [["100.00", "2.50000000"]], []), 3) is first
    assert first == FeedResult(updated=("BTC-USDT",))
    assert feed.hot == 2
    sync = feed.books["BTC-USDT"]
    assert (sync.update_id, sync.time_ns, sync.counters.updates) == (14, 14_000_000, 3)
    assert sync.book.depth_strings(2)[0] == [("100.00", "2.50000"), ("99.98", "1.00000")]
    assert feed.last_frame_mono_ns == 3


@pytest.mark.parametrize(
    "unusual",
    [
        *(depth(14, 15, [], []), depth(9, 11, [], []), depth(12, 12, [["100.02", "1"]], [])),
        *(depth(12, 12, [["99.001", "1"]], []), depth(12, 12, [["99", "1e3"]], []), depth(12, 12, [["x", "1"]], [])),
        *(depth(12, 12, [], [], "XRPUSDT"), depth(13, 12, [], []), depth(12, 12, [], [["101", "99999999999999999"]])),
    ],
)
def test_whatever_does_not_simply_continue_the_book_goes_the_general_way(unusual: bytes) -> None:
    hot, general = opened(), opened(_General)
    assert hot.on_frame(CONN, unusual, 2) == general.on_frame(CONN, unusual, 2)
    assert hot.hot == 0
    assert seen(hot) == seen(general)


def test_quotes_that_wait_are_compared_where_the_hot_path_gets_to_their_id() -> None:
    hot, general = opened(), opened(_General)
    for feed in (hot, general):
        feed.on_frame(CONN, quote(12, "100.00", "100.01"), 2)
        feed.on_frame(CONN, quote(13, "1.00", "100.01"), 2)
    for number in (12, 13):
        assert hot.on_frame(CONN, depth(number, number, [], []), 3) == general.on_frame(
            CONN, depth(number, number, [], []), 3
        )
    assert hot.hot == 4
    assert seen(hot) == seen(general)
    assert hot.books["BTC-USDT"].counters.bbo_checked == 2
    assert hot.books["BTC-USDT"].counters.bbo_equal == 1


def test_a_quote_that_is_not_simply_ahead_of_its_book_goes_the_general_way() -> None:
    hot, general = opened(), opened(_General)
    sync = hot.books["BTC-USDT"]
    frames = [quote(number, "100.00", "100.01") for number in (10, 11, 14, 13, 14, 15)]
    frames += [quote(16, "100.00", "100.01").replace(b"BTCUSDT", b"XRPUSDT"), quote(16, "1e2", "100.01")]
    for data in frames:
        assert hot.on_frame(CONN, data, 2) == general.on_frame(CONN, data, 2)
        assert seen(hot) == seen(general)
    assert hot.hot == 2
    assert [waiting.update_id for waiting in sync._quotes] == [13, 14, 15, 16]
    for feed in (hot, general):
        feed.on_frame(CONN, depth(12, 14, [], []), 3)
    assert [waiting.update_id for waiting in sync._quotes] == [15, 16]
    assert (sync.counters.bbo_checked, sync.counters.bbo_equal) == (2, 2)
    assert seen(hot) == seen(general)


def test_as_many_quotes_wait_as_may() -> None:
    hot, general = opened(), opened(_General)
    for feed in (hot, general):
        for number in range(12, 1_020):
            feed.on_frame(CONN, quote(number, "100.00", "100.01"), 2)
        assert [waiting.update_id for waiting in feed.books["BTC-USDT"]._quotes] == list(range(20, 1_020))
    assert hot.hot == 1_000
    assert seen(hot) == seen(general)


def test_books_and_symbols_may_change_at_any_time() -> None:
    feed = opened()
    assert isinstance(feed.protocol, BinanceMarketData)
    _, symbols = feed.protocol.hot_path()
    feed.on_frame(CONN, depth(12, 12, [], []), 2)
    assert feed.hot == 1
    left = feed.books.pop("BTC-USDT")
    feed.on_frame(CONN, depth(13, 13, [], []), 2)
    assert (left.update_id, feed.counters.unknown, feed.hot) == (12, 1, 1)
    feed.books["BTC-USDT"] = left
    feed.on_frame(CONN, depth(13, 13, [], []), 2)
    assert (left.update_id, feed.hot) == (13, 2)
    feed.on_frame(CONN, depth(11, 11, [], [], "ETHUSDT"), 2)
    symbols.learn([_rule("ETH-USDT", "BTCUSDT")])
    feed.on_frame(CONN, depth(12, 14, [], []), 2)
    assert (left.update_id, feed.books["ETH-USDT"].update_id) == (13, 14)


def _rule(pair: str, symbol: str) -> TradingRule:
    base, quote = pair.split("-")
    increments = {"price_increment": Decimal("0.01"), "size_increment": Decimal("0.00001")}
    return TradingRule(pair=pair, symbol=symbol, base=base, quote=quote, **increments)


@pytest.mark.parametrize("odd", [b"BTCUSDT\x00", b"BTCUSDT\x00\x00", b"BTCUSD", b"BTCUSDTT", b"BTCUSDT\\u0000"])
def test_a_symbol_that_only_looks_like_a_known_one_is_not_taken_for_it(odd: bytes) -> None:
    hot, general = opened(), opened(_General)
    for feed in (hot, general):
        feed.on_frame(CONN, depth(12, 12, [], []), 1)
    frame = depth(13, 13, [["99.99", "7"]], []).replace(b'"BTCUSDT"', b'"%b"' % odd)
    assert hot.on_frame(CONN, frame, 2) == general.on_frame(CONN, frame, 2)
    assert seen(hot) == seen(general)
    assert (hot.hot, hot.books["BTC-USDT"].update_id) == (1, 12)


def test_many_symbols_each_have_their_own_book() -> None:
    pairs = [f"C{n * 7919}-USDT" for n in range(300)]
    symbols = SymbolMap(lambda base, quote: base + quote, pairs)
    books = {pair: BookSync(OrderBook(pair, -2, -5), RangeRule()) for pair in pairs}
    feed = MarketDataFeed(BinanceMarketData("wss://venue", symbols), books)
    conn = ConnectionPlan(url="ws://venue", pairs=tuple(pairs))
    feed.on_open(conn)
    for pair in pairs:
        feed.on_snapshot(pair, snapshot(10))
    for round_ in (11, 12, 13):
        for n, pair in enumerate(pairs):
            symbol = pair.replace("-", "")
            result = feed.on_frame(conn, depth(round_, round_, [["99", str(n + round_)]], [], symbol), 1)
            assert result.updated == (pair,)
    assert feed.hot == 600
    for n, pair in enumerate(pairs):
        assert ("99.00", f"{n + 13}.00000") in books[pair].book.depth_strings()[0]


class _Stricter(RangeRule):
    def following(self, update_id: int, diff: DepthDiff) -> Verdict:
        return Verdict.GAP


def test_a_rule_of_its_own_and_an_audit_are_left_to_the_general_path() -> None:
    feed = opened()
    sync = feed.books["BTC-USDT"]
    sync.begin_audit()
    feed.on_frame(CONN, depth(12, 12, [], []), 2)
    assert (feed.hot, sync.update_id) == (0, 12)
    feed = make()
    feed.books["BTC-USDT"] = BookSync(OrderBook("BTC-USDT", -2, -5), _Stricter())
    feed.on_open(CONN)
    feed.on_snapshot("BTC-USDT", snapshot(10))
    feed.on_frame(CONN, depth(11, 11, [], []), 1)
    feed.on_frame(CONN, depth(11, 12, [], []), 1)
    assert feed.books["BTC-USDT"].state is SyncState.BUFFERING


PRICES = st.integers(9970, 10030).map(lambda ticks: f"{ticks / 100:.2f}")
SIZES = st.sampled_from(["0", "0.00000000", "1", "2.5", "12345678.12345", "0.000001"])
CHANGES = st.lists(st.tuples(st.integers(0, 30), SIZES), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("diff"), st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1, -3]), CHANGES, CHANGES, st.booleans()),
        st.tuples(st.just("crossing"), PRICES),
        st.tuples(st.just("quote"), PRICES, PRICES, st.integers(-1, 3)),
        st.tuples(st.just("snapshot")),
        st.tuples(st.just("reconnect")),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=250, deadline=None)
def test_both_paths_give_the_same_answers_and_books_whatever_comes(steps: list[Any]) -> None:
    feeds = opened(), opened(_General)
    last = 11

    def both(act: Callable[[MarketDataFeed], FeedResult]) -> None:
        hot, general = (act(feed) for feed in feeds)
        assert hot == general
        assert seen(feeds[0]) == seen(feeds[1])

    for step in steps:
        if step[0] == "diff":
            first = last + 1 + step[1]
            last = max(first + 1, last)
            bids = [[f"{100 - far / 100:.2f}", size] for far, size in step[2]]
            asks = [[f"{100.01 + far / 100:.2f}", size] for far, size in step[3]]
            frame = depth(first, first + 1, sorted(bids) if step[4] else bids, asks)
            both(lambda feed, frame=frame: feed.on_frame(CONN, frame, 1))  # type: ignore[misc]
        elif step[0] == "crossing":
            last += 1
            frame = depth(last, last, [[step[1], "1"]], [])
            both(lambda feed, frame=frame: feed.on_frame(CONN, frame, 1))  # type: ignore[misc]
        elif step[0] == "quote":
            frame = quote(last + step[3], step[1], step[2])
            both(lambda feed, frame=frame: feed.on_frame(CONN, frame, 1))  # type: ignore[misc]
        elif step[0] == "snapshot":
            body = snapshot(last)
            both(lambda feed, body=body: feed.on_snapshot("BTC-USDT", body))  # type: ignore[misc]
        else:
            both(lambda feed: feed.on_close(CONN))
            both(lambda feed: feed.on_open(CONN))
            body = snapshot(last)
            both(lambda feed, body=body: feed.on_snapshot("BTC-USDT", body))  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(3))
def test_a_side_is_the_plain_twins_after_any_changes_in_any_order(seed: int) -> None:
    random = Random(seed)
    feed = opened()
    twin = {f"{100.01 + n / 100:.2f}": "1.00000" for n in range(20)}
    for number in range(12, 700):
        far = random.choice((3, 30, 3_000))
        prices = [f"{100.01 + random.randrange(far) / 100:.2f}" for _ in range(random.randrange(30))]
        prices = sorted(prices) if random.random() < 0.7 else prices
        changes = [[price, random.choice(("0.00000", "1.50000", "7.00000"))] for price in prices]
        for price, size in changes:
            twin[price] = size
        assert feed.on_frame(CONN, depth(number, number, [], changes), 1).updated
        expected = sorted(((p, s) for p, s in twin.items() if s != "0.00000"), key=lambda level: float(level[0]))
        assert feed.books["BTC-USDT"].book.depth_strings()[1] == expected
    assert feed.hot == 688
