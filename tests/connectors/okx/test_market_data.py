from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from engine.book import BookSync, DepthDiff, DepthSnapshot, OrderBook, SyncState
from engine.connectors.base import Ack, ConnectionPlan, MarketDataProtocol, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame
from engine.connectors.feed import MarketDataFeed
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import Side

ASKS, BIDS = [["8476.98", "415", "0", "13"]], [["8476.97", "256", "0", "12"]]
CONN = ConnectionPlan(url="wss://okx", pairs=("BTC-USDT",))


@pytest.fixture
def protocol() -> MarketDataProtocol:
    return create(ConnectorSettings(connector="o", venue="okx", pairs=("BTC-USDT",))).market_data()


def book(action: str, channel: str = "books", **fields: Any) -> bytes:
    data = {"asks": ASKS, "bids": BIDS, "ts": "1597026383085", **fields}
    return json.dumps({"arg": {"channel": channel, "instId": "BTC-USDT"}, "action": action, "data": [data]}).encode()


def test_snapshots_and_updates(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(book("snapshot", seqId=5, prevSeqId=-1, checksum=-855196043))
    assert event == DepthSnapshot("BTC-USDT", 5, BIDS, ASKS, 1_597_026_383_085_000_000, -855196043)
    (event,) = protocol.feed(book("update", seqId=7, prevSeqId=5, checksum=12))
    assert event == DepthDiff("BTC-USDT", 7, 7, 5, BIDS, ASKS, 1_597_026_383_085_000_000, 12)


def test_a_checksum_of_zero_is_none(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(book("update", seqId=7, prevSeqId=5, checksum=0))
    assert isinstance(event, DepthDiff)
    assert event.checksum is None


def test_messages_without_ids_have_their_time_instead(protocol: MarketDataProtocol) -> None:
    (event,) = protocol.feed(book("update", checksum=3))
    assert isinstance(event, DepthDiff)
    assert (event.last_id, event.previous_id) == (1597026383085, None)


def test_keep_alives_and_ids_that_begin_anew_are_followed_and_a_gap_is_found(protocol: MarketDataProtocol) -> None:
    feed = MarketDataFeed(protocol, {"BTC-USDT": BookSync(OrderBook("BTC-USDT", -2, 0), protocol.sequence_rule())})
    sync = feed.books["BTC-USDT"]
    (need,) = feed.on_open(CONN).snapshots
    assert (need.request, need.resubscribe) == (None, ())
    feed.on_frame(CONN, book("snapshot", seqId=1000, prevSeqId=-1), 1)
    empty: dict[str, Any] = {"asks": [], "bids": []}
    for number, previous in ((1000, 1000), (1004, 1000), (3, 1004), (5, 3)):
        assert feed.on_frame(CONN, book("update", seqId=number, prevSeqId=previous, **empty), 2).updated
    assert (sync.state, sync.update_id) == (SyncState.SYNCED, 5)
    result = feed.on_frame(CONN, book("update", seqId=9, prevSeqId=7, **empty), 3)
    assert sync.state is SyncState.BUFFERING
    (need,) = result.snapshots
    assert [json.loads(text)["op"] for text in need.resubscribe] == ["unsubscribe", "subscribe"]
    assert feed.on_frame(CONN, book("snapshot", seqId=11, prevSeqId=-1), 4).updated
    assert sync.state is SyncState.SYNCED


def test_of_several_book_channels_one_is_followed(protocol: MarketDataProtocol) -> None:
    assert protocol.feed(book("snapshot", "books50-l2-tbt", seqId=5, prevSeqId=-1))
    assert not protocol.feed(book("snapshot", seqId=5, prevSeqId=-1))
    assert json.loads(protocol.resubscribe("BTC-USDT")[1])["args"][0]["channel"] == "books50-l2-tbt"


def test_trades(protocol: MarketDataProtocol) -> None:
    trade = {"instId": "BTC-USDT", "tradeId": "13", "px": "42219.9", "sz": "0.12", "side": "buy", "ts": "1630048897897"}
    frame = json.dumps(
        {"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [trade, {**trade, "instId": "X-Y"}]}
    )
    assert list(protocol.feed(frame)) == [
        PublicTrade("BTC-USDT", "13", "42219.9", "0.12", Side.BUY, 1_630_048_897_897_000_000)
    ]


def test_what_else_may_come(protocol: MarketDataProtocol) -> None:
    assert not protocol.feed("pong")
    assert not protocol.feed(b"pong")
    for channel in ("tickers", "bbo-tbt", "candle1m", "trades-all"):
        assert not protocol.feed(book("", channel))
    assert list(protocol.feed('{"event":"subscribe","arg":{"channel":"books"},"connId":"a"}')) == [Ack(None)]
    assert not protocol.feed('{"event":"channel-conn-count","channel":"x","connCount":"2"}')
    assert list(protocol.feed('{"event":"error","code":"60012","msg":"bad"}')) == [VenueNotice("60012", "bad")]
    (notice,) = protocol.feed('{"event":"notice","code":"64008","msg":"upgrade"}')
    assert notice == VenueNotice("64008", "upgrade", reconnect=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"ts": "x"},
        {"ts": 5},
        {"seqId": 5},
        {"seqId": 2**63, "prevSeqId": 1},
        {"seqId": "5", "prevSeqId": 1},
        {"asks": [["1"]]},
        {"checksum": 2**31},
    ],
)
def test_updates_that_cannot_be(protocol: MarketDataProtocol, fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedFrame):
        protocol.feed(book("update", **fields))
    with pytest.raises(MalformedFrame):
        protocol.feed(book("partial"))


def test_instruments(protocol: MarketDataProtocol) -> None:
    spot = {"instId": "BTC-USDT", "tickSz": "0.1", "lotSz": "0.00000001", "minSz": "0.00001", "baseCcy": "BTC"}
    spot |= {"quoteCcy": "USDT", "state": "live"}
    swap = {"instId": "BTC-USD-SWAP", "tickSz": "0.1", "lotSz": "1", "minSz": "1", "state": "suspend"}
    body = json.dumps({"code": "0", "data": [spot, swap, {"instId": "X"}]})
    rules = protocol.parse_recorded("https://www.okx.com/api/v5/public/instruments?instType=SPOT", body).rules
    assert rules is not None
    assert rules["BTC-USDT"].size_increment == Decimal("1E-8")
    assert (rules["BTC-USD-SWAP"].base, rules["BTC-USD-SWAP"].quote) == ("BTC", "USD")
    assert not rules["BTC-USD-SWAP"].is_trading


def test_whole_books_serve_until_there_are_changes(protocol: MarketDataProtocol) -> None:
    def best(**fields: Any) -> bytes:
        frame = json.loads(book("", "books5", **fields))
        del frame["action"]
        return json.dumps(frame).encode()

    (event,) = protocol.feed(best(seqId=5))
    assert event == DepthSnapshot("BTC-USDT", 5, BIDS, ASKS, 1_597_026_383_085_000_000)
    assert len(protocol.feed(book("snapshot", seqId=6, prevSeqId=-1))) == 1
    assert not protocol.feed(best(seqId=7))
    assert not protocol.feed(book("update", "books-l2-tbt", seqId=7, prevSeqId=6))
    assert len(protocol.feed(book("update", seqId=7, prevSeqId=6))) == 1
