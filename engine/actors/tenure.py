"""One process's hold on an account that several hosts may trade: its lease, kept in the background, and its journal."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final

from engine.actors.base import ActorContext
from engine.connectors.backoff import Backoff
from engine.connectors.time_sync import TimeSynchronizer
from engine.errors import ConfigError
from engine.orders.lease import Lease, LeaseState, LeaseTerms, Look, Question, Renew, Take
from engine.orders.memory_store import line_of
from engine.orders.postgres import PostgresStore
from engine.orders.replicated import ReplicatedJournal
from engine.orders.store import JournalStore, StoreLost, Superseded

MOST_BACKOFF_S: Final = 1.0
LOOK_AGAIN_S: Final = 0.1
CLOCK_EVERY_S: Final = 10.0
CLOCK_WARNING_NS: Final = 1_000_000_000
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Tenure:
    """Gets the lease of an account and keeps it; its journal is written under the lease's epoch.

    ``journal`` is the account's once :meth:`begin` has returned. :meth:`keep` runs for as long as the actor lives and
    raises :class:`~engine.orders.store.Superseded` when another holder has begun.
    """

    def __init__(
        self, context: ActorContext, journal: ReplicatedJournal, store: JournalStore, terms: LeaseTerms
    ) -> None:
        self.journal = journal
        self.store = store
        self._context = context
        self._clock = context.clock
        life = f"{random.getrandbits(64):016x}"
        holder = f"{os.uname().nodename}/{context.spec.engine_id}/{context.incarnation}/{life}"
        self.lease = Lease(holder, seat_of(journal.path), terms)
        self.time = TimeSynchronizer(context.clock, store.time_ms)
        """The arbiter's clock as seen from here, for the report."""
        self._signed_by_ns = 0
        self._unreached: set[str] = set()
        self._held = asyncio.Event()

    @property
    def lost(self) -> bool:
        """Whether the arbiter is out of reach."""
        return bool(self._unreached)

    async def begin(self) -> int:
        """Wait for the lease and bring the copy up to date; how many rows came. StoreLost is waited out."""
        await self._held.wait()
        backoff = Backoff(max_s=MOST_BACKOFF_S)
        while True:
            try:
                rows = await self.journal.catch_up(self.lease.epoch)
            except StoreLost as error:
                self.out_of_reach("journal", error)
                await asyncio.sleep(backoff.next())
            else:
                self.in_reach("journal")
                return rows

    async def keep(self) -> None:
        """Ask the arbiter whatever is to be asked, whenever it is time."""
        await self._open()
        lease = self.lease
        while (question := lease.question(self._clock.monotonic_ns())) is not None:
            try:
                await self._ask(question)
            except StoreLost as error:
                self.out_of_reach("lease", error)
                lease.unanswered(self._clock.monotonic_ns())
            else:
                self.in_reach("lease")
            if lease.holds(self._clock.monotonic_ns()):
                self._held.set()
            await asyncio.sleep(max(0.0, (lease.due_ns - self._clock.monotonic_ns()) / 1e9))
        raise Superseded(f"another holder has the lease of {self.journal.path.stem}: this one may not trade any more")

    async def measure_clock(self) -> None:
        """Compare this host's wall clock with the arbiter's, again and again; a large difference is told once.

        Nothing is judged by it: it shows an operator which host's clock is wrong.
        """
        told = False
        while True:
            try:
                await self.time.sample()
            except StoreLost:
                self._context.metrics.count("clock_samples_lost")
            else:
                offset_ns = -self.time.lead_ns
                if abs(offset_ns) - self.time.error_ns > CLOCK_WARNING_NS and not told:
                    told = True
                    self._context.log.warning(
                        "this host's clock differs from the database's", offset_s=round(offset_ns / 1e9, 3)
                    )
            await asyncio.sleep(CLOCK_EVERY_S)

    async def end(self) -> None:
        """Give the lease back, if nothing that was signed under it can still be accepted; let go of the arbiter."""
        try:
            if self.lease.epoch and not self.lost and self._clock.monotonic_ns() > self._signed_by_ns:
                await self.store.release(self.lease.epoch)
        except StoreLost as error:
            self._context.log.info("the lease ends by itself", error=str(error))
        finally:
            await self.store.close()

    async def is_over(self, within_s: float) -> bool:
        """Whether another holder is known to have begun, so that what is open is that one's.

        While the lease holds there can be none. After that the arbiter is asked; if it does not answer within this
        time nobody knows, and False is the answer: what is open may be nobody's.
        """
        lease = self.lease
        if lease.holds(self._clock.monotonic_ns()):
            return False
        try:
            async with asyncio.timeout(within_s):
                while lease.state is LeaseState.HELD:
                    try:
                        return (await self.store.look()).epoch != lease.epoch
                    except StoreLost as error:
                        self.out_of_reach("lease", error)
                        await asyncio.sleep(LOOK_AGAIN_S)
        except TimeoutError:
            return False
        return lease.state is LeaseState.LOST

    def sign_by(self, horizon_ns: int) -> int:
        """The last instant of this host's monotonic clock at which an order may be signed that its venue accepts for
        ``horizon_ns``; in the past when there is none.
        """
        by_ns = self.lease.sign_by(horizon_ns)
        if self._clock.monotonic_ns() <= by_ns:
            self._signed_by_ns = by_ns + horizon_ns
        return by_ns

    def refusal(self, horizon_ns: int) -> str:
        """Why no order can be taken now; empty if one can."""
        if self.lost:
            return "the journal's database is out of reach"
        left_ns = self.lease.ends_ns - self._clock.monotonic_ns()
        if left_ns < horizon_ns:
            return (
                f"the account's lease ends in {max(0, left_ns) / 1e9:.1f} s, and the venue may accept an order for "
                f"{horizon_ns / 1e9:.1f} s"
            )
        return ""

    def out_of_reach(self, asker: str, error: StoreLost) -> None:
        """The arbiter did not answer one of those who ask it; the first time is told."""
        if not self._unreached:
            self._context.metrics.count("journal_store_losses")
            self._context.log.error("the journal's database is out of reach: nothing is placed", error=str(error))
        self._unreached.add(asker)

    def in_reach(self, asker: str) -> None:
        """The arbiter answered; the last of those who waited for it tells."""
        if asker in self._unreached:
            self._unreached.discard(asker)
            if not self._unreached:
                self._context.log.warning("the journal's database is back", lease=self.lease.state.value)

    def collect(self) -> None:
        """Bring the gauges up to date."""
        gauges, lease = self._context.metrics.gauges, self.lease
        gauges["lease"] = lease.state.value
        gauges["lease_epoch"] = lease.epoch
        gauges["lease_left_ms"] = max(0, lease.ends_ns - self._clock.monotonic_ns()) // 1_000_000
        if self.time.is_synced:
            gauges["clock_offset_ms"] = -self.time.lead_ns // 1_000_000
            gauges["clock_error_ms"] = self.time.error_ns // 1_000_000
        gauges["journal_unsent"] = self.journal.unsent

    async def _open(self) -> None:
        backoff = Backoff(max_s=MOST_BACKOFF_S)
        while True:
            try:
                await self.store.open()
            except StoreLost as error:
                self.out_of_reach("lease", error)
                await asyncio.sleep(backoff.next())
            else:
                self.in_reach("lease")
                return

    async def _ask(self, question: Question) -> None:
        lease, clock = self.lease, self._clock
        asked_ns = clock.monotonic_ns()
        match question:
            case Look():
                row = await self.store.look()
                lease.looked(row, asked_ns, clock.monotonic_ns())
                self._context.log.debug("the lease is another's", holder=row.holder, epoch=row.epoch)
            case Take(seen):
                taken = await self.store.take(seen, lease.holder, lease.seat, lease.terms.ttl_ns)
                lease.taken(taken, asked_ns, clock.monotonic_ns())
                if taken is not None:
                    self._context.log.info("the lease is ours", epoch=taken.epoch, was=seen.holder)
            case Renew(epoch):
                lease.renewed(await self.store.renew(epoch), asked_ns, clock.monotonic_ns())


def seat_of(journal: Path) -> str:
    """What names the lock that a journal's writer holds for life, on this kernel and until it is started anew: a
    process that has it now knows that whoever had it before is dead.
    """
    found = journal.with_name(journal.name + ".lock").stat()
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"{_BOOT_ID} cannot be read ({error}): a shared account needs Linux") from None
    return f"{boot}/{found.st_dev}/{found.st_ino}"


def open_store(address: str, connector: str, account: str, incarnation: int) -> JournalStore:
    """The arbiter at an address; ConfigError for one that is of no known kind."""
    scheme, _, rest = address.partition("://")
    if scheme in ("postgresql", "postgres"):
        return PostgresStore(address, connector, account, incarnation)
    if scheme == "memory":
        return line_of(rest)
    raise ConfigError("a journal's address begins with postgresql://")
