from __future__ import annotations

import pytest

from engine.connectors.registry import connector_class, create, split_venue, venues
from engine.connectors.settings import ConnectorSettings, Credentials, Endpoints
from engine.errors import ConfigError


def settings(venue: str, **more: object) -> ConnectorSettings:
    return ConnectorSettings(connector="mine", venue=venue, **more)  # type: ignore[arg-type]


def test_venues_are_listed_with_their_domains() -> None:
    assert {"binance", "binance:us", "binance:testnet"} <= set(venues())


@pytest.mark.parametrize("name", ["mtgox", "binance:mars", ""])
def test_an_unknown_venue_names_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="binance:us"):
        create(settings(name))


def test_a_domain_has_its_own_hosts() -> None:
    for connector in (create(settings("binance:us")), create(settings("binance", domain="us"))):
        assert connector.endpoints.rest == "https://api.binance.us"
        assert connector.settings.domain == "us"
        assert connector.name == "mine"


def test_given_addresses_replace_the_venues() -> None:
    given = Endpoints(rest="http://127.0.0.1:1", ws="ws://127.0.0.1:1", ws_api="ws://127.0.0.1:1/ws-api/v3")
    connector = create(settings("binance", endpoints=given))
    assert connector.endpoints is given


def test_what_needs_a_key_says_so(clock: object) -> None:
    connector = create(settings("binance"))
    assert connector_class("binance").needs_credentials
    for make in (connector.user_data, lambda: connector.exchange(clock)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="mine"):
            make()


@pytest.mark.parametrize("options", [{"recv_window_ms": 60_001}, {"recv_window_ms": "5"}, {"snapshot_depth": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="option"):
        create(settings("binance", options=options))


def test_symbols_of_configured_pairs_are_known_at_once() -> None:
    connector = create(settings("binance", pairs=("BTC-USDT",), credentials=Credentials(api_key="k", api_secret="s")))
    assert connector.symbol("BTC-USDT") == "BTCUSDT"
    assert connector.pair("BTCUSDT") == "BTC-USDT"
    assert connector.pair("ETHUSDT") is None
    with pytest.raises(ConfigError, match="BASE-QUOTE"):
        connector.symbol("BTCUSDT")


def test_splitting_a_name() -> None:
    assert split_venue("binance") == ("binance", "")
    assert split_venue("binance:us") == ("binance", "us")
