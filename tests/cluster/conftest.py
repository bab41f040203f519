"""Fixtures for engines on Ray. Each start of Ray takes seconds and memory, so the tests run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.simulation.postgres_server import postgres_server
from scripts.two_hosts import TwoHosts
from tests.system.harness import ROOT, Engine

Launch = Callable[..., Engine]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start engines on a Ray node of their own; each is ended and must leave nothing behind."""
    started: list[Engine] = []

    def start(config: str = "configs/two_venues.yml", *arguments: str, for_s: float | None = None) -> Engine:
        engine = Engine(ROOT / config, tmp_path / "state", "--runtime", "cluster", *arguments, for_s=for_s)
        started.append(engine)
        return engine

    yield start
    for engine in started:
        engine.close()


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    """Two hosts, with a Ray node on each."""
    with TwoHosts() as made:
        made.start_ray()
        yield made


@pytest.fixture
def far_database(hosts: TwoHosts) -> Iterator[tuple[str, str]]:
    """A database in the network of alpha that outlives its host: its address there, and for this process."""
    with postgres_server(network=(hosts.alpha.netns, hosts.alpha.address)) as server:
        address = server.database()
        yield server.remote(address), address
