"""Strategies that misbehave, for tests of what becomes of the others."""

from __future__ import annotations

import json
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


class Spinner(Strategy):
    """Never ends its first turn, and wants a processor all the while."""

    def on_tick(self, tick: Tick) -> None:
        while True:
            pass


class DiesAtOnce(Strategy):
    """Cannot even load."""

    def on_load(self) -> None:
        raise RuntimeError("never starts")


class Puppet(Strategy):
    """Does what ``commands.jsonl`` in its folder says, a line at a time, and writes down what it sees.

    Lines are ``{"place": NAME, "factor": "0.9"}`` (buys at so much of the best bid) and ``{"cancel": NAME}``. Events go
    to ``told.jsonl``; ``view.json`` has its open orders' states by name, as of the last tick.
    """

    def on_load(self) -> None:
        self.folder = Path(self.params["folder"])
        self.state.setdefault("done", 0)
        self.state.setdefault("ids", {})

    def on_tick(self, tick: Tick) -> None:
        pair = self.pairs[0]
        bid = self.book(pair).bid
        commands = self.folder / "commands.jsonl"
        lines = commands.read_text().splitlines() if commands.exists() else []
        if bid is not None and self.ready(pair):
            for line in lines[self.state["done"] :]:
                self.obey(pair, bid, json.loads(line))
        names = {client_order_id: name for name, client_order_id in self.state["ids"].items()}
        orders = {names.get(o.client_order_id, o.client_order_id): o.state.value for o in self.open_orders(pair)}
        view = {"open": orders, "ids": self.state["ids"], "ready": self.ready(pair), "done": self.state["done"]}
        (self.folder / "view.new").write_text(json.dumps(view))
        (self.folder / "view.new").rename(self.folder / "view.json")

    def obey(self, pair: str, bid: Decimal, command: dict[str, str]) -> None:
        self.state["done"] += 1
        if "place" in command:
            price = bid * Decimal(command.get("factor", "0.9"))
            self.state["ids"][command["place"]] = self.buy(pair, command.get("size", "0.01"), price)
        else:
            self.cancel(self.state["ids"][command["cancel"]])
        self.checkpoint()

    def on_order(self, event: OrderEvent) -> None:
        order = event.order
        line = {
            "number": event.number,
            "kind": event.kind.value,
            "id": order.client_order_id,
            "why": order.reason.value,
        }
        with (self.folder / "told.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.checkpoint()
