"""Recorded traffic of the real venue, through the code that runs live."""

from __future__ import annotations

from typing import Any

import pytest

from engine.book import BookSync, OrderBook, SyncState, exponent_of
from engine.connectors.base import ConnectionPlan
from engine.connectors.feed import MarketDataFeed
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.messages import TradingRule


@pytest.mark.capture
@pytest.mark.parametrize(
    ("name", "venue", "pairs", "least_checked", "trades"),
    [
        ("binance_spot_ethusdt_2024", "binance", {"ETH-USDT"}, 1000, 14515),
        ("binance_us_2021", "binance:us", {"CRV-USDT", "COMP-USDT", "OMG-BUSD", "ZRX-USDT"}, 50, 11),
    ],
)
def test_every_comparable_quote_is_equal_and_nothing_is_missing(
    read_capture: Any, name: str, venue: str, pairs: set[str], least_checked: int, trades: int
) -> None:
    protocol = create(ConnectorSettings(connector="recorded", venue=venue)).market_data()
    feed = MarketDataFeed(protocol, {})
    rules: dict[str, TradingRule] = {}
    connections: dict[int, ConnectionPlan] = {}
    seen_trades = 0
    problems = []
    for record in read_capture(name):
        if record["kind"] == "http":
            reply = protocol.parse_recorded(record["url"], record["data"])
            rules |= reply.rules or {}
            if reply.snapshot is not None:
                problems += feed.on_snapshot(reply.snapshot.pair, record["data"]).problems
        elif record["kind"] == "ws_open":
            plan = ConnectionPlan(url=record["url"], pairs=protocol.pairs_of(record["url"]))
            connections[record["conn"]] = plan
            for pair in plan.pairs:
                rule = rules[pair]
                book = OrderBook(pair, exponent_of(rule.price_increment), exponent_of(rule.size_increment))
                feed.books[pair] = BookSync(book, protocol.sequence_rule())
            feed.on_open(plan)
        elif record["kind"] == "ws_in":
            result = feed.on_frame(connections[record["conn"]], record["data"], 0)
            seen_trades += len(result.trades)
            problems += result.problems
    assert {problem.kind for problem in problems} <= {"rescaled"}
    assert feed.counters.unparsed == 0
    assert seen_trades == trades
    assert set(feed.books) == pairs
    counters = [book.counters for book in feed.books.values()]
    assert all(book.state is SyncState.SYNCED for book in feed.books.values())
    assert all(count.gaps == count.resyncs == count.crossed == 0 and count.updates > 0 for count in counters)
    assert all(count.bbo_checked == count.bbo_equal > 0 for count in counters)
    assert sum(count.bbo_checked for count in counters) >= least_checked
