"""Which venues there are, and a connector for a name of the configuration."""

from __future__ import annotations

from importlib import import_module

import msgspec

from engine.connectors.base import Connector
from engine.connectors.settings import ConnectorSettings
from engine.errors import ConfigError

_VENUES: dict[str, str] = {
    "binance": "engine.connectors.binance.connector:BinanceConnector",
    "binance_perpetual": "engine.connectors.binance_perpetual.connector:BinancePerpetualConnector",
    "coinbase_exchange": "engine.connectors.coinbase_exchange.connector:CoinbaseExchangeConnector",
    "htx": "engine.connectors.htx.connector:HtxConnector",
    "kraken_v1": "engine.connectors.kraken_v1.connector:KrakenV1Connector",
    "kucoin": "engine.connectors.kucoin.connector:KucoinConnector",
    "okx": "engine.connectors.okx.connector:OkxConnector",
}


def venues() -> list[str]:
    """Every venue id that :func:`create` knows, domains included (``binance:us``), sorted."""
    names: list[str] = []
    for venue in _VENUES:
        names += [f"{venue}:{domain}" if domain else venue for domain in connector_class(venue).domains]
    return sorted(names)


def capabilities() -> dict[str, tuple[str, ...]]:
    """What each of :func:`venues` can do here: ``market data``, ``trading``."""
    return {name: connector_class(name.partition(":")[0]).capabilities for name in venues()}


def split_venue(name: str) -> tuple[str, str]:
    """Venue and domain of ``venue`` or ``venue:domain``; ConfigError naming the known ones if there is none
    such.
    """
    venue, _, domain = name.partition(":")
    if domain not in connector_class(venue).domains:
        raise _unknown(name)
    return venue, domain


def connector_class(venue: str) -> type[Connector]:
    """The class of a venue, imported on first use; ConfigError if it is unknown."""
    target = _VENUES.get(venue)
    if target is None:
        raise _unknown(venue)
    module, _, name = target.partition(":")
    found = getattr(import_module(module), name)
    assert isinstance(found, type)
    assert issubclass(found, Connector)
    return found


def create(settings: ConnectorSettings) -> Connector:
    """The connector for these settings; ``settings.venue`` may carry its domain (``binance:us``)."""
    cls = connector_class(settings.venue.partition(":")[0])
    venue, domain = split_venue(f"{settings.venue}:{settings.domain}" if settings.domain else settings.venue)
    if (venue, domain) != (settings.venue, settings.domain):
        settings = msgspec.structs.replace(settings, venue=venue, domain=domain)
    return cls(settings)


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"there is no venue {name!r}; known are: {', '.join(venues())}")
