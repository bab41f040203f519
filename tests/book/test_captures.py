"""Recorded feeds, where they are beside the checkout: the book equals the venue's best quotes at every shared id."""

import gzip
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.book import BestQuote, BookSync, DepthDiff, DepthSnapshot, OrderBook, RangeRule, SyncState, exponent_of
from tests.captures import captured

pytestmark = pytest.mark.capture


def frames(name: str) -> Iterator[tuple[str, str, Any]]:
    with gzip.open(captured(name), "rt") as lines:
        for line in lines:
            record = msgspec.json.decode(line)
            if record["kind"] in ("http", "ws_in"):
                yield record["kind"], record.get("url", ""), msgspec.json.decode(record["data"])


def books(exchange_info: Any) -> dict[str, BookSync]:
    made = {}
    for market in exchange_info["symbols"]:
        filters = {rule["filterType"]: rule for rule in market["filters"]}
        price = exponent_of(Decimal(filters["PRICE_FILTER"]["tickSize"]))
        size = exponent_of(Decimal(filters["LOT_SIZE"]["stepSize"]))
        made[market["symbol"]] = BookSync(OrderBook(market["symbol"], price, size), RangeRule())
        made[market["symbol"]].on_connected()
    return made


@pytest.mark.parametrize(("name", "rescales"), [("binance_us_2021", 0), ("binance_spot_ethusdt_2024", 1)])
def test_a_recorded_feed_has_no_gap_and_every_quote_is_equal(name: str, rescales: int) -> None:
    syncs: dict[str, BookSync] = {}
    for kind, url, data in frames(name):
        if "exchangeInfo" in url:
            syncs = books(data)
        elif "/depth" in url:
            symbol = url.split("symbol=")[1].split("&")[0]
            syncs[symbol].on_snapshot(DepthSnapshot(symbol, data["lastUpdateId"], data["bids"], data["asks"]))
        elif kind == "ws_in":
            event = data.get("data", data)
            if event.get("e") == "depthUpdate":
                syncs[event["s"]].on_diff(
                    DepthDiff(event["s"], event["U"], event["u"], None, event["b"], event["a"], event["E"])
                )
            elif "u" in event:
                syncs[event["s"]].on_quote(
                    BestQuote(event["s"], event["u"], event["b"], event["B"], event["a"], event["A"])
                )
    followed = [sync for sync in syncs.values() if sync.counters.updates]
    assert followed
    for sync in followed:
        counters = sync.counters
        assert sync.state is SyncState.SYNCED
        assert (counters.gaps, counters.resyncs, counters.crossed, counters.overflows) == (0, 0, 0, 0)
        assert counters.rescales == rescales
        assert counters.bbo_checked == counters.bbo_equal > 0
