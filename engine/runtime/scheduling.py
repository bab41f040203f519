"""Real-time scheduling: what stands on the way of a frame or an order runs before every ordinary process of its host.

Linux runs a process of the policy ``SCHED_RR`` as soon as it has something to do, whatever else wants the processor,
the higher rank first. Only its main thread, which has the event loop, is scheduled so: threads and processes that it
starts are ordinary. A process that never ends its turn leaves a twentieth of its processor to the others
(``kernel.sched_rt_runtime_us``), by which its supervisor ends it if there is no other processor.
"""

from __future__ import annotations

import os
from typing import Final

RANKS: Final = {"clock": 3, "order_book": 2, "mirror": 2, "user_stream": 2, "exchange": 2, "strategy": 1}
"""By kind of actor. Ticks come first, since who is late for them counts as hung; a strategy stands behind books and
orders, which a busy one must not hold up. The others are ordinary: nothing waits for them.
"""
HOW_TO: Final = (
    f"as root, or with a real-time priority of at least {max(RANKS.values())} (ulimit -r; systemd: LimitRTPRIO=)"
)


def run_first(rank: int) -> str:
    """Schedule the calling thread so; why not if that is not permitted, otherwise ""."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(rank))
    except OSError as error:
        return f"this host does not permit it ({error.strerror}); run {HOW_TO}"
    return ""


def lacking() -> str:
    """Why actors of this process would not be permitted to; "" if they would."""
    lack = run_first(max(RANKS.values()))
    if not lack:
        # The flag can be set by everyone, and taken back by root alone.
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    return lack
