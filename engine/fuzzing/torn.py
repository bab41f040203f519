"""``python -m engine.fuzzing.torn [--reads N]``: reads of a shared book against a writer at full speed.

Both loops are compiled. A reading must be whole, no older than the one before it, and take at most 1 ms of the reader's
own CPU time (of 64 reads together, which is more than any of them took: time given to others does not count, nor does
what the CPU clock jumps ahead of the wall's). Writer and reader have a processor each, where there are two. The
same reads without the check that makes them whole must find torn ones, or the proof proves nothing. Prints one JSON
object; exits 1 if any of this does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from engine.book import BookReader, ReadStatus
from engine.fuzzing.torn_reads import read, write

LONGEST_NS = 1_000_000
_STALE_AFTER_NS = 60_000_000_000
_START_WITHIN_S = 30.0
_CHUNK = 1_000_000
_MOST_UNCHECKED = 200_000_000


class TornReport(msgspec.Struct):
    """``older``: readings older than the one before. ``busy``: readings that gave up after 32 tries.

    ``slowest_us``: CPU time of the slowest 64 readings together. ``unchecked_torn``: of ``unchecked`` readings without
    the check.
    """

    reads: int
    torn: int
    older: int
    busy: int
    slowest_us: float
    retries: int
    updates: int
    seconds: float
    unchecked: int
    unchecked_torn: int

    @property
    def passed(self) -> bool:
        is_proof = not self.unchecked or self.unchecked_torn > 0
        return not self.torn and not self.older and self.slowest_us <= LONGEST_NS / 1000 and is_proof


def torn(reads: int, unchecked: int) -> TornReport:
    """So many readings, while a process forked for it writes; then at least so many without the check."""
    processors = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(prefix="engine-torn-", dir="/dev/shm") as folder:
        path = Path(folder) / "x.book"
        pid = _forked_writer(path)
        try:
            _keep_apart(pid, processors)
            reader = BookReader(path, stale_after_ns=_STALE_AFTER_NS)
            _await(reader)
            first, began = reader.read_raw()[7], time.monotonic()
            broken, older, busy, slowest = read(reader, reads)
            seconds, updates = time.monotonic() - began, reader.read_raw()[7] - first
            retries = reader.retries
            done, found = _without_the_check(reader, unchecked)
            reader.close()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.sched_setaffinity(0, processors)
    return TornReport(reads, broken, older, busy, slowest / 1000, retries, updates, round(seconds, 1), done, found)


def _without_the_check(reader: BookReader, least: int) -> tuple[int, int]:
    """(readings, torn ones): at least so many, and on until one is torn; on a busy machine that may take long."""
    done = found = 0
    while done < least or (not found and done < _MOST_UNCHECKED):
        done += _CHUNK
        found += read(reader, _CHUNK, checked=False)[0]
    return done, found


def _forked_writer(path: Path) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            write(path)
        finally:
            os._exit(1)
    return pid


def _keep_apart(writer: int, processors: set[int]) -> None:
    """Each on a processor of its own, where there are two: on one and the same they never meet in the middle."""
    mine, *others = sorted(processors)
    if others:
        os.sched_setaffinity(0, {mine})
        os.sched_setaffinity(writer, set(others))


def _await(reader: BookReader) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while reader.read_best().status is not ReadStatus.FRESH:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the writer published nothing within {_START_WITHIN_S:.0f} s")
        os.sched_yield()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.fuzzing.torn", description="Readings, none torn.")
    parser.add_argument("--reads", type=int, default=100_000_000, help="how many (default: 100000000)")
    arguments = parser.parse_args()
    report = torn(arguments.reads, unchecked=max(arguments.reads // 10, 1_000_000))
    print(json.dumps(msgspec.structs.asdict(report)))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
