"""Work that waits for a disk, kept off the event loop where the runtime has threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from engine.runtime.virtual_loop import VirtualLoop

T = TypeVar("T")


async def offload(work: Callable[..., T], *arguments: object) -> T:
    """``work(*arguments)`` on a thread; on virtual time, which knows none, at once."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        return work(*arguments)
    return await loop.run_in_executor(None, work, *arguments)
