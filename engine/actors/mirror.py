"""The mirror: one connector's books on a host where its order-book actor is not, for all readers there.

One stream comes from the order-book actor, whatever the number of readers. Each event holds a book's best levels as
they are, so one that is lost or merged costs nothing but time. The mirror writes them to shared memory, and wakes its
readers up after that.

A book here is fresh only by signs of life that came in time. The origin's beats carry its monotonic clock, which is
not compared with this host's: of all beats of the last minute the fastest says how the two stand to each other, and one
that took much longer than that has waited somewhere. It is no sign of life here; nor are levels newer than the frame
that they were made of.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from engine.actors.base import Actor, ActorContext
from engine.book import BookWriter, OrderBook, SyncState
from engine.book.paths import book_path
from engine.bus import Down, Overload, Subscription, SubscriptionState, Up
from engine.clock import RecentLateness
from engine.messages import BEATS, BookLevels, BooksBeat, BookUpdated, Message, NetworkStatus, StopActor, Trade

WINDOW_NS: Final = 30_000_000_000


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A mirror's params. ``at``: the place that its books are named by."""

    connector: str
    order_book: str
    pairs: list[str]
    at: str
    depth: int
    stale_after_ns: int


class MirrorActor(Actor):
    """Keeps the books of one connector on this host. Streams: ``book`` and ``trade``, as the order-book actor's."""

    kind: ClassVar[str] = "mirror"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.settings = msgspec.convert(context.params["mirror"], MirrorSettings)
        self.books = context.bus.open_stream("book", overload=Overload.MERGE)
        self.trades = context.bus.open_stream("trade", overload=Overload.SKIP, queue=10_000)
        self.trades.on_readers = self._follow_trades
        self.writers: dict[str, BookWriter] = {}
        self._current: dict[str, _Mirrored] = {}
        """The books whose levels have come since the origin was last reached."""
        self._turns: deque[_Mirrored] = deque()
        self._lateness = RecentLateness(WINDOW_NS)
        self._lived_ns = 0
        self._levels: Subscription | None = None
        self._followed: Subscription | None = None

    async def start(self) -> dict[str, Any]:
        settings = self.settings
        keys = set(settings.pairs)
        self.metrics.network = NetworkStatus.CONNECTING
        self._levels = self.bus.subscribe(
            settings.order_book, "levels", self._on_levels, keys={*keys, BEATS}, on_state=self._on_state
        )
        return {"pairs": settings.pairs}

    def _follow_trades(self) -> None:
        """Trades come here only while somebody reads them: each would be a frame of its own before a book's levels."""
        if self.trades.readers and self._followed is None:
            settings = self.settings
            self._followed = self.bus.subscribe(settings.order_book, "trade", self._on_trade, keys=set(settings.pairs))
        elif not self.trades.readers and self._followed is not None:
            self._followed.close()
            self._followed = None

    async def stop(self, order: StopActor) -> None:
        self._close()

    async def dead_man(self, grace_s: float) -> None:
        self._close()

    def _close(self) -> None:
        if self._levels is not None:
            self._levels.close()
        for writer in self.writers.values():
            writer.close(unlink=True)

    # ------------------------------------------------------------------------------------------------ what happens

    def _on_state(self, state: SubscriptionState) -> None:
        if isinstance(state, Up):
            self.metrics.network = NetworkStatus.CONNECTED
            self._current.clear()
            self._turns.clear()
            if state.incarnation_changed:
                self._lateness = RecentLateness(WINDOW_NS)
        elif isinstance(state, Down):
            self.metrics.network = NetworkStatus.DOWN
            self.log.warning("the books' origin is out of reach", origin=self.settings.order_book, reason=state.reason)

    def _on_levels(self, message: Message, number: int) -> None:
        now_ns = self.clock.monotonic_ns()
        if isinstance(message, BooksBeat):
            lateness = self._lateness.of(message.mono_ns, now_ns)
            self.metrics.histogram("beat_lateness_ns").record(lateness)
            if lateness < self.settings.stale_after_ns // 2:
                self._live_on(now_ns)
            else:
                self.metrics.count("beats_late")
            self._rehearse()
            self.books.publish(message, key=BEATS)
        elif isinstance(message, BookLevels):
            self._publish(message, now_ns)

    def _live_on(self, now_ns: int) -> None:
        """A sign of life. If there was none for so long that books were stale, their readers are told that they are not
        any more, though nothing else has changed.
        """
        were_stale = self._lived_ns and now_ns - self._lived_ns > self.settings.stale_after_ns
        self._lived_ns = now_ns
        for book in self._current.values():
            book.writer.heartbeat(now_ns)
            if were_stale:
                self._tell(book)

    def _publish(self, levels: BookLevels, now_ns: int) -> None:
        self._lateness.of(levels.mono_ns, now_ns)
        received_ns = min(now_ns, levels.received_mono_ns + self._lateness.offset_ns)
        book = self._current.get(levels.pair)
        changed = book is None or book.differs_from(levels)
        if book is None:
            book = self._current[levels.pair] = _Mirrored(self._writer(levels), levels, received_ns)
            self._turns.append(book)
        else:
            book.levels, book.received_ns = levels, received_ns
        book.write()
        if not changed:
            return
        self.metrics.count(f"mirrored/{levels.pair}")
        self._tell(book)

    def _tell(self, book: _Mirrored) -> None:
        levels = book.levels
        self.books.publish(
            BookUpdated(
                connector=self.settings.connector,
                pair=levels.pair,
                update_id=levels.update_id,
                received_mono_ns=book.received_ns,
                state=levels.state,
            ),
            key=levels.pair,
        )

    def _rehearse(self) -> None:
        """What a change would do, for a book that has not changed, by turns: the next one finds it warm."""
        if self._turns:
            self._turns[0].write()
            self._turns.rotate(-1)

    def _writer(self, levels: BookLevels) -> BookWriter:
        found = self.writers.get(levels.pair)
        if found is None:
            settings = self.settings
            found = self.writers[levels.pair] = BookWriter(
                book_path(Path(self.context.spec.shm_dir), settings.connector, levels.pair, settings.at),
                levels.pair,
                levels.price_exponent,
                levels.size_exponent,
                depth=settings.depth,
                incarnation=self.context.incarnation,
            )
        return found

    def _on_trade(self, message: Message, number: int) -> None:
        if isinstance(message, Trade) and self.trades.readers:
            received_ns = min(self.clock.monotonic_ns(), message.received_mono_ns + self._lateness.offset_ns)
            trade = msgspec.structs.replace(message, received_mono_ns=received_ns)
            self.trades.publish(trade, key=trade.pair)


@dataclass(slots=True)
class _Mirrored:
    """One book: who writes it to shared memory, and its newest levels."""

    writer: BookWriter
    levels: BookLevels
    received_ns: int
    """When their frame was received, by this host's clock."""

    def differs_from(self, levels: BookLevels) -> bool:
        """Whether those are of a change, and not the same ones again."""
        known = self.levels
        return (
            known.update_id != levels.update_id
            or known.received_mono_ns != levels.received_mono_ns
            or known.state != levels.state
        )

    def write(self) -> None:
        """Harmless if repeated: a heartbeat that is newer than the levels stays."""
        levels = self.levels
        state = SyncState[levels.state.upper()]
        if state is not SyncState.SYNCED:
            self.writer.set_state(state)
            return
        book = OrderBook(levels.pair, levels.price_exponent, levels.size_exponent)
        if levels.bids or levels.asks:
            book.apply_snapshot(levels.bids, levels.asks)
        else:
            book.load_cells(levels.bid_cells, levels.ask_cells)
        self.writer.publish(book, levels.update_id, levels.time_ns, self.received_ns, state)
