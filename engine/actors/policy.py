"""When actors are started, declared stalled, killed, restarted and given up: the supervisor's policy.

A pure state machine. Events go in with the monotonic time in nanoseconds, :meth:`SupervisorPolicy.poll` hands
out :data:`Action` values, and :meth:`SupervisorPolicy.next_wakeup` says when to poll even if nothing happens.
It is polled after each event as well. The shell carries the actions out and reports what came of them; it
chooses incarnations::

    add ─▶ Spawn ─▶ spawned ─▶ started ─▶ (tick_seen, answered)* ─▶ exited ─▶ Spawn … or failed, or stopped
    add (start=False) ─▶ adopt ──┘

Stall time counts only from a tick that the supervisor itself saw, and nobody is judged by a tick before the next one
came: a clock that ended in the middle of a tick had told the supervisor, perhaps, and not the others. The clock alone
is judged by the ticks' absence, and the time of their absence counts for nobody else; nor does time during which the
supervisor itself was held up.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SECOND_NS: Final = 1_000_000_000
HEARTBEAT_NS: Final = SECOND_NS // 4
"""While any deadline runs, the shell is asked to poll this often, so that its own lateness shows."""
LATE_NS: Final = SECOND_NS // 4
"""A silence longer than a heartbeat and this means that the supervisor itself was held up."""
SETTLE_NS: Final = SECOND_NS // 2
"""What every deadline has left at least after that, for answers that wait unread in sockets …"""
SETTLE_TIMES: Final = 3
"""… this often between two signs of an actor's life, so that a supervisor that is always late still judges."""
POSTPONED_NS: Final = 2 * SECOND_NS
"""After this long it is tried again to start an actor for which there was no place."""
CLOCK_INTERVALS: Final = 10
"""The clock is stalled after this many intervals without a tick, if that is longer than its ``stall_s``."""


class ActorState(StrEnum):
    """Where an actor stands, as the list of actors shows it."""

    STARTING = "starting"
    RUNNING = "running"
    STALE = "stale"
    STALLED = "stalled"
    BACKING_OFF = "backing_off"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How one actor is watched and brought back. Times in seconds.

    ``budget`` restarts are granted in any ``window_s``. The first restart waits ``backoff_initial_s``, each
    further one twice as long up to ``backoff_max_s``, all varied by the fraction ``jitter``; an actor that
    ran longer than ``window_s`` begins anew. A running actor is stale after ``stale_s`` (a third of
    ``stall_s`` if not given) with no answer to a tick, and killed after ``stall_s``. A process that is not
    started within ``start_timeout_s`` is killed, one that was asked to stop after ``kill_after_s``, and a
    kill without effect is repeated as often.
    """

    budget: int = 5
    window_s: float = 60.0
    backoff_initial_s: float = 0.05
    backoff_max_s: float = 10.0
    jitter: float = 0.2
    stall_s: float = 3.0
    stale_s: float | None = None
    start_timeout_s: float = 10.0
    kill_after_s: float = 10.0

    @property
    def stall_ns(self) -> int:
        return round(self.stall_s * SECOND_NS)

    @property
    def stale_ns(self) -> int:
        return round((self.stall_s / 3 if self.stale_s is None else self.stale_s) * SECOND_NS)

    @property
    def window_ns(self) -> int:
        return round(self.window_s * SECOND_NS)

    @property
    def start_timeout_ns(self) -> int:
        return round(self.start_timeout_s * SECOND_NS)

    @property
    def kill_after_ns(self) -> int:
        return round(self.kill_after_s * SECOND_NS)


STRATEGY_POLICY: Final = RestartPolicy(stall_s=30.0)
"""The default of strategies, whose handlers are their users' code."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process for this actor, then report ``spawned``, or ``spawn_failed``, ``_postponed`` or ``_refused``."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the actor to stop politely; if it does not, a :class:`Kill` follows."""

    name: str
    reason: str
    comes_back: bool = False
    """It is started anew right after that."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL: a stopped process ignores anything less."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Changed:
    """The actor's state, and why."""

    name: str
    state: ActorState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ConnectorDown:
    """An actor of the connector spent its budget: all of the connector's actors end, others go on."""

    connector: str
    reason: str
    failed_actor: str


@dataclass(frozen=True, slots=True)
class ConnectorUp:
    """The connector's actors are started again, as somebody asked."""

    connector: str


@dataclass(frozen=True, slots=True)
class StrategyFailed:
    """A strategy spent its budget; nothing else is touched."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ActorFailed:
    """An actor that belongs to no connector (a venue in a box, a recorder) spent its budget; nothing else is
    touched."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """An actor that nothing runs without spent its budget."""

    reason: str


Action = Spawn | Stop | Kill | Changed | ConnectorDown | ConnectorUp | StrategyFailed | ActorFailed | EngineFailed


class _Wish(StrEnum):
    """What is to become of an actor when its process has ended."""

    RUN = "run"
    RESTART = "restart"
    STOP = "stop"


@dataclass(slots=True)
class _Actor:
    name: str
    kind: str
    connector: str
    policy: RestartPolicy
    critical: bool
    state: ActorState = ActorState.STOPPED
    wish: _Wish = _Wish.STOP
    incarnation: int = 0
    has_process: bool = False
    spawning: bool = False
    running_since: int | None = None
    spawn_at: int | None = None
    postponed: bool = False
    start_deadline: int | None = None
    kill_at: int | None = None
    kill_reason: str = ""
    waiting_since: int | None = None
    waiting_for: int = -1
    last_answer: int = -1
    last_life: int = 0
    excuses: int = 0
    failures: int = 0
    restarts: int = 0
    recent_restarts: deque[int] = field(default_factory=deque)
    downed: bool = False

    @property
    def living(self) -> bool:
        """A process of it runs, or one was asked for."""
        return self.has_process or self.spawning

    @property
    def is_clock(self) -> bool:
        return self.kind == "clock"


class SupervisorPolicy:
    """The policy over all actors of one engine. ``interval_ns`` is the clock's, until a tick says otherwise.

    Events of an actor that is not known, or of an incarnation that is not its present one, are ignored: they
    are echoes of the past. ``KeyError`` is raised for a request that names an unknown actor.
    """

    def __init__(self, seed: int, *, interval_ns: int = SECOND_NS) -> None:
        self._random = random.Random(seed)
        self._interval_ns = interval_ns
        self._actors: dict[str, _Actor] = {}
        self._down: set[str] = set()
        self._actions: list[Action] = []
        self._last_n = -1
        self._last_tick: int | None = None
        self._now: int | None = None
        self._shutting_down = False

    # -------------------------------------------------------------------------------------------- membership

    def add(
        self,
        name: str,
        kind: str,
        connector: str = "",
        policy: RestartPolicy | None = None,
        *,
        critical: bool | None = None,
        start: bool = True,
    ) -> None:
        """Take an actor in. It is spawned at the next poll, or with ``start`` false once
        ``restart_requested``.

        ``critical``: its failure is the engine's (by default the clock's alone). Raises ValueError for a
        known name.
        """
        if name in self._actors:
            raise ValueError(f"{name} is supervised already")
        chosen = policy or (STRATEGY_POLICY if kind == "strategy" else RestartPolicy())
        actor = _Actor(name, kind, connector, chosen, kind == "clock" if critical is None else critical)
        self._actors[name] = actor
        if start:
            self._spawn(actor)

    def adopt(self, name: str, incarnation: int, now: int) -> None:
        """A process of an actor that was added without a start runs already: an earlier supervisor started it.

        It tells a new supervisor that it has started, and has as long for that as a start or a stall may take. Raises
        ValueError for one that is living here.
        """
        self._observe(now)
        actor = self._actors[name]
        if actor.living:
            raise ValueError(f"{name} is living; it cannot be taken over")
        actor.has_process, actor.incarnation, actor.wish = True, incarnation, _Wish.RUN
        actor.start_deadline = now + max(actor.policy.start_timeout_ns, actor.policy.stall_ns)
        self._change(actor, ActorState.STARTING, "taken over")

    def remove(self, name: str) -> None:
        """Forget an actor that has ended. Raises ValueError while it lives: stop it first."""
        if self._actors[name].living:
            raise ValueError(f"{name} is living; stop it before it is removed")
        del self._actors[name]

    def names(self) -> list[str]:
        return list(self._actors)

    def state(self, name: str) -> ActorState:
        return self._actors[name].state

    def incarnation(self, name: str) -> int:
        """The present incarnation, or the last one; 0 before the first."""
        return self._actors[name].incarnation

    def restarts(self, name: str) -> int:
        """How often the actor was spawned again after a failure or on request."""
        return self._actors[name].restarts

    def is_down(self, connector: str) -> bool:
        return connector in self._down

    # ------------------------------------------------------------------------------------------------ events

    def spawned(self, name: str, incarnation: int, now: int) -> None:
        """A process of the actor runs, under this incarnation."""
        self._observe(now)
        actor = self._actors.get(name)
        if actor is None or not actor.spawning:
            return
        actor.spawning, actor.has_process, actor.incarnation = False, True, incarnation
        actor.running_since, actor.waiting_since, actor.last_answer, actor.excuses = None, None, -1, 0
        if actor.state is ActorState.STOPPING:
            self._ask_to_stop(actor, now)
        else:
            actor.start_deadline = now + actor.policy.start_timeout_ns

    def spawn_failed(self, name: str, now: int, detail: str) -> None:
        """No process could be started; counts like one that ended at once."""
        actor = self._not_spawned(name, now)
        if actor is not None:
            self._after_exit(actor, now, expected=False, detail=detail)

    def spawn_postponed(self, name: str, now: int, detail: str) -> None:
        """There is nowhere to start it for now, which is nobody's failure: it is tried again, however long it takes."""
        actor = self._not_spawned(name, now)
        if actor is None:
            return
        if actor.wish is _Wish.STOP or self._shutting_down:
            self._after_exit(actor, now, expected=False, detail=detail)
            return
        actor.wish, actor.spawn_at, actor.postponed = _Wish.RUN, now + POSTPONED_NS, True
        self._change(actor, ActorState.BACKING_OFF, detail)

    def spawn_refused(self, name: str, now: int, detail: str) -> None:
        """It cannot be started as things are, and trying again would change nothing: it is given up."""
        actor = self._not_spawned(name, now)
        if actor is None:
            return
        if actor.wish is _Wish.STOP or self._shutting_down:
            self._after_exit(actor, now, expected=False, detail=detail)
        else:
            self._fail(actor, now, f"{name} cannot be started: {detail}")

    def _not_spawned(self, name: str, now: int) -> _Actor | None:
        """The actor whose process could not be started; None if nobody waits for one."""
        self._observe(now)
        actor = self._actors.get(name)
        if actor is None or not actor.spawning:
            return None
        actor.spawning = False
        return actor

    def started(self, name: str, incarnation: int, now: int) -> None:
        """The actor says that it is ready to serve. From here on it is expected to answer ticks."""
        self._observe(now)
        actor = self._present(name, incarnation)
        if actor is None or actor.state is not ActorState.STARTING:
            return
        actor.start_deadline = None
        actor.running_since = actor.last_life = now
        actor.excuses = 0
        self._change(actor, ActorState.RUNNING)

    def tick_seen(self, n: int, now: int, interval_ns: int | None = None) -> None:
        """The supervisor itself received tick ``n``."""
        self._observe(now)
        self._interval_ns = interval_ns or self._interval_ns
        missed = 0 if self._last_tick is None else now - self._last_tick - self._interval_ns
        self._last_n, self._last_tick = max(self._last_n, n), now
        for actor in self._actors.values():
            if actor.running_since is None:
                continue
            if actor.is_clock:
                self._heard_clock(actor, now)
            elif actor.waiting_since is None and actor.last_answer < n:
                actor.waiting_since, actor.waiting_for = now, n
            elif actor.waiting_since is not None and missed > self._interval_ns and actor.excuses < SETTLE_TIMES:
                actor.waiting_since, actor.waiting_for, actor.excuses = now, n, actor.excuses + 1

    def answered(self, name: str, incarnation: int, n: int, now: int) -> None:
        """The actor handled tick ``n``, and with it all before.

        From the clock any answer is a sign of life, so that it may wait for wall time that stepped back.
        """
        self._observe(now)
        actor = self._present(name, incarnation)
        if actor is None or actor.running_since is None:
            return
        if actor.is_clock:
            self._heard_clock(actor, now)
        elif n > actor.last_answer:
            actor.last_answer, actor.excuses = n, 0
            actor.waiting_since, actor.waiting_for = (now, self._last_n) if n < self._last_n else (None, -1)
            if actor.state is ActorState.STALE:
                self._change(actor, ActorState.RUNNING)

    def exited(self, name: str, incarnation: int, now: int, expected: bool, detail: str = "") -> None:
        """The process is gone. ``expected``: it left of its own accord, with its work done."""
        self._observe(now)
        actor = self._present(name, incarnation)
        if actor is not None:
            actor.has_process = False
            self._after_exit(actor, now, expected=expected, detail=detail)

    def restart_requested(self, name: str, now: int, reason: str = "restart requested") -> None:
        """Somebody wants the actor anew: a living one is stopped first. Costs no budget.

        In a connector that is down, all of the connector's actors come back.
        """
        self._observe(now)
        actor = self._actors[name]
        if self._shutting_down:
            return
        if actor.connector in self._down:
            self._revive(actor.connector)
        elif not actor.living:
            self._forgive(actor)
            self._respawn(actor, reason)
        elif actor.spawning:
            actor.wish = _Wish.RUN if actor.wish is _Wish.RUN else _Wish.RESTART
        else:
            self._stop(actor, _Wish.RESTART, now, reason)

    def stop_requested(self, name: str, now: int, reason: str = "stop requested") -> None:
        """Somebody wants the actor to end, and to stay so."""
        self._observe(now)
        self._stop(self._actors[name], _Wish.STOP, now, reason)

    def shutdown_requested(self, now: int) -> None:
        """The engine stops: from here on nothing is spawned. What lives is stopped one by one with
        ``stop_requested``."""
        self._observe(now)
        self._shutting_down = True
        for actor in self._actors.values():
            if actor.state is ActorState.BACKING_OFF or actor.wish is _Wish.RESTART:
                self._stop(actor, _Wish.STOP, now, "the engine stops")

    # ----------------------------------------------------------------------------------------------- actions

    def poll(self, now: int) -> list[Action]:
        """What is to be done now, in order."""
        self._observe(now)
        for actor in self._actors.values():
            self._check(actor, now)
        actions, self._actions = self._actions, []
        return actions

    def next_wakeup(self) -> int | None:
        """When to poll next, at the latest; None when only an event can change anything."""
        if self._actions:
            return self._now
        wakeup: int | None = None
        for actor in self._actors.values():
            for deadline in self._deadlines(actor):
                wakeup = deadline if wakeup is None else min(wakeup, deadline)
        if wakeup is None or self._now is None:
            return wakeup
        return min(max(wakeup, self._now), self._now + HEARTBEAT_NS)

    # --------------------------------------------------------------------------------------------- deadlines

    def _deadlines(self, actor: _Actor) -> list[int]:
        found = [at for at in (actor.spawn_at, actor.start_deadline, actor.kill_at) if at is not None]
        if actor.state is ActorState.RUNNING and actor.waiting_since is not None:
            found.append(actor.waiting_since + actor.policy.stale_ns)
        if actor.state in (ActorState.RUNNING, ActorState.STALE):
            if actor.is_clock:
                found.append(actor.last_life + self._clock_limit(actor))
            elif actor.waiting_since is not None:
                stalled = actor.waiting_since + actor.policy.stall_ns
                found.append(stalled if self._was_told(actor) else max(stalled, (self._now or 0) + HEARTBEAT_NS))
        return found

    def _was_told(self, actor: _Actor) -> bool:
        """The clock has gone on from the tick that the actor's answer is missing to: then all were given it."""
        return self._last_n > actor.waiting_for

    def _clock_limit(self, actor: _Actor) -> int:
        return max(actor.policy.stall_ns, CLOCK_INTERVALS * self._interval_ns)

    def _check(self, actor: _Actor, now: int) -> None:
        if actor.spawn_at is not None and now >= actor.spawn_at and actor.postponed:
            self._spawn(actor, "tried again")
        elif actor.spawn_at is not None and now >= actor.spawn_at:
            self._respawn(actor, f"restart {len(actor.recent_restarts)} of {actor.policy.budget} in the window")
        elif actor.start_deadline is not None and now >= actor.start_deadline:
            actor.start_deadline = None
            self._give_up(actor, now, f"not started within {actor.policy.start_timeout_s} s")
        elif actor.kill_at is not None and now >= actor.kill_at:
            actor.kill_at = now + actor.policy.kill_after_ns
            self._actions.append(Kill(actor.name, actor.kill_reason))
        elif actor.state in (ActorState.RUNNING, ActorState.STALE):
            self._check_stall(actor, now)

    def _check_stall(self, actor: _Actor, now: int) -> None:
        if actor.is_clock:
            silence = now - actor.last_life
            if silence >= self._clock_limit(actor):
                self._give_up(actor, now, f"no tick for {silence / SECOND_NS:.1f} s")
        elif actor.waiting_since is not None:
            silence = now - actor.waiting_since
            if silence >= actor.policy.stall_ns and self._was_told(actor):
                self._give_up(actor, now, f"no answer to ticks for {silence / SECOND_NS:.1f} s")
            elif silence >= actor.policy.stale_ns and actor.state is ActorState.RUNNING:
                self._change(actor, ActorState.STALE, f"no answer to ticks for {silence / SECOND_NS:.1f} s")

    def _give_up(self, actor: _Actor, now: int, reason: str) -> None:
        actor.waiting_since = None
        actor.kill_at, actor.kill_reason = now + actor.policy.kill_after_ns, reason
        self._change(actor, ActorState.STALLED, reason)
        self._actions.append(Kill(actor.name, reason))

    def _observe(self, now: int) -> None:
        """Take the time during which the supervisor itself was held up off everybody's account."""
        if self._now is not None:
            held_up = now - self._now - HEARTBEAT_NS
            if held_up > LATE_NS:
                for actor in self._actors.values():
                    self._excuse(actor, now, held_up)
        self._now = now if self._now is None else max(now, self._now)

    def _excuse(self, actor: _Actor, now: int, held_up: int) -> None:
        settle = SETTLE_NS if actor.excuses < SETTLE_TIMES else 0
        actor.excuses += 1
        if actor.waiting_since is not None:
            actor.waiting_since = _excused(actor.waiting_since, now, held_up, actor.policy.stall_ns - settle)
        if actor.start_deadline is not None:
            actor.start_deadline = max(actor.start_deadline + held_up, now + settle)
        if actor.is_clock:
            actor.last_life = _excused(actor.last_life, now, held_up, self._clock_limit(actor) - settle)

    # ------------------------------------------------------------------------------------------- transitions

    def _present(self, name: str, incarnation: int) -> _Actor | None:
        actor = self._actors.get(name)
        return actor if actor is not None and actor.has_process and actor.incarnation == incarnation else None

    def _heard_clock(self, actor: _Actor, now: int) -> None:
        actor.last_life, actor.excuses = now, 0

    def _change(self, actor: _Actor, state: ActorState, detail: str = "") -> None:
        actor.state = state
        self._actions.append(Changed(actor.name, state, detail))

    def _spawn(self, actor: _Actor, detail: str = "") -> None:
        actor.spawning, actor.wish, actor.spawn_at, actor.postponed = True, _Wish.RUN, None, False
        self._change(actor, ActorState.STARTING, detail)
        self._actions.append(Spawn(actor.name))

    def _respawn(self, actor: _Actor, detail: str) -> None:
        actor.restarts += 1 if actor.incarnation else 0
        self._spawn(actor, detail)

    def _stop(self, actor: _Actor, wish: _Wish, now: int, reason: str) -> None:
        actor.spawn_at = None
        if not actor.living:
            actor.wish = wish
            if actor.state is ActorState.BACKING_OFF:
                self._change(actor, ActorState.STOPPED, reason)
            return
        asked_before = actor.state in (ActorState.STOPPING, ActorState.STALLED)
        actor.wish = wish
        if asked_before:
            return
        actor.start_deadline = actor.waiting_since = None
        actor.kill_reason = reason
        self._change(actor, ActorState.STOPPING, reason)
        if actor.has_process:
            self._ask_to_stop(actor, now)

    def _ask_to_stop(self, actor: _Actor, now: int) -> None:
        actor.kill_at = now + actor.policy.kill_after_ns
        self._actions.append(Stop(actor.name, actor.kill_reason, actor.wish is _Wish.RESTART))

    def _after_exit(self, actor: _Actor, now: int, *, expected: bool, detail: str) -> None:
        ran_since, wish = actor.running_since, actor.wish
        was_stalled = actor.state is ActorState.STALLED
        actor.running_since = actor.start_deadline = actor.kill_at = actor.waiting_since = None
        if wish is _Wish.RESTART and not self._shutting_down:
            self._forgive(actor)
            self._respawn(actor, detail)
        elif wish is not _Wish.RUN or self._shutting_down or (expected and not was_stalled):
            self._change(actor, ActorState.STOPPED, detail)
        else:
            reason = actor.kill_reason if was_stalled else detail
            self._count_failure(actor, now, ran_since, reason)
        actor.kill_reason = ""

    def _count_failure(self, actor: _Actor, now: int, ran_since: int | None, reason: str) -> None:
        policy = actor.policy
        if ran_since is not None and now - ran_since >= policy.window_ns:
            self._forgive(actor)
        while actor.recent_restarts and now - actor.recent_restarts[0] >= policy.window_ns:
            actor.recent_restarts.popleft()
        if len(actor.recent_restarts) >= policy.budget:
            self._spent(actor, now, reason)
            return
        actor.recent_restarts.append(now)
        actor.spawn_at = now + self._backoff_ns(actor)
        actor.failures += 1
        self._change(actor, ActorState.BACKING_OFF, reason)

    def _backoff_ns(self, actor: _Actor) -> int:
        policy = actor.policy
        doubled = policy.backoff_initial_s * 2.0 ** min(actor.failures, 60)
        varied = min(policy.backoff_max_s, doubled) * self._random.uniform(1 - policy.jitter, 1 + policy.jitter)
        return round(varied * SECOND_NS)

    def _forgive(self, actor: _Actor) -> None:
        actor.failures = 0
        actor.recent_restarts.clear()

    def _spent(self, actor: _Actor, now: int, reason: str) -> None:
        policy = actor.policy
        spent = f"{actor.name} used up {policy.budget} restarts in {policy.window_s:g} s; the last time: {reason}"
        self._fail(actor, now, spent)

    def _fail(self, actor: _Actor, now: int, told: str) -> None:
        actor.wish = _Wish.STOP
        self._change(actor, ActorState.FAILED, told)
        if actor.critical:
            self._actions.append(EngineFailed(told))
        elif actor.kind == "strategy":
            self._actions.append(StrategyFailed(actor.name, told))
        elif actor.connector and actor.kind != "venue":
            self._take_down(actor, now, told)
        else:
            self._actions.append(ActorFailed(actor.name, told))

    def _members(self, connector: str) -> list[_Actor]:
        return [
            actor
            for actor in self._actors.values()
            if actor.connector == connector and actor.kind not in ("venue", "strategy")
        ]

    def _take_down(self, failed: _Actor, now: int, reason: str) -> None:
        self._down.add(failed.connector)
        self._actions.append(ConnectorDown(failed.connector, reason, failed.name))
        failed.downed = True
        for actor in self._members(failed.connector):
            if actor is not failed and actor.wish is not _Wish.STOP:
                actor.downed = True
                self._stop(actor, _Wish.STOP, now, f"{failed.connector} is down: {failed.name} failed")

    def _revive(self, connector: str) -> None:
        self._down.discard(connector)
        self._actions.append(ConnectorUp(connector))
        for actor in self._members(connector):
            if not actor.downed:
                continue
            actor.downed = False
            if actor.living:
                actor.wish = _Wish.RESTART
            else:
                self._forgive(actor)
                self._respawn(actor, f"{connector} is brought up again")


def _excused(since: int, now: int, held_up: int, limit: int) -> int:
    """``since`` moved on by the time lost, and far enough that no more than ``limit`` has passed."""
    return min(now, max(since + held_up, now - max(0, limit)))
