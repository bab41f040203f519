"""What carries out a policy's decisions in its tests."""

from engine.actors.policy import (
    SECOND_NS,
    Changed,
    Kill,
    Spawn,
    Stop,
    SupervisorPolicy,
)

MS = SECOND_NS // 1000


class Shell:
    """Carries out what the policy says: spawns at once unless told otherwise, and polls when asked to."""

    def __init__(self, seed=1, interval_ns=SECOND_NS):
        self.policy = SupervisorPolicy(seed, interval_ns=interval_ns)
        self.now = 1000 * SECOND_NS
        self.incarnations = 0
        self.log = []
        self.auto_start = True
        self.auto_die = True

    def add(self, name, kind, connector="", **options):
        self.policy.add(name, kind, connector, **options)
        self.step()

    def step(self):
        while actions := self.policy.poll(self.now):
            for action in actions:
                self.log.append(action)
                self.carry_out(action)

    def carry_out(self, action):
        if isinstance(action, Spawn):
            self.incarnations += 1
            self.policy.spawned(action.name, self.incarnations, self.now)
            if self.auto_start:
                self.policy.started(action.name, self.incarnations, self.now)
        elif isinstance(action, Kill | Stop) and self.auto_die:
            self.exit(action.name, expected=isinstance(action, Stop))

    def exit(self, name, expected=False, detail="exit code 1"):
        self.policy.exited(name, self.policy.incarnation(name), self.now, expected, detail)

    def crash(self, name):
        self.exit(name)
        self.step()

    def advance(self, ns):
        """Let time pass, polling when the policy wants it."""
        until = self.now + ns
        while (wakeup := self.policy.next_wakeup()) is not None and wakeup <= until:
            self.now = max(self.now, wakeup)
            self.step()
            if self.policy.next_wakeup() == self.now:
                self.now += 1
        self.now = max(self.now, until)
        self.step()

    def tick(self, n, *answering):
        self.policy.tick_seen(n, self.now)
        for name in answering:
            self.policy.answered(name, self.policy.incarnation(name), n, self.now)
        self.step()

    def taken(self, *kinds):
        found = [action for action in self.log if isinstance(action, kinds)]
        self.log.clear()
        return found

    def states(self, name):
        return [a.state for a in self.log if isinstance(a, Changed) and a.name == name]
