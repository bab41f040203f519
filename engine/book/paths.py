"""The names of books in shared memory."""

from __future__ import annotations

from pathlib import Path


def book_path(folder: Path, connector: str, pair: str, at: str = "") -> Path:
    """The file of a book; with ``at``, of its mirror for the readers of that place."""
    return folder / f"{connector}.{pair}{f'.at-{at}' if at else ''}.book"
