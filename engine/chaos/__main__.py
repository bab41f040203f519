"""``python -m engine.chaos --for SECONDS [--seed N] [--every SECONDS] [--config FILE]``.

Progress and what broke go to standard error; the last line of standard output is one JSON object. Exits 1 when
something broke, 2 for a bad command line or configuration.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from pathlib import Path

import structlog

from engine.chaos.run import run
from engine.errors import ConfigError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.chaos", description="A real engine, killed at random.")
    parser.add_argument("--for", type=_positive, dest="seconds", default=60.0, metavar="SECONDS", help="how long")
    parser.add_argument("--seed", type=int, help="what to draw the plan from (default: one of its own)")
    parser.add_argument("--every", type=_positive, default=1.5, metavar="SECONDS", help="between strikes, on average")
    parser.add_argument("--config", type=Path, default=Path("configs/two_venues.yml"), help="the engine to run")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    began = time.monotonic()
    # A bus tells of every peer that is away, and here they are away all the time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.2f}  {text}", file=sys.stderr, flush=True)

    tell(f"seed {seed}")
    try:
        outcome = run(arguments.seconds, seed, arguments.config, every_s=arguments.every, tell=tell)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if outcome.folder is not None:
        tell(f"everything of it is kept in {outcome.folder}; run it again with SEED={seed}")
    print(json.dumps(outcome.summary()), flush=True)
    return 1 if outcome.broken else 0


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
