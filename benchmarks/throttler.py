"""CPU of asking a throttler for leave while it remembers many requests.

Ours counts units per bucket, so what it remembers costs nothing; it is measured with memory of its own and with memory
that processes share. The peer does what throttlers with a log do: it keeps an entry for each request of the last
interval, and for each new one drops the entries that are too old and adds up what the others weigh, with decimals.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from benchmarks.common import Line, Options, line, median, say
from engine.connectors.throttler import Priority, RateLimit, Throttler

ACQUISITIONS = 100_000
REMEMBERED = 50_000
PEER_ACQUISITIONS = 20
INTERVAL_S = 86_400
LIMIT = 1_000_000
COSTS = {"orders": 1, "weight": 1}


def run(options: Options) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as folder:
        for case, shared in (("own_memory", None), ("shared_memory", Path(folder) / "limits")):
            ours, peer = [], []
            for number in range(options.times(5)):
                say(f"throttler: {case}, run {number + 1}")
                ours.append(_per_acquisition(_Ours(shared).acquire, ACQUISITIONS))
                peer.append(_per_acquisition(_Log().acquire, PEER_ACQUISITIONS))
            yield line(
                "throttler",
                median(ours),
                "us of CPU an acquisition",
                {"sliding_log": median(peer)},
                case=case,
                remembered=REMEMBERED,
                acquisitions=ACQUISITIONS,
                seconds_in_all=round(median(ours) * ACQUISITIONS / 1e6, 3),
                runs=len(ours),
            )


def _per_acquisition(acquire: Callable[[], None], times: int) -> float:
    before = time.process_time()
    for _ in range(times):
        acquire()
    return (time.process_time() - before) / times * 1e6


class _Ours:
    """A throttler with two linked limits of a day, that has let out ``REMEMBERED`` requests in that day."""

    def __init__(self, shared: Path | None) -> None:
        clock = _Clock()
        limits = {name: RateLimit(LIMIT, INTERVAL_S * 10**9, reserve=0.0) for name in COSTS}
        self._throttler = Throttler(
            limits, clock=clock, venue_now_ns=clock.time_ns, shared=shared, address=str(id(self))
        )
        step_ns = INTERVAL_S * 10**9 // REMEMBERED // 2
        for _ in range(REMEMBERED):
            clock.now_ns += step_ns
            self._throttler.try_acquire(COSTS, Priority.PLACE)

    def acquire(self) -> None:
        self._throttler.try_acquire(COSTS, Priority.PLACE)


class _Clock:
    def __init__(self) -> None:
        self.now_ns = 20_000 * INTERVAL_S * 10**9

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns


@dataclass(frozen=True)
class _Entry:
    at: float
    limit: str
    weight: int


class _Log:
    """A sliding log of requests, which is scanned for each of them, for each limit that it counts against."""

    def __init__(self) -> None:
        self._now = time.time()
        self._log = [
            _Entry(self._now - INTERVAL_S / 2 * number / REMEMBERED, name, 1)
            for number in range(REMEMBERED // len(COSTS))
            for name in COSTS
        ]

    def acquire(self) -> None:
        now = Decimal(str(time.time()))
        self._log = [entry for entry in self._log if now - Decimal(str(entry.at)) <= INTERVAL_S]
        for name, cost in COSTS.items():
            used = sum(entry.weight for entry in self._log if entry.limit == name)
            if used + cost > LIMIT:
                raise RuntimeError("the benchmark's limit is never reached")
        self._log += [_Entry(float(now), name, cost) for name, cost in COSTS.items()]
