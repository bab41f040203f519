"""The connector through real sockets, against a venue in a box."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.book import BookSync, OrderBook, SyncState, exponent_of
from engine.clock import WallClock
from engine.connectors import errors
from engine.connectors.backoff import Backoff
from engine.connectors.base import ConnectionPlan, UserRefused, UserSubscribed
from engine.connectors.binance.exchange import BinanceExchange
from engine.connectors.feed import FeedResult, MarketDataFeed
from engine.connectors.reconnecting import ReconnectingWebSocket, fixed
from engine.connectors.registry import create
from engine.connectors.settings import Endpoints
from engine.messages import Order, OrderState, OrderType, Reason, Side, VenueBalanceUpdate, VenueOrderUpdate

pytestmark = pytest.mark.processes

PLACING = {"rest": "POST /api/v3/order", "websocket": "WS order.place"}
"""What faults are to match, by the option ``order_entry``."""
both_ways = pytest.mark.parametrize("way", PLACING)

_numbers = itertools.count(1)


def order(**fields: Any) -> Order:
    """A bid far below the market, unless told otherwise."""
    known: dict[str, Any] = {
        "client_order_id": f"t{os.getpid()}-{next(_numbers)}",
        "strategy": "test",
        "pair": "BTC-USDT",
        "side": Side.BUY,
        "order_type": OrderType.LIMIT,
        "size": Decimal("0.00100"),
        "price": Decimal("30000.00"),
        "state": OrderState.PENDING_CREATE,
    }
    return Order(**{**known, **fields})


def ignore(_sent_mono_ns: int) -> None:
    """Nobody wants to know when it was sent."""


@asynccontextmanager
async def exchange_of(box: Any, **options: Any) -> AsyncIterator[BinanceExchange]:
    client = box.connector(**options).exchange(WallClock())
    try:
        await client.start()
        yield client
    finally:
        await client.close()


@both_ways
def test_an_order_is_placed_queried_listed_and_cancelled(run: Any, box: Any, way: str) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            assert (client.order_entry is not None) == (way == "websocket")
            mine = order()
            sent: list[int] = []
            before = time.monotonic_ns()
            placed = await client.place(mine, sent.append)
            assert before <= placed.requested_mono_ns <= sent[0] <= time.monotonic_ns()
            update = placed.update
            assert update.client_order_id == mine.client_order_id
            assert (update.state, update.filled, placed.fills) == (OrderState.OPEN, 0, ())
            assert (update.size, update.price, update.side) == (mine.size, mine.price, Side.BUY)
            assert placed.venue_ns <= update.venue_time_ns + 1_000_000_000

            asked = await client.query(mine)
            assert asked.value.exchange_order_id == update.exchange_order_id
            assert asked.value.state is OrderState.OPEN
            assert asked.venue_ns % 1_000_000 == 0

            other = order(pair="LTC-BTC", price=Decimal("0.000500"), size=Decimal("10"))
            await client.place(other, ignore)
            for pairs in (None, ["BTC-USDT", "LTC-BTC"]):
                listed = {entry.client_order_id for entry in (await client.open_orders(pairs)).value}
                assert {mine.client_order_id, other.client_order_id} <= listed
            only = (await client.open_orders(["LTC-BTC"])).value
            assert {entry.pair for entry in only} == {"LTC-BTC"}

            gone = await client.cancel(mine)
            assert (gone.value.client_order_id, gone.value.state) == (mine.client_order_id, OrderState.CANCELLED)
            assert (await client.query(mine)).value.state is OrderState.CANCELLED
            with pytest.raises(errors.OrderNotFound):
                await client.cancel(mine)
            await client.cancel(other)

    run(work())


def test_all_orders_of_a_pair_are_cancelled(run: Any, box: Any) -> None:
    async def work() -> None:
        async with exchange_of(box) as client:
            placed = {(await client.place(order(pair="ETH-USDT", price=Decimal("1500"), size=Decimal("0.01")), ignore))
                      .update.client_order_id for _ in range(3)}  # fmt: skip
            gone = await client.cancel_pair("ETH-USDT")
            assert {update.client_order_id for update in gone.value} == placed
            assert {update.state for update in gone.value} == {OrderState.CANCELLED}
            assert (await client.cancel_pair("ETH-USDT")).value == []

    run(work())


@both_ways
def test_a_market_order_tells_its_fills_at_once_and_later(run: Any, box: Any, way: str) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            began = client.time.now_ns() - 1_000_000_000
            ours = []
            for side in (Side.BUY, Side.SELL):
                mine = order(side=side, order_type=OrderType.MARKET, price=None, size=Decimal("0.01"))
                placed = await client.place(mine, ignore)
                assert placed.update.state is OrderState.FILLED
                assert placed.update.price is None
                assert sum(fill.size for fill in placed.fills) == placed.update.filled == mine.size
                assert all(fill.fee > 0 and fill.fee_asset and not fill.is_maker for fill in placed.fills)
                of_order = await client.fills("BTC-USDT", exchange_order_id=placed.update.exchange_order_id)
                assert [entry.fill for entry in of_order.value] == list(placed.fills)
                assert {(entry.side, entry.pair) for entry in of_order.value} == {(side, "BTC-USDT")}
                ours += [entry.fill for entry in of_order.value]
            since = [entry.fill for entry in (await client.fills("BTC-USDT", since_ns=began)).value]
            assert since[-len(ours) :] == ours
            everything = [entry.fill for entry in (await client.fills("BTC-USDT")).value]
            assert everything[-len(ours) :] == ours
            later = await client.fills("BTC-USDT", from_trade_id=ours[1].trade_id)
            assert later.value[0].fill == ours[1]
            assert (await client.fills("BTC-USDT", since_ns=client.time.now_ns() + 10**12)).value == []

    run(work())


def test_balances_agree_with_the_ledger(run: Any, box: Any) -> None:
    async def work() -> None:
        async with exchange_of(box) as client:
            before = (await client.balances()).value.balances["USDT"]
            mine = order(size=Decimal("0.01"), price=Decimal("20000"))
            await client.place(mine, ignore)
            dated = await client.balances()
            after = dated.value.balances["USDT"]
            assert after.total == before.total
            assert before.available - after.available == Decimal(200)
            assert dated.value.venue_time_ns == dated.venue_ns
            await client.cancel(mine)
            assert (await client.balances()).value.balances["USDT"] == before

    run(work())


@both_ways
@pytest.mark.parametrize(
    ("wrong", "kind", "reason"),
    [
        ({"order_type": OrderType.LIMIT_MAKER, "price": Decimal("90000")}, errors.WouldCross, Reason.WOULD_CROSS),
        ({"size": Decimal(100)}, errors.InsufficientBalance, Reason.INSUFFICIENT_BALANCE),
        ({"size": Decimal("0.00001"), "price": Decimal("20000")}, errors.FilterFailure, Reason.VENUE_REFUSED),
        ({"price": Decimal("30000.001")}, errors.FilterFailure, Reason.VENUE_REFUSED),
        ({"pair": "NOSUCH-COIN"}, errors.VenueRefused, Reason.UNKNOWN_PAIR),
        ({"client_order_id": "no spaces, please"}, errors.FilterFailure, Reason.UNSUPPORTED),
        ({"client_order_id": "x" * 37}, errors.FilterFailure, Reason.UNSUPPORTED),
        ({"price": None}, errors.FilterFailure, Reason.UNSUPPORTED),
    ],
)
def test_refusals_have_their_kind_and_leave_nothing(
    run: Any, box: Any, way: str, wrong: dict[str, Any], kind: type[errors.VenueRefused], reason: Reason
) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            mine = order(**wrong)
            with pytest.raises(kind) as refused:
                await client.place(mine, ignore)
            assert refused.value.reason is reason
            assert errors.was_refused(refused.value)
            ledger = await box.ledger()
            live = [entry for entry in ledger["orders"] if entry["client_order_id"] == mine.client_order_id]
            assert all(entry["status"] in ("REJECTED", "rejected") for entry in live)

    run(work())


@both_ways
def test_a_second_order_of_the_same_id_is_refused(run: Any, box: Any, way: str) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            mine = order()
            await client.place(mine, ignore)
            with pytest.raises(errors.DuplicateOrderId):
                await client.place(mine, ignore)
            await client.cancel(mine)

    run(work())


@both_ways
def test_what_the_venue_does_not_know_is_not_found(run: Any, box: Any, way: str) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            with pytest.raises(errors.OrderNotFound):
                await client.query(order(client_order_id="never-placed"))
            with pytest.raises(errors.OrderNotFound):
                await client.cancel(order(client_order_id="never-placed"))

    run(work())


def shift_clock(client: BinanceExchange, by_ms: int) -> None:
    """Make the client believe that the venue's clock reads so much more."""
    now = client.time.clock.monotonic_ns()
    wrong = client.time.now_ms() + by_ms
    client.time.forget()
    client.time.add(now, now, wrong)


@both_ways
@pytest.mark.parametrize("by_ms", [-60_000, 60_000])
def test_W1_a_wrong_clock_is_refused_not_executed_and_set_right(run: Any, box: Any, way: str, by_ms: int) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            shift_clock(client, by_ms)
            mine = order()
            with pytest.raises(errors.ClockError) as refused:
                await client.place(mine, ignore)
            assert errors.was_refused(refused.value)
            assert abs(client.time.lead_ns) < 1_000_000_000
            with pytest.raises(errors.OrderNotFound):
                await client.query(mine)
            await client.place(mine, ignore)
            shift_clock(client, by_ms)
            await client.balances()
            shift_clock(client, by_ms)
            await client.cancel(mine)

    run(work())


def test_a_wrong_key_is_refused_for_what_it_is(run: Any, box: Any) -> None:
    async def work() -> None:
        secret = "x" * 64
        client = box.connector(secret).exchange(WallClock())
        try:
            await client.start()
            with pytest.raises(errors.AuthError) as refused:
                await client.balances()
            assert secret not in str(refused.value)
        finally:
            await client.close()

    run(work())


@both_ways
def test_W1_an_order_whose_answer_was_lost_is_found_by_its_id(run: Any, box: Any, way: str) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            await box.fault({"kind": "drop_reply", "match": PLACING[way]})
            mine = order()
            with pytest.raises((errors.TransportError, errors.UnknownOutcome)) as lost:
                await client.place(mine, ignore)
            assert not errors.was_refused(lost.value)
            assert (await client.query(mine)).value.state is OrderState.OPEN
            await client.cancel(mine)

    run(work())


@both_ways
def test_a_late_answer_is_an_unknown_outcome(run: Any, box: Any, way: str) -> None:
    async def work() -> None:
        async with exchange_of(box, timeout_s=0.3, order_entry=way) as client:
            await box.fault({"kind": "latency", "match": PLACING[way], "ms": 800})
            with pytest.raises(errors.UnknownOutcome):
                await client.place(order(), ignore)
            assert client.acceptance_horizon_ns >= 6_000_000_000
        async with exchange_of(box) as client:
            await client.cancel_pair("BTC-USDT")

    run(work())


@pytest.mark.parametrize(
    ("way", "fault", "kind"),
    [
        ("rest", {"kind": "http_status", "status": 503, "body": "Unknown error"}, errors.UnknownOutcome),
        ("websocket", {"kind": "http_status", "status": 503, "body": "Unknown error"}, errors.UnknownOutcome),
        ("rest", {"kind": "reject", "status": 400, "code": -1007, "msg": "Timeout."}, errors.UnknownOutcome),
        ("websocket", {"kind": "reject", "status": 400, "code": -1007, "msg": "Timeout."}, errors.UnknownOutcome),
        ("rest", {"kind": "http_status", "status": 200, "body": "<html>"}, errors.MalformedReply),
    ],
)
def test_answers_that_leave_the_outcome_open(run: Any, box: Any, way: str, fault: dict[str, Any], kind: type) -> None:
    async def work() -> None:
        async with exchange_of(box, order_entry=way) as client:
            await box.fault({**fault, "match": PLACING[way]})
            with pytest.raises(kind) as open_outcome:
                await client.place(order(), ignore)
            assert not errors.was_refused(open_outcome.value)

    run(work())


@both_ways
def test_a_venue_killed_in_the_middle_of_a_request(run: Any, own_box: Any, way: str) -> None:
    async def work() -> None:
        box = own_box()
        async with exchange_of(box, order_entry=way) as client:
            await box.fault({"kind": "latency", "match": PLACING[way], "ms": 10_000})
            sent = asyncio.Event()
            placing = asyncio.create_task(client.place(order(), lambda _at: sent.set()))
            await sent.wait()
            box.kill()
            with pytest.raises((errors.TransportError, errors.UnknownOutcome)) as lost:
                await placing
            assert not errors.never_sent(lost.value)
            with pytest.raises(errors.TransportError) as unreached:
                await client.place(order(), ignore)
            assert not unreached.value.sent

    run(work())


def test_rules_of_pairs_and_of_all(run: Any, box: Any) -> None:
    async def work() -> None:
        client = box.connector().public(WallClock())
        try:
            await client.start()
            some = await client.trading_rules(["BTC-USDT", "ETH-USDT"])
            assert set(some) == {"BTC-USDT", "ETH-USDT"}
            assert some["BTC-USDT"].price_increment == Decimal("0.01")
            everything = await client.trading_rules()
            assert set(some) < set(everything)
            assert set(await client.trading_rules(["BTC-USDT", "NOSUCH-COIN"])) == {"BTC-USDT"}
            assert client.throttler.used()["REQUEST_WEIGHT_1M"] >= 60
        finally:
            await client.close()

    run(work())


@asynccontextmanager
async def user_stream(box: Any, listener: Any, protocol: Any) -> AsyncIterator[ReconnectingWebSocket]:
    client = box.connector().public(WallClock())
    await client.start()

    async def plan() -> ConnectionPlan:
        await client.time.ensure()
        return ConnectionPlan(url=protocol.url, opening=tuple(protocol.opening(client.time.now_ms())))

    socket = ReconnectingWebSocket(plan, listener, backoff=Backoff(base_s=0.01), keepalive=protocol.keepalive)
    socket.start()
    try:
        yield socket
    finally:
        await socket.close()
        await client.close()


def test_the_private_stream_tells_orders_fills_and_balances(run: Any, box: Any, news: Any) -> None:
    async def work() -> None:
        protocol = box.connector().user_data()
        listener = news(protocol.feed)
        async with user_stream(box, listener, protocol) as socket, exchange_of(box) as client:
            await listener.until(lambda: UserSubscribed() in listener.events)
            mine = order()
            placed = await client.place(mine, ignore)
            await client.cancel(mine)
            taken = order(order_type=OrderType.MARKET, price=None, size=Decimal("0.002"))
            result = await client.place(taken, ignore)

            def of(client_order_id: str) -> list[VenueOrderUpdate]:
                updates = [event for event in listener.events if isinstance(event, VenueOrderUpdate)]
                return [update for update in updates if update.client_order_id == client_order_id]

            await listener.until(lambda: [update.state for update in of(mine.client_order_id)][1:])
            assert [update.state for update in of(mine.client_order_id)] == [OrderState.OPEN, OrderState.CANCELLED]
            assert of(mine.client_order_id)[0].exchange_order_id == placed.update.exchange_order_id
            await listener.until(lambda: any(update.state is OrderState.FILLED for update in of(taken.client_order_id)))
            told = [update.fill for update in of(taken.client_order_id) if update.fill is not None]
            assert told == list(result.fills)
            balances = [event for event in listener.events if isinstance(event, VenueBalanceUpdate)]
            assert any("USDT" in balance.balances for balance in balances)
            now = client.time.now_ns()
            assert all(abs(event.venue_time_ns - now) < 20e9 for event in balances)

            subscribed = listener.events.count(UserSubscribed())
            await box.fault({"kind": "disconnect_user"})
            await listener.until(lambda: listener.events.count(UserSubscribed()) > subscribed)
            assert socket.connects == 2

    run(work())


def test_a_private_stream_signed_with_a_wrong_time_is_refused_and_may_be_retried(run: Any, box: Any, news: Any) -> None:
    async def work() -> None:
        protocol = box.connector().user_data()
        listener = news(protocol.feed)
        opening = tuple(protocol.opening(time.time_ns() // 1_000_000 - 60_000))
        plan = ConnectionPlan(url=protocol.url, opening=opening)
        socket = ReconnectingWebSocket(fixed(plan), listener)
        socket.start()
        (refused,) = await listener.until(lambda: listener.events[:1])
        await socket.close()
        assert isinstance(refused, UserRefused)
        assert refused.retryable
        assert refused.clock

    run(work())


class LiveBooks:
    """The order-book actor in a nutshell: a feed, a socket, and snapshots fetched when they are needed."""

    def __init__(self, feed: MarketDataFeed, client: Any, plan: ConnectionPlan) -> None:
        self.feed = feed
        self.client = client
        self.plan = plan
        self.problems: list[Any] = []
        self.trades = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()

    def on_open(self) -> None:
        self.handle(self.feed.on_open(self.plan))

    def on_frame(self, data: bytes, received_mono_ns: int) -> None:
        self.handle(self.feed.on_frame(self.plan, data, received_mono_ns))

    def on_close(self, reason: str) -> None:
        self.handle(self.feed.on_close(self.plan))

    def handle(self, result: FeedResult) -> None:
        self.problems += result.problems
        self.trades += len(result.trades)
        for need in result.snapshots:
            task = asyncio.create_task(self.fetch(need))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        self.changed.set()

    async def fetch(self, need: Any) -> None:
        answer = await self.client.fetch(need.request)
        self.handle(self.feed.on_snapshot(need.pair, answer, need.epoch))

    async def until(self, condition: Any) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


def test_books_live_through_a_gap_and_a_disconnection(run: Any, own_box: Any) -> None:
    async def work() -> None:
        box = own_box("--activity", "50")
        connector = box.connector()
        client = connector.public(WallClock())
        await client.start()
        pairs = ("BTC-USDT", "ETH-USDT")
        rules = await client.trading_rules(pairs)
        protocol = connector.market_data()
        books = {
            pair: BookSync(
                OrderBook(pair, exponent_of(rule.price_increment), exponent_of(rule.size_increment)),
                protocol.sequence_rule(),
            )
            for pair, rule in rules.items()
        }
        (plan,) = protocol.connections(pairs)
        live = LiveBooks(MarketDataFeed(protocol, books), client, plan)
        socket = ReconnectingWebSocket(fixed(plan), live, backoff=Backoff(base_s=0.01))
        socket.start()

        def all_synced(more: int) -> bool:
            return all(book.state is SyncState.SYNCED and book.counters.bbo_checked >= more for book in books.values())

        await live.until(lambda: all_synced(3) and live.trades > 0)
        assert not [problem for problem in live.problems if problem.kind not in ("snapshot_too_old",)]
        await box.fault({"kind": "skip_depth", "match": "BTCUSDT"})
        await live.until(lambda: books["BTC-USDT"].counters.gaps == 1)
        assert books["ETH-USDT"].counters.gaps == 0
        await live.until(lambda: all_synced(3))
        await box.fault({"kind": "disconnect_streams"})
        await live.until(lambda: socket.connects == 2)
        checked = max(book.counters.bbo_checked for book in books.values())
        await live.until(lambda: all_synced(checked + 2))
        for book in books.values():
            assert book.counters.bbo_checked == book.counters.bbo_equal
            assert book.counters.crossed == 0
        assert live.feed.counters.unparsed == 0
        await socket.close()
        if live.tasks:
            await asyncio.wait(live.tasks)
        await client.close()

    run(work())


def test_everything_over_tls_with_the_boxs_own_certificate(run: Any, own_box: Any, news: Any) -> None:
    async def work() -> None:
        box = own_box("--tls")
        ca = box.info.get("ca")
        if ca is None:
            pytest.skip("this box does not say where its certificate is")
        async with exchange_of(box, ca=ca) as client:
            assert "USDT" in (await client.balances()).value.balances
        with pytest.raises(errors.TransportError) as refused:
            async with exchange_of(box):
                pass
        assert not refused.value.sent

    run(work())


def test_orders_go_by_rest_while_the_order_connection_is_down_and_by_neither_twice(run: Any, own_box: Any) -> None:
    async def work() -> None:
        box = own_box()
        async with exchange_of(box) as client:
            entry = client.order_entry
            assert entry is not None
            first = order()
            await box.fault({"kind": "drop_reply", "match": "WS order.place"})
            with pytest.raises(errors.TransportError) as lost:
                await client.place(first, ignore)
            assert lost.value.sent
            assert not entry.is_open
            sent: list[int] = []
            second = order()
            placed = await client.place(second, sent.append)
            assert (placed.update.state, len(sent)) == (OrderState.OPEN, 1)
            await client.cancel(second)
            async with asyncio.timeout(5):
                while not entry.is_open:  # noqa: ASYNC110 - nobody is told of it
                    await asyncio.sleep(0.01)
            third = order()
            await client.place(third, ignore)
            await client.cancel(third)
            await client.cancel(first)
            ledger = await box.ledger()
            assert [entry["client_order_id"] for entry in ledger["orders"]] == [
                one.client_order_id for one in (first, second, third)
            ]
            assert (entry.strangers, entry.unreadable) == (0, 0)

    run(work())


def test_a_venue_without_its_websocket_api_is_traded_at_by_rest(run: Any, box: Any) -> None:
    async def work() -> None:
        settings = msgspec.structs.replace(
            box.connector(timeout_s=1.0).settings,
            endpoints=Endpoints(rest=box.info["rest"], ws=box.info["ws"], ws_api="ws://127.0.0.1:1/ws-api/v3"),
        )
        client = create(settings).exchange(WallClock())
        try:
            await client.start()
            mine = order()
            assert (await client.place(mine, ignore)).update.state is OrderState.OPEN
            await client.cancel(mine)
        finally:
            await client.close()

    run(work())
