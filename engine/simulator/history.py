"""A pair's recent trades and one-minute bars, for the endpoints that look back."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.simulator.amounts import ONE, notional
from engine.simulator.events import AggregateTrade, Trade

MINUTE_MS = 60_000
_TRADES = 1000
_BARS = 1440


@dataclass(slots=True)
class Bar:
    """Open, high, low, close and volumes of the trades since ``open_ms`` within the bar's length."""

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote: int = 0
    trades: int = 0
    taker_volume: int = 0
    taker_quote: int = 0
    first_id: int = 0
    last_id: int = 0

    def absorb(self, later: Bar) -> None:
        """Add a bar that follows this one."""
        self.high = max(self.high, later.high)
        self.low = min(self.low, later.low)
        self.close = later.close
        self.volume += later.volume
        self.quote += later.quote
        self.trades += later.trades
        self.taker_volume += later.taker_volume
        self.taker_quote += later.taker_quote
        self.last_id = later.last_id


class History:
    """The last thousand trades and a day of one-minute bars (minutes without a trade have none)."""

    def __init__(self) -> None:
        self.trades: deque[Trade] = deque(maxlen=_TRADES)
        self.aggregates: deque[AggregateTrade] = deque(maxlen=_TRADES)
        self.bars: deque[Bar] = deque(maxlen=_BARS)

    def add(self, trade: Trade) -> None:
        self.trades.append(trade)
        quote = notional(trade.price, trade.size)
        taker = 0 if trade.buyer_is_maker else trade.size
        minute = trade.time_ns // 1_000_000 // MINUTE_MS * MINUTE_MS
        bar = Bar(
            minute,
            trade.price,
            trade.price,
            trade.price,
            trade.price,
            trade.size,
            quote,
            1,
            taker,
            quote if taker else 0,
            trade.trade_id,
            trade.trade_id,
        )
        if self.bars and self.bars[-1].open_ms == minute:
            self.bars[-1].absorb(bar)
        else:
            self.bars.append(bar)

    def add_aggregate(self, trade: AggregateTrade) -> None:
        self.aggregates.append(trade)

    def bars_of(self, length_ms: int) -> list[Bar]:
        """Bars of a multiple of a minute, oldest first."""
        merged: list[Bar] = []
        for bar in self.bars:
            start = bar.open_ms // length_ms * length_ms
            if merged and merged[-1].open_ms == start:
                merged[-1].absorb(bar)
            else:
                merged.append(
                    Bar(
                        start,
                        bar.open,
                        bar.high,
                        bar.low,
                        bar.close,
                        bar.volume,
                        bar.quote,
                        bar.trades,
                        bar.taker_volume,
                        bar.taker_quote,
                        bar.first_id,
                        bar.last_id,
                    )
                )
        return merged

    def average_price(self) -> int | None:
        """Volume-weighted over the last five minutes with trades; None without trades."""
        recent = [self.bars[-back] for back in range(1, min(5, len(self.bars)) + 1)]
        volume = sum(bar.volume for bar in recent)
        return sum(bar.quote for bar in recent) * ONE // volume if volume else None

    def day(self) -> Bar | None:
        """All that is kept as one bar; None without trades."""
        if not self.bars:
            return None
        whole: Bar | None = None
        for bar in self.bars_of(MINUTE_MS):
            if whole is None:
                whole = bar
            else:
                whole.absorb(bar)
        return whole
