"""The venue as a state machine: money, self-trades, time in force, and the other traders."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.simulator import PairConfig, events
from engine.simulator.accounts import Account, Balance
from engine.simulator.amounts import ONE
from engine.simulator.config import Pair
from engine.simulator.orders import NewOrder, OrderType, SelfTrade, Status, TimeInForce
from engine.simulator.venue import (
    DuplicateClientId,
    InsufficientFunds,
    OrderRefused,
    Venue,
    WouldTake,
)

START = 1_800_000_000 * ONE * 10
QUIET = Pair.of(PairConfig(pair="BTC-USDT", price="100", levels=0))
BUSY = Pair.of(PairConfig(pair="BTC-USDT", price="60000"))
GTC, IOC, FOK = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK


def account(name: str) -> Account:
    balances = {"BTC": Balance(1000 * ONE), "USDT": Balance(100_000 * ONE)}
    return Account(name, name, name, maker_fee=ONE // 1000, taker_fee=ONE // 500, balances=balances)


def quiet(*names: str) -> Venue:
    return Venue(
        [QUIET],
        [account(name) for name in names],
        seed=1,
        activity=0,
        depth_interval_ns=100_000_000,
        start_ns=START,
    )


_ids = iter(range(10**9))


def new(
    side: str,
    price: int,
    size: int,
    tif: TimeInForce = GTC,
    kind: OrderType = OrderType.LIMIT,
    self_trade: SelfTrade = SelfTrade.NONE,
    client_id: str = "",
    quote: int = 0,
) -> NewOrder:
    client_id = client_id or f"id{next(_ids)}"
    return NewOrder("BTC-USDT", side == "buy", kind, tif, price * ONE, size * ONE, quote * ONE, client_id, self_trade)


def totals(venue: Venue) -> Counter[str]:
    """All money: what accounts hold and what fees took."""
    sums: Counter[str] = Counter()
    for one in venue.accounts.values():
        for asset, balance in one.balances.items():
            assert balance.free >= 0
            assert balance.locked >= 0
            sums[asset] += balance.free + balance.locked
    for fills in venue.pair_fills.values():
        for fill in fills:
            sums[fill.fee_asset] += fill.fee
    return sums


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(["buy", "sell"]),
        st.sampled_from([*OrderType, "cancel"]),
        st.integers(1, 400 * 100),
        st.integers(1, 5 * 10**7),
        st.sampled_from([*TimeInForce]),
        st.sampled_from([*SelfTrade]),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@given(REQUESTS)
@settings(max_examples=150, deadline=None)
def test_money_is_conserved_and_open_orders_hold_exactly_what_is_locked(requests: list[tuple]) -> None:
    venue = quiet("a", "b")
    before = totals(venue)
    for at, (name, side, kind, cents, dust, tif, self_trade, by_quote) in enumerate(requests):
        mine = list(venue.open_orders[name].values())
        if kind == "cancel":
            if mine:
                venue.cancel(mine[cents % len(mine)], "c", START + at)
            continue
        market = kind is OrderType.MARKET
        request = NewOrder(
            "BTC-USDT",
            side == "buy",
            kind,
            tif if kind is OrderType.LIMIT else GTC,
            0 if market else cents * ONE // 100,
            0 if market and by_quote else dust * 1000,
            dust * 1000 if market and by_quote else 0,
            f"id{at}",
            self_trade,
        )
        try:
            venue.place(name, request, START + at)
        except OrderRefused:
            pass
    assert totals(venue) == before
    for name, holder in venue.accounts.items():
        held: Counter[str] = Counter()
        for order in venue.open_orders[name].values():
            assert order.status.is_open
            assert order.remaining > 0
            held["USDT" if order.is_buy else "BTC"] += order.locked
        assert held == Counter({asset: b.locked for asset, b in holder.balances.items() if b.locked})
    book = venue.markets["BTC-USDT"].book
    if book.bids.keys and book.asks.keys:
        bid, ask = book.bids.best_price(), book.asks.best_price()
        assert bid is not None
        assert ask is not None
        assert bid < ask
    for order in venue.orders.values():
        fills = [f for f in venue.pair_fills[order.account, order.pair] if f.order_id == order.order_id]
        assert sum(fill.size for fill in fills) == order.filled
        assert sum(fill.quote for fill in fills) == order.filled_quote


def test_fees_are_taken_from_what_is_received() -> None:
    venue = quiet("a", "b")
    venue.place("a", new("sell", 100, 10), START)
    placed = venue.place("b", new("buy", 110, 4), START)
    assert placed.order.status is Status.FILLED
    assert placed.fills[0].price == 100 * ONE
    assert (placed.fills[0].fee, placed.fills[0].fee_asset) == (4 * ONE // 500, "BTC")
    a, b = venue.accounts["a"], venue.accounts["b"]
    assert a.balance("BTC") == Balance(990 * ONE, 6 * ONE)
    assert a.balance("USDT").free == 100_400 * ONE - 400 * ONE // 1000
    assert b.balance("USDT") == Balance(99_600 * ONE, 0)


def test_a_price_better_than_the_limit_gives_the_difference_back() -> None:
    venue = quiet("a", "b")
    venue.place("a", new("sell", 100, 1), START)
    venue.place("b", new("buy", 150, 2), START)
    assert venue.accounts["b"].balance("USDT") == Balance((100_000 - 100 - 150) * ONE, 150 * ONE)


def test_ioc_expires_what_does_not_match_and_fok_matches_whole_or_not_at_all() -> None:
    venue = quiet("a", "b")
    venue.place("a", new("sell", 100, 3), START)
    assert venue.place("b", new("buy", 100, 5, FOK), START).order.filled == 0
    ioc = venue.place("b", new("buy", 100, 5, IOC), START).order
    assert (ioc.status, ioc.filled) == (Status.EXPIRED, 3 * ONE)
    assert venue.accounts["b"].balance("USDT").locked == 0
    venue.place("a", new("sell", 100, 3), START)
    assert venue.place("b", new("buy", 100, 3, FOK), START).order.status is Status.FILLED


def test_a_market_order_expires_when_the_book_is_empty() -> None:
    venue = quiet("a", "b")
    venue.place("a", new("sell", 100, 1), START)
    order = venue.place("b", new("buy", 0, 3, kind=OrderType.MARKET), START).order
    assert (order.status, order.filled) == (Status.EXPIRED, ONE)
    assert venue.place("b", new("buy", 0, 0, kind=OrderType.MARKET, quote=50), START).order.filled == 0


def test_refusals_change_nothing() -> None:
    venue = quiet("a", "b")
    venue.place("a", new("sell", 100, 1, client_id="x"), START)
    venue.take_changes()
    venue.outbox.clear()
    with pytest.raises(DuplicateClientId):
        venue.place("a", new("sell", 100, 1, client_id="x"), START)
    with pytest.raises(WouldTake):
        venue.place("b", new("buy", 100, 1, kind=OrderType.LIMIT_MAKER), START)
    with pytest.raises(InsufficientFunds):
        venue.place("b", new("buy", 100, 1001), START)
    assert not venue.take_changes()
    assert venue.outbox == []


def test_a_client_id_may_be_used_again_once_its_order_is_over() -> None:
    venue = quiet("a")
    first = venue.place("a", new("sell", 100, 1, client_id="x"), START).order
    venue.cancel(first, "c", START)
    second = venue.place("a", new("sell", 100, 1, client_id="x"), START).order
    assert venue.by_client_id["a", "x"] is second


@pytest.mark.parametrize(
    ("mode", "maker", "taker"),
    [
        (SelfTrade.NONE, Status.FILLED, Status.FILLED),
        (SelfTrade.EXPIRE_TAKER, Status.NEW, Status.EXPIRED_IN_MATCH),
        (SelfTrade.EXPIRE_MAKER, Status.EXPIRED_IN_MATCH, Status.FILLED),
        (SelfTrade.EXPIRE_BOTH, Status.EXPIRED_IN_MATCH, Status.EXPIRED_IN_MATCH),
    ],
)
def test_self_trade_prevention(mode: SelfTrade, maker: Status, taker: Status) -> None:
    venue = quiet("a", "b")
    own = venue.place("a", new("sell", 100, 1), START).order
    venue.place("b", new("sell", 101, 1), START)
    order = venue.place("a", new("buy", 101, 1, self_trade=mode), START).order
    assert (own.status, order.status) == (maker, taker)


def test_events_tell_an_order_s_life_with_balances_after_each() -> None:
    venue = quiet("a", "b")
    venue.outbox.clear()
    order = venue.place("a", new("sell", 100, 2), START).order
    venue.place("b", new("buy", 100, 1), START + 1)
    venue.cancel(order, "cancel-id", START + 2)
    told = [e for e in venue.outbox if isinstance(e, events.OrderEvent) and e.order.account == "a"]
    assert [(e.kind, e.order.status, e.order.filled) for e in told] == [
        ("NEW", Status.NEW, 0),
        ("TRADE", Status.PARTIALLY_FILLED, ONE),
        ("CANCELED", Status.CANCELED, ONE),
    ]
    assert told[-1].cancel_id == "cancel-id"
    assert len({e.execution_id for e in told}) == 3
    balances = [e for e in venue.outbox if isinstance(e, events.BalanceEvent) and e.account == "a"]
    assert [e.balances["BTC"] for e in balances] == [
        (998 * ONE, 2 * ONE),
        (998 * ONE, ONE),
        (999 * ONE, 0),
    ]


def busy(seed: int = 1, activity: float = 20.0) -> Venue:
    return Venue([BUSY], [account("a")], seed=seed, activity=activity, depth_interval_ns=100_000_000, start_ns=START)


def run(venue: Venue, seconds: float, step_ms: int = 20) -> list[events.Event]:
    told: list[events.Event] = []
    for at in range(step_ms, int(seconds * 1000) + 1, step_ms):
        venue.advance(START + at * 1_000_000)
        told += venue.outbox
        venue.outbox = []
    return told


def test_the_market_is_the_same_for_the_same_seed_however_often_it_is_advanced() -> None:
    def trades(venue: Venue, step_ms: int) -> list[tuple[int, int, int]]:
        told = run(venue, 20, step_ms)
        return [(e.trade_id, e.price, e.size) for e in told if isinstance(e, events.Trade)]

    assert trades(busy(), 20) == trades(busy(), 500) != trades(busy(seed=2), 20)


def test_the_market_stays_deep_tight_and_lively() -> None:
    venue = busy()
    told = run(venue, 120)
    book = venue.markets["BTC-USDT"].book
    assert len(book.bids) > 200
    assert len(book.asks) > 200
    assert sum(isinstance(e, events.Trade) for e in told) > 240
    bid, ask = book.bids.best_price(), book.asks.best_price()
    assert bid is not None
    assert ask is not None
    assert (ask - bid) * 1000 < ask


def test_passive_quotes_at_the_touch_are_soon_filled() -> None:
    waits = []
    for seed in range(1, 21):
        venue = busy(seed)
        run(venue, 2)
        bid = venue.markets["BTC-USDT"].book.bids.best_price()
        assert bid is not None
        request = NewOrder("BTC-USDT", True, OrderType.LIMIT, GTC, bid, ONE // 1000, 0, "x", SelfTrade.NONE)
        order = venue.place("a", request, START + 2 * 10**9).order
        waited = 0
        while order.status is not Status.FILLED and waited < 30_000:
            waited += 20
            venue.advance(START + 2 * 10**9 + waited * 1_000_000)
        waits.append(waited)
    waits.sort()
    assert waits[len(waits) // 2] <= 2_000
    assert waits[-3] < 15_000


def test_a_best_quote_equals_the_book_rebuilt_to_its_update_id() -> None:
    venue = busy(activity=60)
    book = venue.markets["BTC-USDT"].book
    bids, asks = dict(book.levels(True, 10_000)), dict(book.levels(False, 10_000))
    last, quotes, equal = book.update_id, {}, 0
    for event in run(venue, 30):
        if isinstance(event, events.BestQuote):
            quotes[event.update_id] = event
        if isinstance(event, events.Depth):
            assert event.change.first == last + 1
            last = event.change.last
            for side, levels in ((bids, event.change.bids), (asks, event.change.asks)):
                side.update(levels)
                for price, size in levels:
                    if not size:
                        del side[price]
            if last in quotes:
                bid, ask = max(bids), min(asks)
                assert quotes[last].bid == (bid, bids[bid])
                assert quotes[last].ask == (ask, asks[ask])
                equal += 1
    assert equal > 50
