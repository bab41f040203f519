"""What an account's risk checks look at: positions, the day's loss, mids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    """An account's positions and takings of the day, by the journal's past and by what is written to it.

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
        self._positions: dict[str, Decimal] = {}
        self._takings = Takings()
        self._last_mids: dict[str, Decimal] = {}
        self._day = self._began = venue_now_ns() // DAY_NS
        self.known = False
        """Whether the past is known; before that nothing can be judged."""

    @property
    def since_ns(self) -> int:
        """The midnight from which on the past's takings are wanted."""
        return self._began * DAY_NS

    def learn(self, positions: Mapping[str, Decimal], takings: Takings) -> None:
        """What the journal had when this was made: positions of all time, takings since that day's midnight."""
        for pair, base in positions.items():
            self._move(pair, base)
        if self._day == self._began:
            self._takings.merge(takings)
        self.known = True

    def view(self, pair: str) -> RiskView:
        """For an order of that pair.

        The day's loss counts a pair without a fresh mid with the last one known, or else with its newest fill's price:
        it does not go away with its book.
        """
        self._begin_day()
        fresh = self.mids()
        self._last_mids.update(fresh)
        marks = {**self._takings.prices(), **self._last_mids}
        return RiskView(
            mid=fresh.get(pair),
            position=self._positions.get(pair, Decimal(0)),
            open_orders=self._core.open_orders(),
            daily_loss={quote: -gain for quote, gain in self._takings.gains(marks).items()},
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
        self._move(of.pair, of.fill.size if of.side is Side.BUY else of.fill.size.copy_negate())

    def _move(self, pair: str, base: Decimal) -> None:
        self._positions[pair] = EXACT.add(self._positions.get(pair, Decimal(0)), base)

    def _begin_day(self) -> None:
        """Another day's fills are asked for at its beginning, when there are few."""
        day = self._venue_now_ns() // DAY_NS
        if day != self._day:
            self._day, self._began = day, -1
            self._takings = Takings(self._journal.fills(day * DAY_NS, limit=1_000_000))
