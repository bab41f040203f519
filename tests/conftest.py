"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from engine.simulation.postgres_server import PostgresServer, postgres_server


def pytest_make_parametrize_id(config: Any, val: object, argname: str) -> str | None:
    """Bytes may hold a time or a random mask: name such a case by its length, the same in every worker."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database."""
    address = postgres.database()
    yield address
    postgres.drop(address)
