"""``python -m engine.fuzzing --for SECONDS [--seed N] [--frames N] [--captures DIR]``.

Prints one JSON object; exits 1 if anything crashed or was read wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from engine.fuzzing.run import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.fuzzing", description="Mutated frames, every decoder.")
    parser.add_argument("--for", type=float, dest="seconds", metavar="SECONDS", help="how long (default: 60)")
    parser.add_argument("--frames", type=int, help="how many frames, instead of how long")
    parser.add_argument("--seed", type=int, default=1, help="what to begin from (default: 1)")
    parser.add_argument("--captures", type=Path, help="a folder of recorded traffic to mutate as well")
    arguments = parser.parse_args()
    seconds = arguments.seconds if arguments.seconds is not None or arguments.frames is not None else 60.0
    captures = arguments.captures if arguments.captures is not None and arguments.captures.is_dir() else None
    report = fuzz(seed=arguments.seed, seconds=seconds, frames=arguments.frames, captures=captures)
    print(
        json.dumps(
            {
                "frames": report.frames,
                "accepted": report.accepted,
                "unparsed": report.unparsed,
                "crashes": report.crashes,
                "wrong": report.wrong,
                "seconds": report.seconds,
                "seed": report.seed,
            }
        )
    )
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
