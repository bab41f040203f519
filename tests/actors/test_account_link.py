"""A strategy's side of an account, against the exchange actor itself."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from engine.actors import account_link as module
from engine.actors.account_link import AccountLink
from engine.actors.base import Actor
from engine.connectors.errors import InsufficientBalance, TransportError, VenueRefused
from engine.errors import BusError
from engine.messages import (
    Accepted,
    Balance,
    CancelOrder,
    OrderEventKind,
    OrderFate,
    OrderState,
    PlaceOrder,
    Reason,
    StreamPosition,
    VenueBalanceUpdate,
)

EXCHANGE = "exchange.box.main"
CREATED, FILL, COMPLETED = OrderEventKind.CREATED, OrderEventKind.FILL, OrderEventKind.COMPLETED
CANCELLED, FAILED, UNKNOWN = OrderEventKind.CANCELLED, OrderEventKind.FAILED, OrderEventKind.UNKNOWN


class Follower(Actor):
    """Follows one account and keeps what it is given. ``position`` in its params is its checkpoint."""

    kind = "follower"

    def __init__(self, context):
        super().__init__(context)
        self.events = []
        self.caught_up_after = []
        position = context.params.get("position")
        self.link = AccountLink(
            context,
            "box",
            EXCHANGE,
            context.params.get("strategy", "maker"),
            None if position is None else StreamPosition(incarnation=position[0], number=position[1]),
            self.events.append,
            lambda: self.caught_up_after.append(len(self.events)),
        )

    async def start(self):
        self.link.start()
        return {}

    def kinds(self, client_order_id="e-1"):
        return [event.kind for event in self.events if event.order.client_order_id == client_order_id]

    @property
    def numbers(self):
        return [event.number for event in self.events if event.number]


@pytest.fixture
def link_world(exchange_world, monkeypatch):
    """``link_world(body)``: ``await body(world, venue)`` with ``world.follow()`` for a follower of the account."""
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.1)
    monkeypatch.setattr(module, "RETRY_S", 0.005)

    def go(body):
        async def main(world, venue):
            async def follow(*, strategy="maker", position=None, wait=True):
                params = {"strategy": strategy, "position": position}
                running = await world.start(Follower, f"strategy.{strategy}", params=params)
                if wait:
                    await world.until(lambda: running.actor.link.caught_up and running.actor.link.reachable)
                return running.actor

            world.follow = follow
            await body(world, venue)

        return exchange_world(main)

    return go


def placing(exchange):
    """The commands and queries about orders that reach the exchange actor from here on."""
    heard = []
    on_message = exchange.actor.on_message

    def listen(caller, message):
        if isinstance(message, PlaceOrder | CancelOrder | OrderFate):
            heard.append(type(message))
        return on_message(caller, message)

    exchange.actor.on_message = listen
    return heard


def unanswered(exchange, kind, times=1):
    """The exchange actor does what it is told, and its answer is lost."""
    on_message = exchange.actor.on_message
    left = [times]

    def listen(caller, message):
        answer = on_message(caller, message)
        if isinstance(message, kind) and left[0]:
            left[0] -= 1
            raise BusError("the answer is lost")
        return answer

    exchange.actor.on_message = listen


def same_view(follower, exchange, *, cancelling=()):
    """Whether the follower's open orders are the account's. A cancel that is under way shows at the follower only."""
    account = {
        order.client_order_id: (order.state, order.filled)
        for order in exchange.actor.core.open_orders(follower.link.strategy)
    }
    view = {name: (order.state, order.filled) for name, order in follower.link.orders.items()}
    for name in cancelling:
        account[name] = (OrderState.PENDING_CANCEL, account[name][1])
    return view == account


def test_an_order_from_its_placing_to_its_end(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order())
        assert maker.link.orders["e-1"].state is OrderState.PENDING_CREATE
        await world.until(lambda: maker.kinds() == [CREATED])
        assert same_view(maker, exchange)
        venue.trade("e-1", "0.4")
        await world.until(lambda: FILL in maker.kinds())
        assert maker.link.orders["e-1"].filled == Decimal("0.4")
        assert same_view(maker, exchange)
        venue.trade("e-1", "0.6")
        await world.until(lambda: COMPLETED in maker.kinds())
        assert maker.link.orders == {}
        assert maker.numbers == [1, 2, 3, 4]

    link_world(body)


def test_events_come_once_and_in_order_over_restarts_of_the_exchange(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        for life in range(4):
            name = f"e-{life}"
            maker.link.place(order(name))
            await world.until(lambda name=name: maker.kinds(name) == [CREATED])
            venue.trade(name, "0.5")
            await exchange.kill()
            venue.trade(name, "0.5", told=False)
            await world.until(lambda: not maker.link.reachable)
            exchange = await world.exchange()
            await world.until(lambda name=name: COMPLETED in maker.kinds(name))
            await world.until(lambda: maker.link.reachable)
        assert maker.numbers == list(range(1, 17))
        assert maker.caught_up_after == [0]
        assert same_view(maker, exchange)

    link_world(body)


def test_without_a_checkpoint_the_past_is_a_snapshot(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        first = await world.follow()
        for name in ("e-1", "e-2"):
            first.link.place(order(name))
        await world.until(lambda: len(first.events) == 2)
        venue.trade("e-1", "1")
        venue.trade("e-2", "0.3")
        await world.until(lambda: FILL in first.kinds("e-2"))
        await world.running[-1].kill()
        second = await world.follow()
        assert (second.events, second.caught_up_after) == ([], [0])
        assert {name: order.filled for name, order in second.link.orders.items()} == {"e-2": Decimal("0.3")}
        assert same_view(second, exchange)
        venue.trade("e-2", "0.7")
        await world.until(lambda: COMPLETED in second.kinds("e-2"))
        assert second.numbers == [6, 7]
        assert same_view(second, exchange)

    link_world(body)


def test_from_a_checkpoint_every_later_event_comes_before_it_has_caught_up(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        first = await world.follow()
        first.link.place(order("e-1"))
        first.link.place(order("e-2"))
        await world.until(lambda: len(first.events) == 2)
        position = first.link.position
        assert position.number == 2
        await world.running[-1].kill()
        venue.trade("e-1", "1")
        venue.trade("e-2", "0.5")
        await world.until(lambda: exchange.actor.core.last_number == 5)
        second = await world.follow(position=(position.incarnation, position.number))
        assert second.numbers == [3, 4, 5]
        assert second.caught_up_after == [3]
        assert same_view(second, exchange)

    link_world(body)


def test_a_strategy_is_given_its_own_events_alone(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        other = await world.follow(strategy="other")
        maker.link.place(order("e-1"))
        other.link.place(order("e-2", strategy="other"))
        await world.until(lambda: maker.events and other.events)
        assert (maker.kinds("e-1"), maker.kinds("e-2")) == ([CREATED], [])
        assert (other.kinds("e-1"), other.kinds("e-2")) == ([], [CREATED])
        await world.until(lambda: maker.link.position == other.link.position)
        assert same_view(maker, exchange)
        assert same_view(other, exchange)

    link_world(body)


def test_a_follower_waits_for_an_account_that_has_not_reached_its_venue(link_world, order):
    async def body(world, venue):
        maker = await world.follow(wait=False)
        assert (maker.link.reachable, maker.link.caught_up) == (False, False)
        reach = asyncio.Event()
        venue.next("start", wait=reach)
        await world.exchange(ready=False)
        await asyncio.sleep(0.05)
        assert not maker.link.caught_up
        reach.set()
        await world.until(lambda: maker.link.caught_up and maker.link.reachable)
        assert maker.link.rules == {world.pair: world.rule}

    link_world(body)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({"size": "0.00001"}, Reason.BELOW_MIN_SIZE), ({"pair": "ETH-USDT"}, Reason.UNKNOWN_PAIR)],
)
def test_a_refused_order_comes_back_as_failed_with_the_reason(link_world, order, fields, reason):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order(**fields))
        await world.until(lambda: maker.events)
        (event,) = maker.events
        assert (event.kind, event.order.state, event.number) == (FAILED, OrderState.FAILED, 0)
        assert (event.order.reason, event.order.client_order_id, event.connector) == (reason, "e-1", "box")
        assert event.order.detail
        assert maker.link.orders == {}
        assert same_view(maker, exchange)
        assert maker.metrics.counters == {f"refused/{reason.value}": 1}

    link_world(body)


def test_an_order_that_the_venue_refuses_comes_back_as_failed(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        venue.next("place", before=InsufficientBalance(-2010, "insufficient balance"))
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [FAILED])
        assert maker.events[0].order.reason is Reason.INSUFFICIENT_BALANCE
        assert same_view(maker, exchange)

    link_world(body)


def test_an_order_to_an_exchange_that_is_gone_fails_and_is_never_sent(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        await exchange.kill()
        await world.until(lambda: not maker.link.reachable)
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [FAILED])
        assert maker.events[0].order.reason is Reason.NOT_READY
        exchange = await world.exchange()
        await world.until(lambda: maker.link.reachable)
        assert (venue.count("place"), maker.link.orders) == (0, {})
        assert same_view(maker, exchange)

    link_world(body)


def test_a_lost_answer_leads_to_the_fate_and_never_to_a_second_order(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        heard = placing(exchange)
        unanswered(exchange, PlaceOrder)
        maker = await world.follow()
        maker.link.place(order())
        await world.until(lambda: heard == [PlaceOrder, OrderFate])
        await world.until(lambda: maker.kinds() == [CREATED] and not maker.link._unanswered)
        assert venue.asked("place") == ["e-1"]
        assert same_view(maker, exchange)

    link_world(body)


def test_an_answer_that_is_too_late_leads_to_the_fate(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        heard = placing(exchange)
        maker = await world.follow()
        maker.link.place(order())
        world.network.stall("strategy.maker")
        await world.until(lambda: OrderFate in heard)
        world.network.resume("strategy.maker")
        await world.until(lambda: maker.kinds() == [CREATED] and not maker.link._unanswered)
        assert heard.count(PlaceOrder) == 1
        assert same_view(maker, exchange)

    link_world(body)


def test_a_command_that_waited_too_long_is_not_carried_out(link_world, order, monkeypatch):
    monkeypatch.setattr(module, "COMMAND_EXPIRY_S", 0.02)

    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        world.network.stall(EXCHANGE)
        maker.link.place(order())
        await asyncio.sleep(0.03)
        world.network.resume(EXCHANGE)
        await world.until(lambda: maker.kinds() == [FAILED])
        assert maker.events[0].order.reason is Reason.EXPIRED
        assert venue.count("place") == 0
        assert same_view(maker, exchange)

    link_world(body)


@pytest.mark.parametrize("reached", [True, False])
def test_an_exchange_that_dies_with_an_order_is_asked_for_its_fate(link_world, order, reached):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        held = asyncio.Event()
        venue.next("place", wait=held)
        if not reached:
            world.network.stall(EXCHANGE)
        maker.link.place(order())
        if reached:
            await world.until(lambda: venue.count("place"))
        else:
            await asyncio.sleep(0.01)
        await exchange.kill()
        world.network.resume(EXCHANGE)
        exchange = await world.exchange()
        heard = placing(exchange)
        if reached:
            await world.until(lambda: maker.kinds() == [UNKNOWN])
            assert list(maker.link.orders) == ["e-1"]
        else:
            await world.until(lambda: maker.kinds() == [FAILED])
            assert maker.events[0].order.reason is Reason.UNKNOWN_ORDER
        assert PlaceOrder not in heard
        assert venue.count("place") == (1 if reached else 0)
        assert same_view(maker, exchange)

    link_world(body)


def test_the_fate_may_itself_be_lost(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        heard = placing(exchange)
        unanswered(exchange, PlaceOrder)
        unanswered(exchange, OrderFate, times=3)
        maker = await world.follow()
        maker.link.place(order())
        await world.until(lambda: heard.count(OrderFate) == 4 and not maker.link._unanswered)
        assert heard.count(PlaceOrder) == 1
        await world.until(lambda: same_view(maker, exchange))

    link_world(body)


def test_a_cancel_shows_until_the_order_ends(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [CREATED])
        held = asyncio.Event()
        venue.next("cancel", wait=held)
        maker.link.cancel("e-1")
        maker.link.cancel("e-1")
        assert maker.link.orders["e-1"].state is OrderState.PENDING_CANCEL
        await world.until(lambda: venue.count("cancel"))
        venue.trade("e-1", "0.5")
        await world.until(lambda: FILL in maker.kinds())
        assert maker.link.orders["e-1"].state is OrderState.PENDING_CANCEL
        assert maker.link.orders["e-1"].filled == Decimal("0.5")
        assert same_view(maker, exchange, cancelling=["e-1"])
        held.set()
        await world.until(lambda: CANCELLED in maker.kinds())
        assert maker.link.orders == {}
        assert venue.count("cancel") == 1

    link_world(body)


@pytest.mark.parametrize("happened", ["nothing", "created", "filled"])
def test_a_cancel_that_did_not_arrive_may_be_sent_again(link_world, order, happened):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        held = asyncio.Event()
        if happened == "created":
            venue.next("place", wait=held)
        maker.link.place(order())
        await world.until(lambda: exchange.actor.core.open_orders())
        if happened != "created":
            await world.until(lambda: maker.kinds() == [CREATED])
        on_message, asked = exchange.actor.on_message, []

        def lose(caller, message):
            if isinstance(message, CancelOrder) and not asked:
                asked.append(message)
                return asyncio.get_running_loop().create_future()
            return on_message(caller, message)

        exchange.actor.on_message = lose
        maker.link.cancel("e-1")
        await world.until(lambda: asked)
        if happened == "created":
            held.set()
            await world.until(lambda: maker.kinds() == [CREATED])
        if happened == "filled":
            venue.trade("e-1", "0.5")
            await world.until(lambda: FILL in maker.kinds())
        assert maker.link.orders["e-1"].state is OrderState.PENDING_CANCEL
        await world.until(lambda: maker.link.orders["e-1"].state is not OrderState.PENDING_CANCEL)
        assert same_view(maker, exchange)
        maker.link.cancel("e-1")
        await world.until(lambda: CANCELLED in maker.kinds())
        assert same_view(maker, exchange)

    link_world(body)


def test_a_cancel_to_an_exchange_that_restarts_may_be_sent_again(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [CREATED])
        await exchange.kill()
        maker.link.cancel("e-1")
        await world.until(lambda: maker.link.orders["e-1"].state is OrderState.OPEN)
        exchange = await world.exchange()
        await world.until(lambda: maker.link.reachable)
        assert same_view(maker, exchange)
        maker.link.cancel("e-1")
        await world.until(lambda: CANCELLED in maker.kinds())

    link_world(body)


def test_a_cancel_that_a_later_life_of_the_account_does_not_know_of_is_sent_to_it(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [CREATED])
        accepted = []

        def accept(caller, message):
            accepted.append(message.client_order_id)
            return Accepted(client_order_id=message.client_order_id, state=OrderState.PENDING_CANCEL)

        exchange.actor.on_message = accept
        maker.link.cancel("e-1")
        await world.until(lambda: accepted == ["e-1"])
        await exchange.kill()
        await world.until(lambda: not maker.link.reachable)
        assert maker.link.orders["e-1"].state is OrderState.PENDING_CANCEL
        await world.exchange()
        await world.until(lambda: CANCELLED in maker.kinds())
        assert venue.count("cancel") == 1

    link_world(body)


@pytest.mark.parametrize("error", [VenueRefused(-1, "not now"), TransportError("cut", sent=True)])
def test_a_cancel_that_the_venue_did_not_carry_out_is_repeated_by_the_account(link_world, order, error):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [CREATED])
        venue.next("cancel", before=error)
        maker.link.cancel("e-1")
        await world.until(lambda: CANCELLED in maker.kinds())
        assert venue.count("cancel") >= 2
        assert same_view(maker, exchange)

    link_world(body)


def test_a_cancel_of_what_is_not_open_is_nothing(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        heard = placing(exchange)
        maker = await world.follow()
        maker.link.cancel("e-9")
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [CREATED])
        assert heard == [PlaceOrder]
        assert "e-9" not in maker.link.orders

    link_world(body)


def test_a_new_journal_starts_a_new_view(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        maker.link.place(order("e-1"))
        await world.until(lambda: maker.kinds("e-1") == [CREATED])
        path = exchange.actor.journal.path
        await exchange.kill()
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()
        venue.orders.clear()
        exchange = await world.exchange()
        incarnation = exchange.actor.core.incarnation
        await world.until(lambda: maker.link.position.incarnation == incarnation)
        await world.until(lambda: maker.link.reachable and same_view(maker, exchange))
        assert maker.link.orders == {}
        maker.link.place(order("e-2"))
        await world.until(lambda: maker.kinds("e-2") == [CREATED])
        assert maker.link.position == StreamPosition(incarnation=incarnation, number=1)

    logs = link_world(body)
    assert "order events were lost" in [line["event"] for line in logs]


def test_balances_are_the_accounts(link_world):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        assert maker.link.balance("BTC") == Balance(total=Decimal(10), available=Decimal(10))
        assert maker.link.balance("NONE") == Balance(total=Decimal(0), available=Decimal(0))
        await world.until(lambda: venue.stream.readers and exchange.actor.balances.readers)
        changed = Balance(total=Decimal(7), available=Decimal(5))
        venue.balance["BTC"] = changed
        venue.stream.publish(VenueBalanceUpdate(balances={"BTC": changed}, venue_time_ns=world.clock.time_ns()))
        await world.until(lambda: maker.link.balance("BTC") == changed)
        assert maker.link.balance("USDT").total == 1_000_000

    link_world(body)


def test_balances_are_asked_for_again_after_a_restart(link_world):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        await exchange.kill()
        venue.balance = {"BTC": Balance(total=Decimal(3), available=Decimal(3))}
        await world.exchange()
        await world.until(lambda: maker.link.balance("BTC").total == 3)
        assert maker.link.balance("USDT").total == 0

    link_world(body)


def test_an_answer_after_the_events_changes_nothing(link_world, order):
    async def body(world, venue):
        exchange = await world.exchange()
        maker = await world.follow()
        on_message = exchange.actor.on_message
        release = asyncio.Event()

        async def later(answer):
            await release.wait()
            return answer

        def hold(caller, message):
            answer = on_message(caller, message)
            return later(answer) if isinstance(message, PlaceOrder) else answer

        exchange.actor.on_message = hold
        maker.link.place(order())
        await world.until(lambda: maker.kinds() == [CREATED])
        venue.trade("e-1", "1")
        await world.until(lambda: COMPLETED in maker.kinds())
        release.set()
        maker.link._answered("e-1", Accepted(client_order_id="e-1", state=OrderState.PENDING_CREATE))
        await asyncio.sleep(0.01)
        assert (maker.link.orders, maker.link._unanswered) == ({}, {})
        assert maker.kinds() == [CREATED, FILL, COMPLETED]

    link_world(body)


LIMITS = {
    "max_order_notional": "1000",
    "max_open_notional": "5000",
    "max_position": {"BTC-USDT": "50"},
    "duplicate_window_s": 60,
    "max_daily_loss": {"USDT": "1"},
}
BAD = {
    "below_the_least_size": ({"size": "0.00001"}, Reason.BELOW_MIN_SIZE, "min_size 0.0001"),
    "below_the_least_notional": ({"size": "0.01"}, Reason.BELOW_MIN_NOTIONAL, "min_notional 5"),
    "below_a_tick": ({"price": "0.001"}, Reason.INVALID_PRICE, "price above zero"),
    "off_the_tick": ({"price": "100.009"}, Reason.OFF_INCREMENT, "price_increment 0.01; 100.00 would be taken"),
    "off_the_step": ({"size": "1.00009"}, Reason.OFF_INCREMENT, "size_increment 0.0001; 1.0000 would be taken"),
    "unknown_pair": ({"pair": "ETH-USDT"}, Reason.UNKNOWN_PAIR, "no trading rule for ETH-USDT"),
    "size_nan": ({"size": "NaN"}, Reason.BELOW_MIN_SIZE, "NaN"),
    "size_snan": ({"size": "sNaN"}, Reason.BELOW_MIN_SIZE, "sNaN"),
    "size_infinite": ({"size": "Infinity"}, Reason.BELOW_MIN_SIZE, "Infinity"),
    "size_beyond_measure": ({"size": "1E+999"}, Reason.BELOW_MIN_SIZE, "1E+999"),
    "size_negative": ({"size": "-1"}, Reason.BELOW_MIN_SIZE, "-1"),
    "size_zero": ({"size": "0"}, Reason.BELOW_MIN_SIZE, "not above zero"),
    "price_nan": ({"price": "NaN"}, Reason.INVALID_PRICE, "NaN"),
    "price_negative": ({"price": "-100"}, Reason.INVALID_PRICE, "-100"),
    "price_zero": ({"price": "0"}, Reason.INVALID_PRICE, "price above zero"),
    "over_a_limit": ({"size": "11"}, Reason.ORDER_NOTIONAL, "1000"),
}


@pytest.mark.parametrize("limited", [False, True])
def test_an_order_that_makes_no_sense_is_refused_in_words_told_to_its_strategy_and_never_sent(
    link_world, order, limited
):
    async def body(world, venue):
        await world.exchange(risk=LIMITS if limited else {})
        maker = await world.follow()
        for name, (fields, reason, named) in BAD.items():
            if name == "over_a_limit" and not limited:
                continue
            client_order_id = f"e-{name.replace('_', '-')}"[:32]
            maker.link.place(order(client_order_id, **fields))
            await world.until(lambda made=client_order_id: maker.kinds(made))
            (told,) = [event for event in maker.events if event.order.client_order_id == client_order_id]
            assert (told.kind, told.order.reason) == (FAILED, reason), name
            assert named in told.order.detail, name
            assert client_order_id not in maker.link.orders
        assert venue.count("place") == 0
        maker.link.place(order("e-good", price="100.00"))
        await world.until(lambda: maker.kinds("e-good") == [CREATED])
        assert venue.asked("place") == ["e-good"]

    link_world(body)


def test_F34_a_refusal_by_a_rule_brings_the_present_rules(link_world, order):
    """The account learned new rules since the strategy was connected: it rounds by the old ones until it is refused."""

    async def body(world, venue):
        running = await world.exchange()
        maker = await world.follow()
        assert maker.link.rules == {world.pair: world.rule}
        coarse = msgspec.structs.replace(world.rule, price_increment=Decimal("0.1"))
        running.actor.core.rules = {world.pair: coarse}
        maker.link.place(order("e-1", price="100.01"))
        await world.until(lambda: maker.kinds() == [FAILED])
        await world.until(lambda: maker.link.rules == {world.pair: coarse})
        maker.link.place(order("e-2", price="100.1"))
        await world.until(lambda: maker.kinds("e-2") == [CREATED])
        # Who is refused over and over does not keep the account busy with that.
        running.actor.core.rules = {world.pair: world.rule}
        maker.link.place(order("e-3", price="100.01", size="0.00001"))
        await world.until(lambda: maker.kinds("e-3") == [FAILED])
        maker.link.place(order("e-4", price="100.01"))
        await world.until(lambda: maker.kinds("e-4") == [CREATED])
        assert maker.link.rules == {world.pair: coarse}

    link_world(body)
