"""What all tests share."""

from __future__ import annotations

from typing import Any


def pytest_make_parametrize_id(config: Any, val: object, argname: str) -> str | None:
    """Bytes may hold a time or a random mask: name such a case by its length, the same in every worker."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None
