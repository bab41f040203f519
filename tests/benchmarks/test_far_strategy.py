"""What the benchmark of two hosts makes of the times that its strategies noted."""

from __future__ import annotations

import pytest

from benchmarks.common import Options
from benchmarks.far_link import steady
from benchmarks.far_strategy import arrivals, latencies, percentile, run


def test_a_frame_is_there_when_a_book_with_it_or_a_later_one_is_read() -> None:
    received = {"a/B-C": [[1, 100, 110], [2, 200, 210], [4, 400, 410]]}
    seen = {"a/B-C": [[1, 0, 150], [3, 0, 330], [4, 0, 470]]}
    assert latencies(received, seen) == [50, 130, 70]


def test_frames_before_the_first_reading_and_after_the_last_say_nothing() -> None:
    received = {"a/B-C": [[1, 100, 110], [2, 200, 210], [3, 300, 310]], "a/D-C": [[1, 100, 110]]}
    assert latencies(received, {"a/B-C": [[2, 0, 260]]}) == [60]


def test_percentiles_are_microseconds_of_what_was_measured() -> None:
    values = [n * 1000 for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99)) == (51.0, 100.0)
    assert percentile([7000], 99) == 7.0
    with pytest.raises(RuntimeError):
        percentile([], 50)


def test_without_root_it_is_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.far_strategy.lacking", lambda: "needs root")
    assert list(run(Options(quick=True))) == []
    assert capsys.readouterr().err == "far_strategy is left out: it needs root\n"


def test_frames_of_a_burst_have_come_together():
    stamps = {
        "a/X": [[1, 5_000_000_000, 0], [2, 5_100_000_000, 0]],
        "a/Y": [[7, 5_000_004_000, 0], [8, 5_102_000_000, 0]],
    }
    assert arrivals(stamps) == [0, 0, 100_000_000, 102_000_000]


def test_a_steady_rate():
    assert steady(4, 1) == [0, 250_000_000, 500_000_000, 750_000_000]
