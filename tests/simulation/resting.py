"""A strategy that lays orders out around the market and leaves them where they are."""

from engine.messages import OrderType
from engine.simulation.strategies import BASIS_POINT, Busy

ORDERS = 16
"""So many a pair, the nearest half a basis point from the market, the farthest far beyond what it moves."""


class Resting(Busy):
    """One order a tick and pair until all are there; at ``until_ns`` it cancels what is open."""

    def on_load(self):
        super().on_load()
        self.placed = dict.fromkeys(self.pairs, 0)

    def act(self, pair):
        book = self.book(pair)
        index = self.placed[pair]
        if index == ORDERS or not book.fresh or not self.ready(pair):
            return
        away = BASIS_POINT * (1 + index) ** 2 / 2
        size = self.params["size"][pair]
        if index % 2:
            self.sell(pair, size, book.ask * (1 + away), OrderType.LIMIT)
        else:
            self.buy(pair, size, book.bid * (1 - away), OrderType.LIMIT)
        self.placed[pair] += 1
