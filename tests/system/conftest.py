"""Fixtures for tests of the whole engine: real processes, real sockets, a venue in a box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.harness import ROOT, Engine

Launch = Callable[..., Engine]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start engines; whatever the test did, each is ended and must leave nothing behind."""
    started: list[Engine] = []

    def start(
        config: str | Path = "configs/demo.yml", *arguments: str, name: str = "state", **options: object
    ) -> Engine:
        path = Path(config) if Path(config).is_absolute() else ROOT / config
        engine = Engine(path, tmp_path / name, *arguments, **options)  # type: ignore[arg-type]
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.close()
