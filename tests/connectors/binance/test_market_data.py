from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book.events import BestQuote, DepthDiff, DepthSnapshot
from engine.connectors.base import Ack, MarketDataProtocol, PublicTrade, VenueNotice
from engine.connectors.errors import MalformedFrame, MalformedReply
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import Side

PAIRS = ("BTC-USDT", "ETH-USDT")

DEPTH = {"e": "depthUpdate", "E": 1700, "s": "BTCUSDT", "U": 5, "u": 7, "b": [["1.0", "2"]], "a": [["3.0", "0.0"]]}
QUOTE = {"u": 7, "s": "ETHUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}
TRADE = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 12, "p": "1.5", "q": "2", "T": 1700, "m": True, "M": True}


def make(pairs: tuple[str, ...] = PAIRS, **options: Any) -> MarketDataProtocol:
    return create(ConnectorSettings(connector="b", venue="binance", pairs=pairs, options=options)).market_data()


def combined(stream: str, data: Any) -> bytes:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


DIFF = DepthDiff("BTC-USDT", 5, 7, None, [("1.0", "2")], [("3.0", "0.0")], 1_700_000_000)
BEST = BestQuote("ETH-USDT", 7, "1", "2", "3", "4")
AGGREGATE = {"e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 3, "p": "1.5", "q": "2", "f": 11, "l": 12, "T": 1700}
SOLD = PublicTrade("BTC-USDT", "12", "1.5", "2", Side.SELL, 1_700_000_000)


@pytest.mark.parametrize(
    ("stream", "data", "event"),
    [
        ("btcusdt@depth@100ms", DEPTH, DIFF),
        ("btcusdt@depth", DEPTH, DIFF),
        ("ethusdt@bookTicker", QUOTE, BEST),
        ("btcusdt@trade", TRADE, SOLD),
        (
            "btcusdt@aggTrade",
            {**AGGREGATE, "m": False},
            PublicTrade("BTC-USDT", "3", "1.5", "2", Side.BUY, 1_700_000_000, aggregated=True),
        ),
    ],
)
def test_frames_of_combined_and_of_raw_streams(stream: str, data: dict[str, Any], event: object) -> None:
    protocol = make()
    for frame in (combined(stream, data), json.dumps(data).encode()):
        assert list(protocol.feed(frame)) == [event]
        assert list(protocol.feed(frame.decode())) == [event]


def test_levels_of_the_first_years_have_an_empty_list_behind_them() -> None:
    protocol = make()
    early = {**DEPTH, "b": [["1.0", "2", []]], "a": [["3.0", "0.0", []]]}
    for frame in (combined("btcusdt@depth", early), json.dumps(early).encode()):
        assert list(protocol.feed(frame)) == [DIFF]
    body = json.dumps({"lastUpdateId": 7, "bids": [["1.0", "2", []]], "asks": []})
    assert protocol.parse_snapshot("BTC-USDT", body) == DepthSnapshot("BTC-USDT", 7, [("1.0", "2")], [])
    for levels in ([["1.0", "2", 3]], [["1.0", "2", []], ["1.1", "2"]], [["1.0", 2, []]]):
        with pytest.raises(MalformedFrame):
            protocol.feed(combined("btcusdt@depth", {**early, "b": levels}))


@pytest.mark.parametrize("venue", ["binance", "binance_perpetual"])
def test_a_symbol_in_other_letters_is_asked_for_percent_encoded(venue: str) -> None:
    protocol = create(ConnectorSettings(connector="b", venue=venue, pairs=("币安人生-USDT",))).market_data()
    request = protocol.snapshot_request("币安人生-USDT")
    assert request is not None
    assert request.query.startswith("symbol=%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT&limit=")
    assert protocol.pairs_of("wss://x/ws/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9Fusdt@depth") == ("币安人生-USDT",)


def test_the_stream_of_all_symbols_quotes_is_read() -> None:
    assert list(make().feed(combined("!bookTicker", QUOTE))) == [BEST]


def test_times_may_be_in_microseconds() -> None:
    (diff,) = make().feed(combined("btcusdt@depth", {**DEPTH, "E": 1_700_000_000_123_456}))
    assert isinstance(diff, DepthDiff)
    assert diff.time_ns == 1_700_000_000_123_456_000
    (trade,) = make().feed(combined("btcusdt@trade", {**TRADE, "T": 1_700_000_000_123_456}))
    assert isinstance(trade, PublicTrade)
    assert trade.time_ns == 1_700_000_000_123_456_000


def test_the_taker_of_a_buyer_that_was_not_the_maker_bought() -> None:
    (trade,) = make().feed(combined("btcusdt@trade", {**TRADE, "m": False}))
    assert isinstance(trade, PublicTrade)
    assert trade.side is Side.BUY


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        ("btcusdt@kline_1m", {"e": "kline", "s": "BTCUSDT", "k": {"x": False}}),
        ("btcusdt@depth5@100ms", {"lastUpdateId": 1, "bids": [["1", "2"]], "asks": []}),
        ("!miniTicker@arr", [{"e": "24hrMiniTicker", "s": "BTCUSDT"}]),
        ("xrpusdt@depth@100ms", {**DEPTH, "s": "XRPUSDT"}),
        ("xrpusdt@bookTicker", {**QUOTE, "s": "XRPUSDT"}),
        ("xrpusdt@trade", {**TRADE, "s": "XRPUSDT"}),
    ],
)
def test_what_nobody_asked_for_is_passed_over(stream: str, data: object) -> None:
    assert list(make().feed(combined(stream, data))) == []


def test_answers_and_notices() -> None:
    protocol = make()
    assert list(protocol.feed(b'{"result":null,"id":3}')) == [Ack(3)]
    assert list(protocol.feed(b'{"result":["a@b"],"id":"x"}')) == [Ack("x")]
    (notice,) = protocol.feed(b'{"error":{"code":2,"msg":"Invalid request"},"id":3}')
    assert notice == VenueNotice("2", "Invalid request", refused=True)
    (notice,) = protocol.feed(b'{"code":0,"msg":"Unknown property"}')
    assert notice == VenueNotice("0", "Unknown property", refused=True)
    for frame in (b'{"e":"serverShutdown","E":1}', b'{"stream":"","data":{"e":"serverShutdown"}}'):
        (notice,) = protocol.feed(frame)
        assert isinstance(notice, VenueNotice)
        assert notice.reconnect


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{}",
        b"null",
        b'"text"',
        b"{'stream'}",
        b"\xff\xfe\x00",
        combined("btcusdt@depth@100ms", {**DEPTH, "U": "5"}),
        combined("btcusdt@depth@100ms", {**DEPTH, "b": [["1"]]}),
        combined("btcusdt@depth@100ms", {**DEPTH, "b": [[1, 2]]}),
        combined("btcusdt@depth@100ms", {key: DEPTH[key] for key in DEPTH if key != "u"}),
        combined("ethusdt@bookTicker", {**QUOTE, "a": None}),
        combined("btcusdt@trade", []),
        combined("btcusdt@depth@100ms", DEPTH)[:-5],
        json.dumps({**DEPTH, "u": 1.5}).encode(),
        combined("btcusdt@depth@100ms", {**DEPTH, "U": 8}),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"stream":"btcusdt@depth","data":{"z":' + b"[" * 100_000,
        "\ud800",
    ],
)
def test_what_cannot_be_read_says_so(frame: bytes | str) -> None:
    with pytest.raises(MalformedFrame):
        make().feed(frame)


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from([("btcusdt@depth@100ms", DEPTH), ("ethusdt@bookTicker", QUOTE), ("btcusdt@trade", TRADE)]),
    at=st.integers(0, 200),
    junk=st.binary(max_size=4),
)
def test_no_frame_breaks_the_reader(base: tuple[str, dict[str, Any]], at: int, junk: bytes) -> None:
    frame = bytearray(combined(*base))
    frame[at : at + len(junk)] = junk
    with contextlib.suppress(MalformedFrame):
        make().feed(bytes(frame))


def test_a_few_pairs_are_named_in_the_address() -> None:
    (plan,) = make().connections(PAIRS)
    assert plan.url == (
        "wss://stream.binance.com:9443/stream?streams="
        "btcusdt@depth@100ms/btcusdt@bookTicker/btcusdt@trade/"
        "ethusdt@depth@100ms/ethusdt@bookTicker/ethusdt@trade"
    )
    assert plan.opening == ()
    assert plan.pairs == PAIRS
    assert make().pairs_of(plan.url) == PAIRS
    assert make().pairs_of("wss://stream.binance.com/ws/btcusdt@depth/nosuch@depth/ethusdt@trade") == PAIRS[:1]


def test_many_pairs_are_subscribed_to_by_messages_within_the_limits_of_a_connection() -> None:
    pairs = tuple(f"C{number}-USDT" for number in range(2 * 341))
    plans = make(pairs).connections(pairs)
    assert [pair for plan in plans for pair in plan.pairs] == list(pairs)
    for plan in plans:
        assert plan.url == "wss://stream.binance.com:9443/stream"
        streams = [name for text in plan.opening for name in json.loads(text)["params"]]
        assert len(streams) == 3 * len(plan.pairs) <= 1024
        assert len(plan.opening) <= 4
    assert make().connections([]) == []


def test_a_snapshot() -> None:
    protocol = make(snapshot_depth=5000)
    request = protocol.snapshot_request("BTC-USDT")
    assert request is not None
    assert (request.query, request.weight) == ("symbol=BTCUSDT&limit=5000", 250)
    body = b'{"lastUpdateId":9,"bids":[["1.0","2"]],"asks":[]}'
    assert protocol.parse_snapshot("BTC-USDT", body) == DepthSnapshot("BTC-USDT", 9, [("1.0", "2")], [])
    with pytest.raises(MalformedReply):
        protocol.parse_snapshot("BTC-USDT", b'{"code":-1121}')


def test_recorded_replies_that_do_not_matter() -> None:
    reply = make().parse_recorded("https://api.binance.com/api/v3/ticker/price?symbol=BTCUSDT", b"[]")
    assert reply.rules is None
    assert reply.snapshot is None
