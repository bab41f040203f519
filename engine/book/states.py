"""What a book, and a reading of it, can be trusted for. The numbers are part of the shared-memory layout."""

from __future__ import annotations

from enum import IntEnum


class SyncState(IntEnum):
    """Where a book stands with its venue."""

    UNSYNCED = 0
    """Not connected: nothing is known."""
    BUFFERING = 1
    """Connected, keeping diffs until a snapshot says where they begin."""
    SYNCED = 2
    """Every update so far is in the book."""


class ReadStatus(IntEnum):
    """How far a reading from shared memory can be trusted; only ``FRESH`` is fit to trade on."""

    FRESH = 0
    """In sync, and its writer lives."""
    STALE = 1
    """No heartbeat within ``stale_after_ns``: the writer is dead, stopped or stalled. Values are the last
    known.
    """
    UNSYNCED = 2
    """The writer lives and says that the book is not in sync. Values are the last known."""
    BUSY = 3
    """No complete slot could be read within the bounded number of tries. No values; ask again."""
    MISSING = 4
    """There is no book file (yet). No values."""
