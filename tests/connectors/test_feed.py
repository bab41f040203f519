from __future__ import annotations

import json

import pytest

from engine.book import BookSync, OrderBook, SyncState
from engine.connectors.base import ConnectionPlan
from engine.connectors.errors import TransportError
from engine.connectors.feed import MarketDataFeed
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings

PAIRS = ("BTC-USDT", "ETH-USDT")
CONN = ConnectionPlan(url="ws://venue/stream", pairs=PAIRS)


@pytest.fixture
def feed() -> MarketDataFeed:
    protocol = create(ConnectorSettings(connector="b", venue="binance", pairs=PAIRS)).market_data()
    books = {pair: BookSync(OrderBook(pair, -2, -5), protocol.sequence_rule()) for pair in PAIRS}
    return MarketDataFeed(protocol, books)


def depth(first: int, last: int, bids: list[list[str]], asks: list[list[str]], symbol: str = "BTCUSDT") -> bytes:
    event = {"e": "depthUpdate", "E": 1, "s": symbol, "U": first, "u": last, "b": bids, "a": asks}
    return json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": event}).encode()


def quote(update_id: int, bid: str, ask: str) -> bytes:
    event = {"u": update_id, "s": "BTCUSDT", "b": bid, "B": "1", "a": ask, "A": "1"}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": event}).encode()


SNAPSHOT = json.dumps({"lastUpdateId": 10, "bids": [["100.00", "1"]], "asks": [["101.00", "1"]]})


def test_opening_asks_for_a_snapshot_of_each_pair(feed: MarketDataFeed) -> None:
    result = feed.on_open(CONN)
    assert [need.pair for need in result.snapshots] == list(PAIRS)
    request = result.snapshots[0].request
    assert request is not None
    assert request.path == "/api/v3/depth"
    assert request.query == "symbol=BTCUSDT&limit=1000"
    assert request.weight == 50


def test_diffs_before_the_snapshot_are_put_on_it(feed: MarketDataFeed) -> None:
    need = feed.on_open(CONN).snapshots[0]
    assert not feed.on_frame(CONN, depth(9, 10, [], [["101.00", "9"]]), 1).updated
    assert not feed.on_frame(CONN, depth(11, 12, [["100.50", "2"]], []), 2).updated
    result = feed.on_snapshot("BTC-USDT", SNAPSHOT, need.epoch)
    assert result.updated == ("BTC-USDT",)
    book = feed.books["BTC-USDT"]
    assert book.state is SyncState.SYNCED
    assert book.update_id == 12
    assert book.book.depth_strings() == ([("100.50", "2.00000"), ("100.00", "1.00000")], [("101.00", "1.00000")])


def test_W2_a_gap_unsyncs_that_pair_alone_and_asks_again(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    feed.on_snapshot("BTC-USDT", SNAPSHOT)
    feed.on_snapshot("ETH-USDT", SNAPSHOT)
    result = feed.on_frame(CONN, depth(13, 14, [], []), 3)
    assert result.updated == ("BTC-USDT",)
    assert [need.pair for need in result.snapshots] == ["BTC-USDT"]
    assert [(problem.kind, problem.pair) for problem in result.problems] == [("gap", "BTC-USDT")]
    assert feed.books["BTC-USDT"].state is SyncState.BUFFERING
    assert feed.books["ETH-USDT"].state is SyncState.SYNCED


def test_W4_a_reconnection_resyncs_and_a_late_snapshot_is_not_taken(feed: MarketDataFeed) -> None:
    old = feed.on_open(CONN).snapshots[0]
    feed.on_snapshot("BTC-USDT", SNAPSHOT, old.epoch)
    assert feed.on_close(CONN).updated == PAIRS
    assert feed.books["BTC-USDT"].state is SyncState.UNSYNCED
    new = feed.on_open(CONN).snapshots[0]
    assert new.epoch != old.epoch
    assert not feed.on_snapshot("BTC-USDT", SNAPSHOT, old.epoch).updated
    assert feed.on_snapshot("BTC-USDT", SNAPSHOT, new.epoch).updated == ("BTC-USDT",)


def test_a_snapshot_that_failed_is_asked_for_again(feed: MarketDataFeed) -> None:
    need = feed.on_open(CONN).snapshots[0]
    for answer in (TransportError("cut off", sent=True), b'{"no": "book"}', "not json"):
        again = feed.on_snapshot("BTC-USDT", answer, need.epoch)
        assert [one.pair for one in again.snapshots] == ["BTC-USDT"]
        assert again.problems[0].kind == "snapshot_failed"
        assert again.problems[0].detail
    assert feed.counters.unparsed == 2
    feed.on_close(CONN)
    assert not feed.on_snapshot("BTC-USDT", TransportError("late", sent=True), need.epoch).snapshots


def test_a_snapshot_older_than_what_is_buffered_is_asked_for_again(feed: MarketDataFeed) -> None:
    need = feed.on_open(CONN).snapshots[0]
    feed.on_frame(CONN, depth(50, 51, [], []), 1)
    result = feed.on_snapshot("BTC-USDT", SNAPSHOT, need.epoch)
    assert [one.pair for one in result.snapshots] == ["BTC-USDT"]
    assert result.problems[0].kind == "snapshot_too_old"


def test_quotes_are_compared_at_their_very_id(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    feed.on_snapshot("BTC-USDT", SNAPSHOT)
    assert not feed.on_frame(CONN, quote(10, "100.00", "101.00"), 1).problems
    assert not feed.on_frame(CONN, quote(12, "100.00", "999.00"), 1).problems
    problems = feed.on_frame(CONN, depth(11, 12, [], []), 2).problems
    assert [problem.kind for problem in problems] == ["mismatch"]
    counters = feed.books["BTC-USDT"].counters
    assert (counters.bbo_checked, counters.bbo_equal) == (2, 1)


def test_a_frame_that_cannot_be_read_is_counted_and_harms_nothing(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    feed.on_snapshot("BTC-USDT", SNAPSHOT)
    for frame in (b"", b"{", b"[]", b"\xff\xfe", b'{"stream":"btcusdt@depth@100ms","data":{"U":"x"}}', "{}"):
        result = feed.on_frame(CONN, frame, 1)
        assert result.problems[0].kind == "unparsed"
    assert feed.counters.unparsed == 6
    assert feed.on_frame(CONN, depth(11, 11, [["100.10", "1"]], []), 2).updated == ("BTC-USDT",)


@pytest.mark.parametrize(
    ("venue", "snapshot", "update"),
    [
        (
            "coinbase_exchange",
            '{"type":"snapshot","product_id":"%s","bids":[["1","2"]],"asks":[["3","4"]]}',
            '{"type":"l2update","product_id":"%s","changes":[["buy","1","5"]]',
        ),
        (
            "kraken_v1",
            '[1,{"as":[["3","4","1.0"]],"bs":[["1","2","1.0"]]},"book-100","%s"]',
            '[1,{"b":[["1","5","1.0"]]},"book-100"',
        ),
    ],
)
def test_a_frame_that_cannot_be_read_costs_books_without_numbers_their_sync(
    venue: str, snapshot: str, update: str
) -> None:
    connector = create(ConnectorSettings(connector="c", venue=venue, pairs=PAIRS))
    protocol = connector.market_data()
    books = {pair: BookSync(OrderBook(pair, 0, 0), protocol.sequence_rule(pair)) for pair in (*PAIRS, "LTC-USDT")}
    feed = MarketDataFeed(protocol, books)
    feed.on_open(CONN)
    other = ConnectionPlan(url="ws://venue/stream", pairs=("LTC-USDT",))
    feed.on_open(other)
    for pair in books:
        spelled = connector.symbol(pair)
        assert feed.on_frame(CONN if pair in PAIRS else other, snapshot % spelled, 1).updated == (pair,)
    broken = update.replace("%s", connector.symbol("BTC-USDT"))
    result = feed.on_frame(CONN, broken, 2)
    assert [(problem.kind, problem.pair) for problem in result.problems] == [
        ("unparsed", ""),
        *(("gap", pair) for pair in PAIRS),
    ]
    assert result.updated == PAIRS
    assert [(need.pair, need.resubscribe) for need in result.snapshots] == [
        (pair, protocol.resubscribe(pair)) for pair in PAIRS
    ]
    assert [book.state for book in books.values()] == [SyncState.BUFFERING, SyncState.BUFFERING, SyncState.SYNCED]
    assert feed.counters.unparsed == 1
    again = feed.on_frame(CONN, broken, 3)
    assert ([problem.kind for problem in again.problems], again.snapshots) == (["unparsed"], ()), (
        "it is asked for already"
    )
    assert feed.on_frame(CONN, snapshot % connector.symbol("BTC-USDT"), 4).updated == ("BTC-USDT",)


@pytest.mark.parametrize(
    ("venue", "refusal"),
    [
        ("binance", '{"error":{"code":2,"msg":"Invalid request"},"id":2}'),
        ("binance", '{"code":2,"msg":"Invalid request","id":2}'),
        ("binance_perpetual", '{"error":{"code":2,"msg":"Invalid request"},"id":1}'),
        ("kucoin", '{"id":"/market/level2:0","type":"error","code":404,"data":"no topic"}'),
    ],
)
def test_a_connection_on_which_a_subscription_was_refused_is_left(venue: str, refusal: str) -> None:
    pairs = tuple(f"COIN{number}-USDT" for number in range(100))
    protocol = create(ConnectorSettings(connector="c", venue=venue, pairs=pairs)).market_data()
    feed = MarketDataFeed(protocol, {})
    plan = protocol.connections(pairs)[0]
    assert plan.opening
    result = feed.on_frame(plan, refusal, 1)
    assert result.reconnect
    assert [problem.kind for problem in result.problems] == ["notice"]


def test_an_error_that_answers_nothing_of_ours_is_told_alone(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    result = feed.on_frame(CONN, b'{"error":{"code":2,"msg":"Invalid request"}}', 1)
    assert not result.reconnect
    assert [problem.kind for problem in result.problems] == ["notice"]


def test_a_value_that_is_no_number_costs_that_pair_its_sync(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    feed.on_snapshot("BTC-USDT", SNAPSHOT)
    result = feed.on_frame(CONN, depth(11, 11, [["abc", "1"]], []), 2)
    assert result.problems[0].kind == "bad_value"
    assert result.snapshots


def test_the_common_case_makes_no_new_result(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    feed.on_snapshot("BTC-USDT", SNAPSHOT)
    first = feed.on_frame(CONN, depth(11, 11, [], []), 1)
    assert feed.on_frame(CONN, depth(12, 12, [], []), 2) is first
    assert feed.last_frame_mono_ns == 2


def test_pairs_that_nobody_follows_are_counted(feed: MarketDataFeed) -> None:
    feed.on_open(CONN)
    del feed.books["ETH-USDT"]
    assert not feed.on_frame(CONN, depth(1, 2, [], [], "ETHUSDT"), 1).updated
    assert feed.counters.unknown == 1


def test_trades_and_notices_are_passed_on(feed: MarketDataFeed) -> None:
    trade = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 7, "p": "100.5", "q": "2", "T": 3, "m": True, "M": True}
    frame = json.dumps({"stream": "btcusdt@trade", "data": trade})
    assert feed.on_frame(CONN, frame, 1).trades[0].trade_id == "7"
    result = feed.on_frame(CONN, b'{"e":"serverShutdown","E":1}', 2)
    assert result.reconnect
    assert result.problems[0].kind == "notice"
    assert not feed.on_frame(CONN, b'{"result":null,"id":1}', 3).problems


def test_W2_a_diff_that_best_quotes_promised_is_missed_after_a_while(feed: MarketDataFeed) -> None:
    need = feed.on_open(CONN).snapshots[0]
    feed.on_snapshot("BTC-USDT", SNAPSHOT, need.epoch)
    feed.on_frame(CONN, depth(11, 12, [], []), 1)
    feed.on_frame(CONN, quote(13, "100.00", "101.00"), 2)
    overdue_ns = round(feed.protocol.quote_overdue_s * 1e9)
    assert feed.on_time(1_000).snapshots == ()
    assert feed.on_time(1_000 + overdue_ns - 1).snapshots == ()
    feed.on_frame(CONN, depth(13, 13, [], []), 3)
    assert feed.on_time(1_000 + overdue_ns).snapshots == (), "it came"
    feed.on_frame(CONN, quote(14, "100.00", "101.00"), 4)
    feed.on_time(10**10)
    feed.on_frame(CONN, quote(15, "100.00", "101.00"), 5)
    result = feed.on_time(10**10 + overdue_ns)
    assert [need.pair for need in result.snapshots] == ["BTC-USDT"]
    assert result.updated == ("BTC-USDT",)
    (problem,) = result.problems
    assert (problem.kind, problem.detail) == ("gap", "book at 13, best quotes up to 15, and no diff came")
    assert feed.books["BTC-USDT"].state is SyncState.BUFFERING
    assert feed.on_time(10**12).snapshots == ()
