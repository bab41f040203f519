"""How a connector's settings travel in an actor's spec, and come out of it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.connectors.base import Connector
from engine.connectors.registry import create
from engine.connectors.settings import ConnectorSettings
from engine.logs import register_secret


def pack_settings(settings: ConnectorSettings) -> dict[str, Any]:
    """The settings as plain data for :attr:`ActorSpec.params`."""
    packed: dict[str, Any] = msgspec.to_builtins(settings)
    return packed


def connector_of(params: Mapping[str, Any]) -> Connector:
    """The connector of an actor's spec; its secrets are made known to the logger, which keeps them out."""
    settings = msgspec.convert(params["settings"], ConnectorSettings)
    if settings.credentials is not None:
        register_secret(settings.credentials.api_key)
        register_secret(settings.credentials.api_secret)
    return create(settings)
