"""``python -m tests.simulation.mutant_search``: seeds that show what each switched-off safeguard breaks.

What is found is kept in ``mutants.json`` beside this module, and replayed by the suite.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from engine.simulation.plan import make_plan
from engine.simulation.run import run_seed
from tests.simulation.mutants import MUTANTS, Mutant

RECORD = Path(__file__).with_name("mutants.json")
SEEDS = 1000
KEPT = 3
SHOWN = 120

Found = dict[int, str]
"""By seed, the first finding of the kind that its mutant is to cause."""


def main(argv: Sequence[str] | None = None) -> int:
    """Search as the command line asks; 0 when every mutant was seen, 1 otherwise."""
    args = _parser().parse_args(argv)
    began = time.monotonic()
    record = read_record(args.record)
    seen: dict[str, Found] = {}
    for name in args.mutant or MUTANTS:
        seen[name] = _search(MUTANTS[name], range(args.first, args.first + args.seeds), args.keep, args.jobs)
        record[name] = seen[name]
        _write_record(args.record, record)
    for name, found in seen.items():
        seed, text = next(iter(found.items()), (None, "NOT SEEN"))
        print(f"{name:<34} {seed or '':>5}  {text}")
    missed = sum(not found for found in seen.values())
    summary = {
        "mutants": {name: next(iter(found), None) for name, found in seen.items()},
        "seconds": round(time.monotonic() - began, 1),
        "missed": missed,
    }
    print(json.dumps(summary), flush=True)
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutant_search", description=__doc__)
    parser.add_argument("--mutant", nargs="*", choices=list(MUTANTS), help="only these (default: all)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how far to search (default {SEEDS})")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--keep", type=int, default=KEPT, help=f"how many seeds to find for each (default {KEPT})")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes share the seeds (default 1)")
    parser.add_argument("--record", type=Path, default=RECORD, help="where to keep what is found")
    return parser


def likely(mutant: Mutant, seeds: Iterable[int]) -> Iterator[int]:
    """The seeds whose plans have what could bring the mutant out."""
    return (seed for seed in seeds if mutant.comes_out(make_plan(seed)))


def hunt(name: str, seed: int) -> list[str]:
    """Run a seed with a mutant: those findings that it is to cause."""
    mutant = MUTANTS[name]
    with mutant.patch():
        return mutant.findings(run_seed(seed).broken)


def read_record(path: Path = RECORD) -> dict[str, Found]:
    """What was found for each mutant; nothing where there is no record."""
    if not path.exists():
        return {}
    return {
        name: {int(seed): text for seed, text in found.items()} for name, found in json.loads(path.read_text()).items()
    }


def _write_record(path: Path, record: dict[str, Found]) -> None:
    path.write_text(json.dumps({name: record[name] for name in MUTANTS if name in record}, indent=2) + "\n")


def _search(mutant: Mutant, seeds: range, wanted: int, jobs: int) -> Found:
    """Run seeds in their order until ``wanted`` of them show the mutant."""
    print(f"{mutant.name}: {mutant.stands_for}", flush=True)
    found: Found = {}
    runs = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        for seed, findings in _in_order(pool, mutant, likely(mutant, seeds), 2 * jobs):
            runs += 1
            if findings:
                found[seed] = findings[0][:SHOWN]
                print(f"  seed {seed}, run {runs}: {findings[0][:SHOWN]}", flush=True)
            if len(found) == wanted:
                break
        pool.shutdown(wait=True, cancel_futures=True)
    print(f"  {len(found)} of {runs} runs", flush=True)
    return found


def _in_order(
    pool: ProcessPoolExecutor, mutant: Mutant, seeds: Iterator[int], ahead: int
) -> Iterator[tuple[int, list[str]]]:
    """Each seed's findings; no more than ``ahead`` are begun before they are asked for."""
    under_way: deque[tuple[int, Future[list[str]]]] = deque()
    while True:
        for seed in islice(seeds, ahead - len(under_way)):
            under_way.append((seed, pool.submit(hunt, mutant.name, seed)))
        if not under_way:
            return
        seed, future = under_way.popleft()
        yield seed, future.result()


if __name__ == "__main__":
    sys.exit(main())
