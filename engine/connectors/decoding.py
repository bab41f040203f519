"""Reading JSON that a venue sent: what may go wrong, and decimals that are amounts."""

from __future__ import annotations

import calendar
import re
import zlib
from collections.abc import Mapping
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Annotated

import msgspec
from msgspec import Meta

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A number that fits where the engine keeps it."""
_LATEST_MS = (2**63 - 1) // 1_000_000
Millis = Annotated[int, Meta(ge=0, le=_LATEST_MS)]
"""Milliseconds since the epoch, whose nanoseconds fit in 64 bits."""
Instant = Annotated[int, Meta(ge=0, le=(2**63 - 1) // 1_000)]
"""Milliseconds or microseconds since the epoch, for :func:`instant_ns`."""
Amount = Annotated[str, Meta(pattern=r"\A[0-9]{1,40}(\.[0-9]{1,40})?\Z")]
"""A plain decimal text, zero or more."""
IdText = Annotated[str, Meta(pattern=r"\A[0-9]{1,18}\Z")]
"""A number in quotes that fits in 64 bits."""
MillisText = Annotated[str, Meta(pattern=r"\A[0-9]{1,12}\Z|\A[0-8][0-9]{12}\Z")]
"""Milliseconds since the epoch in quotes."""

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""Everything that a decoder raises for data that is not what it is for (the last one for absurdly deep
nesting).
"""

_MOST_DIGITS = 40
_LARGEST_FRAME = 16 * 1024 * 1024
_ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?Z")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
_UNSET, _UNSET_REST = "0001-01-01T00:00:00", re.compile(r"(\.0{1,9})?Z")
_EPOCH = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?")


def utf8(data: str | bytes) -> bytes:
    """A frame's bytes; UnicodeError if they are no UTF-8, which decoders overlook in what they skip."""
    if isinstance(data, str):
        return data.encode()
    if not data.isascii():
        data.decode()
    return data


def is_list(data: bytes) -> bool:
    """Whether a JSON document is a list, if it is JSON at all."""
    return data.startswith(b"[") or data.lstrip(b" \t\r\n").startswith(b"[")


def gunzipped(data: bytes) -> bytes:
    """The content of a frame that is one whole gzip member; ValueError if it is not, or larger than 16 MiB."""
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(data, _LARGEST_FRAME)
    except zlib.error as error:
        raise ValueError(f"not gzip: {error}") from None
    if not reader.eof or reader.unused_data:
        raise ValueError("not one whole gzip member of at most 16 MiB")
    return content


def instant_ns(value: int) -> int:
    """Nanoseconds of an :data:`Instant`. What would be beyond the year 2262 in milliseconds is in microseconds."""
    return value * 1_000_000 if value <= _LATEST_MS else value * 1_000


def iso_ns(text: str) -> int:
    """Nanoseconds since the epoch of ``2021-04-17T16:43:37.067586Z``; ValueError if it is no such time.

    0 for a time that was not set (the year 1 of some languages).
    """
    if text.startswith(_UNSET) and _UNSET_REST.fullmatch(text, len(_UNSET)):
        return 0
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time in UTC")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (1970 <= year < 2262 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        raise ValueError(f"{text!r} is no date")
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(f"{text!r} is no time of day")
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    return seconds * 1_000_000_000 + int((match[7] or "").ljust(9, "0"))


def epoch_ns(text: str) -> int:
    """Nanoseconds of ``1618678133.370507``, seconds since the epoch; ValueError if it is no such number."""
    match = _EPOCH.fullmatch(text)
    if match is None or int(match[1]) > 9_000_000_000:
        raise ValueError(f"{text!r} is not a time in seconds")
    return int(match[1]) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long a reply's ``Retry-After`` asks to wait, in seconds; None where it says nothing, or nothing of sense.

    It is a number of seconds or a date (RFC 9110, section 10.2.3); a date counts from the reply's own ``Date``, by the
    same clock. None for what is not above zero: it would be an invitation to go on at once.
    """
    text = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text) or None
    try:
        wait_s = (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return wait_s if wait_s > 0 else None


def require_amounts(*values: Decimal) -> None:
    """Raise ValueError for what decoders take for decimals and no price, size or fee can be.

    That is NaN, infinities, and numbers of more than 40 digits before or behind the point. In a type's
    ``__post_init__`` it becomes the decoder's own error.
    """
    for value in values:
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -_MOST_DIGITS or max(exponent, value.adjusted()) > _MOST_DIGITS:
            raise ValueError(f"{value} is no amount")
