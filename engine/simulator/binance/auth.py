"""Keys, signatures and timestamps.

Source: binance-spot-api-docs ``rest-api.md`` "SIGNED Endpoint security" and ``web-socket-api.md`` "SIGNED request
security" (2026).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from engine.simulator.binance.errors import (
    ApiError,
    bad_key_format,
    bad_signature,
    illegal,
    missing,
    unknown_key,
)

MAX_WINDOW_US = 60_000_000
_DEFAULT_WINDOW_US = 5_000_000
_FUTURE_US = 1_000_000
_MICROSECONDS_FROM = 10**14
_KEY = re.compile(r"[A-Za-z0-9]{64}")
_WINDOW = re.compile(r"[0-9]{1,8}(\.[0-9]{1,3})?")


def sign(secret: str, payload: str) -> str:
    """Hex HMAC-SHA256 of the payload's UTF-8 bytes."""
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def rest_payload(query: str, body: str) -> str:
    """What a REST request signs: query and body as sent, joined with nothing, without the signature parameter."""
    return _without_signature(query) + _without_signature(body)


def websocket_payload(params: Mapping[str, str]) -> str:
    """What a WebSocket API request signs: all parameters but the signature, sorted, not percent-encoded."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature")


def check_signature(secret: str, payload: str, signature: str) -> None:
    """-1022 unless the signature is the payload's; hex digits in either case."""
    if not hmac.compare_digest(sign(secret, payload).encode(), signature.lower().encode()):
        raise bad_signature()


def check_key(api_key: str | None, secrets: Mapping[str, str]) -> str:
    """The key's secret; -2014 for what is no key, -2015 for one that is not known."""
    if not api_key or not _KEY.fullmatch(api_key):
        raise bad_key_format()
    secret = secrets.get(api_key)
    if secret is None:
        raise unknown_key()
    return secret


def check_time(params: Mapping[str, str], now_ns: int) -> None:
    """Accepted iff ``timestamp < serverTime + 1000 ms`` and ``serverTime - timestamp <= recvWindow``; else -1021."""
    text = params.get("timestamp", "")
    if not text:
        raise missing("timestamp")
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise illegal("timestamp", "^[0-9]{1,20}$")
    sent_us = int(text)
    if sent_us < _MICROSECONDS_FROM:
        sent_us *= 1000
    window_us = _window_us(params.get("recvWindow"))
    server_us = now_ns // 1000
    if sent_us >= server_us + _FUTURE_US:
        raise ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if server_us - sent_us > window_us:
        raise ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")


def _window_us(text: str | None) -> int:
    if text is None:
        return _DEFAULT_WINDOW_US
    if not _WINDOW.fullmatch(text):
        raise illegal("recvWindow", "^([0-9]{1,8})(\\.[0-9]{1,3})?$")
    whole, _, fraction = text.partition(".")
    window = int(whole) * 1000 + int(fraction.ljust(3, "0") or 0)
    if window > MAX_WINDOW_US:
        raise ApiError(-1131, "recvWindow must be less than 60000.")
    return window


def _without_signature(form: str) -> str:
    return "&".join(part for part in form.split("&") if not part.startswith("signature="))
