"""Recorded traffic of real venues, no part of the project: tests on it run where it is beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

CAPTURES = Path(__file__).resolve().parents[2] / "shared" / "captures"


def captured(name: str) -> Path:
    """The recording of that name, such as ``htx_2021``; the test that asks is skipped where there is none."""
    path = CAPTURES / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"captures are absent: no {path.name} beside the checkout")
    return path
