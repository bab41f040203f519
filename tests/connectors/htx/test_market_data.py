from __future__ import annotations

import gzip
import json
from decimal import Decimal

import pytest

from engine.book import BookSync, DepthDiff, DepthSnapshot, OrderBook, SyncState
from engine.connectors.base import Ack, ConnectionPlan, MarketDataProtocol, PublicTrade, Send, VenueNotice
from engine.connectors.errors import MalformedFrame
from engine.connectors.feed import MarketDataFeed
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.errors import ConfigError
from engine.messages import Side

BOOK = (
    '{"ch":"market.btcusdt.depth.step0","ts":9,"tick":{"bids":[[52690.69,0.36281],[5.2690E+4,1]],'
    '"asks":[[52691,9.1E-7]],%s}}'
)
TRADE = (
    '{"ch":"market.btcusdt.trade.detail","ts":9,"tick":{"id":1,"ts":8,"data":[{"id":137005445109359286410323766,"ts":8,'
    '"tradeId":102523573486,"amount":0.006754,"price":9.2E-7,"direction":"buy"}]}}'
)


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="h", venue="htx", pairs=("BTC-USDT",))).market_data()


def test_numbers_are_exact_and_each_message_is_the_whole_book(protocol: MarketDataProtocol) -> None:
    text = BOOK % '"version":136998124622,"ts":8'
    bids, asks = [("52690.69", "0.36281"), ("52690", "1")], [("52691", "9.1E-7")]
    for frame in (gzip.compress(text.encode()), text.encode(), text):
        (event,) = protocol.feed(frame)
        assert event == DepthSnapshot("BTC-USDT", 136998124622, bids, asks, 8_000_000)
    assert protocol.sequence_rule("BTC-USDT").replacing


def test_a_book_without_a_version_has_its_time(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(BOOK % '"ts":8')
    assert isinstance(event, DepthSnapshot)
    assert event.update_id == 8


def test_trades_are_plain_decimals(protocol: MarketDataProtocol) -> None:
    assert list(protocol.feed(TRADE)) == [
        PublicTrade("BTC-USDT", "102523573486", "0.00000092", "0.006754", Side.BUY, 8_000_000)
    ]


def test_a_ping_is_answered_with_its_number(protocol: MarketDataProtocol) -> None:
    assert list(protocol.feed(gzip.compress(b'{"ping":1492420473027}'))) == [Send('{"pong":1492420473027}')]


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    for channel in (
        "btcusdt.depth.step1",
        "btcusdt.mbp.refresh.20",
        "btcusdt.kline.1min",
        "btcusdt.bbo",
        "btcusdt.detail",
    ):
        assert not protocol.feed(json.dumps({"ch": f"market.{channel}", "ts": 1, "tick": {}}))
    assert not protocol.feed(json.dumps({"ch": "market.overview", "ts": 1}))
    assert list(protocol.feed('{"id":"a","status":"ok","subbed":"market.btcusdt.depth.step0","ts":1}')) == [Ack("a")]
    (notice,) = protocol.feed('{"status":"error","err-code":"bad-request","err-msg":"invalid topic","id":"a","ts":1}')
    assert notice == VenueNotice("bad-request", "invalid topic")


@pytest.mark.parametrize(
    "frame",
    [
        gzip.compress(b'{"ping":1}')[:-3],
        gzip.compress(b'{"ping":1}') + b"x",
        gzip.compress(b'{"ping":1}') * 2,
        b"\x1f\x8bjunk",
        gzip.compress(b" " * (17 * 1024 * 1024)),
        (BOOK % '"ts":8').replace("0.36281", '"NaN"'),
        (BOOK % '"ts":8').replace("0.36281", "-1"),
        (BOOK % '"ts":8').replace("0.36281", "1e99"),
        (BOOK % '"ts":8').replace("0.36281", "1,2"),
        (BOOK % '"version":-1,"ts":8'),
        TRADE.replace("0.006754", "-1"),
        '{"ping":-1}',
    ],
)
def test_what_cannot_be_read(protocol: MarketDataProtocol, frame: str | bytes) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(frame)


def test_symbols(protocol: MarketDataProtocol) -> None:
    entry = {"symbol": "trioeth", "base-currency": "trio", "quote-currency": "eth", "price-precision": 10}
    entry |= {"amount-precision": 2, "state": "offline", "min-order-value": 0.01}
    rules = protocol.parse_recorded(
        "https://x/v1/common/symbols", json.dumps({"status": "ok", "data": [entry, {}]})
    ).rules
    assert rules is not None
    rule = rules["TRIO-ETH"]
    assert (rule.price_increment, rule.min_notional, rule.is_trading) == (Decimal("1E-10"), Decimal("0.01"), False)


# ------------------------------------------------------------------------------------------------ changes of books


def change(number: int, before: int | None, bids: str = "", levels: int = 150) -> bytes:
    previous = "" if before is None else f'"prevSeqNum":{before},'
    tick = f'{{"seqNum":{number},{previous}"bids":[{bids}],"asks":[]}}'
    return gzip.compress(f'{{"ch":"market.btcusdt.mbp.{levels}","ts":9,"tick":{tick}}}'.encode())


def whole(number: int, levels: int = 150) -> str:
    data = f'{{"seqNum":{number},"bids":[[10,1]],"asks":[[20,1],[21,2]]}}'
    return f'{{"id":"a","rep":"market.btcusdt.mbp.{levels}","status":"ok","ts":8,"data":{data}}}'


def test_changes_name_the_number_before_their_own(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(change(7, 5, "[10.5,2.0],[1.0E1,0]"))
    assert event == DepthDiff("BTC-USDT", 7, 7, 5, [("10.5", "2.0"), ("10", "0")], [], 9_000_000)
    (event,) = protocol.feed(whole(5))
    assert event == DepthSnapshot("BTC-USDT", 5, [("10", "1")], [("20", "1"), ("21", "2")], 8_000_000, None, 150)
    assert not protocol.sequence_rule("BTC-USDT").replacing


@pytest.mark.parametrize("frame", [change(7, None), change(7, 8), change(-1, -2), change(7, 5, "[1]")])
def test_changes_that_cannot_be(protocol: MarketDataProtocol, frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(frame)


def test_other_replies_to_requests_are_no_books(protocol: MarketDataProtocol) -> None:
    for rest in ('"rep":"market.btcusdt.kline.1min","data":[{"id":1}]', '"rep":"market.btcusdt.mbp.150","data":null'):
        assert list(protocol.feed(f'{{"id":"a","status":"ok","ts":1,{rest}}}')) == [Ack("a")]
    assert list(protocol.feed('{"id":"a","status":"ok","rep":"market.btcusdt.mbp.150"}')) == [Ack("a")]


def test_one_channel_is_kept_a_symbol(protocol: MarketDataProtocol) -> None:
    assert len(protocol.feed(change(7, 5))) == 1
    assert not protocol.feed(BOOK % '"ts":8')
    assert not protocol.feed(change(7, 5, levels=20))
    assert not protocol.feed(whole(7, levels=20))
    assert len(protocol.feed((BOOK % '"ts":8').replace("btcusdt", "ethusdt"))) == 0, "nobody's"


def test_changes_wait_for_the_book_that_was_asked_for_and_a_gap_asks_anew() -> None:
    connector = create(ConnectorSettings(connector="h", venue="htx", pairs=("BTC-USDT",), options={"levels": 150}))
    protocol = connector.market_data()
    (plan, trades) = protocol.connections(("BTC-USDT",))
    assert (plan.url, plan.pairs) == ("wss://api.huobi.pro/feed", ("BTC-USDT",))
    asked = '{"req":"market.btcusdt.mbp.150","id":"req market.btcusdt.mbp.150"}'
    assert plan.opening == ('{"sub":"market.btcusdt.mbp.150","id":"market.btcusdt.mbp.150"}', asked)
    assert (trades.url, trades.pairs) == ("wss://api.huobi.pro/ws", ())
    assert [json.loads(text)["sub"] for text in trades.opening] == ["market.btcusdt.trade.detail"]
    book = BookSync(OrderBook("BTC-USDT", -1, 0), protocol.sequence_rule("BTC-USDT"))
    feed = MarketDataFeed(protocol, {"BTC-USDT": book})
    (need,) = feed.on_open(plan).snapshots
    assert (need.request, need.resubscribe) == (None, ()), "it was asked for with the subscription"
    for frame in (change(5, 3), change(8, 5, "[11,3]"), whole(5), change(9, 8, "[12,4]")):
        feed.on_frame(plan, frame if isinstance(frame, bytes) else frame.encode(), 1)
    assert (book.state, book.update_id) == (SyncState.SYNCED, 9)
    assert [float(price) for price, _ in book.book.depth_strings()[0]] == [12, 11, 10]
    (need,) = feed.on_frame(plan, change(12, 11, "[13,1]"), 2).snapshots
    assert (book.counters.gaps, need.resubscribe) == (1, (asked,))
    assert feed.on_frame(plan, whole(9).encode(), 3).problems[0].kind == "snapshot_too_old"
    feed.on_frame(plan, whole(11).encode(), 3)
    assert (book.state, book.update_id) == (SyncState.SYNCED, 12)


def refusal(request_id: str) -> bytes:
    text = {"status": "error", "err-code": "bad-request", "err-msg": "no", "id": request_id, "ts": 1}
    return gzip.compress(json.dumps(text).encode())


@pytest.mark.parametrize("first", ["the refusal", "the book"])
def test_a_book_whose_changes_were_refused_is_not_in_sync_though_it_is_sent_whole(first: str) -> None:
    pairs = ("BTC-USDT", "ETH-USDT")
    connector = create(ConnectorSettings(connector="h", venue="htx", pairs=pairs, options={"levels": 150}))
    protocol = connector.market_data()
    plan = protocol.connections(pairs)[0]
    books = {pair: BookSync(OrderBook(pair, -1, 0), protocol.sequence_rule(pair)) for pair in pairs}
    feed = MarketDataFeed(protocol, books)
    feed.on_open(plan)
    frames = [refusal("market.btcusdt.mbp.150"), whole(5).encode()]
    results = [feed.on_frame(plan, frame, 1) for frame in (frames if first == "the refusal" else reversed(frames))]
    assert not any(result.reconnect for result in results), "the other pair is well"
    feed.on_frame(plan, whole(5).replace("btcusdt", "ethusdt").encode(), 1)
    assert [books[pair].state for pair in pairs] == [SyncState.UNSYNCED, SyncState.SYNCED]
    assert ("notice", "BTC-USDT") in [(problem.kind, problem.pair) for result in results for problem in result.problems]
    feed.on_close(plan)
    feed.on_open(plan)
    feed.on_frame(plan, whole(6).encode(), 1)
    assert books["BTC-USDT"].state is SyncState.SYNCED


def test_a_whole_book_that_is_refused_costs_nothing() -> None:
    connector = create(ConnectorSettings(connector="h", venue="htx", pairs=("BTC-USDT",), options={"levels": 150}))
    protocol = connector.market_data()
    for request_id in ("req market.btcusdt.mbp.150", "market.btcusdt.trade.detail", "market.nobody.mbp.150"):
        assert list(protocol.feed(refusal(request_id))) == [VenueNotice("bad-request", "no")]


def test_a_book_of_changes_keeps_as_many_levels_as_were_asked_for(protocol: MarketDataProtocol) -> None:
    book = BookSync(OrderBook("BTC-USDT", -1, 0), protocol.sequence_rule("BTC-USDT"))
    feed = MarketDataFeed(protocol, {"BTC-USDT": book})
    conn = ConnectionPlan(url="wss://htx", pairs=("BTC-USDT",))
    feed.on_frame(conn, change(4, 3, levels=5), 1)
    feed.on_open(conn)
    feed.on_frame(conn, whole(5, levels=5).encode(), 1)
    feed.on_frame(conn, change(6, 5, ",".join(f"[{price},1]" for price in range(1, 9)), levels=5), 1)
    assert [float(price) for price, _ in book.book.depth_strings()[0]] == [10, 8, 7, 6, 5]


def test_only_levels_that_the_venue_has_can_be_asked_for() -> None:
    connector = create(ConnectorSettings(connector="h", venue="htx", options={"levels": 100}))
    with pytest.raises(ConfigError, match="levels must be one of 0, 5, 20, 150, 400"):
        connector.market_data()
