from __future__ import annotations

from decimal import Decimal

import pytest

from engine.connectors.decoding import instant_ns, iso_ns, require_amounts, retry_after_s


@pytest.mark.parametrize("text", ["0", "0.00000000", "-1.5", "1E+3", "123456789012345678901234567890.12345678"])
def test_amounts(text: str) -> None:
    require_amounts(Decimal(text))


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity", "1e41", "1e-41", "0e999999", "0e-999999"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no amount"):
        require_amounts(Decimal(1), Decimal(text))


AT = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:30:05 GMT", "Date": AT}, 125),
        ({"Retry-After": "999999999999"}, 999_999_999_999),
    ],
)
def test_how_long_a_reply_asks_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize(
    "headers",
    [
        {},
        *({"Retry-After": text, "Date": AT} for text in ("", "soon", "0", "-5", "nan", "inf", "1e400", "1_0", "٣", AT)),
        {"Retry-After": "Wed, 21 Oct 2026 07:30:05 GMT"},
        {"Retry-After": "Wed, 21 Oct 2026 07:30:05 GMT", "Date": "today"},
        {"Retry-After": "Wed, 99 Oct 99999 07:30:05 GMT", "Date": AT},
        {"Retry-After": "Wed, 21 Oct 2026 07:30:05", "Date": AT},
        {"Retry-After": "9" * 400, "Date": AT},
    ],
)
def test_what_asks_for_no_time_to_wait(headers: dict[str, str]) -> None:
    assert retry_after_s(headers) is None


def test_milliseconds_and_microseconds_are_told_apart_by_their_size() -> None:
    assert instant_ns(1_700_000_000_123) == 1_700_000_000_123_000_000
    assert instant_ns(1_700_000_000_123_456) == 1_700_000_000_123_456_000
    latest = (2**63 - 1) // 1_000_000
    assert instant_ns(latest) == latest * 1_000_000
    assert instant_ns(latest + 1) == (latest + 1) * 1_000


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"])
def test_a_time_that_was_never_set_is_none(text: str) -> None:
    assert iso_ns(text) == 0


@pytest.mark.parametrize("text", ["0001-01-01T00:00:01Z", "0001-01-01T00:00:00.1Z", "1969-12-31T00:00:00Z", "x"])
def test_times_before_the_epoch_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        iso_ns(text)
