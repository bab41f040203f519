"""How an actor's process watches the supervisor: by a pidfd that it was given at birth.

A pidfd names one process for good, so a supervisor whose number was taken by another process is seen as dead.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import Final

from engine.errors import RuntimeFailure

PIDFD_VARIABLE: Final = "ENGINE_SUPERVISOR_PIDFD"
"""The environment variable of an actor's process that holds the descriptor's number."""


def supervisor_pidfd() -> int:
    """The descriptor of the supervisor's process. Raises RuntimeFailure in a process that was not given
    one."""
    try:
        return int(os.environ[PIDFD_VARIABLE])
    except (KeyError, ValueError) as error:
        raise RuntimeFailure(
            f"{PIDFD_VARIABLE} does not hold a descriptor: no fork server of the engine started this process"
        ) from error


def supervisor_alive() -> bool:
    """Whether the supervisor's process runs now. Raises RuntimeFailure like :func:`supervisor_pidfd`."""
    return process_alive(supervisor_pidfd())


def process_alive(pidfd: int) -> bool:
    """Whether the process of a pidfd has not ended yet."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return not poll.poll(0)


def watch_supervisor(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback`` once when the supervisor's process ends, at once if it has; the returned function
    ends the watch.

    Raises RuntimeFailure like :func:`supervisor_pidfd`.
    """
    pidfd = supervisor_pidfd()

    def gone() -> None:
        loop.remove_reader(pidfd)
        callback()

    def cancel() -> None:
        loop.remove_reader(pidfd)

    loop.add_reader(pidfd, gone)
    return cancel
