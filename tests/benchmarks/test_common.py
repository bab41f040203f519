"""The line that benchmarks print."""

from __future__ import annotations

import pytest

from benchmarks.common import Options, line, microseconds
from engine.metrics import Histogram


def test_a_ratio_above_one_says_that_ours_is_the_better() -> None:
    assert line("b", 2.0, "us", {"peer": 10.0})["ratio"] == {"peer": 5.0}
    assert line("b", 1000.0, "messages/s", {"peer": 100.0}, more_is_better=True)["ratio"] == {"peer": 10.0}


def test_what_was_not_measured_has_no_ratio() -> None:
    assert line("b", None, "us", {"peer": 10.0}) == {
        "bench": "b",
        "ours": None,
        "unit": "us",
        "peers": {"peer": 10.0},
        "ratio": {},
    }
    with pytest.raises(RuntimeError):
        microseconds(Histogram(), 0.5)


def test_quick_means_once_and_short_unless_a_number_is_given() -> None:
    assert Options(quick=True).times(5) == 1
    assert Options(quick=True).seconds(10.0) == 2.0
    assert Options(runs=3, quick=True).times(5) == 3
    assert Options().times(5) == 5
