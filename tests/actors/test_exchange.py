"""The exchange actor with a real journal and core, at a venue of the test's making."""

import asyncio
from decimal import Decimal

import pytest

from engine.actors import exchange as exchange_module
from engine.connectors.errors import InsufficientBalance, TransportError, UnknownOutcome
from engine.errors import JournalError, RemoteError
from engine.messages import (
    Accepted,
    AccountSnapshot,
    ActorStats,
    ActorStopping,
    Balance,
    CancelOrder,
    ControlReply,
    Fills,
    GetAccount,
    GetFills,
    GetOrders,
    NetworkStatus,
    OrderEventKind,
    OrderFate,
    Orders,
    OrderState,
    Reason,
    Refused,
    Side,
    VenueBalanceUpdate,
)
from engine.orders.journal import Journal
from tests.actors.exchange_client import DOWN, NAME, client


def test_the_account_comes_up_and_takes_an_order_to_its_end(exchange_world, order):
    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        assert await maker.ask(order()) == Accepted(client_order_id="e-1", state=OrderState.PENDING_CREATE)
        await world.until(lambda: maker.kinds() == [OrderEventKind.CREATED])
        venue.trade("e-1", "0.4")
        venue.trade("e-1", "0.6")
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        assert maker.kinds() == [
            OrderEventKind.CREATED,
            OrderEventKind.FILL,
            OrderEventKind.FILL,
            OrderEventKind.COMPLETED,
        ]
        assert [event.number for event in maker.events] == [1, 2, 3, 4]
        assert maker.events[-1].order.filled == 1
        assert running.actor.metrics.network is NetworkStatus.CONNECTED

    exchange_world(body)


def test_an_order_is_in_the_journal_before_it_is_sent(exchange_world, order):
    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        sent = []
        place = running.actor.client.place

        async def checked(placed, on_sent, send_by_mono_ns):
            sent.append(running.actor.journal.orders()[0].client_order_id)
            return await place(placed, on_sent, send_by_mono_ns)

        running.actor.client.place = checked
        await maker.ask(order())
        await world.until(lambda: sent)
        assert sent == ["e-1"]

    exchange_world(body)


def test_what_the_account_knows_can_be_asked_for(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order("e-1"))
        await maker.ask(order("e-2", side=Side.SELL))
        await world.until(lambda: len(maker.events) == 2)
        venue.trade("e-1", "1")
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        snapshot = await maker.ask(GetAccount())
        assert isinstance(snapshot, AccountSnapshot)
        assert [order.client_order_id for order in snapshot.orders] == ["e-2"]
        assert (snapshot.number, snapshot.rules) == (4, {world.pair: world.rule})
        assert snapshot.balances["BTC"].total == 10
        orders = await maker.ask(GetOrders())
        assert isinstance(orders, Orders)
        assert {order.client_order_id: order.state for order in orders.orders} == {
            "e-1": OrderState.FILLED,
            "e-2": OrderState.OPEN,
        }
        fills = await maker.ask(GetFills())
        assert isinstance(fills, Fills)
        assert [(fill.client_order_id, fill.fill.size) for fill in fills.fills] == [("e-1", Decimal(1))]
        assert await maker.ask(OrderFate(client_order_id="e-1")) == Accepted(
            client_order_id="e-1", state=OrderState.FILLED
        )
        with pytest.raises(RemoteError, match="does not answer"):
            await maker.ask(ControlReply(ok=True))

    exchange_world(body)


def test_an_id_is_placed_once_however_often_it_is_sent(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        for _ in range(3):
            assert isinstance(await maker.ask(order()), Accepted)
        await world.until(lambda: maker.kinds())
        assert venue.asked("place") == ["e-1"]

    exchange_world(body)


def test_an_order_that_breaks_a_rule_never_leaves(exchange_world, order):
    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        refused = {
            "e-1": (order("e-1", size="0.00001"), Reason.BELOW_MIN_SIZE),
            "e-2": (order("e-2", size="0.01", price="100"), Reason.BELOW_MIN_NOTIONAL),
            "e-3": (order("e-3", pair="ETH-USDT"), Reason.UNKNOWN_PAIR),
            "other": (order("other"), Reason.UNSUPPORTED),
        }
        for command, reason in refused.values():
            reply = await maker.ask(command)
            assert isinstance(reply, Refused)
            assert reply.reason is reason
        assert venue.count("place") == 0
        assert isinstance(await maker.ask(OrderFate(client_order_id="e-1")), Refused)
        assert running.actor.requests.idle

    exchange_world(body)


def test_an_id_that_never_arrived_is_refused_from_then_on(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        fate = await maker.ask(OrderFate(client_order_id="e-1"))
        assert (fate.reason, venue.count("place")) == (Reason.UNKNOWN_ORDER, 0)
        assert await maker.ask(order()) == fate
        assert venue.count("place") == 0

    exchange_world(body)


def test_orders_are_refused_until_the_venue_was_reached(exchange_world, order):
    async def body(world, venue):
        reach = asyncio.Event()
        venue.next("start", wait=reach)
        running = await world.exchange(ready=False)
        maker = await client(world)
        reply = await maker.ask(order())
        assert (reply.reason, running.actor.ready) == (Reason.NOT_READY, False)
        answer = await maker.ask(GetAccount())
        assert (answer.ok, "not reached" in answer.error) == (False, True)
        reach.set()
        await world.until(lambda: running.actor.ready)
        assert isinstance(await maker.ask(order()), Refused)
        assert isinstance(await maker.ask(order("e-2")), Accepted)

    exchange_world(body)


def test_a_venue_that_is_out_of_reach_is_tried_again(exchange_world):
    async def body(world, venue):
        venue.next("start", before=DOWN)
        venue.next("rules", before=UnknownOutcome("what?"))
        running = await world.exchange()
        assert running.actor.metrics.network is NetworkStatus.CONNECTED
        assert venue.count("start") == 3

    logs = exchange_world(body)
    assert [line["event"] for line in logs].count("the venue is out of reach") == 2


def test_orders_are_refused_while_the_engine_stops(exchange_world, order):
    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        await maker.ask(order("e-1"))
        await world.until(lambda: maker.kinds())
        held = asyncio.Event()
        venue.next("cancel", wait=held)
        ending = asyncio.ensure_future(running.stop(grace_ns=15_000_000_000))
        await world.until(lambda: venue.count("cancel"))
        reply = await maker.ask(order("e-2"))
        assert (reply.reason, venue.count("place")) == (Reason.STOPPING, 1)
        held.set()
        assert await ending == 0
        assert venue.open == []

    exchange_world(body)


def test_a_journal_that_cannot_be_written_ends_the_actor_before_anything_is_sent(exchange_world, order):
    async def body(world, venue):
        supervisor = await world.supervisor()
        running = await world.exchange()
        maker = await client(world)

        def full(writes):
            raise JournalError("disk full")

        running.actor.journal.record = full
        with pytest.raises(Exception) as failed:
            await maker.ask(order(), timeout=0.5)
        assert not isinstance(failed.value, AssertionError)
        assert await running.code() == 1
        assert (venue.count("place"), maker.events) == (0, [])
        assert "disk full" in supervisor.of(ActorStopping)[0].error

    exchange_world(body)


@pytest.mark.parametrize("call", ["place", "cancel"])
def test_a_journal_that_fails_in_the_middle_ends_the_actor_and_nothing_is_lost(exchange_world, order, call):
    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        if call == "cancel":
            await maker.ask(order())
            await world.until(lambda: maker.kinds() == [OrderEventKind.CREATED])
        held = asyncio.Event()
        venue.next(call, wait=held)
        await maker.ask(order() if call == "place" else CancelOrder(client_order_id="e-1"))
        await world.until(lambda: venue.count(call))

        def full(writes):
            raise JournalError("disk full")

        running.actor.journal.record = full
        held.set()
        assert await running.code() == 1
        seen = len(maker.events)
        await world.exchange()
        end = [OrderEventKind.CREATED] if call == "place" else [OrderEventKind.CREATED, OrderEventKind.CANCELLED]
        await world.until(lambda: maker.kinds()[-1:] == end[-1:])
        assert [event.number for event in maker.events] == list(range(1, len(maker.events) + 1))
        assert len(maker.events) > seen
        assert venue.asked("place") == ["e-1"]

    exchange_world(body)


def test_a_refusal_by_the_venue_is_the_end_of_the_order(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        venue.next("place", before=InsufficientBalance(-2010, "insufficient balance"))
        assert isinstance(await maker.ask(order()), Accepted)
        await world.until(lambda: maker.kinds())
        (event,) = maker.events
        assert (event.kind, event.order.reason) == (OrderEventKind.FAILED, Reason.INSUFFICIENT_BALANCE)
        assert "insufficient balance" in event.order.detail

    exchange_world(body)


def test_an_order_that_never_left_fails_at_once(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        venue.next("place", before=DOWN)
        await maker.ask(order())
        await world.until(lambda: maker.kinds() == [OrderEventKind.FAILED])
        assert maker.events[0].order.reason is Reason.NOT_SENT

    exchange_world(body)


@pytest.mark.parametrize("lost", [TransportError("cut", sent=True), UnknownOutcome("504")])
def test_an_order_whose_answer_was_lost_is_asked_for_and_never_sent_again(exchange_world, order, lost):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        venue.next("place", after=lost)
        await maker.ask(order())
        await world.until(lambda: OrderEventKind.CREATED in maker.kinds())
        assert maker.kinds() == [OrderEventKind.UNKNOWN, OrderEventKind.CREATED]
        assert venue.asked("place") == ["e-1"]

    exchange_world(body)


def test_a_cancel_that_was_answered(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        assert isinstance(await maker.ask(CancelOrder(client_order_id="e-1")), Accepted)
        await world.until(lambda: OrderEventKind.CANCELLED in maker.kinds())
        assert isinstance(await maker.ask(CancelOrder(client_order_id="e-1")), Accepted)
        refused = await maker.ask(CancelOrder(client_order_id="e-9"))
        assert refused.reason is Reason.UNKNOWN_ORDER
        assert venue.count("cancel") == 1

    exchange_world(body)


def test_a_cancel_that_crossed_a_fill_shows_the_fill(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.trade("e-1", "1", told=False)
        await maker.ask(CancelOrder(client_order_id="e-1"))
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        assert maker.kinds() == [OrderEventKind.CREATED, OrderEventKind.FILL, OrderEventKind.COMPLETED]

    exchange_world(body)


def test_events_go_on_where_the_journal_ended(exchange_world, order):
    async def body(world, venue):
        first = await world.exchange()
        maker = await client(world)
        await maker.ask(order("e-1"))
        await maker.ask(order("e-2"))
        await world.until(lambda: len(maker.events) == 2)
        await first.kill()
        venue.trade("e-1", "1", told=False)
        venue.end("e-2", told=False)
        await world.exchange()
        await world.until(lambda: len(maker.events) == 5)
        assert [event.number for event in maker.events] == [1, 2, 3, 4, 5]
        assert maker.kinds("e-1") == [OrderEventKind.CREATED, OrderEventKind.FILL, OrderEventKind.COMPLETED]
        assert maker.kinds("e-2") == [OrderEventKind.CREATED, OrderEventKind.CANCELLED]
        assert venue.asked("place") == ["e-1", "e-2"]

    exchange_world(body)


@pytest.mark.parametrize("reached", [True, False])
def test_an_order_that_was_under_way_in_a_crash_is_asked_for(exchange_world, order, reached):
    async def body(world, venue):
        first = await world.exchange()
        maker = await client(world)
        held = asyncio.Event()
        venue.next("place", wait=held)
        await maker.ask(order())
        await world.until(lambda: venue.count("place"))
        await first.kill()
        if reached:
            venue.take(order())
        second = await world.exchange()
        await world.until(lambda: venue.count("query") or OrderEventKind.CREATED in maker.kinds())
        await world.until(lambda: maker.kinds()[:1] == [OrderEventKind.UNKNOWN])
        if reached:
            await world.until(lambda: maker.kinds() == [OrderEventKind.UNKNOWN, OrderEventKind.CREATED])
        else:
            snapshot = await maker.ask(GetAccount())
            assert [order.state for order in snapshot.orders] == [OrderState.UNKNOWN]
        assert venue.asked("place") == ["e-1"]
        await second.kill()

    exchange_world(body)


def test_a_fill_that_is_told_twice_counts_once(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        trade = venue.trade("e-1", "0.5")
        venue.tell(venue.orders["e-1"], fill=trade)
        venue.subscribed()
        venue.trade("e-1", "0.5")
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        assert maker.kinds().count(OrderEventKind.FILL) == 2

    exchange_world(body)


def test_balances_are_told_as_they_change(exchange_world):
    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        changed = Balance(total=Decimal(5), available=Decimal("4.5"))
        await maker.ask(GetAccount())
        await world.until(lambda: venue.stream.readers)
        while "BTC" not in maker.balances:
            venue.stream.publish(
                VenueBalanceUpdate(balances={"BTC": changed}, venue_time_ns=world.clock.time_ns()),
            )
            changed = Balance(total=changed.total + 1, available=Decimal(1))
            await asyncio.sleep(0.005)
        assert set(maker.balances) == {"BTC"}

    exchange_world(body)


def test_an_earlier_life_of_a_strategy_places_nothing_once_a_later_one_has(exchange_world, order):
    async def body(world, venue):
        await world.exchange()
        later = await world.bus("strategy.maker", 20)
        assert isinstance(await later.request(NAME, order("e-2")), Accepted)
        await later.close()
        earlier = await world.bus("strategy.maker", 10)
        refused = await earlier.request(NAME, order("e-1"))
        assert (type(refused), refused.reason) == (Refused, Reason.OTHER_INCARNATION)
        other = await world.bus("strategy.other", 10)
        assert isinstance(await other.request(NAME, order("e-3", strategy="other")), Accepted)
        await world.until(lambda: venue.count("place") == 2)
        assert venue.asked("place") == ["e-2", "e-3"]

    exchange_world(body)


def test_what_the_report_needs_is_in_the_statistics(exchange_world, order):
    async def body(world, venue):
        supervisor = await world.supervisor()
        await world.exchange()
        maker = await client(world)
        await maker.ask(order())
        await world.until(lambda: maker.kinds())
        venue.trade("e-1", "0.5")
        await world.until(lambda: OrderEventKind.FILL in maker.kinds())
        await world.until(lambda: any(each.gauges.get("fills") for each in supervisor.of(ActorStats)))
        stats = supervisor.of(ActorStats)[-1]
        assert [row["client_order_id"] for row in stats.gauges["open_orders"]] == ["e-1"]
        assert [row["trade_id"] for row in stats.gauges["recent_fills"]] == ["1"]
        assert stats.gauges["balances"]["BTC"]["total"] == "10"
        assert stats.gauges["orders"]["open"] == 1
        assert stats.counters["order_events"] == 2
        assert sum(stats.histograms["wire_to_ack_ns"].values()) == 1

    exchange_world(body)


def test_a_pair_that_the_venue_does_not_list_is_named(exchange_world, order):
    async def body(world, venue):
        venue.rules.clear()
        await world.exchange()
        maker = await client(world)
        assert (await maker.ask(order())).reason is Reason.UNKNOWN_PAIR

    logs = exchange_world(body)
    (told,) = [line for line in logs if line["event"] == "the venue does not list these pairs"]
    assert told["pairs"] == ["BTC-USDT"]


def test_a_pair_that_the_venue_does_not_list_is_not_asked_about(exchange_world):
    async def body(world, venue):
        venue.rules.clear()
        await world.exchange()
        await world.until(lambda: venue.count("open_orders") and venue.count("fees"))
        assert venue.asked("open_orders") == [[]] * venue.count("open_orders")
        assert venue.asked("fees") == [[]] * venue.count("fees")

    exchange_world(body)


def test_the_journal_has_one_writer(exchange_world, tmp_path):
    async def body(world, venue):
        running = await world.exchange()
        path = running.actor.journal.path
        with pytest.raises(JournalError, match="another process"):
            Journal(path, "box", "main", world.clock)

    exchange_world(body)


def test_F38_balances_that_the_venue_does_not_tell_are_estimated_and_limits_hold(
    exchange_world, order, fakes, monkeypatch
):
    monkeypatch.setattr(fakes.connector, "real_time_balances", False)

    async def body(world, venue):
        running = await world.exchange(balance_limits={"BTC": "3"}, reconcile_s=1000)
        await world.until(lambda: venue.stream.readers)
        venue.subscribed()
        await world.until(lambda: running.actor.reconciler.stream_up)
        await world.until(lambda: running.actor.metrics.counters.get("reconciliations") and running.actor.shown.known)
        maker = await client(world)
        told = venue.count("balances")

        def available(asset):
            return running.actor.core.balance(asset).available

        assert (available("USDT"), available("BTC")) == (1_000_000, 3)
        await maker.ask(order("e-1", size="2", price="100"))
        await world.until(lambda: venue.open)
        assert available("USDT") == 999_800
        venue.trade("e-1", "0.5")
        await world.until(lambda: running.actor.core.balance("BTC").total == Decimal("10.5"))
        assert running.actor.core.balance("USDT").total == Decimal("999949.99")
        assert available("USDT") == Decimal("999799.99")
        assert available("BTC") == Decimal("3.5")
        await maker.ask(order("e-2", side=Side.SELL, size="3", price="200"))
        await world.until(lambda: len(venue.open) == 2)
        assert available("BTC") == Decimal("0.5")
        venue.end("e-1")
        await world.until(lambda: available("USDT") == Decimal("999949.99"))
        assert venue.count("balances") == told

    exchange_world(body)


def test_F38_a_limit_is_the_engines_and_does_not_begin_anew_with_another_life_of_the_actor(exchange_world, order):
    limits = {"balance_limits": {"USDT": "150", "BTC": "1"}}

    async def body(world, venue):
        running = await world.exchange(**limits)
        await world.until(lambda: venue.stream.readers)
        venue.subscribed()
        await world.until(lambda: running.actor.reconciler.stream_up and running.actor.shown.known)
        maker = await client(world)
        await maker.ask(order("e-1", size="1", price="100"))
        await world.until(lambda: venue.open)
        venue.trade("e-1", "1")
        await world.until(lambda: OrderEventKind.COMPLETED in maker.kinds())
        for _ in range(2):
            await running.kill()
            running = await world.exchange(**limits)
            actor = running.actor
            await world.until(lambda actor=actor: not actor._lacks)
            balance = actor.core.balance
            assert (balance("USDT").available, balance("BTC").available) == (Decimal("49.99"), 2)

    exchange_world(body)


@pytest.mark.parametrize("hours", [1, -1])
def test_W1_a_question_dated_by_a_clock_that_turns_out_wrong_ends_nothing_early(exchange_world, order, hours):
    """The venue's clock was believed to be an hour ahead when it was asked; then its time was found anew. An order
    whose request may still arrive is not failed for that. A clock that was believed to be behind does no harm either.
    """

    async def body(world, venue):
        running = await world.exchange()
        maker = await client(world)
        answered = asyncio.Event()
        venue.next("query", wait=answered)

        def lose(placed, on_sent, send_by_mono_ns):
            on_sent(world.clock.monotonic_ns())
            venue.time.lead_ns = hours * 3600 * 10**9
            raise UnknownOutcome("no answer in time")

        running.actor.client.place = lose
        assert isinstance(await maker.ask(order()), Accepted)
        await world.until(lambda: venue.count("query") == 1)
        venue.time.lead_ns = 0
        answered.set()
        await world.until(lambda: running.actor.core.counters["not_found_early"])
        assert maker.kinds() == [OrderEventKind.UNKNOWN]

    exchange_world(body)


@pytest.mark.parametrize("limit", [10**9, -1, 3])
def test_no_question_is_answered_with_more_rows_than_a_message_holds(exchange_world, order, monkeypatch, limit):
    monkeypatch.setattr(exchange_module, "MOST_ROWS", 2)

    async def body(world, venue):
        await world.exchange()
        maker = await client(world)
        names = ("e-1", "e-2", "e-3")
        for name in names:
            await maker.ask(order(name))
            await world.until(lambda made=name: made in venue.orders)
            venue.trade(name, "1")
        await world.until(lambda: len(maker.events) == 9)
        expected = [] if limit < 0 else ["e-3", "e-2"]
        orders, fills = await maker.ask(GetOrders(limit=limit)), await maker.ask(GetFills(limit=limit))
        assert [each.client_order_id for each in orders.orders] == expected
        assert [each.client_order_id for each in fills.fills] == expected
        rest = await maker.ask(GetFills(offset=2))
        assert [each.client_order_id for each in rest.fills] == ["e-1"]

    exchange_world(body)
