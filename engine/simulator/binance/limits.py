"""Request weight and order counts: 429 past the limit, 418 for who goes on.

Source: binance-spot-api-docs ``rest-api.md`` "LIMITS" (2026). Windows are aligned to the clock. Successful placing and
cancelling weighs nothing since 2026-04-02.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.simulator.binance.errors import ApiError

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_DAY = 86_400 * _SECOND
_TOLERATED = 20
_BAN_NS = 2 * _MINUTE


@dataclass(slots=True)
class _Caller:
    minute: int = -1
    weight: int = 0
    refused: int = 0
    banned_until_ns: int = 0


@dataclass(slots=True)
class Limits:
    """Counts per caller address and orders per account. With ``enforced`` false it only counts."""

    weight_limit: int
    order_limit_10s: int
    order_limit_1d: int
    enforced: bool = True
    refused: int = 0
    banned: int = 0
    orders_refused: int = 0
    peak_weight: int = 0
    """The most weight that one caller had in one window."""
    _callers: dict[str, _Caller] = field(default_factory=dict)
    _orders: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def charge(self, caller: str, weight: int, now_ns: int) -> None:
        """Count a request's weight before it is handled; ApiError 429 or 418 when it must not be."""
        entry = self._entry(caller, now_ns)
        if self.enforced and now_ns < entry.banned_until_ns:
            raise self._banned(entry, now_ns)
        entry.weight += weight
        self.peak_weight = max(self.peak_weight, entry.weight)
        if not self.enforced or entry.weight <= self.weight_limit:
            return
        entry.refused += 1
        self.refused += 1
        if entry.refused > _TOLERATED:
            entry.banned_until_ns = now_ns + _BAN_NS
            raise self._banned(entry, now_ns)
        raise ApiError(
            -1003,
            f"Too much request weight used; current limit is {self.weight_limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API.",
            status=429,
            retry_after=(_MINUTE - now_ns % _MINUTE) // _SECOND + 1,
        )

    def _banned(self, entry: _Caller, now_ns: int) -> ApiError:
        until_ms = entry.banned_until_ns // 1_000_000
        self.banned += 1
        return ApiError(
            -1003,
            f"Way too much request weight used; IP banned until {until_ms}. "
            "Please use WebSocket Streams for live updates to avoid bans.",
            status=418,
            retry_after=(entry.banned_until_ns - now_ns) // _SECOND + 1,
        )

    def _entry(self, caller: str, now_ns: int) -> _Caller:
        entry = self._callers.setdefault(caller, _Caller())
        minute = now_ns // _MINUTE
        if entry.minute != minute:
            entry.minute, entry.weight, entry.refused = minute, 0, 0
        return entry

    def used_weight(self, caller: str, now_ns: int) -> int:
        return self._entry(caller, now_ns).weight

    def check_order(self, account: str, now_ns: int) -> None:
        """-1015 when the account may not place another order now."""
        if not self.enforced:
            return
        for length, limit, words in (
            (10 * _SECOND, self.order_limit_10s, "10 SECOND"),
            (_DAY, self.order_limit_1d, "1 DAY"),
        ):
            if self.order_count(account, length, now_ns) >= limit:
                self.orders_refused += 1
                raise ApiError(
                    -1015,
                    f"Too many new orders; current limit is {limit} orders per {words}.",
                    status=429,
                    retry_after=(length - now_ns % length) // _SECOND + 1,
                )

    def count_order(self, account: str, now_ns: int) -> None:
        for length in (10 * _SECOND, _DAY):
            count = self.order_count(account, length, now_ns)
            self._orders[account, length] = (now_ns // length, count + 1)

    def order_count(self, account: str, length_ns: int, now_ns: int) -> int:
        window, count = self._orders.get((account, length_ns), (-1, 0))
        return count if window == now_ns // length_ns else 0

    def order_counts(self, account: str, now_ns: int) -> tuple[int, int]:
        """Orders in the current 10 seconds and day."""
        return self.order_count(account, 10 * _SECOND, now_ns), self.order_count(account, _DAY, now_ns)

    def stats(self) -> dict[str, int]:
        """Counts since the start: requests refused for their weight, while banned, and orders refused."""
        return {
            "refused": self.refused,
            "banned": self.banned,
            "orders_refused": self.orders_refused,
            "peak_weight": self.peak_weight,
        }

    def weight_report(self, caller: str, now_ns: int) -> dict[str, object]:
        return {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self.weight_limit,
            "count": self.used_weight(caller, now_ns),
        }

    def order_report(self, account: str, now_ns: int) -> list[dict[str, object]]:
        ten_seconds, day = self.order_counts(account, now_ns)
        return [
            {
                "rateLimitType": "ORDERS",
                "interval": "SECOND",
                "intervalNum": 10,
                "limit": self.order_limit_10s,
                "count": ten_seconds,
            },
            {
                "rateLimitType": "ORDERS",
                "interval": "DAY",
                "intervalNum": 1,
                "limit": self.order_limit_1d,
                "count": day,
            },
        ]

    def table(self) -> list[dict[str, object]]:
        """``rateLimits`` of exchangeInfo."""
        rows = [
            ("REQUEST_WEIGHT", "MINUTE", 1, self.weight_limit),
            ("ORDERS", "SECOND", 10, self.order_limit_10s),
            ("ORDERS", "DAY", 1, self.order_limit_1d),
            ("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ]
        return [
            {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
            for kind, interval, number, limit in rows
        ]
