"""``python -m engine.fuzzing --for S | --frames N | --each N  [--venues A,B] [--seed N] [--jobs N] [--captures DIR]``.

Prints one JSON object as its last line (``--each``: one for each venue before it); exits 1 if anything crashed or was
read wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.fuzzing.reference import REFERENCES
from engine.fuzzing.run import FuzzReport, fuzz, fuzz_each

_SUMS = ("frames", "accepted", "unparsed", "crashes", "wrong", "hot")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.fuzzing", description="Mutated frames, every decoder.")
    parser.add_argument("--for", type=float, dest="seconds", metavar="SECONDS", help="how long (default: 60)")
    parser.add_argument("--frames", type=int, help="how many frames, instead of how long")
    parser.add_argument("--each", type=int, metavar="N", help="so many frames of every venue, instead of how long")
    parser.add_argument("--venues", help="of these venues alone, with commas between them (default: all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, with --each (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="what to begin from (default: 1)")
    parser.add_argument("--captures", type=Path, help="a folder of recorded traffic to mutate as well")
    arguments = parser.parse_args()
    venues = arguments.venues.split(",") if arguments.venues else sorted(REFERENCES)
    if unknown := set(venues) - set(REFERENCES):
        parser.error(f"no such venue: {', '.join(sorted(unknown))}; there are {', '.join(sorted(REFERENCES))}")
    captures = arguments.captures if arguments.captures is not None and arguments.captures.is_dir() else None
    if arguments.each is not None:
        report = _each(arguments.each, venues, arguments.seed, captures, arguments.jobs)
    else:
        seconds = arguments.seconds if arguments.seconds is not None or arguments.frames is not None else 60.0
        report = fuzz(seed=arguments.seed, seconds=seconds, frames=arguments.frames, captures=captures, venues=venues)
    print(json.dumps(_line(report)))
    return 0 if report.passed else 1


def _each(each: int, venues: Sequence[str], seed: int, captures: Path | None, jobs: int) -> FuzzReport:
    began = time.monotonic()
    reports = []
    for venue, report in fuzz_each(each, seed=seed, captures=captures, jobs=jobs, venues=venues):
        print(json.dumps({"venue": venue, **_line(report)}), flush=True)
        reports.append(report)
    return _sum(reports, seed, round(time.monotonic() - began, 2))


def _sum(reports: Iterable[FuzzReport], seed: int, seconds: float) -> FuzzReport:
    total = FuzzReport(seed, seconds, failures=[])
    for report in reports:
        for name in _SUMS:
            setattr(total, name, getattr(total, name) + getattr(report, name))
    return total


def _line(report: FuzzReport) -> dict[str, int | float]:
    return {name: getattr(report, name) for name in (*_SUMS, "seconds", "seed")}


if __name__ == "__main__":
    sys.exit(main())
