"""The proof of shared books at full speed, shorter; and that it finds what it is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.book import BookReader, BookWriter, SyncState
from engine.fuzzing.torn import TornReport, torn
from engine.fuzzing.torn_reads import DEPTH, PATTERNS, pattern, read

pytestmark = pytest.mark.processes


def test_no_reading_is_torn_or_slow_at_full_speed_and_without_the_check_some_are() -> None:
    report = torn(10_000_000, unchecked=1_000_000)
    assert (report.torn, report.older) == (0, 0)
    assert report.slowest_us <= 1000
    assert report.updates > 1000
    assert report.unchecked_torn > 0
    assert report.passed


def test_a_book_that_is_not_the_update_s_is_found(shared_folder: Path) -> None:
    path = shared_folder / "x.book"
    writer, reader = BookWriter(path, "ETH-USDT", 0, 0, DEPTH), BookReader(path)
    for number in range(PATTERNS):
        writer.publish(pattern(number), PATTERNS + number, 0, 1, SyncState.SYNCED)
        assert read(reader, 16)[:3] == (0, 0, 0)
        assert read(reader, 16, checked=False)[0] == 0
        writer.publish(pattern(number), PATTERNS + number + 1, 0, 1, SyncState.SYNCED)
        assert read(reader, 16)[0] == 16
    writer.publish(pattern(1), 1, 0, 1, SyncState.SYNCED)
    assert read(reader, 1)[1] == 0
    assert read(BookReader(shared_folder / "absent.book"), 5)[2] == 5


@pytest.mark.parametrize(
    "broken",
    [{"torn": 1}, {"older": 1}, {"slowest_us": 1000.1}, {"unchecked_torn": 0}, {"unchecked_torn": 0, "busy": 9}],
)
def test_a_report_says_whether_all_holds(broken: dict[str, int]) -> None:
    good = TornReport(10, 0, 0, 0, 12.5, 3, 99, 1.0, 10, 2)
    assert good.passed
    assert not msgspec.structs.replace(good, **broken).passed


def test_the_command_prints_one_object() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine.fuzzing.torn", "--reads", "100000"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["torn"] == 0
