"""Whole books asked of a venue: what a book out of step begins from, and what one in step is compared with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from engine.actors.base import ActorContext
from engine.connectors.backoff import Backoff
from engine.connectors.base import HttpRequest
from engine.connectors.feed import FeedResult, MarketDataFeed, SnapshotNeed
from engine.errors import VenueError

CALM_NS: Final = 10_000_000_000
"""A pair that asked for no snapshot for so long gets one at once; otherwise it waits, longer each time."""
PUSHED_WITHIN_S = 10.0
"""A snapshot in the stream that has not come by then is asked for again."""
AUDIT_LEAD_S = 2.0
"""For so long before it is asked for may the book that a venue gives without a number or time be what it was."""
AUDIT_SETTLE_S = 1.0
"""So long after the answer to an audit the stream has passed the moment that the answer is about."""


class BookSnapshots:
    """Asks for them in tasks of the actor's, tells the feed what came, and hands on what the feed says to that.

    ``fetch``: by REST; raises VenueError. ``resubscribe``: sends texts on a pair's own connection, for a venue that
    sends books in the stream itself. ``handle``: carries out the feed's result, of a monotonic time in ns.
    """

    def __init__(
        self,
        context: ActorContext,
        feed: MarketDataFeed,
        pairs: Iterable[str],
        *,
        fetch: Callable[[HttpRequest], Awaitable[bytes]],
        resubscribe: Callable[[str, tuple[str, ...]], None],
        handle: Callable[[FeedResult, int], None],
    ) -> None:
        self.backoff = {pair: Backoff() for pair in pairs}
        self._context = context
        self._clock = context.clock
        self._feed = feed
        self._fetch = fetch
        self._resubscribe = resubscribe
        self._handle = handle
        self._needs: dict[str, SnapshotNeed] = {}
        self._asked: dict[str, int] = {}

    def get(self, need: SnapshotNeed) -> None:
        """Have a book that one out of step needs; an earlier need of its pair is none any more."""
        self._needs[need.pair] = need
        get = self._from_rest(need, need.request) if need.request is not None else self._from_stream(need)
        self._context.run(get, "snapshot")

    async def audit_in_turn(self, pairs: list[str]) -> None:
        """Compare each book with the venue's own, one after the other, each once in the protocol's time."""
        every_s = self._feed.protocol.audit_every_s / len(pairs)
        while True:
            for pair in pairs:
                began_ns = self._clock.monotonic_ns()
                await self._audit(pair)
                if self._feed.books[pair].is_suspected:
                    await self._audit(pair)
                took_s = (self._clock.monotonic_ns() - began_ns) / 1e9
                await asyncio.sleep(max(0.0, every_s - took_s))

    # ----------------------------------------------------------------------------------------------------- snapshots

    async def _from_rest(self, need: SnapshotNeed, request: HttpRequest) -> None:
        await self._wait_for_turn(need.pair)
        if self._is_awaited(need):
            answer = await self._answer(request)
            self._handle(self._feed.on_snapshot(need.pair, answer, need.epoch), self._clock.monotonic_ns())

    async def _from_stream(self, need: SnapshotNeed) -> None:
        """Until the stream has brought the pair's snapshot: ask for it, by another subscription, ever more seldom.

        Nothing is asked for where the subscription was made just now, unless it brings none in time.
        """
        texts = need.resubscribe
        while self._is_awaited(need):
            if texts:
                await self._wait_for_turn(need.pair)
                if not self._is_awaited(need):
                    return
                self._context.metrics.count(f"resubscribed/{need.pair}")
                self._resubscribe(need.pair, texts)
            await asyncio.sleep(PUSHED_WITHIN_S)
            texts = self._feed.protocol.resubscribe(need.pair)

    def _is_awaited(self, need: SnapshotNeed) -> bool:
        sync = self._feed.books[need.pair]
        return self._needs.get(need.pair) is need and sync.epoch == need.epoch and sync.awaiting_snapshot

    async def _wait_for_turn(self, pair: str) -> None:
        """A venue that keeps sending what a book cannot hold must not be asked for snapshots without end."""
        backoff = self.backoff[pair]
        asked_ns = self._asked.get(pair)
        if asked_ns is None or self._clock.monotonic_ns() - asked_ns > CALM_NS:
            backoff.reset()
        else:
            await asyncio.sleep(backoff.next())
        self._asked[pair] = self._clock.monotonic_ns()

    # -------------------------------------------------------------------------------------------------------- audits

    async def _audit(self, pair: str) -> None:
        protocol = self._feed.protocol
        request = protocol.audit_request(pair)
        epoch = self._feed.begin_audit(pair)
        if request is None or epoch is None:
            return
        if protocol.audit_any_moment:
            await asyncio.sleep(AUDIT_LEAD_S)
        answer = await self._answer(request)
        if not isinstance(answer, VenueError):
            await asyncio.sleep(AUDIT_SETTLE_S)
        self._handle(self._feed.on_audit(pair, answer, epoch), self._clock.monotonic_ns())

    async def _answer(self, request: HttpRequest) -> bytes | VenueError:
        try:
            return await self._fetch(request)
        except VenueError as error:
            return error
