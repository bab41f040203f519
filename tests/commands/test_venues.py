"""``engine venues`` and ``engine markets``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The REST address of a venue in a box, in a process of its own."""
    state = tmp_path_factory.mktemp("box")
    command = [sys.executable, "-m", "engine.simulator", "--venue", "binance", "--state", str(state), "--print-json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["rest"]
        process.terminate()


def test_venues_name_the_variables_of_their_keys(call: Any) -> None:
    rows = {row["venue"]: row for row in json.loads(call("venues", "--json")[1])}
    assert rows["binance:us"]["keys"] == ["BINANCE_US_API_KEY", "BINANCE_US_API_SECRET"]
    assert "wss://" in call("venues")[1]


def test_a_venue_that_is_known_by_recordings_alone_is_said_to_be(call: Any) -> None:
    rows = {row["venue"]: row["can"] for row in json.loads(call("venues", "--json")[1])}
    assert rows["kucoin"] == ["recordings"]
    assert "recordings only" in call("venues")[1]
    code, _, err = call("markets", "kucoin")
    assert code == 2
    assert "read from recordings alone" in err


def test_markets_are_the_venues_pairs_with_the_rules_of_their_orders(call: Any, box: str) -> None:
    code, out, _ = call("markets", "binance", "--rest", box, "--json")
    assert code == 0
    rows = {row["pair"]: row for row in json.loads(out)}
    assert list(rows) == sorted(rows)
    assert rows["BTC-USDT"] == {
        "pair": "BTC-USDT",
        "symbol": "BTCUSDT",
        "base": "BTC",
        "quote": "USDT",
        "price_increment": "0.01",
        "size_increment": "0.00001",
        "min_size": "0.00001",
        "max_size": "9000",
        "min_price": "0.01",
        "max_price": "1000000",
        "min_notional": "5",
        "market_min_notional": True,
        "min_order_value": "0",
        "price_digits": None,
        "size_digits": None,
        "is_trading": True,
        "order_types": ["limit", "limit_maker", "market"],
    }
    code, out, _ = call("markets", "binance", "--rest", f"{box}/", "--find", "eth")
    assert code == 0
    (heading, *lines, count) = out.splitlines()
    assert heading.split()[:2] == ["pair", "symbol"]
    assert [line.split()[:2] for line in lines] == [["ETH-BTC", "ETHBTC"], ["ETH-USDT", "ETHUSDT"]]
    assert "0.0001 BTC" in lines[0]
    assert count == f"2 pairs of {len(rows)}"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["binanse"], 2, "there is no venue 'binanse'; known are: binance"),
        (["binance", "--rest", "nonsense"], 2, "'nonsense' is not an address"),
        (["binance", "--rest", "http://127.0.0.1:9"], 1, "127.0.0.1"),
        (["binance", "--rest", "http://127.0.0.1:9", "--ca", "nowhere.pem"], 2, "nowhere.pem"),
    ],
)
def test_what_cannot_be_asked_is_said_on_one_line(
    call: Any, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    got, out, err = call("markets", *arguments)
    assert (got, out) == (code, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_search_that_finds_nothing_says_among_how_many(call: Any, box: str) -> None:
    code, out, err = call("markets", "binance", "--rest", box, "--find", "nothing", "--json")
    assert (code, out) == (1, "")
    assert err == "engine: binance lists 7 pairs, none with 'nothing' in it\n"
