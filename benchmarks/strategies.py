"""Strategies that only measure."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from decimal import Decimal
from pathlib import Path

from engine.messages import OrderEvent, OrderEventKind, OrderType, Tick
from engine.strategies import Strategy

FAR = Decimal("0.9")
SIZE = Decimal("0.001")
_ENDS = (OrderEventKind.CANCELLED, OrderEventKind.FAILED, OrderEventKind.EXPIRED)


class Idle(Strategy):
    """Does nothing."""


class Blocker(Strategy):
    """Blocks its process for ``params["block_s"]`` seconds in its first tick, and never again."""

    def on_tick(self, tick: Tick) -> None:
        if not self.state:
            self.state["blocked"] = True
            time.sleep(float(self.params["block_s"]))


class Watcher(Strategy):
    """Reads the best of each book that changed, as any strategy would."""

    def on_book(self, pair: str) -> None:
        self.book(pair)


class _Stamps(Strategy):
    """Notes of readings of books their updates' ids, when those were received, and when the reading began.

    ``{pair: [[update id, received, began], ...]}`` is in ``params["file"]`` in the end; times in ns of the monotonic
    clock. What is received is told by the book's age, which is told after the reading began: it is early by the
    microseconds that a reading takes, never late.
    """

    def on_start(self) -> None:
        self._stamps: dict[str, list[tuple[int, int, int]]] = {pair: [] for pair in self.pairs}

    def stamp(self, pair: str) -> None:
        began_ns = time.monotonic_ns()
        view = self.book(pair)
        stamps = self._stamps[pair]
        if view.fresh and not (stamps and stamps[-1][0] == view.update_id):
            stamps.append((view.update_id, began_ns - view.age_ns, began_ns))

    def on_stop(self) -> None:
        Path(self.params["file"]).write_text(json.dumps(self._stamps))


class Stamper(_Stamps):
    """Notes each changed book as ``on_book`` begins."""

    def on_book(self, pair: str) -> None:
        self.stamp(pair)


class Watchman(_Stamps):
    """Looks at all books every ``params["every_s"]`` seconds, and is woken up by none."""

    def on_start(self) -> None:
        super().on_start()
        self._loop = asyncio.get_running_loop()
        self._look()

    def _look(self) -> None:
        for pair in self.pairs:
            self.stamp(pair)
        self._loop.call_later(float(self.params["every_s"]), self._look)


class Beacon(Strategy):
    """Says, in a datagram to ``params["socket"]``, that it runs: its monotonic time in nanoseconds."""

    def on_start(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(str(time.monotonic_ns()).encode(), self.params["socket"])


class Placer(Strategy):
    """Places an order far from the market every ``params["every_s"]`` seconds and cancels it once it is there."""

    def on_start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(1.0, self._send)

    def on_order(self, event: OrderEvent) -> None:
        if event.kind is OrderEventKind.CREATED:
            self._loop.call_later(float(self.params["every_s"]) / 2, self.cancel, event.order.client_order_id)

    def _send(self) -> None:
        pair = self.pairs[0]
        book = self.book(pair)
        if book.fresh and book.bid is not None and self.ready(pair):
            self.buy(pair, SIZE, book.bid * FAR, OrderType.LIMIT_MAKER)
        self._loop.call_later(float(self.params["every_s"]), self._send)


class TurnPlacer(Placer):
    """The same at each of its pairs by turns."""

    def _send(self) -> None:
        self.pairs.append(self.pairs.pop(0))
        super()._send()


class Churner(Strategy):
    """Keeps ``params["in_flight"]`` orders under way for ``params["seconds"]``: placed, cancelled, placed anew.

    Writes ``{"orders", "failed", "seconds"}`` to ``params["file"]``: how many lived and were cancelled.
    """

    def on_start(self) -> None:
        self._orders = self._failed = self._began_ns = 0
        self._done = False
        self._price = Decimal(0)
        asyncio.get_running_loop().call_later(1.0, self._begin)

    def on_order(self, event: OrderEvent) -> None:
        if event.kind is OrderEventKind.CREATED:
            self.cancel(event.order.client_order_id)
        elif event.kind in _ENDS:
            self._orders += event.kind is OrderEventKind.CANCELLED
            self._failed += event.kind is not OrderEventKind.CANCELLED
            self._next()

    def _begin(self) -> None:
        book = self.book(self.pairs[0])
        if book.bid is None or not self.ready(self.pairs[0]):
            asyncio.get_running_loop().call_later(0.1, self._begin)
            return
        self._price = book.bid * FAR
        self._began_ns = time.monotonic_ns()
        for _ in range(int(self.params["in_flight"])):
            self._next()

    def _next(self) -> None:
        elapsed_s = (time.monotonic_ns() - self._began_ns) / 1e9
        if elapsed_s < float(self.params["seconds"]):
            self.buy(self.pairs[0], SIZE, self._price, OrderType.LIMIT_MAKER)
        elif not self._done:
            self._done = True
            result = {"orders": self._orders, "failed": self._failed, "seconds": elapsed_s}
            draft = Path(str(self.params["file"]) + ".part")
            draft.write_text(json.dumps(result))
            draft.rename(self.params["file"])
