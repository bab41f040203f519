"""One run of chaos: an engine started, struck, let settle, stopped, and its books compared."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine.chaos.audit import Audit, audit, story
from engine.chaos.plan import make_plan
from engine.chaos.setting import write_config
from engine.chaos.strikes import Striker, Venues
from engine.chaos.victim import Victim
from engine.config import EngineConfig

UP_WITHIN_S: Final = 60.0
SETTLED_WITHIN_S: Final = 90.0
LOOK_EVERY_S: Final = 1.0
TELL_EVERY_S: Final = 10.0
STORIES: Final = 10

Tell = Callable[[str], None]


@dataclass
class Outcome:
    """What came of a run. ``folder``: where everything of a broken one is kept."""

    seconds: float
    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    pauses: dict[str, int] = field(default_factory=dict)
    together: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    engine_starts: int = 0
    orders: int = 0
    fills: int = 0
    broken: list[str] = field(default_factory=list)
    folder: Path | None = None

    def summary(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 1),
            "kills": dict(sorted(self.kills.items())),
            "pauses": dict(sorted(self.pauses.items())),
            "two_at_once": self.together,
            "engine_starts": self.engine_starts,
            "faults": dict(sorted(self.faults.items())),
            "orders": self.orders,
            "fills": self.fills,
            "broken": len(self.broken),
            "seed": self.seed,
        }


def run(seconds: float, seed: int, config: Path, *, every_s: float = 1.5, tell: Tell = print) -> Outcome:
    """Put an engine with that configuration under chaos for so long. ``every_s``: between two strikes, on average.

    Raises :class:`~engine.errors.ConfigError` for a configuration that cannot be used.
    """
    folder = Path(tempfile.mkdtemp(prefix="engine-chaos-"))
    try:
        chaos = _Chaos(write_config(config, folder / "chaos.yml", seed), folder, seed, tell)
        outcome = chaos.run(seconds, every_s)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if outcome.broken:
        outcome.folder = folder
    else:
        shutil.rmtree(folder)
    return outcome


class _Chaos:
    def __init__(self, config: EngineConfig, folder: Path, seed: int, tell: Tell) -> None:
        self.config = config
        self.seed = seed
        self.victim = Victim(folder / "chaos.yml", folder)
        self.venues = Venues()
        self.began = time.monotonic()
        self.strikes: list[tuple[int, str]] = []
        self._tell = tell
        self.striker = Striker(self.victim, self.venues, self._struck)
        self.broken = self.striker.broken

    def run(self, seconds: float, every_s: float) -> Outcome:
        audited = Audit()
        try:
            self.victim.start()
            if self._wait("every actor to run and to trade", self._trades, UP_WITHIN_S):
                self._strike(seconds, every_s)
                self._settle()
            stopped_ns = time.time_ns()
            self._tell("the engine is told to stop")
            report = self.victim.stop()
        finally:
            self.victim.close()
        self.broken += [f"left behind: {what}" for what in self.victim.left_over()]
        audited = audit(self.config, self.victim.state, report, stopped_ns)
        self.broken += audited.broken
        self._tell_story(audited)
        return Outcome(
            seconds=time.monotonic() - self.began,
            seed=self.seed,
            kills=dict(self.striker.kills),
            pauses=dict(self.striker.pauses),
            together=self.striker.together,
            faults=dict(self.venues.struck),
            engine_starts=self.victim.lives,
            orders=audited.orders,
            fills=audited.fills,
            broken=self.broken,
        )

    def _strike(self, seconds: float, every_s: float) -> None:
        """The plan, each strike at its time; a run that lost its engine goes on to its end and says so there."""
        start = look = tell = time.monotonic()
        plan = make_plan(self.seed, seconds, every_s)
        while (now := time.monotonic()) < start + seconds and not self.broken:
            self.striker.tend()
            while plan and now >= start + plan[0].at_s:
                self.striker.strike(plan.pop(0))
            if now >= look:
                look = now + LOOK_EVERY_S
                self.venues.look()
            if now >= tell:
                tell = now + TELL_EVERY_S
                counts = f"{self.striker.kills.total()} kills, {self.venues.struck.total()} faults"
                self._tell(f"{now - start:.0f} of {seconds:.0f} s: {counts}")
            time.sleep(0.01)

    def _settle(self) -> None:
        """No more strikes: all goes on, nothing stays unknown, and it trades again."""
        self._tell("no more strikes: the engine settles")
        self.striker.wake_all()
        self._wait("venues to forget their faults", lambda _: self.venues.forgive(), SETTLED_WITHIN_S)
        self._wait("every actor to run", _all_run, SETTLED_WITHIN_S)
        self._wait("every order's fate", lambda status: not status["orders"]["unknown"], SETTLED_WITHIN_S)
        before = _newest(self.victim.status())

        def trades_again(status: dict[str, Any]) -> bool:
            now = _newest(status)
            return all(now.get(name, 0) > before.get(name, 0) for name in self.config.connectors)

        self._wait("trades everywhere", trades_again, SETTLED_WITHIN_S)
        self.venues.look()

    def _trades(self, status: dict[str, Any]) -> bool:
        self.venues.learn(status)
        return _all_run(status) and len(_newest(status)) == len(self.config.connectors)

    def _wait(self, what: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float) -> bool:
        """Until the condition holds of the engine's status; one that never does is broken."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.striker.tend()
            status = self.victim.status()
            if status and condition(status):
                return True
            if self.striker.lost:
                return False
            time.sleep(0.1)
        states = {actor["name"]: actor["state"] for actor in self.victim.status().get("actors", ())}
        self.broken.append(f"not within {timeout_s:.0f} s: {what}; {states or self.victim.tail(3)}")
        return False

    def _struck(self, what: str) -> None:
        self.strikes.append((time.time_ns(), what))
        self._tell(what)

    def _tell_story(self, audited: Audit) -> None:
        for text in self.broken[:STORIES]:
            self._tell(f"BROKEN: {text}")
            for line in story(text, audited, self.victim.state, self.strikes):
                self._tell(f"    {line}")
        for text in self.broken[STORIES:]:
            self._tell(f"BROKEN: {text}")


def _all_run(status: dict[str, Any]) -> bool:
    return all(actor["state"] == "running" for actor in status["actors"])


def _newest(status: dict[str, Any]) -> dict[str, int]:
    """The time of the newest fill of each connector."""
    newest: dict[str, int] = {}
    for fill in status.get("recent_fills", ()):
        newest[fill["connector"]] = max(newest.get(fill["connector"], 0), fill["time_ns"])
    return newest
