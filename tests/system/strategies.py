"""Strategies that misbehave, for tests of what becomes of the others."""

from __future__ import annotations

import os
import time
from decimal import Decimal
from pathlib import Path

from engine.messages import OrderEvent, OrderType, Tick
from engine.strategies import Strategy


class Recorder(Strategy):
    """Writes down the number of every event of its own that it is given, and trades a little."""

    def on_load(self) -> None:
        self.state.setdefault("numbers", [])
        self.file = Path(self.params["file"])

    def on_order(self, event: OrderEvent) -> None:
        if event.number:
            with self.file.open("a") as file:
                file.write(f"{event.number} {event.kind.value} {event.order.client_order_id}\n")
            self.state["numbers"].append(event.number)
            self.checkpoint()

    def on_tick(self, tick: Tick) -> None:
        pair = self.pairs[0]
        book = self.book(pair)
        if book.fresh and self.ready(pair) and book.bid is not None:
            for order in self.open_orders(pair):
                self.cancel(order.client_order_id)
            self.buy(pair, self.params.get("size", "0.01"), book.bid * Decimal("0.99"), OrderType.LIMIT_MAKER)


class Raiser(Recorder):
    """Raises after its third event of each life, once that event is in its checkpoint."""

    def on_order(self, event: OrderEvent) -> None:
        super().on_order(event)
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 3 and len(self.state["numbers"]) < 9:
            raise RuntimeError("on purpose")


class Blocker(Strategy):
    """Blocks its own process once, for as long as ``block_s`` says."""

    def on_tick(self, tick: Tick) -> None:
        if not self.state.get("blocked"):
            self.state["blocked"] = True
            Path(self.params["file"]).write_text(str(os.getpid()))
            time.sleep(float(self.params["block_s"]))
            Path(self.params["file"]).write_text("done")


class DiesAtOnce(Strategy):
    """Cannot even load."""

    def on_load(self) -> None:
        raise RuntimeError("never starts")
