"""A market maker that quotes both sides of a book around its mid."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, InvalidOperation

from engine.errors import ConfigError
from engine.messages import Order, OrderEvent, OrderEventKind, OrderType, Side, Tick, TradingRule
from engine.strategies.base import Strategy

BASIS_POINT = Decimal("0.0001")
PARAMS = ("size", "spread_bps", "step_bps", "levels", "tolerance_bps", "max_position", "skew_bps")


class MarketMaker(Strategy):
    """Keeps ``levels`` post-only quotes a side on each of its pairs and moves them with the mid.

    Params (all optional):
        size: base size of a quote, as a string; default "0.01".
        spread_bps: distance of the first quote from the mid in basis points; default 10.
        step_bps: distance between levels; default equal to the spread.
        levels: quotes a side; default 1.
        tolerance_bps: a quote is moved when it is this far from where it should be; default a quarter of the spread.
        max_position: base position at which quotes on the filling side stop; default 20 × size.
        skew_bps: how far quotes lean against a full position; default half the spread.

    A param that is misspelt or no number ends it at its start, with that said: it would quote other than was meant.
    """

    def on_load(self) -> None:
        for name in self.params:
            if name not in PARAMS:
                raise ConfigError(f"params.{name}: unknown; known are {', '.join(PARAMS)}")
        self.size = self._number("size", Decimal("0.01"))
        spread_bps = self._number("spread_bps", Decimal(10))
        self.spread = spread_bps * BASIS_POINT
        self.step = self._number("step_bps", spread_bps) * BASIS_POINT
        levels = self._number("levels", Decimal(1))
        if levels != int(levels):
            raise ConfigError(f"params.levels: is {levels}; it should be a whole number")
        self.levels = int(levels)
        self.tolerance = self._number("tolerance_bps", spread_bps / 4) * BASIS_POINT
        self.max_position = self._number("max_position", self.size * 20)
        self.skew = self._number("skew_bps", spread_bps / 2) * BASIS_POINT
        self.state.setdefault("position", {})

    def _number(self, name: str, default: Decimal) -> Decimal:
        value = self.params.get(name, default)
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            raise ConfigError(f"params.{name}: is {value!r}; it should be a number, 0 or more")
        return number

    def on_start(self) -> None:
        self.log.info("market maker starts", pairs=self.pairs, position=self.state["position"])
        # No order yet, so no fill either: from here on a restart is given every fill, the first one included.
        self.checkpoint()

    def on_tick(self, tick: Tick) -> None:
        for pair in self.pairs:
            self.quote(pair)

    def on_order(self, event: OrderEvent) -> None:
        if event.kind is OrderEventKind.FILL and event.fill is not None:
            pair = f"{event.connector}/{event.order.pair}"
            signed = event.fill.size if event.order.side is Side.BUY else -event.fill.size
            self.state["position"][pair] = str(self.position(pair) + signed)
            self.checkpoint()

    def position(self, pair: str) -> Decimal:
        """Base bought minus base sold since the first start, by this strategy's own fills."""
        return Decimal(self.state.get("position", {}).get(pair, "0"))

    def quote(self, pair: str) -> None:
        """Bring the resting quotes of a pair to where they should be; pull them while the book is not to be trusted."""
        book = self.book(pair)
        resting = self.open_orders(pair)
        if not book.fresh or book.mid is None:
            for order in resting:
                self.cancel(order.client_order_id)
            return
        rule = self.rule(pair)
        if not self.ready(pair) or rule is None:
            return
        position = self.position(pair)
        lean = self.skew * position / self.max_position if self.max_position else Decimal(0)
        centre = book.mid * (1 - lean)
        for side in (Side.BUY, Side.SELL):
            signed = position if side is Side.BUY else -position
            levels = self.levels if signed < self.max_position else 0
            wanted = [self._price(rule, side, centre, level) for level in range(levels)]
            self._align(pair, rule, side, wanted, resting)

    def _price(self, rule: TradingRule, side: Side, centre: Decimal, level: int) -> Decimal:
        """Rounded away from the centre, so that no two sides meet on one price."""
        distance = self.spread + self.step * level
        price = centre * (1 - distance if side is Side.BUY else 1 + distance)
        if not rule.price_increment:
            return price
        rounding = ROUND_FLOOR if side is Side.BUY else ROUND_CEILING
        return (price / rule.price_increment).to_integral_value(rounding) * rule.price_increment

    def _align(self, pair: str, rule: TradingRule, side: Side, wanted: list[Decimal], resting: list[Order]) -> None:
        """Pull what is not where it should be, and fill the free places as far as the account can pay for them."""
        own = [order for order in resting if order.side is side]
        others = [order.price for order in resting if order.side is not side and order.price is not None]
        unserved = list(wanted)
        for order in own:
            near = [
                price
                for price in unserved
                if order.price is not None and abs(order.price - price) <= price * self.tolerance
            ]
            if near:
                unserved.remove(near[0])
            else:
                self.cancel(order.client_order_id)
        free = max(0, len(wanted) - len(own))
        available = self.balance(pair, rule.quote if side is Side.BUY else rule.base).available
        place = self.buy if side is Side.BUY else self.sell
        for price in unserved[:free]:
            available -= price * self.size if side is Side.BUY else self.size
            if available < 0:
                return
            if not any(price >= other if side is Side.BUY else price <= other for other in others):
                place(pair, self.size, price, OrderType.LIMIT_MAKER)
