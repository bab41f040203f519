"""The matching engine against a naive model, and its rules one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.simulator.amounts import ONE
from engine.simulator.matching import Book
from engine.simulator.orders import Order, OrderType

PAIR = "BTC-USDT"


def limit(is_buy: bool, price: int, size: int) -> Order:
    return Order(PAIR, "", is_buy, price * ONE, size * ONE)


def submit(book: Book, order: Order) -> list[tuple[Order, int]]:
    """Match an order and rest what is left; what it met, in order."""
    plan = book.plan(order)
    for match in plan.matches:
        book.fill(match.maker, match.size)
        order.filled += match.size
    if order.remaining and order.type is OrderType.LIMIT:
        book.rest(order)
    return [(match.maker, match.size) for match in plan.matches]


class NaiveBook:
    """Price-time priority by sorting a list."""

    def __init__(self) -> None:
        self.resting: list[list[Any]] = []

    def submit(self, number: int, is_buy: bool, price: int, size: int) -> list[tuple[int, int]]:
        met = []
        others = [o for o in self.resting if o[1] != is_buy and (o[2] <= price if is_buy else o[2] >= price)]
        for other in sorted(others, key=lambda o: (o[2] if is_buy else -o[2], o[0])):
            traded = min(size, other[3])
            if traded:
                met.append((other[0], traded))
                other[3] -= traded
                size -= traded
        self.resting = [o for o in self.resting if o[3]]
        if size:
            self.resting.append([number, is_buy, price, size])
        return met

    def levels(self, is_buy: bool) -> dict[int, int]:
        totals: dict[int, int] = {}
        for _, side, price, size in self.resting:
            if side == is_buy:
                totals[price] = totals.get(price, 0) + size
        return totals


ORDERS = st.lists(
    st.tuples(st.booleans(), st.integers(90, 110), st.integers(1, 20), st.booleans()), min_size=1, max_size=80
)


@given(ORDERS)
@settings(max_examples=150, deadline=None)
def test_matches_as_a_naive_price_time_book_does(orders: list[tuple[bool, int, int, bool]]) -> None:
    book, naive = Book(PAIR, 1), NaiveBook()
    known: dict[int, int] = {}
    local: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}
    for number, (is_buy, price, size, cut) in enumerate(orders):
        order = limit(is_buy, price, size)
        known[id(order)] = number
        met = [(known[id(maker)], traded // ONE) for maker, traded in submit(book, order)]
        assert met == naive.submit(number, is_buy, price, size)
        assert not (book.bids.keys and book.asks.keys) or book.bids.best_price() < book.asks.best_price()  # type: ignore[operator]
        if cut:
            change = book.cut()
            if change is not None:
                for name, levels in (("bids", change.bids), ("asks", change.asks)):
                    local[name].update(levels)
    change = book.cut()
    if change is not None:
        local["bids"].update(change.bids)
        local["asks"].update(change.asks)
    for is_buy, name in ((True, "bids"), (False, "asks")):
        expected = {price * ONE: size * ONE for price, size in naive.levels(is_buy).items()}
        assert dict(book.levels(is_buy, 1000)) == expected
        assert {price: size for price, size in local[name].items() if size} == expected


def test_every_change_takes_the_next_update_id() -> None:
    book = Book(PAIR, 1, 100)
    first = limit(True, 99, 5)
    book.rest(first)
    book.rest(limit(False, 101, 5))
    change = book.cut()
    assert change is not None
    assert (change.first, change.last) == (101, 102)
    assert book.cut() is None
    book.remove(first)
    change = book.cut()
    assert change is not None
    assert (change.first, change.last, change.bids, change.asks) == (103, 103, [(99 * ONE, 0)], [])


def test_a_level_that_came_and_went_between_cuts_is_told_as_gone() -> None:
    book = Book(PAIR, 1)
    order = limit(True, 99, 5)
    book.rest(order)
    book.remove(order)
    change = book.cut()
    assert change is not None
    assert change.bids == [(99 * ONE, 0)]


def test_reducing_keeps_the_place_in_the_queue() -> None:
    book = Book(PAIR, 1)
    first, second = limit(True, 99, 5), limit(True, 99, 5)
    book.rest(first)
    book.rest(second)
    book.reduce(first, 3 * ONE)
    plan = book.plan(limit(False, 99, 4))
    assert [(match.maker, match.size) for match in plan.matches] == [(first, 2 * ONE), (second, 2 * ONE)]


def test_a_market_order_by_quote_buys_whole_steps_within_its_amount() -> None:
    book = Book(PAIR, ONE // 10)
    book.rest(limit(False, 100, 1))
    book.rest(limit(False, 110, 5))
    order = Order(PAIR, "", True, 0, 0, OrderType.MARKET, quote_quantity=200 * ONE)
    plan = book.plan(order)
    assert plan.filled == ONE + 9 * ONE // 10
    assert plan.quote == 100 * ONE + 99 * ONE
