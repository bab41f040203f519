"""``python -m benchmarks``: what it prints and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_benchmark_prints_one_json_object_a_line_and_nothing_else() -> None:
    ended = run("book_raw_diff", "--quick")
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(text) for text in ended.stdout.splitlines()]
    assert {"published", "applied", "general", "by levels a side"} == {found["case"] for found in lines}
    for found in lines:
        assert found["bench"] == "book_raw_diff"
        assert found["unit"] == "us"
        assert found["ours"] > 0
        assert found["peers"].keys() == found["ratio"].keys()


def test_an_unknown_name_is_one_line_with_the_known_names_and_exit_2() -> None:
    ended = run("nonsense")
    assert ended.returncode == 2
    assert ended.stdout == ""
    (told,) = ended.stderr.splitlines()
    assert "'nonsense'" in told
    assert "book_raw_diff" in told
    assert "recovery" in told
