"""Mids of books in shared memory, for actors that value positions."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from engine.book import BookReader, ReadStatus
from engine.book.paths import book_path


class Mids:
    """Reads the books of some pairs of some connectors, those in ``at`` from the mirror of that place.

    A book that is not fresh has no mid.
    """

    def __init__(
        self, shm_dir: Path, pairs: dict[str, list[str]], stale_after_ns: int, at: Mapping[str, str] | None = None
    ) -> None:
        mirrored = at or {}
        self._readers = {
            (connector, pair): BookReader(
                book_path(shm_dir, connector, pair, mirrored.get(connector, "")), stale_after_ns=stale_after_ns
            )
            for connector, names in pairs.items()
            for pair in names
        }

    def mid(self, connector: str, pair: str, now_mono_ns: int) -> Decimal | None:
        """Half way between best bid and best ask; None unless both are there and fresh."""
        reader = self._readers.get((connector, pair))
        if reader is None:
            return None
        best = reader.read_best(now_mono_ns)
        if best.status is not ReadStatus.FRESH or best.bid is None or best.ask is None:
            return None
        return (best.bid + best.ask) / 2

    def close(self) -> None:
        """Unmap the books."""
        for reader in self._readers.values():
            reader.close()
