"""The market maker at a desk of the test's making."""

from decimal import Decimal

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.messages import (
    Balance,
    Fill,
    OrderEvent,
    OrderEventKind,
    OrderState,
    OrderType,
    Side,
    Tick,
    TradingRule,
)
from engine.messages import Order as OrderOf
from engine.orders.rules import quantise
from engine.strategies import BookView
from engine.strategies.market_maker import MarketMaker

PAIR = "box/BTC-USDT"
TICK = Tick(n=1, time_ns=1, interval_ns=1, sent_mono_ns=1)
RULE = TradingRule(
    pair="BTC-USDT",
    symbol="BTCUSDT",
    base="BTC",
    quote="USDT",
    price_increment=Decimal("0.01"),
    size_increment=Decimal("0.0001"),
)


class FakeDesk:
    """An account and a book that do what they are told; cancels are confirmed when the test says so."""

    now_ns = 1

    def __init__(self, mid="10000"):
        self.rules = {PAIR: RULE}
        self.balances = {"BTC": Decimal(10), "USDT": Decimal(1_000_000)}
        self.orders = {}
        self.cancelled = []
        self.placed = []
        self.saved = []
        self.is_ready = True
        self.status = "fresh"
        self.move(mid)

    def move(self, mid):
        half = Decimal("0.005")
        self.bid, self.ask = Decimal(mid) - half, Decimal(mid) + half

    def place(self, pair, side, size, price, order_type):
        size, price = quantise(self.rules[pair], order_type, size, price)
        name = f"e-{len(self.placed) + 1}"
        order = OrderOf(
            client_order_id=name,
            strategy="maker",
            pair=pair.partition("/")[2],
            side=side,
            order_type=order_type,
            size=size,
            price=price,
            state=OrderState.OPEN,
        )
        self.placed.append(order)
        self.orders[name] = order
        return name

    def cancel(self, client_order_id):
        self.cancelled.append(client_order_id)
        order = self.orders[client_order_id]
        self.orders[client_order_id] = msgspec.structs.replace(order, state=OrderState.PENDING_CANCEL)

    def confirm(self):
        """The venue carries out what was cancelled."""
        for name in self.cancelled:
            self.orders.pop(name, None)

    def book(self, pair):
        return BookView(pair=pair, status=self.status, bid=self.bid, ask=self.ask)

    def depth(self, pair, levels):
        return [], []

    def balance(self, pair, asset):
        return Balance(total=self.balances[asset], available=self.balances[asset])

    def open_orders(self, pair):
        return list(self.orders.values())

    def rule(self, pair):
        return self.rules.get(pair)

    def ready(self, pair):
        return self.is_ready

    def checkpoint(self, state):
        self.saved.append(msgspec.msgpack.encode(state))

    def prices(self, side):
        return sorted(order.price for order in self.orders.values() if order.side is side)


def made(desk, state=None, **params):
    maker = MarketMaker(desk, name="maker", pairs=[PAIR], params=params, log=structlog.get_logger())
    maker.state = state or {}
    maker.on_load()
    return maker


def fill(maker, desk, order, size=None, kind=OrderEventKind.FILL, trade_id="1"):
    size = order.size if size is None else Decimal(size)
    execution = Fill(
        trade_id=trade_id, price=order.price, size=size, fee=Decimal(0), fee_asset="", is_maker=True, time_ns=1
    )
    if size == order.size:
        desk.orders.pop(order.client_order_id, None)
    maker.on_order(OrderEvent(number=1, connector="box", account="main", kind=kind, order=order, fill=execution))


def test_quotes_stand_around_the_mid():
    desk = FakeDesk("10000")
    made(desk, size="0.01", spread_bps=10, step_bps=5, levels=3).on_tick(TICK)
    assert desk.prices(Side.BUY) == [Decimal(9980), Decimal(9985), Decimal(9990)]
    assert desk.prices(Side.SELL) == [Decimal(10010), Decimal(10015), Decimal(10020)]
    assert {(order.size, order.order_type) for order in desk.placed} == {(Decimal("0.01"), OrderType.LIMIT_MAKER)}


def test_without_params_there_is_one_quote_a_side():
    desk = FakeDesk("10000")
    made(desk).on_tick(TICK)
    assert [(order.side, order.price, order.size) for order in desk.placed] == [
        (Side.BUY, Decimal(9990), Decimal("0.01")),
        (Side.SELL, Decimal(10010), Decimal("0.01")),
    ]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"max_positon": "1"}, "params.max_positon: unknown; known are size, spread_bps,"),
        ({"size": "lots"}, "params.size: is 'lots'; it should be a number, 0 or more"),
        ({"spread_bps": -3}, "params.spread_bps: is -3; it should be a number, 0 or more"),
        ({"skew_bps": "NaN"}, "params.skew_bps: is 'NaN'"),
        ({"levels": 0.5}, "params.levels: is 0.5; it should be a whole number"),
    ],
)
def test_a_param_that_is_misspelt_or_no_number_is_told_at_the_start(params, said):
    with pytest.raises(ConfigError) as raised:
        made(FakeDesk(), **params)
    assert said in str(raised.value)


def test_quotes_stay_while_the_mid_moves_within_the_tolerance():
    desk = FakeDesk("10000")
    maker = made(desk, spread_bps=10, tolerance_bps=5)
    maker.on_tick(TICK)
    desk.move("10004.9")
    maker.on_tick(TICK)
    assert (len(desk.placed), desk.cancelled) == (2, [])


def test_quotes_move_past_the_tolerance_once_the_old_ones_are_gone():
    desk = FakeDesk("10000")
    maker = made(desk, spread_bps=10, tolerance_bps=5)
    maker.on_tick(TICK)
    desk.move("10010")
    maker.on_tick(TICK)
    assert (len(desk.placed), sorted(desk.cancelled)) == (2, ["e-1", "e-2"])
    desk.confirm()
    maker.on_tick(TICK)
    assert (desk.prices(Side.BUY), desk.prices(Side.SELL)) == ([Decimal("9999.99")], [Decimal("10020.01")])


def test_only_the_level_that_is_off_is_moved():
    desk = FakeDesk("10000")
    maker = made(desk, spread_bps=10, step_bps=10, levels=2, tolerance_bps=1)
    maker.on_tick(TICK)
    strayed = next(order for order in desk.orders.values() if order.price == Decimal(9980))
    desk.orders[strayed.client_order_id] = msgspec.structs.replace(strayed, price=Decimal(9900))
    maker.on_tick(TICK)
    assert desk.cancelled == [strayed.client_order_id]
    desk.confirm()
    maker.on_tick(TICK)
    assert desk.prices(Side.BUY) == [Decimal(9980), Decimal(9990)]


@pytest.mark.parametrize("status", ["stale", "gone", "unsynced"])
def test_quotes_are_pulled_while_the_book_is_not_to_be_trusted(status):
    desk = FakeDesk()
    maker = made(desk)
    maker.on_tick(TICK)
    desk.status = status
    maker.on_tick(TICK)
    assert sorted(desk.cancelled) == ["e-1", "e-2"]
    assert len(desk.placed) == 2


@pytest.mark.parametrize("side", ["bid", "ask"])
def test_quotes_are_pulled_when_a_side_of_the_book_is_empty(side):
    desk = FakeDesk()
    maker = made(desk)
    maker.on_tick(TICK)
    setattr(desk, side, None)
    maker.on_tick(TICK)
    assert sorted(desk.cancelled) == ["e-1", "e-2"]


def test_nothing_is_quoted_before_the_account_is_known():
    desk = FakeDesk()
    maker = made(desk)
    desk.is_ready = False
    maker.on_tick(TICK)
    desk.is_ready = True
    desk.rules.clear()
    maker.on_tick(TICK)
    assert desk.placed == []


def test_a_full_position_is_only_ever_reduced():
    desk = FakeDesk()
    maker = made(desk, {"position": {PAIR: "0.2"}}, size="0.01", max_position="0.2")
    maker.on_tick(TICK)
    assert {order.side for order in desk.placed} == {Side.SELL}
    maker.state["position"][PAIR] = "-0.2"
    desk.orders.clear()
    desk.placed.clear()
    maker.on_tick(TICK)
    assert {order.side for order in desk.placed} == {Side.BUY}


def test_quotes_of_the_filling_side_are_pulled_when_the_position_becomes_full():
    desk = FakeDesk()
    maker = made(desk, size="0.01", max_position="0.01")
    maker.on_tick(TICK)
    bought = next(order for order in desk.placed if order.side is Side.BUY)
    fill(maker, desk, bought)
    maker.on_tick(TICK)
    assert all(order.side is Side.SELL for order in desk.placed[2:])


def test_quotes_lean_against_the_position():
    desk = FakeDesk("10000")
    made(desk, {"position": {PAIR: "0.1"}}, spread_bps=10, max_position="0.2", skew_bps=8).on_tick(TICK)
    centre = Decimal(10000) * (1 - Decimal("0.0004"))
    assert desk.prices(Side.BUY) == [(centre * Decimal("0.999")).quantize(Decimal("0.01"), "ROUND_FLOOR")]
    assert desk.prices(Side.SELL) == [(centre * Decimal("1.001")).quantize(Decimal("0.01"), "ROUND_CEILING")]


def test_prices_are_rounded_away_from_the_mid():
    desk = FakeDesk("10000.2")
    desk.rules[PAIR] = msgspec.structs.replace(RULE, price_increment=Decimal("0.5"))
    made(desk, spread_bps="0.1").on_tick(TICK)
    assert (desk.prices(Side.BUY), desk.prices(Side.SELL)) == ([Decimal(10000)], [Decimal("10000.5")])


def test_a_quote_that_waits_for_its_cancel_is_not_crossed():
    desk = FakeDesk("10000")
    maker = made(desk, spread_bps=10)
    maker.on_tick(TICK)
    fill(maker, desk, desk.orders["e-1"])
    desk.move("9980")
    maker.on_tick(TICK)
    assert desk.cancelled == ["e-2"]
    desk.move("10100")
    maker.on_tick(TICK)
    assert [order.client_order_id for order in desk.placed if order.side is Side.BUY] == ["e-1", "e-3"]
    desk.orders.pop("e-3")
    maker.on_tick(TICK)
    assert len(desk.placed) == 3
    desk.confirm()
    maker.on_tick(TICK)
    assert desk.placed[3].price > desk.placed[1].price


def test_a_position_of_no_size_allows_no_quote():
    desk = FakeDesk()
    made(desk, max_position="0").on_tick(TICK)
    assert desk.placed == []


def test_a_side_that_cannot_be_paid_for_is_left_out():
    desk = FakeDesk("10000")
    maker = made(desk, size="0.01")
    desk.balances["USDT"] = Decimal("99")
    maker.on_tick(TICK)
    assert {order.side for order in desk.placed} == {Side.SELL}
    desk.orders.clear()
    desk.placed.clear()
    desk.balances = {"USDT": Decimal(1000), "BTC": Decimal("0.0099")}
    maker.on_tick(TICK)
    assert {order.side for order in desk.placed} == {Side.BUY}


def test_several_levels_share_what_the_account_holds():
    desk = FakeDesk("10000")
    desk.balances = {"USDT": Decimal(250), "BTC": Decimal("0.015")}
    made(desk, size="0.01", levels=4).on_tick(TICK)
    assert len(desk.prices(Side.BUY)) == 2
    assert len(desk.prices(Side.SELL)) == 1


def test_fills_are_counted_and_saved_with_their_number():
    desk = FakeDesk()
    maker = made(desk)
    maker.on_tick(TICK)
    bought = next(order for order in desk.placed if order.side is Side.BUY)
    sold = next(order for order in desk.placed if order.side is Side.SELL)
    fill(maker, desk, bought, "0.003")
    fill(maker, desk, sold, "0.001")
    fill(maker, desk, bought, "0.1", kind=OrderEventKind.COMPLETED)
    assert maker.position(PAIR) == Decimal("0.002")
    assert [msgspec.msgpack.decode(state)["position"] for state in desk.saved] == [{PAIR: "0.003"}, {PAIR: "0.002"}]


def test_a_place_in_the_events_is_saved_before_the_first_order():
    desk = FakeDesk()
    made(desk).on_start()
    assert [msgspec.msgpack.decode(state) for state in desk.saved] == [{"position": {}}]
    assert desk.placed == []


def test_a_saved_position_is_taken_up():
    maker = made(FakeDesk(), {"position": {PAIR: "0.125"}})
    assert maker.position(PAIR) == Decimal("0.125")
    assert maker.position("box/ETH-USDT") == 0


@given(
    moves=st.lists(
        st.tuples(
            st.decimals(min_value=9000, max_value=11000, places=2),
            st.sampled_from(["fresh", "fresh", "fresh", "stale"]),
            st.booleans(),
            st.none() | st.integers(min_value=0, max_value=7),
        ),
        min_size=1,
        max_size=12,
    ),
    levels=st.integers(min_value=1, max_value=3),
    tolerance=st.integers(min_value=0, max_value=40),
    skew=st.integers(min_value=0, max_value=30),
)
@settings(max_examples=60, deadline=None)
def test_a_new_quote_never_meets_one_of_its_own(moves, levels, tolerance, skew):
    desk = FakeDesk()
    maker = made(
        desk, size="0.01", spread_bps=5, levels=levels, tolerance_bps=tolerance, skew_bps=skew, max_position="0.05"
    )
    seen = 0
    for mid, status, confirmed, filled in moves:
        desk.move(mid)
        desk.status = status
        resting = list(desk.orders.values())
        maker.on_tick(TICK)
        for order in desk.placed[seen:]:
            for other in resting + desk.placed[seen:]:
                if other.side is not order.side:
                    bid, ask = (order, other) if order.side is Side.BUY else (other, order)
                    assert bid.price < ask.price
        seen = len(desk.placed)
        for side in Side:
            assert sum(order.side is side for order in desk.orders.values()) <= levels
        if confirmed:
            desk.confirm()
        if filled is not None and filled < len(desk.orders):
            fill(maker, desk, list(desk.orders.values())[filled])


@pytest.mark.parametrize("number", [1.5, float("nan")])
def test_a_strategy_cannot_trade_with_floats(number):
    desk = FakeDesk()
    maker = made(desk)
    with pytest.raises(TypeError, match="not the float"):
        maker.buy(PAIR, number, "1")
    with pytest.raises(TypeError, match="not the float"):
        maker.sell(PAIR, "1", number)
    assert desk.placed == []


@pytest.mark.parametrize("text", ["", "lots", "0,5"])
def test_a_size_that_is_no_number_is_named(text):
    with pytest.raises(ValueError, match=f"{text!r} is no number"):
        made(FakeDesk()).buy(PAIR, text)


def test_the_kind_of_order_follows_from_its_price():
    desk = FakeDesk()
    maker = made(desk)
    maker.buy(PAIR, "1", 5)
    maker.sell(PAIR, 1, Decimal(5), OrderType.LIMIT_MAKER)
    assert [order.order_type for order in desk.placed] == [OrderType.LIMIT, OrderType.LIMIT_MAKER]


def test_a_book_is_fresh_only_with_both_sides():
    one = BookView(pair=PAIR, status="fresh", bid=Decimal(1))
    both = BookView(pair=PAIR, status="fresh", bid=Decimal(1), ask=Decimal(2))
    stale = BookView(pair=PAIR, status="stale", bid=Decimal(1), ask=Decimal(2))
    assert [view.fresh for view in (one, both, stale)] == [False, True, False]
    assert [view.mid for view in (one, both)] == [None, Decimal("1.5")]
