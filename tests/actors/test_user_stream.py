"""The user-stream actor, fed with events of the test's making: no socket is opened."""

import asyncio
import inspect
from decimal import Decimal

import pytest

from engine.actors import user_stream as module
from engine.actors.user_stream import UserStreamActor
from engine.connectors.base import Send, UserDataProtocol, UserRefused, UserSubscribed, UserTerminated, VenueNotice
from engine.connectors.errors import MalformedFrame, RateLimited, TransportError
from engine.connectors.reconnecting import ReconnectingWebSocket
from engine.messages import (
    Balance,
    NetworkStatus,
    OrderState,
    OrderType,
    Side,
    UserStreamState,
    VenueBalanceUpdate,
    VenueOrderUpdate,
)

NAME = "user_stream.box.main"


class Socket:
    """What would hold the connection. The test opens it, closes it, and hands frames on."""

    made: list = []  # noqa: RUF012 - of one test

    def __init__(self, plan, handler, *, options=None, silence_s=0.0, keepalive=None, on_failed=None, **more):
        self.plan, self.handler, self.on_failed = plan, handler, on_failed
        self.silence_s, self.keepalive = silence_s, keepalive
        self.options = options
        self.is_open = self.started = self.closed = False
        self.connects = 0
        self.sent, self.restarts, self.openings = [], [], []
        self.made.append(self)

    def start(self):
        self.started = True

    async def open(self):
        plan = await self.plan()
        self.openings.append((plan.url, plan.opening))
        self.is_open = True
        self.connects += 1
        self.handler.on_open()

    def frame(self, data=b"frame"):
        self.handler.on_frame(data, 1)

    def cut(self, reason="cut"):
        self.is_open = False
        self.handler.on_close(reason)

    def send(self, text):
        self.sent.append(text)

    def restart(self, reason):
        self.restarts.append(reason)

    async def close(self):
        self.closed = True
        if self.is_open:
            self.cut("closed by us")


class Protocol(UserDataProtocol):
    """A subscription whose frames mean what the test put into ``events``."""

    silence_after_s = 17.0
    keepalive = (5.0, "ping")
    events: object = ()
    made = 0

    def __init__(self):
        type(self).made += 1
        self.number = type(self).made

    @property
    def url(self):
        return f"wss://user/{self.number}"

    def opening(self, now_ms):
        return [f"subscribe at {now_ms}"]

    def feed(self, data):
        if isinstance(Protocol.events, Exception):
            raise Protocol.events
        return Protocol.events


ORDER = VenueOrderUpdate(
    client_order_id="e-1",
    exchange_order_id="1",
    pair="BTC-USDT",
    side=Side.BUY,
    order_type=OrderType.LIMIT,
    size=Decimal("0.10"),
    price=Decimal(100),
    state=OrderState.OPEN,
    filled=Decimal(0),
    venue_time_ns=5,
)
BALANCES = VenueBalanceUpdate(balances={"BTC": Balance(total=Decimal(1), available=Decimal(1))}, venue_time_ns=6)


@pytest.fixture
def stream_world(run, fakes, monkeypatch):
    """``stream_world(body)``: ``await body(world, running, socket, heard)`` with a listener to the events."""

    def go(body):
        monkeypatch.setattr(Protocol, "made", 0)
        monkeypatch.setattr(Protocol, "events", ())
        monkeypatch.setattr(Socket, "made", [])
        monkeypatch.setattr(module, "ReconnectingWebSocket", Socket)

        async def main(world):
            venue = world.venue = fakes.venue(world.clock)
            client = world.client = fakes.client(venue)
            connector = fakes.connector(client=client, user_data=Protocol)
            monkeypatch.setattr(module, "connector_of", lambda params: connector)
            running = await world.start(UserStreamActor, NAME, connector="box")
            heard = []
            exchange = await world.bus("exchange.box.main")
            exchange.subscribe(NAME, "events", lambda message, number: heard.append(message))
            await world.until(lambda: running.actor.events.readers)
            await body(world, running, Socket.made[0], heard)

        return run(main)

    return go


def feed(socket, *events):
    Protocol.events = events
    socket.frame()


def test_each_connection_has_a_fresh_protocol_and_a_fresh_signature(stream_world):
    async def body(world, running, socket, heard):
        assert socket.started
        for number in (1, 2):
            before = world.venue.time.now_ms()
            await socket.open()
            url, (opening,) = socket.openings[-1]
            assert url.startswith("wss://user/")
            assert int(opening.rpartition(" ")[2]) >= before
            assert len({url for url, _ in socket.openings}) == number
            socket.cut()
        assert world.venue.count("start") == 2

    stream_world(body)


def test_a_plan_that_cannot_be_made_is_an_error_of_the_attempt(stream_world):
    async def body(world, running, socket, heard):
        world.venue.next("start", before=TransportError("no route", sent=False))
        with pytest.raises(TransportError):
            await socket.open()
        socket.on_failed("no route", 0.1)
        assert running.actor.metrics.network is NetworkStatus.DOWN
        assert running.actor.metrics.counters["connect_failures"] == 1

    stream_world(body)


def test_events_are_passed_on_in_their_order(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserSubscribed())
        feed(socket, ORDER, BALANCES)
        feed(socket, ORDER)
        await world.until(lambda: len(heard) == 4)
        assert heard[1:] == [ORDER, BALANCES, ORDER]
        assert running.actor.metrics.counters["events"] == 3

    stream_world(body)


def test_a_subscription_that_comes_and_goes_is_told_each_time(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        assert heard == []
        feed(socket, UserSubscribed())
        socket.cut("the venue closed the connection")
        await socket.open()
        feed(socket, UserSubscribed())
        await world.until(lambda: len(heard) == 3)
        assert [state.connected for state in heard] == [True, False, True]
        assert heard[0].session == heard[1].session < heard[2].session
        assert heard[1].detail == "the venue closed the connection"

    logs = stream_world(body)
    assert "user stream closed" in [line["event"] for line in logs]


def test_sessions_grow_over_restarts(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserSubscribed())
        await world.until(lambda: heard)
        await running.kill()
        second = await world.start(UserStreamActor, NAME, connector="box")
        await world.until(lambda: second.actor.events.readers)
        await Socket.made[1].open()
        feed(Socket.made[1], UserSubscribed())
        await world.until(lambda: len(heard) == 2)
        assert heard[0].session < heard[1].session

    stream_world(body)


def test_the_state_is_repeated_with_every_tick(stream_world):
    async def body(world, running, socket, heard):
        tick, stream = await world.clock_stream()
        await world.until(lambda: stream.readers)
        tick(1)
        await world.until(lambda: len(heard) == 1)
        await socket.open()
        feed(socket, UserSubscribed())
        await world.until(lambda: len(heard) == 2)
        tick(2)
        await world.until(lambda: len(heard) == 3)
        assert [state.connected for state in heard] == [False, True, True]
        assert heard[1] == heard[2] == UserStreamState(connected=True, session=running.actor.session)

    stream_world(body)


@pytest.mark.parametrize("clock", [True, False])
def test_a_refused_subscription_is_tried_again(stream_world, clock):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserRefused("timestamp", retryable=True, clock=clock))
        assert len(socket.restarts) == 1
        assert world.venue.time.forgotten == (1 if clock else 0)
        assert not running.actor.subscribed

    stream_world(body)


def test_a_subscription_without_an_answer_is_asked_for_on_another_connection(stream_world, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.02)

    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket)
        await world.until(lambda: socket.restarts)
        await asyncio.sleep(0.04)
        assert socket.restarts == ["no answer to the subscription"]
        socket.cut(socket.restarts[0])
        await socket.open()
        await world.until(lambda: len(socket.restarts) == 2)
        assert not running.actor.subscribed

    logs = stream_world(body)
    told = [line for line in logs if line["event"] == "the venue does not answer the subscription"]
    assert [line["log_level"] for line in told] == ["warning"] * 2


def test_a_subscription_that_was_answered_or_whose_connection_is_gone_is_not_waited_for(stream_world, monkeypatch):
    async def body(world, running, socket, heard):
        await socket.open()
        socket.cut()
        await socket.open()
        await asyncio.sleep(0)
        monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0)
        await running.actor._expect_answer(1)
        assert socket.restarts == [], "of the connection before"
        feed(socket, UserSubscribed())
        await running.actor._expect_answer(2)
        socket.cut()
        await running.actor._expect_answer(2)
        assert socket.restarts == []

    stream_world(body)


def test_a_connection_without_an_answer_does_not_count_as_stable():
    stable_s = inspect.signature(ReconnectingWebSocket).parameters["stable_s"].default
    assert stable_s / 2 < module.ANSWER_WITHIN_S < stable_s


def test_a_silence_that_the_venue_asks_for_holds_for_all_and_for_the_next_connection(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserRefused("Way too many requests", retryable=True, silence_s=120.0))
        assert (world.client.silences, len(socket.restarts)) == ([120.0], 1)
        world.venue.next("admit_stream", before=RateLimited("local", "silence", 120.0, local=True))
        with pytest.raises(RateLimited):
            await socket.open()
        assert len(socket.openings) == 1

    stream_world(body)


def test_a_subscription_that_the_venue_ends_is_opened_anew(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserSubscribed())
        feed(socket, UserTerminated("expired"))
        assert "expired" in socket.restarts[0]

    stream_world(body)


def test_what_the_venue_asks_for_is_sent_and_its_notices_are_told(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, Send("pong"), VenueNotice("1", "hello"))
        assert (socket.sent, socket.restarts) == (["pong"], [])
        feed(socket, VenueNotice("2", "leaving soon", reconnect=True))
        assert socket.restarts == ["leaving soon"]

    logs = stream_world(body)
    assert [line["text"] for line in logs if line["event"] == "the venue says"] == ["hello", "leaving soon"]


def test_after_a_frame_that_cannot_be_read_the_subscription_starts_over(stream_world):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserSubscribed())
        Protocol.events = MalformedFrame("what?", b"frame")
        socket.frame()
        assert len(socket.restarts) == 1
        assert running.actor.metrics.counters["unparsed"] == 1
        assert not running.ended

    stream_world(body)


@pytest.mark.parametrize("how", ["stop", "dead man"])
def test_the_end_closes_silently(stream_world, how):
    async def body(world, running, socket, heard):
        await socket.open()
        feed(socket, UserSubscribed())
        await world.until(lambda: heard)
        if how == "stop":
            assert await running.stop() == 0
        else:
            running.host.supervisor_died()
            assert await running.code() == 0
        assert (socket.closed, world.client.closed) == (True, 1)
        assert len(heard) == 1

    logs = stream_world(body)
    assert "user stream closed" not in [line["event"] for line in logs]


def test_a_quiet_connection_is_asked_for_a_sign_of_life(stream_world):
    async def body(world, running, socket, heard):
        assert socket.options.ping_every_s > 0

    stream_world(body)


def test_a_private_stream_is_kept_alive_and_cut_when_silent_as_its_venue_wants(stream_world):
    async def body(world, running, socket, heard):
        assert (socket.silence_s, socket.keepalive) == (17.0, (5.0, "ping"))

    stream_world(body)
