"""Who may trade an account: the pure core of its lease. What the arbiter says and time in, what to ask it out.

The arbiter (a database) holds one row for each account: the ``epoch``, which grows with every holder; the ``beat``,
which grows with every renewal; who holds it, and for how long a renewal lasts. It judges no time: it only changes the
row for somebody who names the epoch (and the beat) that it has. Time is told by each host's own monotonic clock alone,
and no two clocks are ever compared:

* A holder's lease ends ``ttl`` less ``clock_error`` after the instant at which it *asked* for the renewal that was
  granted last. Before each order it looks whether what it signs now is over at the venue by then
  (:meth:`Lease.sign_by`).
* A candidate takes the row only after it has seen it unchanged for ``ttl`` plus ``clock_error``, counted from when an
  *answer* reached it. A renewal that the arbiter granted came after its holder asked and before the answer that shows
  it, so that the holder's lease ended before.

Both are true as long as a host's clock gains or loses less than ``clock_error`` in ``ttl``. A process that was stopped
needs no care: its clock went on. A host that was suspended as a whole may believe for a moment in a lease that it has
not, but its signatures are dated by the clock that stood still, so that the venue finds them too old, and its journal
takes nothing.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from engine.errors import ConfigError

SECOND_NS = 1_000_000_000


class LeaseTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How long a renewal lasts, how often it is renewed, by how much clocks may run apart within ``ttl_ns``, and how
    often a candidate looks. The same in every engine that may trade an account; a candidate goes by the holder's own
    ``ttl_ns``, which is in the row. Raises ConfigError for terms that nobody could trade on.
    """

    ttl_ns: int = 15 * SECOND_NS
    renew_ns: int = 2 * SECOND_NS
    clock_error_ns: int = SECOND_NS // 2
    look_ns: int = SECOND_NS // 2

    def __post_init__(self) -> None:
        if min(self.renew_ns, self.look_ns) <= 0 or self.clock_error_ns < 0:
            raise ConfigError("a lease is renewed and looked at after some time, and no clock's error is negative")
        if self.ttl_ns <= 2 * self.renew_ns + self.clock_error_ns:
            raise ConfigError(
                f"a lease of {self.ttl_ns / 1e9:g} s that is renewed every {self.renew_ns / 1e9:g} s ends before a "
                "renewal that is lost is asked for again; make it longer"
            )


class LeaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the arbiter has. ``holder``: one life of one process, "" for nobody. ``seat``: the lock that a holder has on
    its host for as long as it lives, so that whoever has the same one now knows that the other is dead.
    """

    epoch: int = 0
    beat: int = 0
    holder: str = ""
    seat: str = ""
    ttl_ns: int = 0


class Look(msgspec.Struct, frozen=True):
    """Ask the arbiter for the row."""


class Take(msgspec.Struct, frozen=True):
    """Ask the arbiter to make us the holder, if the row's epoch and beat are still those."""

    seen: LeaseRow


class Renew(msgspec.Struct, frozen=True):
    """Ask the arbiter to raise the beat, if the epoch is still ours."""

    epoch: int


Question = Look | Take | Renew


class LeaseState(StrEnum):
    """Where a lease stands."""

    WAITING = "waiting"
    """Another holds it, or nothing is known yet."""
    HELD = "held"
    """The epoch is ours, as far as is known; whether its time has run out is :meth:`Lease.holds`."""
    LOST = "lost"
    """Another epoch has begun: never to be held again under this name."""


class Lease:
    """One process's part in an account's lease.

    ``holder`` names this life of the process and nobody else's, ever. The shell asks what :meth:`question` says as soon
    as :meth:`due_ns` has come, one thing at a time, and tells the answer with the instants of asking and of answering;
    all of them are of this host's monotonic clock, in nanoseconds.
    """

    def __init__(self, holder: str, seat: str, terms: LeaseTerms) -> None:
        self.holder = holder
        self.seat = seat
        self.terms = terms
        self.state = LeaseState.WAITING
        self.epoch = 0
        self.ends_ns = 0
        self._seen: LeaseRow | None = None
        self._unchanged_since_ns = 0
        self._due_ns = 0

    def holds(self, now_ns: int) -> bool:
        """Whether the lease is ours and has not run out."""
        return self.state is LeaseState.HELD and now_ns < self.ends_ns

    def sign_by(self, horizon_ns: int) -> int:
        """The last instant at which a request may be signed that the venue accepts for ``horizon_ns``."""
        return self.ends_ns - horizon_ns if self.state is LeaseState.HELD else 0

    @property
    def due_ns(self) -> int:
        """When the next question is to be asked."""
        return self._due_ns

    def question(self, now_ns: int) -> Question | None:
        """What to ask now; None once the lease is lost."""
        match self.state:
            case LeaseState.LOST:
                return None
            case LeaseState.HELD:
                return Renew(self.epoch)
            case LeaseState.WAITING:
                return Take(self._seen) if self._seen is not None and self._free(self._seen, now_ns) else Look()

    # --------------------------------------------------------------------------------------------------- answers

    def looked(self, row: LeaseRow, asked_ns: int, now_ns: int) -> None:
        """The row, as the arbiter had it at some instant between the two."""
        if self.state is not LeaseState.WAITING:
            return
        if row.holder == self.holder:
            # A take that was carried out and never answered: it counts from a renewal that is.
            self._hold(row.epoch)
            self._due_ns = now_ns
            return
        if self._seen is None or (row.epoch, row.beat, row.holder) != (
            self._seen.epoch,
            self._seen.beat,
            self._seen.holder,
        ):
            self._seen = row
            self._unchanged_since_ns = now_ns
        if self._free(row, now_ns):
            self._due_ns = now_ns
        else:
            self._due_ns = min(now_ns + self.terms.look_ns, max(now_ns, self._free_ns(row)))

    def taken(self, row: LeaseRow | None, asked_ns: int, now_ns: int) -> None:
        """The row that is ours now; None if it was not as it had been seen."""
        if self.state is not LeaseState.WAITING:
            return
        self._seen = None
        if row is None:
            self._due_ns = now_ns
            return
        self._hold(row.epoch)
        self._lasts(asked_ns)

    def renewed(self, granted: bool, asked_ns: int, now_ns: int) -> None:
        """Whether the epoch was still ours."""
        if self.state is not LeaseState.HELD:
            return
        if granted:
            self._lasts(asked_ns)
        else:
            self.superseded()

    def unanswered(self, now_ns: int) -> None:
        """Nothing is known of what was asked last. A candidate begins its wait anew only if the row changed."""
        self._due_ns = now_ns + self.terms.look_ns

    def superseded(self) -> None:
        """Another epoch has begun."""
        self.state = LeaseState.LOST
        self.ends_ns = 0

    # ------------------------------------------------------------------------------------------------------ parts

    def _hold(self, epoch: int) -> None:
        self.state = LeaseState.HELD
        self.epoch = epoch

    def _lasts(self, asked_ns: int) -> None:
        self.ends_ns = max(self.ends_ns, asked_ns + self.terms.ttl_ns - self.terms.clock_error_ns)
        self._due_ns = asked_ns + self.terms.renew_ns

    def _free(self, row: LeaseRow, now_ns: int) -> bool:
        return not row.holder or row.seat == self.seat or now_ns >= self._free_ns(row)

    def _free_ns(self, row: LeaseRow) -> int:
        return self._unchanged_since_ns + row.ttl_ns + self.terms.clock_error_ns
