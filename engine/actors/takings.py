"""What each strategy's fills of a run add up to."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from engine.messages import Fill, OrderFill, Side
from engine.orders.rules import EXACT


class Takings:
    """Base and quote gained per (strategy, pair), and fees per asset, exact; marking to a mid is the reader's."""

    def __init__(self, fills: Iterable[OrderFill] = ()) -> None:
        self.fills = 0
        self._base: dict[tuple[str, str], Decimal] = {}
        self._quote: dict[tuple[str, str], Decimal] = {}
        self._fees: dict[tuple[str, str], dict[str, Decimal]] = {}
        for each in fills:
            self.add(each.strategy, each.pair, each.side, each.fill)

    def add(self, strategy: str, pair: str, side: Side, fill: Fill) -> None:
        """Count one fill."""
        key = (strategy, pair)
        signed = fill.size if side is Side.BUY else fill.size.copy_negate()
        self.fills += 1
        self._base[key] = EXACT.add(self._base.get(key, Decimal(0)), signed)
        self._quote[key] = EXACT.fma(signed.copy_negate(), fill.price, self._quote.get(key, Decimal(0)))
        if fill.fee:
            fees = self._fees.setdefault(key, {})
            fees[fill.fee_asset] = EXACT.add(fees.get(fill.fee_asset, Decimal(0)), fill.fee)

    def table(self) -> list[dict[str, object]]:
        """A row for each strategy and pair, amounts as decimal strings."""
        return [
            {
                "strategy": strategy,
                "pair": pair,
                "base": str(self._base[strategy, pair]),
                "quote": str(self._quote[strategy, pair]),
                "fees": {asset: str(fee) for asset, fee in self._fees.get((strategy, pair), {}).items()},
            }
            for strategy, pair in self._base
        ]
