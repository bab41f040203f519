"""A venue that does what it is told, and the connector to it."""

from decimal import Decimal
from itertools import count

from engine.connectors.base import Dated, ExchangeClient, PlaceResult, VenueFill
from engine.connectors.errors import OrderNotFound
from engine.connectors.settings import ConnectorSettings
from engine.messages import (
    Balance,
    FeeSchema,
    Fill,
    OrderState,
    UserStreamState,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)
from tests.actors.world import PAIR, RULE


class FakeTime:
    """The venue's clock as it is believed to be: ours, and how far it is ahead."""

    def __init__(self, clock):
        self._clock = clock
        self.forgotten = 0
        self.lead_ns = 0

    def now_ns(self):
        return self._clock.time_ns() + self.lead_ns

    def at(self, mono_ns):
        return self.now_ns() - (self._clock.monotonic_ns() - mono_ns)

    def now_ms(self):
        return self.now_ns() // 1_000_000

    def forget(self):
        self.forgotten += 1


class FakeVenue:
    """A venue with one account. ``script[call]`` holds what is to come of the next calls: an error to raise
    (``before`` it is carried out or ``after``), or an event to wait for first.
    """

    def __init__(self, clock):
        self.clock = clock
        self.time = FakeTime(clock)
        self.orders = {}
        self.fill_list = []
        self.balance = {
            "BTC": Balance(total=Decimal(10), available=Decimal(10)),
            "USDT": Balance(total=Decimal(1_000_000), available=Decimal(1_000_000)),
        }
        self.pairs = (PAIR,)
        self.rules = {PAIR: RULE}
        self.fees = {}
        self.calls = []
        self.script = {}
        self.stream = None
        self.session = 0
        self._ids = count(1)

    # what tests do

    def next(self, call, *, before=None, after=None, wait=None, forever=False):
        self.script.setdefault(call, []).append((before, after, wait, forever))

    def count(self, call):
        return sum(name == call for name, _ in self.calls)

    def asked(self, call):
        return [about for name, about in self.calls if name == call]

    async def open_stream(self, world, name="user_stream.box.main"):
        self.stream_bus, self.stream = await world.publisher(name, "events", queue=1000)
        self.subscribed()

    def subscribed(self):
        self.session += 1
        self.stream.publish(UserStreamState(connected=True, session=self.session))

    def unsubscribed(self):
        self.stream.publish(UserStreamState(connected=False, session=self.session))

    def trade(self, client_order_id, size, *, told=True, price=None, fee="0.01 USDT", time_ns=None):
        """An execution; told on the stream or not."""
        commission, fee_asset = fee.split()
        order = self.orders[client_order_id]
        trade = Fill(
            trade_id=str(next(self._ids)),
            price=order.price if price is None else Decimal(price),
            size=Decimal(size),
            fee=Decimal(commission),
            fee_asset=fee_asset,
            is_maker=True,
            time_ns=self.clock.time_ns() if time_ns is None else time_ns,
        )
        filled = order.filled + trade.size
        state = OrderState.FILLED if filled == order.size else OrderState.PARTIALLY_FILLED
        self.fill_list.append(
            VenueFill(
                pair=order.pair,
                side=order.side,
                exchange_order_id=order.exchange_order_id,
                fill=trade,
                client_order_id=client_order_id,
            )
        )
        update = self._change(client_order_id, state=state, filled=filled)
        if told:
            self.tell(update, fill=trade)
        return trade

    def end(self, client_order_id, state=OrderState.CANCELLED, *, told=True):
        update = self._change(client_order_id, state=state)
        if told:
            self.tell(update)

    def tell(self, update, fill=None):
        self.stream.publish(VenueOrderUpdate(**{**_fields(update), "fill": fill}))

    @property
    def open(self):
        return [order for order in self.orders.values() if not order.state.is_final]

    def _change(self, client_order_id, **changes):
        order = self.orders[client_order_id]
        fields = {**_fields(order), **changes, "venue_time_ns": self.clock.time_ns()}
        self.orders[client_order_id] = VenueOrderUpdate(**fields)
        return self.orders[client_order_id]

    async def call(self, name, about, work):
        self.calls.append((name, about))
        queue = self.script.get(name)
        before, after, wait, forever = queue[0] if queue else (None, None, None, False)
        if queue and not forever:
            queue.pop(0)
        if wait is not None:
            await wait.wait()
        if before is not None:
            raise before
        found = work()
        if after is not None:
            raise after
        return found

    def dated(self, value, requested_ns):
        return Dated(
            value=value, requested_ns=requested_ns, requested_mono_ns=self.clock.monotonic_ns(), venue_ns=requested_ns
        )

    # what the exchange's client does with it

    def take(self, order):
        assert order.client_order_id not in self.orders, "the venue was given an id twice"
        update = VenueOrderUpdate(
            client_order_id=order.client_order_id,
            exchange_order_id=f"x{order.client_order_id}",
            pair=order.pair,
            side=order.side,
            order_type=order.order_type,
            size=order.size,
            price=order.price,
            state=OrderState.OPEN,
            filled=Decimal(0),
            venue_time_ns=self.clock.time_ns(),
        )
        self.orders[order.client_order_id] = update
        return update

    def find(self, client_order_id):
        if client_order_id not in self.orders:
            raise OrderNotFound(-2013, "no such order")
        return self.orders[client_order_id]

    def remove(self, client_order_id):
        if self.find(client_order_id).state.is_final:
            raise OrderNotFound(-2011, "unknown order")
        return self._change(client_order_id, state=OrderState.CANCELLED)


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


class FakeClient(ExchangeClient):
    """The exchange's client at the fake venue."""

    horizon_ns = 5_000_000_000

    def __init__(self, venue):
        self.venue = venue
        self.time = venue.time
        self.closed = 0
        self.silences = []

    @property
    def acceptance_horizon_ns(self):
        return self.horizon_ns

    async def start(self):
        await self.venue.call("start", None, lambda: None)

    async def close(self):
        self.closed += 1

    async def server_time_ms(self):
        return self.time.now_ms()

    async def admit_stream(self):
        await self.venue.call("admit_stream", None, lambda: None)

    def silence(self, seconds):
        self.silences.append(seconds)

    async def trading_rules(self, pairs=None):
        return await self.venue.call("rules", pairs, lambda: dict(self.venue.rules))

    async def fetch(self, request):
        return await self.venue.call("fetch", request, lambda: b"")

    async def place(self, order, on_sent, send_by_mono_ns=None):
        requested = self.time.now_ns()

        def work():
            on_sent(self.venue.clock.monotonic_ns())
            return self.venue.take(order)

        update = await self.venue.call("place", order.client_order_id, work)
        return PlaceResult(update=update, requested_ns=requested, requested_mono_ns=0, venue_ns=requested)

    async def cancel(self, order):
        requested, name = self.time.now_ns(), order.client_order_id
        return self.venue.dated(await self.venue.call("cancel", name, lambda: self.venue.remove(name)), requested)

    async def fee_rates(self, pairs):
        return await self.venue.call("fees", pairs, lambda: dict(self.venue.fees))

    async def cancel_pair(self, pair):
        raise AssertionError("the engine cancels by id")

    async def query(self, order):
        requested, client_order_id = self.time.now_ns(), order.client_order_id
        found = await self.venue.call("query", client_order_id, lambda: self.venue.find(client_order_id))
        return self.venue.dated(found, requested)

    async def open_orders(self, pairs=None):
        requested = self.time.now_ns()
        return self.venue.dated(await self.venue.call("open_orders", pairs, lambda: self.venue.open), requested)

    async def fills(self, pair, since_ns=0, from_trade_id=None, exchange_order_id=None):
        requested = self.time.now_ns()

        def work():
            return [
                fill
                for fill in self.venue.fill_list
                if fill.pair == pair
                and fill.fill.time_ns >= since_ns
                and exchange_order_id in (None, fill.exchange_order_id)
            ]

        return self.venue.dated(await self.venue.call("fills", pair, work), requested)

    async def balances(self):
        requested = self.time.now_ns()

        def work():
            return VenueBalanceUpdate(balances=dict(self.venue.balance), venue_time_ns=0)

        return self.venue.dated(await self.venue.call("balances", None, work), requested)


class FakeConnector:
    """A connector whose parts are the test's."""

    fees = FeeSchema()
    real_time_balances = True

    def __init__(self, *, client=None, market_data=None, user_data=None, pairs=(PAIR,)):
        self.settings = ConnectorSettings(connector="box", venue="fake", pairs=tuple(pairs))
        self.name = "box"
        self._client, self._market_data, self._user_data = client, market_data, user_data

    def market_data(self):
        return self._market_data

    def user_data(self):
        return self._user_data()

    def books(self, clock):
        return self._client

    def public(self, clock):
        return self._client

    def exchange(self, clock):
        return self._client
