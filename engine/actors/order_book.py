"""The order-book actor: one connector's books, from its venue's frames to shared memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from engine.actors.base import Actor, ActorContext
from engine.actors.book_snapshots import BookSnapshots
from engine.actors.settings import connector_of
from engine.book import BookSync, BookWriter, OrderBook, SyncReason, SyncState
from engine.book.decimals import exponent_of
from engine.book.paths import book_path
from engine.bus import Caller, Overload
from engine.connectors.backoff import Backoff
from engine.connectors.base import LEAD, ConnectionPlan, PublicTrade
from engine.connectors.errors import TransportError
from engine.connectors.feed import FeedProblem, FeedResult, MarketDataFeed
from engine.connectors.reconnecting import ReconnectingWebSocket, fixed
from engine.connectors.websocket import WebSocketOptions
from engine.errors import VenueError
from engine.messages import (
    BEATS,
    BookChanged,
    BookLevels,
    BooksBeat,
    BookSnapshot,
    BookUpdated,
    ControlReply,
    GetBook,
    Message,
    NetworkStatus,
    StopActor,
    Trade,
    TradingRule,
)
from engine.metrics import Histogram

HEARTBEAT_S = 0.1
ALL_LEVELS_EVERY = 10
"""Every so many heartbeats mirrors are sent all books: a quiet one, too, and to one that has just come."""
FIRST_TOLD = 4
"""Of how many books of one read their readers are told at once, before the others: then of twice as many, and so on."""
LONGEST_PONG = 200
UNREAD_TRADES = 1_000
"""How many frames of trades that nobody reads may wait for the next beat."""

_COUNTED = (
    *("updates", "snapshots", "gaps", "resyncs", "rescales", "crossed", "bad_values", "old_runs", "overflows"),
    *("dropped", "bbo_checked", "bbo_equal", "checksums_ok", "checksums_failed", "audits", "audit_mismatches"),
)
_INFORMS = frozenset({SyncReason.RESCALED, SyncReason.AUDIT_SKIPPED})


class OrderBookActor(Actor):
    """Keeps the books of one connector in step with its venue and publishes each change.

    Books go to shared memory; the streams are ``book`` (a wake-up per pair, merged for slow readers), ``trade``, and
    ``depth`` (every change of every book, made only while somebody reads it); ``GetBook`` is answered by a whole book.

    Params: ``settings``, ``pairs``, ``depth``, ``keep_warm_s``.
    """

    kind: ClassVar[str] = "order_book"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.connector = connector_of(context.params)
        self.pairs = [str(pair) for pair in context.params["pairs"]]
        self.depth = int(context.params["depth"])
        self.keep_warm_s = float(context.params["keep_warm_s"])
        self.client = self.connector.books(self.clock)
        self.feed = MarketDataFeed(self.connector.market_data(), {})
        self.rules: dict[str, TradingRule] = {}
        self.writers: dict[str, BookWriter] = {}
        self.books = context.bus.open_stream("book", overload=Overload.MERGE)
        self.levels = context.bus.open_stream("levels", overload=Overload.MERGE)
        self.trades = context.bus.open_stream("trade", overload=Overload.SKIP, queue=10_000)
        self.changes = context.bus.open_stream("depth", overload=Overload.SKIP, queue=10_000)
        self._change_numbers: dict[str, int] = {}
        self._followed: set[str] = set()
        self._latency: dict[str, Histogram] = {}
        self.sockets: list[ReconnectingWebSocket] = []
        self._streams: dict[str, _Stream] = {}
        self._received: dict[str, int] = {}
        self.untold: dict[str, None] = {}
        """The pairs whose books have changed and of which nobody is told yet."""
        self._turns: deque[str] = deque()
        self._has_told = False
        self._trade_mark = self.feed.protocol.trade_mark
        self._trade_frames: list[tuple[ConnectionPlan, _Stream, bytes, int]] = []
        self._trades_booked = False
        self._unsynced_since: dict[str, int] = {}
        self.snapshots = BookSnapshots(
            context,
            self.feed,
            self.pairs,
            fetch=lambda request: self.client.fetch(request),
            resubscribe=lambda pair, texts: self._streams[pair].obey(FeedResult(send=texts)),
            handle=self.handle,
        )
        self.closing = False

    async def start(self) -> dict[str, Any]:
        self.metrics.network = NetworkStatus.CONNECTING
        self.context.run(self._come_up(), "venue")
        return {"pairs": self.pairs}

    async def stop(self, order: StopActor) -> None:
        self._take_trades()
        await self._close()

    async def dead_man(self, grace_s: float) -> None:
        await self._close()

    def collect(self) -> None:
        counters, gauges = self.metrics.counters, self.metrics.gauges
        counters["frames"] = self.feed.counters.frames
        counters["unparsed"] = self.feed.counters.unparsed
        now_ns = self.clock.monotonic_ns()
        for pair, sync in self.feed.books.items():
            self._count_stale(pair, now_ns)
            for name in _COUNTED:
                counters[f"{name}/{pair}"] = getattr(sync.counters, name)
            gauges[f"bids/{pair}"], gauges[f"asks/{pair}"] = sync.book.bid_count, sync.book.ask_count
            gauges[f"book_state/{pair}"] = sync.state.name.lower()
            gauges[f"best/{pair}"] = _best(sync.book)
        if self.sockets:
            is_up = all(socket.is_open for socket in self.sockets)
            self.metrics.network = NetworkStatus.CONNECTED if is_up else NetworkStatus.DOWN

    # ---------------------------------------------------------------------------------------------------- coming up

    async def _come_up(self) -> None:
        """Learn the rules of the pairs, make their books, and connect; again after each failure."""
        backoff = Backoff()
        while True:
            try:
                await self.client.start()
                rules = await self.client.trading_rules(self.pairs)
            except VenueError as error:
                self.metrics.network = NetworkStatus.DOWN
                delay = backoff.next()
                self.log.warning("the venue is out of reach", error=str(error), again_in_s=round(delay, 2))
                await asyncio.sleep(delay)
            else:
                break
        followed = [pair for pair in self.pairs if pair in rules]
        if len(followed) < len(self.pairs):
            missing = [pair for pair in self.pairs if pair not in rules]
            self.log.error("the venue does not list these pairs", pairs=missing)
        for pair in followed:
            self._make_book(rules[pair])
        for plan in self.feed.protocol.connections(followed):
            self._connect(plan)
        self.context.run(self._beat(), "heartbeat")
        if self.keep_warm_s:
            self.context.run(self._stay_warm(), "warmth")
        if followed and self.feed.protocol.audit_request(followed[0]) is not None:
            self.context.run(self.snapshots.audit_in_turn(followed), "audits")

    def _make_book(self, rule: TradingRule) -> None:
        exponents = exponent_of(rule.price_increment), exponent_of(rule.size_increment)
        self.rules[rule.pair] = rule
        protocol = self.feed.protocol
        sequence, book = protocol.sequence_rule(rule.pair), OrderBook(rule.pair, *exponents)
        self.feed.books[rule.pair] = BookSync(book, sequence, max_mismatches=protocol.max_mismatches)
        path = book_path(Path(self.context.spec.shm_dir), self.context.connector, rule.pair)
        self.writers[rule.pair] = BookWriter(
            path, rule.pair, *exponents, depth=self.depth, incarnation=self.context.incarnation
        )
        self._turns.append(rule.pair)
        self._latency[rule.pair] = self.metrics.histogram(f"book_latency_ns/{rule.pair}")
        self._unsynced_since[rule.pair] = self.clock.monotonic_ns()

    def _connect(self, plan: ConnectionPlan) -> None:
        protocol = self.feed.protocol
        stream = _Stream(self, plan)
        socket = stream.socket = ReconnectingWebSocket(
            fixed(plan),
            stream,
            options=WebSocketOptions(ca=self.connector.settings.options.get("ca"), ping_every_s=protocol.ping_every_s),
            silence_s=protocol.silence_after_s,
            keepalive=protocol.keepalive,
            on_failed=partial(self._connect_failed, plan),
            after_read=stream.after_read,
            monotonic_ns=self.clock.monotonic_ns,
        )
        self.sockets.append(socket)
        self._streams |= dict.fromkeys(plan.pairs, stream)
        socket.start()

    def _connect_failed(self, plan: ConnectionPlan, error: str, delay_s: float) -> None:
        self.metrics.count("connect_failures")
        self.log.warning("market stream not connected", url=plan.url, error=error, again_in_s=round(delay_s, 2))

    async def _close(self) -> None:
        self.closing = True
        for socket in self.sockets:
            await socket.close()
        await self.client.close()
        for writer in self.writers.values():
            writer.close(unlink=True)

    # ------------------------------------------------------------------------------------------------ what happens

    def on_frame(self, plan: ConnectionPlan, socket: _Stream, data: bytes, received_mono_ns: int) -> None:
        """One frame of a market stream: onto the books and into shared memory. Who listens is told by
        :meth:`after_read`, once for all frames of one read, or of a part of a long one: nothing leaves an actor before
        its event loop's turn is over.
        """
        mark = self._trade_mark
        if mark and data.find(mark, 0, LEAD) >= 0:
            self._trade_frames.append((plan, socket, data, received_mono_ns))
        else:
            self._take(plan, socket, data, received_mono_ns)

    @property
    def has_readers(self) -> bool:
        """Whether anybody is told of books that change."""
        return bool(self.books.readers or self.levels.readers)

    def after_read(self, rests: bool = False) -> None:
        """All frames of a read have come, or its first ones if the rest of it waits: tell of their books. Trades would
        keep what is told from leaving, and the processor from who is told: they have the event loop's next turn or, if
        nobody reads them, the next beat.
        """
        self.announce()
        frames = self._trade_frames
        if rests or self._trades_booked:
            return
        if frames and (self.trades.readers or len(frames) >= UNREAD_TRADES):
            self._trades_booked = True
            asyncio.get_running_loop().call_soon(self._take_trades)

    def _take_trades(self) -> None:
        self._trades_booked = False
        frames, self._trade_frames = self._trade_frames, []
        try:
            for frame in frames:
                self._take(*frame)
            self.announce()
        except Exception as error:
            self.context.fail(error)

    def _take(self, plan: ConnectionPlan, socket: _Stream, data: bytes, received_mono_ns: int) -> None:
        result = self.feed.on_frame(plan, data, received_mono_ns)
        if result is self.feed.nothing:
            return
        self._carry_out(result, received_mono_ns)
        if result.send or result.reconnect:
            socket.obey(result)

    def handle(self, result: FeedResult, received_mono_ns: int) -> None:
        """Carry out what the feed says of something else than a frame."""
        self._carry_out(result, received_mono_ns)
        self.announce()

    def announce(self) -> None:
        """Tell of the books that have changed: first who is woken up on this host, then the mirrors on others."""
        changed = self.untold
        if not changed:
            return
        self.untold = {}
        self._has_told = True
        if self.books.readers:
            for pair in changed:
                self._wake(pair)
        if self.levels.readers:
            for pair in changed:
                self._publish_levels(pair)

    def _carry_out(self, result: FeedResult, received_mono_ns: int) -> None:
        for pair in result.updated:
            self._publish(pair, received_mono_ns)
        for trade in result.trades:
            self._publish_trade(trade, received_mono_ns)
        for need in result.snapshots:
            self.snapshots.get(need)
        for problem in result.problems:
            self._tell_problem(problem)

    def _tell_problem(self, problem: FeedProblem) -> None:
        """Counted and logged once; that the book's state changed is published like every change."""
        self.metrics.count(f"problems/{problem.kind}")
        if problem.kind == SyncReason.DISCONNECTED:
            return  # of every pair of a connection, whose end is logged once
        more = {}
        if problem.kind == SyncReason.BAD_VALUE:
            rule = self.rules[problem.pair]
            more = {"price_increment": str(rule.price_increment), "size_increment": str(rule.size_increment)}
        say = self.log.info if problem.kind in _INFORMS else self.log.warning
        say("market data problem", kind=problem.kind, pair=problem.pair, detail=problem.detail, **more)

    def _publish(self, pair: str, received_mono_ns: int) -> None:
        sync = self.feed.books[pair]
        state = sync.state
        if state is SyncState.SYNCED:
            self.writers[pair].publish_standing(sync, received_mono_ns)
            if pair in self._unsynced_since:
                self._synced(pair)
            self._latency[pair].record(self.clock.monotonic_ns() - received_mono_ns)
        else:
            self.writers[pair].set_state(state)
            self._unsynced_since.setdefault(pair, self.clock.monotonic_ns())
        self._received[pair] = received_mono_ns
        self.untold[pair] = None
        if self.changes.readers or pair in self._followed:
            self._publish_changes(pair, sync, received_mono_ns)

    def _wake(self, pair: str) -> None:
        sync = self.feed.books[pair]
        self.books.publish(
            BookUpdated(
                connector=self.context.connector,
                pair=pair,
                update_id=sync.update_id,
                received_mono_ns=self._received[pair],
                state=sync.state.name.lower(),
            ),
            key=pair,
        )

    def _publish_changes(self, pair: str, sync: BookSync, received_mono_ns: int) -> None:
        """What changed, for those who need every change; nothing is kept track of while there are none."""
        if not self.changes.readers:
            sync.book.forget_changes()
            self._followed.discard(pair)
            return
        is_synced = sync.state is SyncState.SYNCED
        whole, bids, asks = sync.book.changes() if is_synced else (False, [], [])
        if is_synced:
            self._followed.add(pair)
        number = self._change_numbers[pair] = self._change_numbers.get(pair, 0) + 1
        self.changes.publish(
            BookChanged(
                connector=self.context.connector,
                pair=pair,
                sequence=number,
                update_id=sync.update_id,
                time_ns=sync.time_ns,
                received_mono_ns=received_mono_ns,
                state=sync.state.name.lower(),
                whole=whole,
                bids=bids,
                asks=asks,
            ),
            key=pair,
        )

    def on_message(self, caller: Caller, message: Message) -> Any:
        if isinstance(message, GetBook):
            return self._snapshot_of(message.pair)
        return super().on_message(caller, message)

    def _snapshot_of(self, pair: str) -> BookSnapshot | ControlReply:
        sync = self.feed.books.get(pair)
        if sync is None:
            known = ", ".join(self.feed.books) or "none yet"
            return ControlReply(ok=False, error=f"{self.context.name} keeps no book of {pair}; it keeps: {known}")
        is_synced = sync.state is SyncState.SYNCED
        bids, asks = sync.book.depth_strings() if is_synced else ([], [])
        return BookSnapshot(
            connector=self.context.connector,
            pair=pair,
            sequence=self._change_numbers.get(pair, 0),
            update_id=sync.update_id,
            time_ns=sync.time_ns,
            state=sync.state.name.lower(),
            bids=bids,
            asks=asks,
        )

    def _publish_levels(self, pair: str) -> None:
        """For the mirrors on other hosts."""
        self.levels.publish(self._levels_of(pair), key=pair)

    def _levels_of(self, pair: str) -> BookLevels:
        sync = self.feed.books[pair]
        book = sync.book
        is_synced = sync.state is SyncState.SYNCED
        bids, asks = book.depth_strings(self.depth) if is_synced and book.is_wide else ([], [])
        bid_cells, ask_cells = book.cells(self.depth) if is_synced and not book.is_wide else (b"", b"")
        return BookLevels(
            connector=self.context.connector,
            pair=pair,
            update_id=sync.update_id,
            time_ns=sync.time_ns,
            received_mono_ns=self._received.get(pair, 0),
            mono_ns=self.clock.monotonic_ns(),
            state=sync.state.name.lower(),
            price_exponent=book.price_exponent,
            size_exponent=book.size_exponent,
            bid_cells=bid_cells,
            ask_cells=ask_cells,
            bids=bids,
            asks=asks,
        )

    def _synced(self, pair: str) -> None:
        took_ns = self.clock.monotonic_ns() - self._unsynced_since[pair]
        self._count_stale(pair, self.clock.monotonic_ns())
        del self._unsynced_since[pair]
        self.log.info("book in sync", pair=pair, after_s=round(took_ns / 1e9, 3))

    def _count_stale(self, pair: str, now_ns: int) -> None:
        since = self._unsynced_since.get(pair)
        if since is not None:
            self.metrics.count(f"stale_ns/{pair}", now_ns - since)
            self._unsynced_since[pair] = now_ns

    def _publish_trade(self, trade: PublicTrade, received_mono_ns: int) -> None:
        self.metrics.count(f"trades/{trade.pair}")
        if not self.trades.readers:
            return
        self.trades.publish(
            Trade(
                connector=self.context.connector,
                pair=trade.pair,
                trade_id=trade.trade_id,
                price=Decimal(trade.price),
                size=Decimal(trade.size),
                side=trade.side,
                time_ns=trade.time_ns,
                received_mono_ns=received_mono_ns,
            ),
            key=trade.pair,
        )

    async def _beat(self) -> None:
        for number in itertools.count():
            self.beat(self.clock.monotonic_ns(), number)
            await asyncio.sleep(HEARTBEAT_S)

    def beat(self, now_ns: int, number: int) -> None:
        """Every so often: a sign of life of all books, and what waits for the time."""
        for writer in self.writers.values():
            writer.heartbeat(now_ns)
        self.handle(self.feed.on_time(now_ns), now_ns)
        self._take_trades()
        if self.levels.readers:
            if number % ALL_LEVELS_EVERY == 0:
                for pair in self.writers:
                    self._publish_levels(pair)
            self.levels.publish(BooksBeat(mono_ns=now_ns), key=BEATS)

    async def _stay_warm(self) -> None:
        while True:
            await asyncio.sleep(self.keep_warm_s)
            self.walk()

    def walk(self) -> None:
        """Walk the way to all readers if nothing was told since the last time: a processor that has slept, and code and
        data that have left its caches, would make the next frame take several times as long. What a change would have
        done here is done for a book that has not changed, by turns; who hears of the beat does likewise.
        """
        if not self._has_told:
            self._rehearse()
            beat = BooksBeat(mono_ns=self.clock.monotonic_ns())
            self.books.publish(beat, key=BEATS)
            self.levels.publish(beat, key=BEATS)
        self._has_told = False

    def _rehearse(self) -> None:
        if not self._turns:
            return
        pair = self._turns[0]
        self._turns.rotate(-1)
        sync = self.feed.books[pair]
        if sync.state is SyncState.SYNCED:
            self.writers[pair].publish_standing(sync, self._received[pair])
        if self.levels.readers:
            self._levels_of(pair)


class _Stream:
    """One market stream's frames, on their way to the actor. An error of ours ends the actor, not the stream alone."""

    socket: ReconnectingWebSocket

    def __init__(self, actor: OrderBookActor, plan: ConnectionPlan) -> None:
        self._actor = actor
        self._plan = plan
        self._at_once = FIRST_TOLD

    def obey(self, result: FeedResult) -> None:
        """What the venue wants of this very connection: an answer, or that it is left for another."""
        try:
            for text in result.send:
                self.socket.send(text)
        except TransportError as error:
            self.socket.restart(str(error))
        if result.reconnect:
            self.socket.restart("the venue asked for it")

    def on_open(self) -> None:
        self._actor.log.info("market stream open", url=self._plan.url, pairs=list(self._plan.pairs))
        self._actor.handle(self._actor.feed.on_open(self._plan), self._actor.clock.monotonic_ns())

    def on_frame(self, data: bytes, received_mono_ns: int) -> bool:
        """Whether it was data: a pong says that the venue's end lives, not that it still sends."""
        actor = self._actor
        try:
            actor.on_frame(self._plan, self, data, received_mono_ns)
        except Exception as error:
            actor.context.fail(error)
        if len(actor.untold) >= self._at_once and actor.has_readers:
            self._at_once *= 2
            self.socket.rest()
        protocol = actor.feed.protocol
        return protocol.keepalive is None or len(data) > LONGEST_PONG or not protocol.is_pong(data)

    def after_read(self) -> None:
        actor = self._actor
        try:
            rests = self.socket.rests
            if not rests:
                self._at_once = FIRST_TOLD
            actor.after_read(rests)
        except Exception as error:
            actor.context.fail(error)

    def on_close(self, reason: str) -> None:
        actor = self._actor
        if actor.closing:
            return
        actor.log.warning("market stream closed", url=self._plan.url, reason=reason)
        actor.handle(actor.feed.on_close(self._plan), actor.clock.monotonic_ns())


def _best(book: OrderBook) -> list[str] | None:
    bid, ask = book.best_bid(), book.best_ask()
    if bid is None or ask is None:
        return None
    return [str(bid[0]), str(bid[1]), str(ask[0]), str(ask[1])]
