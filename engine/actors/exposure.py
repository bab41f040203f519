"""What an account's risk checks look at: positions, the day's loss, mids."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from engine.actors.mids import Mids
from engine.actors.takings import Takings
from engine.clock import Clock
from engine.messages import OrderFill, Side
from engine.orders.account import Account
from engine.orders.journal import Journal
from engine.orders.records import Write, WriteFill
from engine.orders.risk import RiskView
from engine.orders.rules import EXACT

DAY_NS = 86_400_000_000_000


class Exposure:
    """An account's positions and takings of the day, by the journal and from then on by what is written to it.

    Not by its events: these are told once their commit is durable, and what the journal was asked for in between has
    their fills already. ``venue_now_ns``: the venue's wall clock, by which its fills are dated and days begin.
    """

    def __init__(
        self,
        connector: str,
        pairs: list[str],
        core: Account,
        journal: Journal,
        mids: Mids,
        clock: Clock,
        venue_now_ns: Callable[[], int],
    ) -> None:
        self._connector = connector
        self._pairs = pairs
        self._core = core
        self._journal = journal
        self._mids = mids
        self._clock = clock
        self._venue_now_ns = venue_now_ns
        self._positions: dict[str, Decimal] | None = None
        self._takings = Takings()
        self._last_mids: dict[str, Decimal] = {}
        self._day = 0
        self._begin_day()

    def view(self, pair: str) -> RiskView:
        """For an order of that pair; positions are summed up from the journal when they are first needed.

        The day's loss counts a pair without a fresh mid with the last one known: it does not go away with its book.
        """
        if self._positions is None:
            self._positions = self._journal.positions()
        self._begin_day()
        fresh = self.mids()
        self._last_mids.update(fresh)
        return RiskView(
            mid=fresh.get(pair),
            position=self._positions.get(pair, Decimal(0)),
            open_orders=self._core.open_orders(),
            daily_loss={quote: -gain for quote, gain in self._takings.gains(self._last_mids).items()},
        )

    def mid(self, pair: str) -> Decimal | None:
        """What a market order is expected to trade at; None without a fresh book."""
        return self._mids.mid(self._connector, pair, self._clock.monotonic_ns())

    def mids(self) -> dict[str, Decimal]:
        """Of every pair whose book is fresh."""
        found = {pair: self.mid(pair) for pair in self._pairs}
        return {pair: mid for pair, mid in found.items() if mid is not None}

    def wrote(self, writes: Iterable[Write]) -> None:
        """Count the fills that the journal took."""
        for write in writes:
            if isinstance(write, WriteFill):
                self._add(write.fill)

    def _add(self, of: OrderFill) -> None:
        # What is learned today of another day's trading is no loss of today's, as it would not be after a restart.
        if of.fill.time_ns // DAY_NS >= self._day:
            self._takings.add(of.strategy, of.pair, of.side, of.fill)
        if self._positions is not None:
            signed = of.fill.size if of.side is Side.BUY else of.fill.size.copy_negate()
            self._positions[of.pair] = EXACT.add(self._positions.get(of.pair, Decimal(0)), signed)

    def _begin_day(self) -> None:
        day = self._venue_now_ns() // DAY_NS
        if day != self._day:
            self._day = day
            self._takings = Takings(self._journal.fills(day * DAY_NS, limit=1_000_000))
