"""Carries a plan out on a living engine."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from engine.chaos.plan import Strike
from engine.chaos.victim import IN_USE, Victim
from engine.runtime.locks import HeldLock

SUPERVISOR: Final = "supervisor"
STARTS_TRIED: Final = 20
VENUE_WITHIN_S: Final = 1.0
SIGNALS: Final = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "pause": signal.SIGSTOP}

Tell = Callable[[str], None]


class Venues:
    """The venues in boxes, by their admin endpoints. What their faults struck is added up over their lives."""

    def __init__(self) -> None:
        self._endpoints: dict[str, str] = {}
        self._struck: dict[str, dict[str, int]] = {}
        self.struck: Counter[str] = Counter()

    def learn(self, status: dict[str, Any]) -> None:
        """Take their addresses from the engine's status."""
        for actor in status.get("actors", ()):
            if actor["kind"] == "venue" and actor.get("endpoint"):
                self._endpoints[actor["name"]] = actor["endpoint"]

    def names(self) -> list[str]:
        return sorted(self._endpoints)

    def inflict(self, name: str, fault: dict[str, Any]) -> bool:
        """Arm a fault; whether the venue took it."""
        return self._ask(name, "POST", "faults", fault) is not None

    def look(self) -> None:
        """Count what has struck since the last look."""
        for name in self._endpoints:
            stats = self._ask(name, "GET", "stats")
            if stats is None:
                continue
            now, before = stats["faults"]["struck"], self._struck.get(name, {})
            again = any(now.get(kind, 0) < count for kind, count in before.items())
            for kind, count in now.items():
                self.struck[kind] += count - (0 if again else before.get(kind, 0))
            self._struck[name] = now

    def forgive(self) -> bool:
        """Forget what is armed; whether all of them did."""
        return all([self._ask(name, "DELETE", "faults") is not None for name in self._endpoints])

    def _ask(self, name: str, method: str, what: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._endpoints[name]}/admin/{what}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=VENUE_WITHIN_S) as reply:
                answer: dict[str, Any] = json.load(reply)
                return answer
        except (urllib.error.URLError, OSError, ValueError):
            return None


class Striker:
    """Strikes one engine, wakes whom it paused, and starts it again when it killed the supervisor."""

    def __init__(self, victim: Victim, venues: Venues, tell: Tell) -> None:
        self.victim = victim
        self.venues = venues
        self.kills: Counter[str] = Counter()
        self.pauses: Counter[str] = Counter()
        self.together = 0
        self.broken: list[str] = []
        self._tell = tell
        self._paused: list[tuple[float, HeldLock]] = []
        self._start_at: float | None = None
        self._starts = 0

    @property
    def lost(self) -> bool:
        """The engine has ended by itself, and was started again in vain."""
        return bool(self.broken) and self._start_at is None and self.victim.exit_code is not None

    def strike(self, strike: Strike) -> None:
        """Do it now. One whose target is not there at the moment strikes nobody."""
        if strike.action == "fault":
            self._fault(strike)
            return
        hit = []
        for kind in strike.kinds:
            holders = self.victim.of_kind(kind)
            if holders:
                holder = holders[int(strike.draw * len(holders))]
                if holder.send_signal(SIGNALS[strike.action]):
                    hit.append((kind, holder))
        self._tell(f"{strike.action} {', '.join(holder.name for _, holder in hit) or 'nobody: not there'}")
        for kind, holder in hit:
            if strike.action == "pause":
                self.pauses[kind] += 1
                self._paused.append((time.monotonic() + strike.for_s, holder))
                continue
            self.kills[kind] += 1
            if kind == SUPERVISOR:
                self.victim.reap()
                self._start_at = time.monotonic() + strike.again_s
        self.together += len(hit) > 1

    def tend(self) -> None:
        """What is due now: wake who was paused, start what was killed, and notice an engine that ended by itself."""
        now = time.monotonic()
        for due in [entry for entry in self._paused if entry[0] <= now]:
            self._paused.remove(due)
            due[1].send_signal(signal.SIGCONT)
        code = self.victim.exit_code
        if self._start_at is not None and now >= self._start_at:
            self._start_at = None
            self._tell("the engine is started again")
            self.victim.start()
        elif self._start_at is None and code is not None:
            self._ended(code, now)

    def wake_all(self) -> None:
        """Let all go on who were paused, and the engine with them if it is down."""
        for _, holder in self._paused:
            holder.send_signal(signal.SIGCONT)
        self._paused.clear()
        if self._start_at is not None:
            self._start_at = 0.0
        self.tend()

    def _ended(self, code: int, now: float) -> None:
        """It ended though nobody killed it: right after a death of its kind its folder may still be taken."""
        if code == IN_USE and self._starts < STARTS_TRIED and self.kills[SUPERVISOR]:
            self._starts += 1
            self._start_at = now + 0.5
            return
        if not self.broken:
            self.broken.append(f"the engine ended by itself with exit code {code}: {self.victim.tail(1)}")
            self._start_at = now + 1.0

    def _fault(self, strike: Strike) -> None:
        names = self.venues.names()
        name = names[int(strike.draw * len(names))]
        taken = self.venues.inflict(name, strike.fault)
        self._tell(f"{name}: {strike}{'' if taken else ', but it does not answer'}")
