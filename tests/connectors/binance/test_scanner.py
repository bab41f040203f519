"""The scanner of depth frames and best quotes: what it takes, the protocol reads alike; it declines the rest."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book.events import BestQuote, DepthDiff
from engine.captures import read_capture
from engine.connectors.binance.market_data import BinanceMarketData
from engine.connectors.binance.scanner import BinanceScanner
from engine.connectors.symbols import SymbolMap
from engine.fuzzing.mutate import mutated
from tests.captures import captured

LEVELS = st.lists(st.tuples(st.decimals(0, 10**9, places=8), st.decimals(0, 10**6, places=8)), max_size=4)


class _AllSymbols(SymbolMap):
    def pair(self, symbol: str) -> str | None:
        return symbol


PROTOCOL = BinanceMarketData("wss://venue", _AllSymbols(lambda base, quote: base + quote))
SCANNER = BinanceScanner()


def frame(bids: Any, asks: Any, *, first: int = 5, last: int = 7, stream: str = "btcusdt@depth@100ms") -> bytes:
    event = {"e": "depthUpdate", "E": 1700, "s": "BTCUSDT", "U": first, "u": last, "b": bids, "a": asks}
    return json.dumps({"stream": stream, "data": event} if stream else event, separators=(",", ":")).encode()


def agrees(data: bytes, price_exponent: int = -8, size_exponent: int = -8) -> bool:
    """Whether the scanner took the frame; it must then have read what the protocol reads."""
    found = SCANNER.scan(data, price_exponent, size_exponent)
    if found is None:
        return False
    symbol, first_id, last_id, time_ns, bids, asks = found
    (event,) = PROTOCOL.feed(data)
    assert isinstance(event, DepthDiff)
    assert (event.pair, event.first_id, event.last_id, event.time_ns) == (symbol, first_id, last_id, time_ns)
    for mantissas, texts in ((bids, event.bids), (asks, event.asks)):
        scaled = [(Decimal(p).scaleb(price_exponent), Decimal(s).scaleb(size_exponent)) for p, s in mantissas]
        assert scaled == [(Decimal(price), Decimal(size)) for price, size in texts]
    return True


def quote(bid: str = "59999.87000000", size: str = "1.5", stream: str = "btcusdt@bookTicker") -> bytes:
    event = {"u": 7, "s": "BTCUSDT", "b": bid, "B": size, "a": "60000.01", "A": "0.00100000"}
    return json.dumps({"stream": stream, "data": event} if stream else event, separators=(",", ":")).encode()


def quote_agrees(data: bytes) -> bool:
    """Whether the scanner took the quote; it must then have read what the protocol reads."""
    found = SCANNER.scan_quote(data)
    if found is None:
        return False
    assert list(PROTOCOL.feed(data)) == [BestQuote(*found)]
    assert SCANNER.scan(data, -8, -8) is None
    return True


QUOTES = [quote(), quote("7", "12345678901.123456789"), quote(stream=""), quote(stream="1000shib_1@bookTicker")]

BASES = [
    frame([["59999.87000000", "1.23456000"], ["1.5", "0.00000000"]], [["60000.01", "12345678.90000000"]]),
    frame([], [["0.00001234", "123456789.00"]], stream="shibusdt@depth"),
    frame([["7", "1"]], [], stream="btcusdt@depth@1000ms"),
    frame([["0012345678901.5", "0.1"]], [], stream=""),
    frame([], [], stream=""),
]


@pytest.mark.parametrize("data", BASES)
def test_the_venues_spellings_are_taken(data: bytes) -> None:
    assert agrees(data)


@given(LEVELS, LEVELS, st.integers(0, 10**17), st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_any_plain_amounts_are_read_exactly(bids: Any, asks: Any, first: int, more: int) -> None:
    texts = [[[f"{price:f}", f"{size:f}"] for price, size in side] for side in (bids, asks)]
    data = frame(*texts, first=first, last=first + more)
    assert agrees(data)
    for exponents in ((-2, -5), (0, 0), (-10, -17), (1, 3), (-18, -18)):
        agrees(data, *exponents)


@pytest.mark.parametrize(
    "level",
    [
        *(["1.001", "1"], ["1", "1.001"], ["-1", "1"], ["1", "-1"], ["+1", "1"], ["1e2", "1"], ["", "1"], ["1", ""]),
        *(["1..", "1"], ["1", "1", "1"], ["1"], [1, 2], ["99999999999999999999", "1"], ["1,", "1"], ["1 ", "1"]),
    ],
)
def test_what_the_books_exponents_cannot_hold_and_what_is_no_plain_amount_is_declined(level: list[Any]) -> None:
    assert SCANNER.scan(frame([level], []), -2, -2) is None
    assert SCANNER.scan(frame([], [["1", "1"], level]), -2, -2) is None


def test_another_spelling_is_declined() -> None:
    plain = frame([["1", "1"]], [["2", "1"]])
    event = json.loads(plain)
    assert SCANNER.scan(plain, -2, -2) is not None
    assert SCANNER.scan(json.dumps(event).encode(), -2, -2) is None
    for data in (
        *(plain + b" ", b" " + plain, plain[:-1], plain + b"}", plain.replace(b"BTCUSDT", b"B\\u0054CUSDT")),
        *(plain.replace(b'"U":5', b'"U":05'), plain.replace(b'"U":5', b'"U":8'), plain.replace(b'"U":5', b'"U":5.0')),
        *(plain.replace(b"@depth@", b"@depth5@"), plain.replace(b"@100ms", b"@100ms@"), plain.replace(b'"b"', b'"c"')),
        *(
            plain.replace(b"1700", b"9223372036855"),
            plain.replace(b'"u":7', b'"u":9999999999999999999'),
            b"",
            b"\0" * 99,
        ),
        *(plain.replace(b"BTCUSDT", b"ABCDEFGHIJKLMNOPQ"), plain.replace(b"btcusdt", b"b" * 60), plain[::-1]),
    ):
        assert SCANNER.scan(data, -2, -2) is None


def test_a_frame_cut_off_anywhere_is_declined() -> None:
    for data in BASES:
        for at in range(len(data)):
            assert SCANNER.scan(data[:at], -8, -8) is None


def test_no_mutated_frame_is_read_otherwise_than_the_protocol_reads_it() -> None:
    random = Random(11)
    taken = 0
    for number in range(20_000):
        taken += agrees(mutated(random, BASES[number % len(BASES)], random.choice(BASES)))
    assert taken > 2_000


@pytest.mark.parametrize("data", QUOTES)
def test_quotes_as_the_venue_spells_them_are_taken(data: bytes) -> None:
    assert quote_agrees(data)


def test_other_quotes_are_declined() -> None:
    plain = quote()
    for data in (
        *(
            plain + b" ",
            plain[:-1],
            plain + b"}",
            plain.replace(b'"u":7', b'"u":07'),
            plain.replace(b'"u":7', b'"u":-7'),
        ),
        *(plain.replace(b'"b"', b'"c"'), plain.replace(b"1.5", b""), plain.replace(b"1.5", b"1e5"), quote("-1"), b""),
        *(
            plain.replace(b"@bookTicker", b"@bookTicker2"),
            plain.replace(b"btcusdt", b"b" * 60),
            plain.replace(b"1.5", b"1\\u0030"),
        ),
        *(plain.replace(b"BTCUSDT", b"ABCDEFGHIJKLMNOPQ"), quote(stream="!bookTicker"), b"\0" * 99),
        *(plain[:at] for at in range(len(plain))),
    ):
        assert SCANNER.scan_quote(data) is None, data


def test_no_mutated_quote_is_read_otherwise_than_the_protocol_reads_it() -> None:
    random = Random(13)
    taken = 0
    for number in range(20_000):
        taken += quote_agrees(mutated(random, QUOTES[number % len(QUOTES)], random.choice(QUOTES + BASES)))
    assert taken > 2_000


def recorded(name: str, stream: bytes) -> list[bytes]:
    """All frames of a recording that are of such a stream."""
    records = read_capture(captured(name))
    frames = [record.payload for record in records if record.kind == "ws_in" and stream in record.payload[:64]]
    assert frames
    return frames


@pytest.mark.capture
@pytest.mark.parametrize("name", ["binance_us_2021", "binance_spot_ethusdt_2024"])
def test_recorded_quotes_are_taken_and_read_as_the_protocol_reads_them(name: str) -> None:
    frames = recorded(name, b"@bookTicker")
    assert all(quote_agrees(data) for data in frames)


@pytest.mark.capture
@pytest.mark.parametrize("name", ["binance_us_2021", "binance_spot_ethusdt_2024"])
def test_recorded_frames_are_taken_and_read_as_the_protocol_reads_them_mutated_too(name: str) -> None:
    random = Random(12)
    frames = recorded(name, b"@depth")
    for data in frames:
        assert agrees(data), data
    taken = sum(agrees(mutated(random, random.choice(frames), random.choice(frames))) for _ in range(10_000))
    assert taken > 1_000
