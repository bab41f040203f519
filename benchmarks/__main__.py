"""``python -m benchmarks [NAME] [--runs N] [--for S] [--quick]``: one benchmark, or all, a JSON object a line."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from benchmarks.common import Options

NAMES = (
    "book_raw_diff",
    "book_read",
    "socket_to_book",
    "many_pairs",
    "bus",
    "frame_to_strategy",
    "far_strategy",
    "strategy_to_wire",
    "order_rate",
    "journal_cost",
    "journal_start",
    "journal_postgres",
    "order_memory",
    "tick_lateness",
    "memory",
    "connectors",
    "recovery",
    "throttler",
    "simulation",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(NAMES)}; all of them if left out")
    parser.add_argument("--runs", type=int, help="how often each thing is measured")
    parser.add_argument(
        "--for", type=float, dest="span_s", metavar="SECONDS", help="how long to measure, where it is time"
    )
    parser.add_argument("--quick", action="store_true", help="as short as can be: shows that it works, not how fast")
    arguments = parser.parse_args()
    if arguments.name is not None and arguments.name not in NAMES:
        print(f"there is no benchmark {arguments.name!r}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    options = Options(runs=arguments.runs, quick=arguments.quick, span_s=arguments.span_s)
    for name in [arguments.name] if arguments.name else NAMES:
        for found in importlib.import_module(f"benchmarks.{name}").run(options):
            print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
