"""Keys from the environment: ``BINANCE_API_KEY``, ``BINANCE_US_API_SECRET``; of another account than ``main`` with its
name at the end: ``BINANCE_API_KEY_DESK2``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.connectors.settings import Credentials
from engine.errors import ConfigError

MAIN = "main"
"""The account that a connector has unless it names another."""


def variable_name(venue: str, key_name: str, account: str = MAIN) -> str:
    """The environment variable that holds one part of the key of an account at a venue (``binance:us``)."""
    of_account = "" if account == MAIN else f"_{account}"
    return re.sub(r"[^A-Z0-9]", "_", f"{venue}_{key_name}{of_account}".upper())


def credentials_from_environment(
    venue: str, key_names: Sequence[str], environ: Mapping[str, str], account: str = MAIN
) -> Credentials:
    """The account's key; ConfigError naming the variable that is missing or empty.

    ``key_names`` are the venue's (``Connector.key_names``): the key first, its secret second.
    """
    values = []
    for key_name in key_names:
        variable = variable_name(venue, key_name, account)
        value = environ.get(variable, "").strip()
        if not value:
            raise ConfigError(f"account {account!r} at {venue} needs a key: set the environment variable {variable}")
        values.append(value)
    return Credentials(api_key=values[0], api_secret=values[1])
