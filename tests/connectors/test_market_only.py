"""What holds for every venue whose market data alone is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.connectors.errors import MalformedFrame, MalformedReply, RateLimited, UnknownOutcome, VenueRefused
from engine.connectors.market_only import MarketOnlyClient, classify
from engine.connectors.registry import capabilities, connector_class, create
from engine.connectors.settings import ConnectorSettings
from engine.errors import ConfigError

VENUES = ("binance_perpetual", "coinbase_exchange", "htx", "kraken_v1", "kucoin", "okx")
PAIRS = ("BTC-USDT", "ETH-USDT", "DOGE-BTC")


@pytest.mark.parametrize("venue", VENUES)
def test_it_says_that_it_cannot_trade(venue: str, clock: object) -> None:
    connector = create(ConnectorSettings(connector="mine", venue=venue))
    assert capabilities()[venue] == (("recordings",) if venue == "kucoin" else ("market data",))
    assert not connector_class(venue).needs_credentials
    for make in (connector.user_data, lambda: connector.public(clock), lambda: connector.exchange(clock)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"'mine': venue {venue} has no trading yet in this version"):
            make()


@pytest.mark.parametrize("venue", VENUES)
def test_spelling_goes_both_ways(venue: str) -> None:
    connector = create(ConnectorSettings(connector="mine", venue=venue, pairs=PAIRS))
    for pair in PAIRS:
        symbol = connector.symbol(pair)
        assert connector.pair(symbol) == pair
        assert connector.unspell(symbol) == pair
    assert connector.pair("nothing") is None


@pytest.mark.parametrize("venue", VENUES)
def test_many_pairs_are_spread_over_connections_and_each_depth_is_carried_once(venue: str) -> None:
    protocol = create(ConnectorSettings(connector="mine", venue=venue)).market_data()
    pairs = [f"A{number}-USDT" for number in range(230)]
    plans = protocol.connections(pairs)
    assert len(plans) > 1
    assert [pair for plan in plans for pair in plan.pairs] == pairs
    assert all(plan.url.startswith("wss://") and len(plan.url) <= 4100 for plan in plans)
    for plan in plans:
        for text in plan.opening:
            json.loads(text)


@pytest.mark.parametrize("venue", VENUES)
def test_a_pair_out_of_sync_is_asked_for_by_rest_or_in_the_stream(venue: str) -> None:
    protocol = create(ConnectorSettings(connector="mine", venue=venue, pairs=PAIRS)).market_data()
    request = protocol.snapshot_request("BTC-USDT")
    texts = protocol.resubscribe("BTC-USDT")
    assert (request is None) or not texts
    if venue != "htx":  # each of its messages is a whole book
        assert request or texts
    for text in texts:
        json.loads(text)


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize(
    "frame", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"7", b'"text"', b'{"a":1}', "{}", "[[[[", b"\x1f\x8b"]
)
def test_what_is_no_frame_is_malformed(venue: str, frame: str | bytes) -> None:
    with pytest.raises(MalformedFrame):
        create(ConnectorSettings(connector="mine", venue=venue)).market_data().feed(frame)


@pytest.mark.parametrize("venue", VENUES)
def test_a_snapshot_that_is_none_is_a_malformed_reply(venue: str) -> None:
    protocol = create(ConnectorSettings(connector="mine", venue=venue, pairs=PAIRS)).market_data()
    for body in (b"", b"{}", b"[]", b'{"code":"400100","msg":"no"}'):
        with pytest.raises(MalformedReply):
            protocol.parse_snapshot("BTC-USDT", body)


@pytest.mark.parametrize(
    ("venue", "options"), [("kraken_v1", {"depth": 11}), ("binance_perpetual", {"snapshot_depth": 7})]
)
def test_options_that_make_no_sense_are_refused(venue: str, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        create(ConnectorSettings(connector="mine", venue=venue, options=options)).market_data()


@pytest.mark.parametrize(
    ("venue", "pong", "frame"),
    [
        ("okx", b"pong", b'{"event":"subscribe"}'),
        ("kraken_v1", b'{"event":"pong","reqid":7}', b'{"event":"heartbeat"}'),
        ("kucoin", b'{"id":"keepalive","type":"pong"}', b'{"type":"message"}'),
    ],
)
def test_the_answer_to_a_keep_alive_is_told_from_data(venue: str, pong: bytes, frame: bytes) -> None:
    protocol = create(ConnectorSettings(connector="mine", venue=venue, pairs=PAIRS)).market_data()
    assert protocol.keepalive is not None
    assert protocol.is_pong(pong)
    assert not protocol.is_pong(frame)
    assert list(protocol.feed(pong)) == []


@pytest.mark.parametrize("venue", [venue for venue in VENUES if venue != "kucoin"])
def test_its_books_can_be_read_live(venue: str, clock: Any) -> None:
    connector = create(ConnectorSettings(connector="mine", venue=venue, pairs=PAIRS))
    assert isinstance(connector.books(clock), MarketOnlyClient)
    assert connector.rules_requests  # type: ignore[attr-defined]  # of such connectors


def test_a_venue_whose_streams_need_a_token_says_that_it_is_not_read_live(clock: Any) -> None:
    with pytest.raises(ConfigError, match="'mine': venue kucoin is read from recordings alone"):
        create(ConnectorSettings(connector="mine", venue="kucoin")).books(clock)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (429, {"Retry-After": "7"}, RateLimited),
        (418, {}, RateLimited),
        (503, {}, UnknownOutcome),
        (404, {}, VenueRefused),
    ],
)
def test_what_a_reply_that_is_none_of_success_amounts_to(status: int, headers: dict[str, str], kind: type) -> None:
    error = classify(status, headers, b"no")
    assert type(error) is kind
    if isinstance(error, RateLimited):
        assert error.retry_after_s == (7 if headers else 5)
