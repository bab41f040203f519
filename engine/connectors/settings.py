"""What a connector is made from: where its venue is, who we are there, and what for."""

from __future__ import annotations

from typing import Any

import msgspec


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Base addresses: REST (``https://host``), public streams and private streams (``wss://host``)."""

    rest: str
    ws: str
    ws_api: str = ""


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A venue's key. It never shows itself: not in a log, not in an exception, not in a report."""

    api_key: str
    api_secret: str

    def __repr__(self) -> str:
        return "Credentials(<redacted>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("api_key", "<redacted>"), ("api_secret", "<redacted>")]


class ConnectorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One connector of the configuration.

    ``connector`` is its key there (``binance``, ``binance:us``, or a name of the user's own); ``domain``
    picks one of the venue's sites. ``endpoints`` replaces the venue's own addresses. ``options`` are the
    venue's, plus ``ca`` (a file of certificates to trust) and ``timeout_s``.
    """

    connector: str
    venue: str
    domain: str = ""
    account: str = "main"
    pairs: tuple[str, ...] = ()
    endpoints: Endpoints | None = None
    credentials: Credentials | None = None
    options: dict[str, Any] = {}
