"""What each strategy's fills of a run add up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from engine.messages import Fill, OrderFill, Side
from engine.orders.fees import convert
from engine.orders.rules import EXACT


class Takings:
    """Base and quote gained per (strategy, pair), and fees per asset, exact; marking to a mid is the reader's."""

    def __init__(self, fills: Iterable[OrderFill] = ()) -> None:
        self.fills = 0
        self._base: dict[tuple[str, str], Decimal] = {}
        self._quote: dict[tuple[str, str], Decimal] = {}
        self._fees: dict[tuple[str, str], dict[str, Decimal]] = {}
        self._newest: dict[str, tuple[int, Decimal]] = {}
        for each in fills:
            self.add(each.strategy, each.pair, each.side, each.fill)

    def add(self, strategy: str, pair: str, side: Side, fill: Fill) -> None:
        """Count one fill."""
        key = (strategy, pair)
        signed = fill.size if side is Side.BUY else fill.size.copy_negate()
        self.fills += 1
        self._priced(pair, (fill.time_ns, fill.price))
        self._base[key] = EXACT.add(self._base.get(key, Decimal(0)), signed)
        self._quote[key] = EXACT.fma(signed.copy_negate(), fill.price, self._quote.get(key, Decimal(0)))
        if fill.fee:
            fees = self._fees.setdefault(key, {})
            fees[fill.fee_asset] = EXACT.add(fees.get(fill.fee_asset, Decimal(0)), fill.fee)

    def merge(self, other: Takings) -> None:
        """Count what another has counted."""
        self.fills += other.fills
        for pair, newest in other._newest.items():
            self._priced(pair, newest)
        for key, base in other._base.items():
            self._base[key] = EXACT.add(self._base.get(key, Decimal(0)), base)
            self._quote[key] = EXACT.add(self._quote.get(key, Decimal(0)), other._quote[key])
        for key, fees in other._fees.items():
            mine = self._fees.setdefault(key, {})
            for asset, fee in fees.items():
                mine[asset] = EXACT.add(mine.get(asset, Decimal(0)), fee)

    def prices(self) -> dict[str, Decimal]:
        """By pair the price of its newest fill: what it is worth where no mid is known."""
        return {pair: price for pair, (_, price) in self._newest.items()}

    def _priced(self, pair: str, told: tuple[int, Decimal]) -> None:
        if told[0] >= self._newest.get(pair, (0, Decimal(0)))[0]:
            self._newest[pair] = told

    def brought(self) -> dict[str, Decimal]:
        """What all of it changed, by asset: base and quote, less fees."""
        found: dict[str, Decimal] = {}

        def add(asset: str, amount: Decimal) -> None:
            found[asset] = EXACT.add(found.get(asset, Decimal(0)), amount)

        for key, base in self._base.items():
            base_asset, _, quote_asset = key[1].partition("-")
            add(base_asset, base)
            add(quote_asset, self._quote[key])
            for asset, fee in self._fees.get(key, {}).items():
                add(asset, fee.copy_negate())
        return found

    def position(self, pair: str) -> Decimal:
        """Base gained in a pair, over all strategies."""
        total = Decimal(0)
        for (_, name), base in self._base.items():
            total = EXACT.add(total, base) if name == pair else total
        return total

    def gains(self, mids: Mapping[str, Decimal | None]) -> dict[str, Decimal]:
        """What all of it is worth by quote asset: cash, plus base at these mids, less fees.

        A pair without a mid is left out, unless its cash alone says it: nothing of it is held any more. A fee in an
        asset that is neither of the pair's counts at these mids too, and is left out where none leads to the quote
        asset.
        """
        known = {pair: mid for pair, mid in mids.items() if mid is not None}
        held: dict[str, Decimal] = {}
        cash: dict[str, Decimal] = {}
        for (strategy, pair), base in self._base.items():
            base_asset, _, quote_asset = pair.partition("-")
            fees = self._fees.get((strategy, pair), {})
            gained = EXACT.subtract(base, fees.get(base_asset, Decimal(0)))
            paid = EXACT.subtract(self._quote[strategy, pair], fees.get(quote_asset, Decimal(0)))
            for asset, fee in fees.items():
                if asset not in (base_asset, quote_asset):
                    paid = EXACT.subtract(paid, convert(fee, asset, quote_asset, known) or Decimal(0))
            held[pair] = EXACT.add(held.get(pair, Decimal(0)), gained)
            cash[pair] = EXACT.add(cash.get(pair, Decimal(0)), paid)
        sums: dict[str, Decimal] = {}
        for pair, base in held.items():
            mid, quote_asset = mids.get(pair), pair.partition("-")[2]
            if mid is None and base:
                continue
            gain = cash[pair] if mid is None else EXACT.fma(base, mid, cash[pair])
            sums[quote_asset] = EXACT.add(sums.get(quote_asset, Decimal(0)), gain)
        return sums

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
