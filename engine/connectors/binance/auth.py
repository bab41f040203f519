"""Signing for Binance: HMAC-SHA256, hexadecimal.

Sources: "Request Security" of the REST API (values are percent-encoded before signing since 2026-01-15) and
of the WebSocket API (parameters sorted by name, not encoded).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote

Params = Iterable[tuple[str, str]]


def sign(secret: str, payload: str) -> str:
    """The signature of a payload."""
    return hmac.digest(secret.encode(), payload.encode(), "sha256").hex()


def encode(params: Params) -> str:
    """A query string, in the given order, with every value percent-encoded."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in params)


def signed_query(params: Params, secret: str) -> str:
    """A query string that ends in its signature."""
    query = encode(params)
    return f"{query}&signature={sign(secret, query)}"


def signed_params(params: Mapping[str, str | int], secret: str) -> dict[str, str | int]:
    """Parameters of a WebSocket API request, with their signature."""
    payload = "&".join(f"{name}={params[name]}" for name in sorted(params))
    return {**params, "signature": sign(secret, payload)}
