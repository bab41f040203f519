"""Client order ids: made by the sender of an order, known by their prefix, never made twice.

An id is ``prefix + tag + stamp``: the tag is a digest of the strategy's name and its incarnation, the stamp a
strictly growing count of microseconds, both in base 36 and of fixed width. Ids of one maker grow; two strategies, or
two incarnations of one, have different tags, so that neither a restart nor a clock that stepped back repeats an id.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Protocol

from engine.messages import Order

MAX_LENGTH = 32
"""The longest id that every venue with free-text ids takes."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_TAG_WIDTH = 10
STAMP_WIDTH = 11
_MAX_PREFIX = MAX_LENGTH - _TAG_WIDTH - STAMP_WIDTH
_ALLOWED = re.compile(r"[A-Za-z0-9_-]+")


class WallTime(Protocol):
    """Where the time is read."""

    def time_ns(self) -> int:
        """Nanoseconds since the epoch."""


class ClientOrderIds:
    """Makes the ids of one incarnation of one strategy.

    ``prefix``: the engine's, 1 to 11 of ``A-Z a-z 0-9 - _``.
    Raises ``ValueError`` for a prefix that venues would refuse.
    """

    def __init__(self, prefix: str, strategy: str, incarnation: int, clock: WallTime) -> None:
        if len(prefix) > _MAX_PREFIX or not _ALLOWED.fullmatch(prefix):
            raise ValueError(f"order id prefix {prefix!r}: use 1 to {_MAX_PREFIX} letters, digits, '-' or '_'")
        digest = blake2b(f"{incarnation}/{strategy}".encode(), digest_size=8).digest()
        tag = _base36(int.from_bytes(digest, "big") % 36**_TAG_WIDTH, _TAG_WIDTH)
        self._head = prefix + tag
        self._clock = clock
        self._last = 0

    def next(self) -> str:
        """A new id, greater than all before it."""
        self._last = max(self._last + 1, self._clock.time_ns() // 1000)
        return self._head + _base36(self._last, STAMP_WIDTH)


def made_ns(client_order_id: str) -> int:
    """When an id was made, on its maker's clock; to the microsecond."""
    return int(client_order_id[-STAMP_WIDTH:], 36) * 1000


def made_by(order: Order, time_ns: int) -> bool:
    """Whether an order was made by then, on its maker's clock. Its acceptance dates one whose id tells nothing."""
    try:
        return made_ns(order.client_order_id) <= time_ns
    except ValueError:
        return order.created_ns <= time_ns


def is_own(client_order_id: str, prefix: str) -> bool:
    """Whether an order with this id was placed by the engine that uses this prefix."""
    return len(client_order_id) > len(prefix) and client_order_id.startswith(prefix)


def is_valid(client_order_id: str) -> bool:
    """Whether every venue with free-text ids takes this one."""
    return len(client_order_id) <= MAX_LENGTH and _ALLOWED.fullmatch(client_order_id) is not None


def _base36(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
