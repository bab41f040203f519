"""What stands on the way of a frame or an order can run before all else on its host, and find its processors awake.

**First.** Linux runs a process of the policy ``SCHED_RR`` as soon as it has something to do, whatever else wants the
processor, the higher rank first. Only its main thread, which has the event loop, is scheduled so: threads and processes
that it starts are ordinary. A process that never ends its turn leaves a twentieth of its processor to the others
(``kernel.sched_rt_runtime_us``), by which its supervisor ends it if there is no other processor.

**Awake.** A process that holds ``/dev/cpu_dma_latency`` open says how long a processor may take to wake up. At zero
none sleeps, and the wish ends with the process (https://docs.kernel.org/power/pm_qos_interface.html).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

RANKS: Final = {"clock": 3, "order_book": 2, "mirror": 2, "user_stream": 2, "exchange": 2, "strategy": 1}
"""By kind of actor. Ticks come first, since who is late for them counts as hung; a strategy stands behind books and
orders, which a busy one must not hold up. The others are ordinary: nothing waits for them.
"""
HOW_TO: Final = (
    f"as root, or with a real-time priority of at least {max(RANKS.values())} (ulimit -r; systemd: LimitRTPRIO=)"
)
WAKE_UP_LATENCY: Final = Path("/dev/cpu_dma_latency")
IDLE_DRIVER: Final = Path("/sys/devices/system/cpu/cpuidle/current_driver")


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


def keep_awake() -> str:
    """Let this host's processors not sleep until this process ends; why not if that cannot be had, otherwise ""."""
    if lack := cannot_keep_awake():
        return lack
    descriptor = os.open(WAKE_UP_LATENCY, os.O_WRONLY | os.O_CLOEXEC)  # for as long as there is this process
    os.write(descriptor, bytes(4))  # microseconds, an int32
    return ""


def cannot_keep_awake() -> str:
    """Why :func:`keep_awake` would do nothing in a process like this; "" if it would."""
    try:
        os.close(os.open(WAKE_UP_LATENCY, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        how = "run as root or give it to the engine's group; a container needs it as a device"
        return f"{WAKE_UP_LATENCY} cannot be opened ({error.strerror}): {how}"
    if not IDLE_DRIVER.exists() or IDLE_DRIVER.read_text().strip() == "none":
        return "this host's kernel does not decide how its processors sleep (no cpuidle driver: a virtual machine?)"
    return ""
