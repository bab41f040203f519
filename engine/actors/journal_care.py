"""What an exchange actor does for its journal beside writing it: durability, the log's upkeep, rotation."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from engine.actors.base import ActorContext
from engine.actors.tenure import Tenure
from engine.connectors.backoff import Backoff
from engine.connectors.errors import TransportError
from engine.errors import JournalError
from engine.orders.effects import Effect, FetchFills, FetchOpenOrders, JournalWrite, Query, SendCancel
from engine.orders.journal import Journal
from engine.orders.lease import LeaseTerms
from engine.orders.rotation import Rotation, folded_by_all
from engine.orders.store import StoreLost
from engine.runtime.offload import offload

FLUSH_S = 0.005
"""How long a commit may be in the front log alone: the database takes all that came meanwhile at once."""
UPKEEP_S = 0.5
ROTATE_FIRST_S = 30.0
ROTATE_EVERY_S = 3600.0
DELETE_PAUSE_S = 0.02
DAY_NS = 86_400_000_000_000
_UNAFRAID = (SendCancel, Query, FetchFills, FetchOpenOrders)
"""What may be done before the commit that it came with: it adds nothing at the venue, and may be done again."""


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``durability``: what a commit outlives, the ``process`` or the machine's ``power`` as well. ``keep_days``: how
    long ended orders stay in the journal before they move to its archive; 0: for ever. ``address``: of the database
    that keeps it, a secret; "" for a file of this host alone. ``lease``: the terms of the account's lease there.
    """

    durability: str = "process"
    keep_days: float = 0.0
    address: str = ""
    lease: LeaseTerms = LeaseTerms()

    def __repr__(self) -> str:
        return f"JournalSettings(durability={self.durability!r}, keep_days={self.keep_days!r})"


class JournalCare:
    """Carries out effects in the order of their commits, each once its commit is as durable as it is to be.

    With ``durability: process`` that is at once, and the database follows within :data:`FLUSH_S`. With ``power`` all
    commits that came while the disk was busy are synced together, on a thread; nothing after a commit is done, told or
    answered before its sync, and the event loop goes on meanwhile. ``perform`` carries out one effect, a commit among
    them; what it raises ends the actor, as does a failed sync.

    With a ``tenure`` the journal's database takes the place of the disk. While that is out of reach everything waits
    but what only cancels or asks: that never does.
    """

    def __init__(
        self,
        context: ActorContext,
        journal: Journal,
        settings: JournalSettings,
        perform: Callable[[Effect], None],
        tenure: Tenure | None = None,
    ) -> None:
        self.journal = journal
        self.settings = settings
        self._context = context
        self._perform = perform
        self._tenure = tenure
        self._deferred = settings.durability == "power" or tenure is not None
        self._durable = 0
        self._waiting: deque[tuple[int, Effect]] = deque()
        self._caught_up = asyncio.Event()
        self._syncing = False
        self._flushing: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin the upkeep."""
        self._context.run(self._keep_log(), "journal log")
        if self.settings.keep_days > 0:
            self._context.run(self._keep_small(), "journal rotation")

    @property
    def behind(self) -> bool:
        """Whether commits wait to be durable, and effects for them."""
        return self._deferred and self._durable < self.journal.commits

    def take(self, effects: Iterable[Effect]) -> None:
        """Commit, and carry out what follows as soon as it may be."""
        for effect in effects:
            if isinstance(effect, JournalWrite):
                self._perform(effect)
                if self.journal.pending and self._flushing is None:
                    self._flushing = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)
                if self._deferred and not self._syncing:
                    self._syncing = True
                    self._context.run(self._sync(), "journal sync")
            elif self.behind and not (self._tenure is not None and isinstance(effect, _UNAFRAID)):
                self._waiting.append((self.journal.commits, effect))
            else:
                self._perform(effect)

    async def durable(self) -> None:
        """Wait until everything committed so far is as durable as it is to be, and done."""
        wanted = self.journal.commits
        while self._deferred and self._durable < wanted:
            self._caught_up.clear()
            await self._caught_up.wait()

    async def settled(self) -> None:
        """The same, or until it is known that it cannot be: for a parting that waits for nobody."""
        self._flush()
        while self.behind and not (self._tenure is not None and self._tenure.lost):
            self._caught_up.clear()
            await self._caught_up.wait()

    def sync_now(self) -> None:
        """The same, at once: for the rare commit that something on its way to the venue waits for. What would have to
        wait for a network is given up instead: TransportError, not sent.
        """
        if self._tenure is not None:
            raise TransportError("it was signed later than was journaled", sent=False)
        if self._deferred:
            self.journal.sync()

    def collect(self, counters: dict[str, int], gauges: dict[str, Any]) -> None:
        """Put the journal's numbers among an actor's."""
        journal = self.journal
        counters["journal_commits"] = journal.commits
        counters["journal_transactions"] = journal.transactions
        counters["journal_stalls"] = journal.slow_commits
        counters["journal_sync_stalls"] = journal.slow_syncs
        gauges["journal_waiting"] = len(self._waiting)
        gauges["journal_bytes"] = _size(journal.path)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        try:
            self.journal.flush()
        except Exception as error:
            self._context.fail(error)

    async def _sync(self) -> None:
        try:
            while self._durable < self.journal.commits:
                reached = await self._harden()
                self._durable = reached
                while self._waiting and self._waiting[0][0] <= reached and not self._context.failed.done():
                    self._perform(self._waiting.popleft()[1])
                self._caught_up.set()
        finally:
            self._syncing = False

    async def _harden(self) -> int:
        """Make every commit so far durable; how many those are."""
        tenure = self._tenure
        if tenure is None:
            return await offload(self.journal.sync)
        backoff = Backoff(base_s=0.05, max_s=1.0)
        while True:
            try:
                reached = await tenure.journal.push()
            except StoreLost as error:
                tenure.out_of_reach("journal", error)
                self._caught_up.set()
                await asyncio.sleep(backoff.next())
            else:
                tenure.in_reach("journal")
                return reached

    async def _keep_log(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            if self.journal.wants_checkpoint:
                await offload(self.journal.checkpoint)

    async def _keep_small(self) -> None:
        await asyncio.sleep(ROTATE_FIRST_S)
        while True:
            try:
                await self.rotate()
            except JournalError as error:
                # What is to be moved stays where it is: no reason to stop trading.
                self._context.log.error("the journal was not rotated", error=str(error), again_in_s=ROTATE_EVERY_S)
                self._context.metrics.count("journal_rotations_failed")
            await asyncio.sleep(ROTATE_EVERY_S)

    async def rotate(self) -> int:
        """Move what is old into the archive; how many rows."""
        context, journal = self._context, self.journal
        rotation = Rotation(journal, round(self.settings.keep_days * DAY_NS))
        strategies = Path(context.spec.state_dir) / "strategies"
        moved = 0
        self._flush()
        while True:
            folded = await offload(folded_by_all, strategies, context.name, journal.incarnation, journal.last())
            copied = await offload(rotation.copy, context.clock.time_ns(), folded)
            if not copied:
                break
            moved += copied
            for _ in rotation.deletions():
                await asyncio.sleep(DELETE_PAUSE_S)
        if moved:
            context.log.info("journal rotated", rows=moved, events_kept_from=journal.first())
        return moved


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
