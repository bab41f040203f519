from __future__ import annotations

import pytest

from engine.connectors.credentials import credentials_from_environment, variable_name
from engine.connectors.settings import ConnectorSettings, Credentials
from engine.errors import ConfigError

NAMES = ("API_KEY", "API_SECRET")


@pytest.mark.parametrize(
    ("connector", "variable"),
    [
        ("binance", "BINANCE_API_KEY"),
        ("binance:us", "BINANCE_US_API_KEY"),
        ("my-venue.2", "MY_VENUE_2_API_KEY"),
    ],
)
def test_variables_are_named_after_the_connector(connector: str, variable: str) -> None:
    assert variable_name(connector, "API_KEY") == variable


def test_a_key_comes_from_the_environment() -> None:
    environ = {"BINANCE_US_API_KEY": "k", "BINANCE_US_API_SECRET": " s\n"}
    found = credentials_from_environment("binance:us", NAMES, environ)
    assert (found.api_key, found.api_secret) == ("k", "s")


@pytest.mark.parametrize("environ", [{}, {"BINANCE_API_KEY": "k"}, {"BINANCE_API_KEY": "k", "BINANCE_API_SECRET": ""}])
def test_a_missing_variable_is_named(environ: dict[str, str]) -> None:
    missing = "BINANCE_API_SECRET" if environ else "BINANCE_API_KEY"
    with pytest.raises(ConfigError, match=missing):
        credentials_from_environment("binance", NAMES, environ)


def test_a_key_never_shows_itself() -> None:
    key = Credentials(api_key="visible-key", api_secret="visible-secret")
    settings = ConnectorSettings(connector="b", venue="binance", credentials=key)
    for shown in (repr(key), str(key), f"{settings}", repr(settings), repr(list(key.__rich_repr__()))):
        assert "visible" not in shown


def test_two_accounts_at_one_venue_have_keys_of_their_own() -> None:
    environ = {f"BINANCE_{name}": name.lower() for name in (*NAMES, *(f"{name}_DESK_2" for name in NAMES))}
    assert credentials_from_environment("binance", NAMES, environ).api_key == "api_key"
    found = credentials_from_environment("binance", NAMES, environ, "desk-2")
    assert (found.api_key, found.api_secret) == ("api_key_desk_2", "api_secret_desk_2")
    with pytest.raises(ConfigError, match=r"account 'other' at binance needs a key.* BINANCE_API_KEY_OTHER"):
        credentials_from_environment("binance", NAMES, environ, "other")
