"""``python -m engine.simulation``: many seeds, or one with its whole story."""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from types import FrameType

import msgspec

from engine.simulation import fencing
from engine.simulation.meetings import table, unmet
from engine.simulation.plan import KINDS
from engine.simulation.run import Outcome, memory_folder, run_seed

SHOWN_BROKEN = 20
STEP_S = 5.0
SEED_S = 120.0
"""Real seconds that a seed may take before it counts as hung: a hundred times what it takes."""
_decode = msgspec.json.Decoder(Outcome).decode


class Mode(Enum):
    """What a seed is run as."""

    FAULTS = "faults"
    CALM = "calm"
    FENCING = "fencing"
    UNFENCED = "unfenced"

    def run(self, seed: int, *, logs: bool = False, folder: str | None = None) -> Outcome:
        """Run one seed so."""
        if self in (Mode.FENCING, Mode.UNFENCED):
            return fencing.run_seed(seed, fenced=self is Mode.FENCING, logs=logs, folder=folder)
        return run_seed(seed, faults=self is Mode.FAULTS, logs=logs, folder=folder)

    @property
    def arguments(self) -> list[str]:
        """What chooses it on the command line."""
        return {
            Mode.FAULTS: [],
            Mode.CALM: ["--no-faults"],
            Mode.FENCING: ["--fencing"],
            Mode.UNFENCED: ["--unfenced"],
        }[self]

    @property
    def target(self) -> str:
        """The Makefile's name for it."""
        return "simulate-fencing" if self is Mode.FENCING else "simulate"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0 when nothing is broken, 1 otherwise."""
    args = _parser().parse_args(argv)
    mode = _mode(args)
    if args.seed is not None:
        return _replay(args.seed, mode)
    if args.lines:
        return _lines(range(args.first, args.first + args.seeds * args.step, args.step), mode, args.lines)
    return _many(args.first, args.seeds, min(args.jobs, args.seeds), mode, args.table)


def _mode(args: argparse.Namespace) -> Mode:
    if args.fencing or args.unfenced:
        return Mode.UNFENCED if args.unfenced else Mode.FENCING
    return Mode.CALM if args.no_faults else Mode.FAULTS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_count, default=100, help="how many seeds to run (default 100)")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--jobs", type=_count, default=1, help="how many processes share the seeds (default 1)")
    parser.add_argument("--seed", type=int, help="run this one seed and tell its whole story")
    parser.add_argument("--no-faults", action="store_true", help="let nothing go wrong")
    parser.add_argument("--fencing", action="store_true", help="two hosts that may trade one account, instead")
    parser.add_argument("--unfenced", action="store_true", help="the same without the fence, which must be missed")
    parser.add_argument("--table", action="store_true", help="print which faults met orders in which states")
    parser.add_argument("--step", type=_count, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--lines", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser


def _many(first: int, count: int, jobs: int, mode: Mode, tabled: bool = False) -> int:
    """Seeds ``first``…``first + count - 1``; the summary is the last line."""
    began = time.monotonic()
    total = _Total()
    seeds = range(first, first + count)
    for outcome in shared(seeds, jobs, mode) if jobs > 1 else _alone(seeds, mode):
        total.add(outcome)
        if outcome.broken:
            print(f"seed {outcome.seed} is broken: {outcome.broken[0]}", flush=True)
            for line in outcome.broken[1:SHOWN_BROKEN]:
                print(f"  {line}", flush=True)
    seconds = time.monotonic() - began
    if tabled:
        print(*table(total.met, total.faults), sep="\n")
        print("never met:", ", ".join(unmet(total.met, KINDS)) or "none")
    if total.first_broken is not None:
        print(f"first broken seed: {total.first_broken}; see it all with: make {mode.target} SEED={total.first_broken}")
    print(json.dumps(total.summary(seconds)), flush=True)
    return 1 if total.broken else 0


def _alone(seeds: range, mode: Mode, folder: str | None = None) -> Iterator[Outcome]:
    gc.collect()
    gc.freeze()
    for seed in seeds:
        with _within(SEED_S, seed):
            outcome = mode.run(seed, folder=folder)
        yield outcome


class Overdue(KeyboardInterrupt):
    """A seed does not end. Not an error that a run could take for one of its own."""


@contextlib.contextmanager
def _within(seconds: float, seed: int) -> Iterator[None]:
    """Raise :class:`Overdue` in a run that takes longer in real time: something in it waits for the outside.

    Time for which the process was stopped does not count.
    """

    end: Overdue | None = None
    step = min(STEP_S, seconds)
    left = round(seconds / step)

    def beat(number: int, frame: FrameType | None) -> None:
        nonlocal end, left
        left -= 1
        if left <= 0:
            end = Overdue(f"seed {seed} has not ended after {seconds:g} s")
            raise end

    before = signal.signal(signal.SIGALRM, beat)
    signal.setitimer(signal.ITIMER_REAL, step, step)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if end is not None:
            raise end  # what failed after it, as the run was torn down, is not the news


def shared(seeds: range, jobs: int, mode: Mode = Mode.FAULTS, limit_s: float = SEED_S) -> Iterator[Outcome]:
    """The same outcomes in the same order, from processes that take turns at the seeds.

    A seed that takes longer than ``limit_s`` in real time is broken; its process is killed, and another goes on after
    it.
    """
    with tempfile.TemporaryDirectory(prefix="engine-sims-", dir=memory_folder()) as folder:
        workers = [_Worker(seeds[index::jobs], mode, folder) for index in range(jobs)]
        try:
            for index, seed in enumerate(seeds):
                yield workers[index % jobs].outcome(seed, limit_s)
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    """A process that runs seeds one after the other, replaced when one of them hangs or kills it."""

    def __init__(self, seeds: range, mode: Mode, folder: str) -> None:
        self._seeds = seeds
        self._mode = mode
        self._folder = folder
        self._child = _child(seeds, mode, folder)

    def outcome(self, seed: int, limit_s: float) -> Outcome:
        """What came of the next seed, waited for at most ``limit_s``; not counting while this process is stopped."""
        assert self._child.stdout is not None
        ready, step = False, min(STEP_S, limit_s)
        for _ in range(round(limit_s / step)):
            ready = bool(select.select([self._child.stdout], [], [], step)[0])
            if ready:
                break
        line = self._child.stdout.readline() if ready else b""
        if line:
            return _decode(line)
        said = f"its process ended with code {self._child.wait()}" if ready else f"it has not ended after {limit_s:g} s"
        self.end()
        following = self._seeds[self._seeds.index(seed) + 1 :]
        if following:
            self._child = _child(following, self._mode, self._folder)
        return Outcome(seed, [said])

    def end(self) -> None:
        """Kill it. Safe more than once."""
        self._child.kill()
        self._child.communicate()


def _child(seeds: range, mode: Mode, folder: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "engine.simulation", "--lines", folder, "--from", str(seeds.start)]
    command += ["--seeds", str(len(seeds)), "--step", str(seeds.step), *mode.arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)


def _lines(seeds: range, mode: Mode, folder: str) -> int:
    for outcome in _alone(seeds, mode, folder):
        outcome.story = []
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _replay(seed: int, mode: Mode) -> int:
    began = time.monotonic()
    outcome = mode.run(seed, logs=True)
    for at_s, who, text in outcome.story:
        print(f"{at_s:10.4f}  {who:<28} {text}")
    for line in outcome.broken:
        print(f"BROKEN: {line}")
    total = _Total()
    total.add(outcome)
    print(json.dumps(total.summary(time.monotonic() - began)), flush=True)
    return 1 if outcome.broken else 0


class _Total:
    """What all seeds add up to."""

    def __init__(self) -> None:
        self.seeds = 0
        self.broken = 0
        self.first_broken: int | None = None
        self.orders = 0
        self.fills = 0
        self.kills: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.met: dict[str, Counter[str]] = {}
        self._digest = hashlib.sha256()

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.orders += outcome.orders
        self.fills += outcome.fills
        self.kills.update(outcome.kills)
        self.faults.update(outcome.faults)
        for kind, states in outcome.met.items():
            self.met.setdefault(kind, Counter()).update(states)
        self._digest.update(f"{outcome.seed}:{outcome.digest}\n".encode())
        if outcome.broken:
            self.broken += 1
            if self.first_broken is None:
                self.first_broken = outcome.seed

    def summary(self, seconds: float) -> dict[str, object]:
        return {
            "seeds": self.seeds,
            "broken": self.broken,
            **({"first_broken": self.first_broken} if self.broken else {}),
            "seconds": round(seconds, 1),
            "runs_per_minute": round(60 * self.seeds / seconds, 1) if seconds else 0.0,
            "orders": self.orders,
            "fills": self.fills,
            "kills": sum(self.kills.values()),
            "kills_by_kind": dict(sorted(self.kills.items())),
            "faults": dict(sorted(self.faults.items())),
            "faults_met": {kind: dict(sorted(states.items())) for kind, states in sorted(self.met.items())},
            **({"unmet": len(unmet(self.met, KINDS))} if self.met else {}),
            "digest": self._digest.hexdigest()[:16],
        }


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
