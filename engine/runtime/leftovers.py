"""What a dead engine left behind: found, waited for, ended and removed.

The processes of an engine whose supervisor was killed end by themselves within their grace time; its fork
server sees to that and then removes the engine's folders. If that one was killed as well, whoever starts next
does it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Final

from engine.errors import RuntimeFailure
from engine.runtime.locks import held_locks
from engine.runtime.paths import remove_tree

POLL_S: Final = 0.05
TERM_S: Final = 1.0
KILL_S: Final = 5.0


def clean_stale(run_dir: Path, shm_dir: Path | None) -> bool:
    """Remove what a dead engine left in its folders; False, and nothing is touched, if a process of it
    lives. With no shm folder that is left as it is."""
    if held_locks(run_dir):
        return False
    if shm_dir is not None:
        remove_tree(shm_dir)
    remove_tree(run_dir)
    return True


async def clear_previous(run_dir: Path, shm_dir: Path | None, grace_s: float) -> None:
    """Wait until the processes of an earlier engine have ended, then remove its files.

    They have ``grace_s`` to end by themselves; then SIGTERM, SIGKILL. To be called with the state lock held.
    Raises RuntimeFailure, naming them, when some do not end even then.
    """
    for wait_s, number in ((grace_s, signal.SIGTERM), (TERM_S, signal.SIGKILL), (KILL_S, None)):
        deadline = time.monotonic() + wait_s
        while not clean_stale(run_dir, shm_dir):
            if time.monotonic() >= deadline:
                break
            await asyncio.sleep(POLL_S)
        else:
            return
        if number is not None:
            for lock in held_locks(run_dir):
                lock.send_signal(number)
    names = ", ".join(f"{lock.name} (pid {lock.pid or 'unknown'})" for lock in held_locks(run_dir))
    raise RuntimeFailure(f"processes of an earlier engine do not end: {names}; end them, then start again")
