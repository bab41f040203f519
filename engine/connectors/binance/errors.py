"""What Binance's refusals mean. Sources: "Errors" and "HTTP Return Codes" of the Spot API documentation
(2026).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.connectors.binance import constants
from engine.connectors.decoding import UNREADABLE, Millis, retry_after_s
from engine.connectors.errors import (
    AuthError,
    Banned,
    ClockError,
    DuplicateOrderId,
    FilterFailure,
    InsufficientBalance,
    MalformedReply,
    OrderNotFound,
    RateLimited,
    UnknownOutcome,
    VenueRefused,
    WouldCross,
)
from engine.errors import VenueError
from engine.messages import Reason

_BAN_S = 120.0
_RATE_LIMIT_S = 10.0
_FIREWALL_S = 60.0

_UNKNOWN = frozenset({-1000, -1001, -1006, -1007})
_AUTH = frozenset({-1002, -1022, -1099, -2014, -2015})
_TOO_MANY = frozenset({-1003, -1015, -1034})
_NOT_FOUND = frozenset({-2013, -2026})
_FILTER = frozenset({-1013, -1111})
_ORDER_TEXTS = frozenset({-1010, -2010, -2011, -2021, -2022})

_BY_TEXT: tuple[tuple[str, type[VenueRefused]], ...] = (
    ("insufficient balance", InsufficientBalance),
    ("duplicate order", DuplicateOrderId),
    ("would immediately match", WouldCross),
    ("unknown order", OrderNotFound),
    ("order does not exist", OrderNotFound),
    ("filter failure", FilterFailure),
)

_REJECT_REASONS = {
    "INSUFFICIENT_BALANCE": Reason.INSUFFICIENT_BALANCE,
    "INSUFFICIENT_BALANCES": Reason.INSUFFICIENT_BALANCE,
    "WOULD_MATCH_IMMEDIATELY": Reason.WOULD_CROSS,
    "DUPLICATE_ORDER": Reason.DUPLICATE_ID,
}


class ErrorBody(msgspec.Struct):
    """``{"code": -1121, "msg": "Invalid symbol."}``."""

    code: int
    msg: str = ""


class _Wait(msgspec.Struct, rename="camel"):
    server_time: Millis = 0
    retry_after: Millis = 0


class FrameError(ErrorBody):
    """The same in an answer of the WebSocket API, where ``data`` says how long to wait."""

    data: _Wait | None = None

    def retry_after_s(self, now_ms: int = 0) -> float | None:
        """How long to wait: ``retryAfter`` is an instant of the venue's clock (ms). ``now_ms``: that clock, for answers
        that do not show it; without it, None for these.
        """
        if self.data is None or not self.data.retry_after:
            return None
        now_ms = self.data.server_time or now_ms
        return max(0.0, (self.data.retry_after - now_ms) / 1000) if now_ms else None


_decode = msgspec.json.Decoder(ErrorBody).decode


def classify(status: int, headers: Mapping[str, str], body: bytes) -> VenueError:
    """The error of an HTTP reply that is none of success."""
    try:
        error = _decode(body)
    except UNREADABLE:
        error = None
    return from_status(status, error, retry_after_s(headers))


def from_status(status: int, error: ErrorBody | None, retry_after_s: float | None = None) -> VenueError:
    """The error of a reply by its status and what it says, over HTTP or the WebSocket API alike."""
    text = error.msg if error else f"HTTP {status}"
    code = error.code if error else status
    if status == 418:
        return Banned(code, text, _BAN_S if retry_after_s is None else retry_after_s)
    if status == 429:
        return _rate_limited(code, text, _RATE_LIMIT_S if retry_after_s is None else retry_after_s)
    if status >= 500:
        # "It is important to NOT treat this as a failure operation; the execution status is UNKNOWN."
        return UnknownOutcome(f"HTTP {status}: {text}" if error else text, code=code)
    if error is not None:
        return from_code(code, text, _RATE_LIMIT_S if retry_after_s is None else retry_after_s)
    if status == 408:
        return UnknownOutcome("HTTP 408: the venue, or what is before it, waited too long", code=status)
    if status == 403:
        return RateLimited(status, "refused by the venue's web application firewall", _FIREWALL_S)
    if status >= 400:
        return VenueRefused(status, text)
    return MalformedReply(f"HTTP {status} is not among the venue's documented answers", code=status)


def from_code(code: int, text: str, retry_after_s: float = _RATE_LIMIT_S) -> VenueError:
    """The error of a code and its text, by whichever way they came."""
    if code in _UNKNOWN:
        return UnknownOutcome(f"{text} (code {code})", code=code)
    if code == -1021:
        return ClockError(code, text)
    if code in _TOO_MANY:
        return _rate_limited(code, text, retry_after_s)
    if code in _AUTH:
        return AuthError(code, text)
    if code in _NOT_FOUND:
        return OrderNotFound(code, text)
    if code in _FILTER:
        return FilterFailure(code, text, _filter_reason(text))
    if code == -1121:
        return VenueRefused(code, text, Reason.UNKNOWN_PAIR)
    if code in _ORDER_TEXTS:
        return _by_text(code, text)
    return VenueRefused(code, text)


def reject_reason(name: str) -> Reason:
    """The reason of a rejected order's ``r`` field."""
    return _REJECT_REASONS.get(name, Reason.VENUE_REFUSED)


def _rate_limited(code: int, text: str, retry_after_s: float) -> RateLimited:
    """Too many orders (-1015) silence the placing of orders alone; cancels still go out."""
    limits = (constants.ORDERS_10S, constants.ORDERS_1D) if code == -1015 else ()
    return RateLimited(code, text, retry_after_s, limits=limits)


def _by_text(code: int, text: str) -> VenueRefused:
    lowered = text.lower()
    for part, kind in _BY_TEXT:
        if part in lowered:
            return kind(code, text, _filter_reason(text)) if kind is FilterFailure else kind(code, text)
    return VenueRefused(code, text)


def _filter_reason(text: str) -> Reason:
    # NOTIONAL alone may as well be the greatest one allowed.
    return Reason.BELOW_MIN_NOTIONAL if "MIN_NOTIONAL" in text else Reason.VENUE_REFUSED
