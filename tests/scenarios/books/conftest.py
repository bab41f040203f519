"""Books of a venue in a box on virtual time: the order-book actor, its sockets, and who reads what it publishes.

A watcher compares every reading that says it is fresh with the venue's own book at that very update id: after each word
of the actor's writers, and every few milliseconds between them.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine.actors.base import ActorContext, ActorHost
from engine.actors.order_book import OrderBookActor
from engine.actors.settings import pack_settings
from engine.book import BookReader, ReadStatus
from engine.bus import MemoryBus
from engine.connectors.settings import ConnectorSettings, Endpoints
from engine.messages import StopActor
from engine.runtime.base import ActorSpec
from engine.runtime.inline import Place
from engine.simulator.box import VenueBox
from engine.simulator.config import BoxConfig, PairConfig
from engine.simulator.events import Depth
from engine.simulator.faults import Fault

START_NS = 1_700_000_000_000_000_000
PORT = 40_321
ACTOR = "order_book.box.0"
STRUCK, OTHER = "BTC-USDT", "ETH-USDT"
PRICES = {STRUCK: "60000", OTHER: "3000"}
LEVELS = 20
LOOK_EVERY_S = 0.005
Side = list[tuple[Decimal, Decimal]]


class Watcher:
    """What a reader of one pair sees. ``statuses``: each as it changes. ``wrong``: readings that lied."""

    def __init__(self, path: Path, now_ns: Callable[[], int], truth: dict[int, tuple[Side, Side]]) -> None:
        self.reader = BookReader(path)
        self.statuses: list[str] = []
        self.ids: list[int] = []
        self.wrong: list[str] = []
        self._now_ns = now_ns
        self._truth = truth

    def look(self) -> ReadStatus:
        view = self.reader.depth(LEVELS, self._now_ns())
        name = view.status.name.lower()
        if self.statuses[-1:] != [name]:
            self.statuses.append(name)
        if view.status is ReadStatus.FRESH:
            if self.ids[-1:] != [view.update_id]:
                self.ids.append(view.update_id)
            if self._truth.get(view.update_id) != (view.bids, view.asks):
                self.wrong.append(f"fresh at {view.update_id}, and not the venue's book there")
        return view.status


class WatchedWriter:
    """A writer whose every word is read at once."""

    def __init__(self, writer: Any, watcher: Watcher) -> None:
        self._writer = writer
        self._watcher = watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def publish_standing(self, *args: Any) -> None:
        self._writer.publish_standing(*args)
        self._watcher.look()

    def set_state(self, state: int) -> None:
        self._writer.set_state(state)
        self._watcher.look()


class BookStage:
    """The box, the actor and the watchers of its books."""

    struck, other = STRUCK, OTHER

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.clock = place.clock
        self.cuts: dict[str, list[int]] = defaultdict(list)
        self.truth: dict[str, dict[int, tuple[Side, Side]]] = defaultdict(dict)
        pairs = [PairConfig(pair=pair, price=price, levels=60) for pair, price in PRICES.items()]
        self.box = VenueBox(
            BoxConfig(port=PORT, pairs=pairs, seed=3, state_dir=str(folder / "venue")), self.clock.time_ns
        )
        self.watchers: dict[str, Watcher] = {}
        self._tasks: list[asyncio.Task[Any]] = []

    # ------------------------------------------------------------------------------------------------------- beginning

    async def begin(self, **options: Any) -> None:
        """Both books in sync, and watched from before that."""
        await self.box.start()
        step = self.box.step

        def noted() -> None:
            step()
            self._note()

        self._box_tells = self.box.feed.tell
        self.box.feed.tell = self._tell  # type: ignore[method-assign]
        self._note()
        self.box.step = noted  # type: ignore[method-assign]
        for name in ("run", "shm", "state"):
            (self.folder / name).mkdir()
        self.bus = MemoryBus(self.place.buses, ACTOR, 1, self.clock)
        self.actor = OrderBookActor(ActorContext(self._spec(options), self.bus, self.clock, structlog.get_logger()))
        make_book = self.actor._make_book

        def watched(rule: Any) -> None:
            make_book(rule)
            path = self.folder / "shm" / f"box.{rule.pair}.book"
            watcher = Watcher(path, self.clock.monotonic_ns, self.truth[rule.pair])
            self.watchers[rule.pair] = watcher
            self.actor.writers[rule.pair] = WatchedWriter(self.actor.writers[rule.pair], watcher)  # type: ignore[assignment]

        self.actor._make_book = watched  # type: ignore[method-assign]
        await self.bus.start()
        self.host = ActorHost(self.actor)
        self._tasks = [asyncio.create_task(self.host.run(1, 1.0)), asyncio.create_task(self._look())]
        await self.until(lambda: len(self.watchers) == len(PRICES) and self.is_fresh(STRUCK) and self.is_fresh(OTHER))
        await self.until(lambda: all(len(watcher.ids) > 3 for watcher in self.watchers.values()))

    def _spec(self, options: dict[str, Any]) -> ActorSpec:
        settings = ConnectorSettings(
            connector="box",
            venue="binance",
            pairs=tuple(PRICES),
            endpoints=Endpoints(rest=f"http://127.0.0.1:{PORT}", ws=f"ws://127.0.0.1:{PORT}"),
            options=options,
        )
        return ActorSpec(
            name=ACTOR,
            kind="order_book",
            connector="box",
            incarnation=1,
            run_dir=str(self.folder / "run"),
            shm_dir=str(self.folder / "shm"),
            state_dir=str(self.folder / "state"),
            engine_id="",
            entry="",
            params={"settings": pack_settings(settings), "pairs": list(PRICES), "depth": 50, "keep_warm_s": 0.0},
        )

    # ------------------------------------------------------------------------------------------------------- meanwhile

    def inflict(self, kind: str, **fields: Any) -> None:
        if kind.endswith(("_depth", "_snapshot")):
            fields.setdefault("match", "BTCUSDT")
        self.box.inflict([Fault(kind=kind, **fields)])

    @property
    def struck_faults(self) -> dict[str, int]:
        return self.box.faults.struck

    def is_fresh(self, pair: str) -> bool:
        return self.watchers[pair].look() is ReadStatus.FRESH

    def counted(self, name: str, pair: str = STRUCK) -> int:
        return int(getattr(self.actor.feed.books[pair].counters, name))

    def problems(self) -> dict[str, int]:
        """Kinds of what was logged and counted."""
        counters = self.actor.metrics.counters
        return {key.partition("/")[2]: count for key, count in counters.items() if key.startswith("problems/")}

    async def until(self, condition: Callable[[], Any], within_s: float = 60.0) -> None:
        """Let virtual time pass until the condition holds."""
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - time jumps
                await asyncio.sleep(0.001)

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # ------------------------------------------------------------------------------------------------------------- end

    async def settle(self) -> None:
        """The market stands still; both books must become the venue's, and no reading may ever have lied."""
        for market in self.box.venue.markets.values():
            market.flow.activity = 0.0
        self.box.faults.clear()
        await self.until(lambda: all(self._is_right(pair) for pair in PRICES))
        for pair, watcher in self.watchers.items():
            assert watcher.wrong == [], f"{pair}: {watcher.wrong[:3]}"
            assert self.counted("bbo_checked", pair) == self.counted("bbo_equal", pair) > 0

    def check_other(self) -> None:
        """The other pair never noticed: no gap, no resync, every diff of its own, in order, and always fresh."""
        assert [self.counted(name, OTHER) for name in ("gaps", "resyncs", "crossed", "old_runs")] == [0, 0, 0, 0]
        assert self.watchers[OTHER].statuses[-1] == "fresh"
        assert self.watchers[OTHER].statuses.count("fresh") == 1
        cuts = [update_id for update_id in self.cuts[OTHER] if update_id > self.watchers[OTHER].ids[0]]
        assert self.watchers[OTHER].ids[1:] == cuts

    def _is_right(self, pair: str) -> bool:
        view = self.watchers[pair].reader.depth(LEVELS, self.clock.monotonic_ns())
        book = self.box.venue.markets[pair].book
        return (
            view.status is ReadStatus.FRESH
            and view.update_id == book.update_id
            and (view.bids, view.asks) == self.truth[pair][book.update_id]
        )

    async def end(self) -> None:
        if self._tasks:
            self.host.request_stop(StopActor(grace_ns=2_000_000_000))
            await self._tasks[0]
            self._tasks[1].cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.bus.close()
        for watcher in self.watchers.values():
            watcher.reader.close()
        await self.box.stop()

    # ---------------------------------------------------------------------------------------------------------- inside

    def _tell(self, event: Any) -> None:
        if isinstance(event, Depth):
            self.cuts[event.pair].append(event.change.last)
        self._box_tells(event)

    def _note(self) -> None:
        """The venue's own books after a step of it."""
        for pair, market in self.box.venue.markets.items():
            book = market.book
            if book.update_id not in self.truth[pair]:
                self.truth[pair][book.update_id] = (
                    _exact(book.levels(True, LEVELS)),
                    _exact(book.levels(False, LEVELS)),
                )

    async def _look(self) -> None:
        while True:
            for watcher in self.watchers.values():
                watcher.look()
            await asyncio.sleep(LOOK_EVERY_S)


def _exact(levels: list[tuple[int, int]]) -> Side:
    return [(Decimal(price).scaleb(-8), Decimal(size).scaleb(-8)) for price, size in levels]


@pytest.fixture
def books(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """``books(body)``: ``await body(stage)`` on virtual time; gives the log. Nothing is left behind."""

    def run(body: Callable[[BookStage], Awaitable[None]], **options: Any) -> list[dict[str, Any]]:
        random.seed(4711)
        place = Place(START_NS)
        stage = BookStage(place, tmp_path)
        place.clock.advance(1_000_000_000)

        async def main() -> None:
            async with asyncio.timeout(600):
                try:
                    await stage.begin(**options)
                    await body(stage)
                finally:
                    await stage.end()

        with structlog.testing.capture_logs() as logs:
            task = place.start(place.process("books"), main())
            place.loop.run_until_complete(task)
            place.loop.close()
        return logs

    return run
