"""What is right in each key and wrong all the same.

Markets that no box can hold, options that their venue does not have, limits that could never apply.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from engine.actors.plan import plan
from engine.config import EngineConfig, parse_config
from engine.connectors.registry import connector_class, venues
from engine.errors import ConfigError
from engine.simulator.config import BoxConfig

BASIC: Mapping[str, Any] = {
    "venue": {"pairs": [{"pair": "BTC-USDT", "price": "60000"}]},
    "connectors": {"binance": {"at": "venue", "pairs": ["BTC-USDT"]}},
}


def with_key(path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(dict(BASIC))
    *above, last = path.split(".")
    target: Any = data
    for key in above:
        target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
    target[last] = value
    return data


def error_of(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        parse_config(data)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_what_is_checked_is_valid_as_it_stands() -> None:
    assert isinstance(parse_config(BASIC), EngineConfig)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("risk.max_loss", {"usdt": "5"}, "risk.max_loss.usdt: is 'usdt'; an asset is written in capitals, as in USDT"),
        ("risk.max_loss", {"USDC": "5"}, "risk.max_loss.USDC: is the quote asset of no pair that is traded"),
        ("risk.max_loss", {"BTC": "5"}, "risk.max_loss.BTC: is the quote asset of no pair that is traded"),
        ("connectors.binance.risk", {"max_position": {"BTC-USDC": "1"}}, "did you mean BTC-USDT?"),
        ("connectors.binance.risk", {"max_daily_loss": {"USD": "1"}}, "so this limit would never apply"),
        ("connectors.binance.balance_limits", {"BTX": "1"}, "balance_limits.BTX: is an asset of no pair"),
        ("connectors.binance.balance_limits", {"btc": "1"}, "an asset is written in capitals"),
        ("venue.balances", {"usdt": "1"}, "venue.balances.usdt: is 'usdt'; an asset is written in capitals"),
    ],
)
def test_a_limit_that_could_never_apply_is_refused(path: str, value: Any, said: str) -> None:
    assert said in error_of(with_key(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("risk.max_loss", {"USDT": "5"}),
        ("connectors.binance.risk", {"max_position": {"BTC-USDT": "1"}, "max_daily_loss": {"USDT": "1"}}),
        ("connectors.binance.balance_limits", {"BTC": "1", "USDT": "5"}),
    ],
)
def test_a_limit_of_what_is_traded_is_taken(path: str, value: Any) -> None:
    parse_config(with_key(path, value))


def test_a_loss_of_pairs_that_are_only_watched_is_no_limit() -> None:
    data = with_key("risk.max_loss", {"USDT": "5"})
    data["connectors"]["binance"]["trade"] = False
    assert "is the quote asset of no pair that is traded" in error_of(data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recv_window": 100}, "options.recv_window: unknown option; did you mean recv_window_ms?"),
        ({"recv_window_ms": "100"}, "option recv_window_ms must be 1 to 60000, not '100'"),
        ({"order_entry": "fix"}, "option order_entry is one of websocket, rest, not 'fix'"),
        ({"timeout_s": 0}, "option timeout_s must be seconds, above 0 and up to 600, not 0"),
        ({"timeout_s": "fast"}, "option timeout_s must be seconds, above 0 and up to 600, not 'fast'"),
        ({"ca": "/nowhere/ca.pem"}, "option ca must be a file of certificates, not '/nowhere/ca.pem'"),
    ],
)
def test_an_option_is_checked_before_anything_starts(options: dict[str, Any], said: str) -> None:
    assert said in error_of(with_key("connectors.binance.options", options))


def watched(name: str) -> list[str]:
    """What is wrong with a connector of books alone; empty if nothing is."""
    data = {"connectors": {name: {"pairs": ["BTC-USDT"], "trade": False}}}
    try:
        parse_config(data)
    except ConfigError as error:
        return [str(error)]
    return []


def test_a_venue_that_is_not_traded_here_says_so_and_may_be_followed() -> None:
    followed = [name for name in venues() if "trading" not in connector_class(name.partition(":")[0]).capabilities]
    assert {"okx", "kraken_v1", "binance_perpetual"} < set(followed)
    for name in followed:
        assert "has no trading yet in this version; set trade: false" in error_of(
            {"connectors": {name: {"pairs": ["BTC-USDT"]}}}
        )
    assert [name for name in followed if watched(name)] == ["kucoin"]
    assert "is read from recordings alone so far" in watched("kucoin")[0]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("price", "0", "price must be more than 0, not 0"),
        ("price_increment", "0", "price_increment must be more than 0, not 0"),
        ("size_increment", "0.000000001", "more than 8 decimals"),
        ("price_increment", "7", "price 60000 is no multiple of its price_increment 7"),
    ],
)
def test_a_market_that_no_box_can_hold_is_refused(key: str, value: str, said: str) -> None:
    text = error_of(with_key(f"venue.pairs.0.{key}", value))
    assert "venue.pairs.0: pair BTC-USDT: " in text
    assert said in text


def test_the_increments_of_a_market_reach_its_box(tmp_path: Any) -> None:
    data = with_key("venue.pairs.0.price_increment", "0.5")
    data["venue"]["pairs"][0]["size_increment"] = "0.001"
    box = next(actor for actor in plan(parse_config(data), 0, tmp_path) if actor.kind == "venue").params["box"]
    market = msgspec.convert(box, BoxConfig).pairs[0]
    assert (market.price_increment, market.size_increment) == ("0.5", "0.001")


def test_a_box_speaks_what_it_can() -> None:
    data = {
        "venue": {"speaks": "okx", "pairs": ["BTC-USDT"]},
        "connectors": {"okx": {"at": "venue", "pairs": ["BTC-USDT"], "trade": False}},
    }
    assert "venue.speaks: a box does not speak okx; it speaks binance" in error_of(data)


def test_a_pair_of_a_strategy_is_listed_once() -> None:
    maker = {"strategy": "engine.strategies.market_maker:MarketMaker", "pairs": ["binance/BTC-USDT"] * 2}
    assert "strategies.maker.pairs.1: binance/BTC-USDT is listed twice" in error_of(
        with_key("strategies", {"maker": maker})
    )
