"""What all commands take: durations, times, numbers of rows."""

from __future__ import annotations

from typing import Any

import pytest

from engine.commands.common import duration, since


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1.5h", 5400), ("10m", 600), ("500ms", 0.5), ("2d", 172_800)],
)
def test_durations(text: str, expected: float) -> None:
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 1_700_000_000_000_000_000 - 600 * 10**9),
        ("90", 1_700_000_000_000_000_000 - 90 * 10**9),
        ("1699999999", 1_699_999_999 * 10**9),
        ("1699999999.5", 1_699_999_999_500_000_000),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000 * 10**9),
        ("2023-11-14T22:13:20.000001Z", 1_700_000_000 * 10**9 + 1000),
    ],
)
def test_times_may_be_written_in_three_ways(text: str, expected: int) -> None:
    assert since(text, now_ns=1_700_000_000_000_000_000) == expected


@pytest.mark.parametrize("text", ["99999999999", "99999999999999999999", "9999-12-31"])
def test_a_time_that_no_order_can_have_is_a_wrong_command_line(call: Any, text: str) -> None:
    code, _, err = call("orders", "--since", text)
    assert code == 2
    assert "later than any order can be" in err


def test_a_time_before_all_others_is_the_beginning() -> None:
    assert since("0001-01-02") == since("999999d") == 0


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1000000001", "9" * 5000, "²", "١"])
def test_a_number_of_rows_that_cannot_be_is_a_wrong_command_line(call: Any, text: str) -> None:
    code, _, err = call("orders", "--limit", text)
    assert code == 2
    assert "is not a whole number from 1 to" in err or "expected one argument" in err
