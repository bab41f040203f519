"""Keys from the environment: ``BINANCE_API_KEY``, ``BINANCE_US_API_SECRET``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.connectors.settings import Credentials
from engine.errors import ConfigError


def variable_name(connector: str, key_name: str) -> str:
    """The environment variable that holds one part of a connector's key."""
    return re.sub(r"[^A-Z0-9]", "_", f"{connector}_{key_name}".upper())


def credentials_from_environment(connector: str, key_names: Sequence[str], environ: Mapping[str, str]) -> Credentials:
    """The connector's key; ConfigError naming the variable that is missing or empty.

    ``key_names`` are the venue's (``Connector.key_names``): the key first, its secret second.
    """
    values = []
    for key_name in key_names:
        variable = variable_name(connector, key_name)
        value = environ.get(variable, "").strip()
        if not value:
            raise ConfigError(f"connector {connector!r} needs a key: set the environment variable {variable}")
        values.append(value)
    return Credentials(api_key=values[0], api_secret=values[1])
