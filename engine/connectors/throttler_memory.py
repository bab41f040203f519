"""The memory in which requests are counted: a process's own, or a file that all processes of a host share."""

from __future__ import annotations

import fcntl
import os
from hashlib import blake2b
from pathlib import Path

from engine.connectors.throttler_cells import MEMORY_SIZE, LimitCells
from engine.errors import ConfigError

_LAYOUT = b"request limits, layout 2"


def open_memory(path: str | Path | None = None) -> LimitCells:
    """Counts in the file at ``path``, which is made if need be; without a path, in memory of this process alone.

    A file of another layout, or of before the host was started, is begun anew: monotonic times in it mean nothing.
    ConfigError if the file cannot be used.
    """
    mark = int.from_bytes(blake2b(_LAYOUT + _boot(), digest_size=8).digest(), "little")
    if path is None:
        cells = LimitCells(-1, mark)
        cells.clear()
        return cells
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Only what follows is locked, and the lock ends with its holder: counting itself needs none.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, MEMORY_SIZE)
            cells = LimitCells(descriptor, mark)
            if not cells.is_marked:
                cells.clear()
        finally:
            # Not by closing it alone: a mapping keeps the open file, and with it the lock, for as long as it lasts.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"the shared request counts at {path} cannot be used: {error.strerror or error}") from error
    return cells


def key_of(*parts: str) -> int:
    """The key of a limit in such a memory; of a secret among the parts nothing can be read from it."""
    digest = blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def _boot() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return b""
