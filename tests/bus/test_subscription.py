"""What a subscriber is told when its publisher dies, returns, or leaves something out."""

import asyncio

import pytest

from engine.bus import Caller, Down, Gap, Limits, Overload, PeerEvent, Up
from engine.bus.subscription import Subscription
from engine.bus.wire import Event, Head, Probe, SetKeys, Skipped, Subscribe, Subscribed, encode_body
from engine.messages import OrderFate, StreamPosition


def test_a_subscriber_waits_for_its_publisher_and_knows_its_death_at_once(run, recorder, line):
    async def body(world):
        sub = await world.bus("sub")
        got, peers = recorder(), []
        sub.on_peer(peers.append)
        subscription = sub.subscribe("pub", "s", got.event, on_state=got.state)
        assert subscription.position is None
        assert not subscription.is_up
        pub = await world.bus("pub", 5)
        pub.open_stream("s", overload=Overload.SKIP)
        await got.until(lambda: got.of(Up))
        assert subscription.is_up
        await pub.close()
        await got.until(lambda: got.of(Down))
        assert peers == [PeerEvent("pub", 5, True), PeerEvent("pub", 5, False)]

    run(body)


def test_the_publisher_knows_the_death_of_its_reader_at_once(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub", 8)
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got, peers = recorder(), recorder()
        pub.on_peer(peers.append)
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        await got.until(lambda: got.of(Up))
        await sub.close()
        await peers.until(lambda: len(peers.events) == 2)
        assert peers.events[-1] == PeerEvent("sub", 8, False)
        assert stream.readers == 0

    run(body)


def test_links_both_ways_are_one_peer(run, turns_until):
    async def body(world):
        one, two = await world.bus("one", 1), await world.bus("two", 2)
        events = []
        one.on_peer(events.append)
        for bus in (one, two):
            bus.serve(lambda caller, message: message)
        ask = OrderFate(client_order_id="x")
        await one.request("two", ask)
        await two.request("one", ask)
        await two.close()
        await turns_until(lambda: one.peer_incarnation("two") is None)
        assert events == [PeerEvent("two", 2, True), PeerEvent("two", 2, False)]

    run(body)


def test_a_publisher_that_returns_is_read_on_under_its_new_incarnation(run, recorder, line):
    async def body(world):
        sub, pub = await world.bus("sub"), await world.bus("pub", 1)
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got = recorder()
        subscription = sub.subscribe("pub", "s", got.event, on_state=got.state, keys=None)
        await got.until(lambda: got.of(Up))
        stream.publish(line(1))
        stream.publish(line(2))
        await got.until(lambda: got.numbers == [1, 2])
        await pub.close()
        again = await world.bus("pub", 2, start=False)
        stream = again.open_stream("s", overload=Overload.SKIP)
        stream.publish(line(3))
        await again.start()
        await got.until(lambda: len(got.of(Up)) == 2)
        assert got.of(Up)[1] == Up(StreamPosition(incarnation=2, number=1), None, (1, 1), True)
        stream.publish(line(4))
        await got.until(lambda: len(got.events) == 3)
        assert got.events[2] == (2, line(4))
        assert subscription.position == StreamPosition(incarnation=2, number=2)
        assert not got.of(Gap)

    run(body)


def test_a_stream_with_history_is_read_on_without_loss_through_its_publishers_deaths(run, recorder, line, history):
    async def body(world):
        sub = await world.bus("sub")
        kept, got = history(), recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state, position=StreamPosition(incarnation=77, number=0))
        for incarnation in range(1, 6):
            pub = await world.bus("pub", incarnation, start=False)
            stream = pub.open_stream("s", overload=Overload.CLOSE, history=kept, incarnation=77)
            await pub.start()
            for turn in range(20):
                number = kept.append(encode_body(line(kept.last() + 1)))
                stream.publish(line(number), number=number)
                if turn % 7 == incarnation:
                    await asyncio.sleep(0)
            if incarnation % 2:
                await got.until(lambda: len(got.of(Up)) > len(got.of(Down)))
            await pub.close()
        pub = await world.bus("pub", 6, start=False)
        pub.open_stream("s", overload=Overload.CLOSE, history=kept, incarnation=77)
        await pub.start()
        await got.until(lambda: len(got.events) >= 100)
        assert got.events == [(number, line(number)) for number in range(1, 101)]
        assert not any(up.incarnation_changed or up.missed for up in got.of(Up))

    run(body)


def test_a_handler_that_fails_is_logged_and_the_next_event_still_comes(run, recorder, line):
    async def body(world):
        sub, pub = await world.bus("sub"), await world.bus("pub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got = recorder()

        def fails(message, number):
            got.event(message, number)
            raise KeyError(number)

        def state_fails(state):
            got.state(state)
            raise KeyError(state)

        sub.subscribe("pub", "s", fails, on_state=state_fails)
        await got.until(lambda: got.of(Up))
        stream.publish(line(1))
        stream.publish(line(2))
        await got.until(lambda: got.numbers == [1, 2])
        assert sub.stats()["handler_errors"] == 3

    logs = run(body)
    assert sum(entry["event"] == "event_handler_failed" for entry in logs) == 2


def test_a_subscription_may_be_closed_by_its_own_handler(run, recorder, line):
    async def body(world):
        sub, pub = await world.bus("sub"), await world.bus("pub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        once, all_of_it = recorder(), recorder()

        def handler(message, number):
            once.event(message, number)
            first.close()
            first.close()
            first.set_keys({"a"})

        first = sub.subscribe("pub", "s", handler, on_state=once.state)
        sub.subscribe("pub", "s", all_of_it.event, on_state=all_of_it.state)
        await all_of_it.until(lambda: all_of_it.of(Up))
        for number in range(1, 4):
            stream.publish(line(number))
        await all_of_it.until(lambda: all_of_it.numbers == [1, 2, 3])
        assert once.numbers == [1]

    run(body)


def test_many_subscriptions_share_one_connection(run, recorder, line):
    async def body(world):
        sub, pub = await world.bus("sub"), await world.bus("pub")
        got = recorder()
        for name in "abc":
            pub.open_stream(name, overload=Overload.SKIP)
            sub.subscribe("pub", name, got.event, on_state=got.state)
        pub.serve(lambda caller, message: message)
        assert await sub.request("pub", OrderFate(client_order_id="x"))
        await got.until(lambda: len(got.of(Up)) == 3)
        assert sub.stats()["connects"] == 1

    run(body)


def test_an_engine_that_is_not_ours_is_told_as_down_once(run, recorder, turns_until):
    async def body(world):
        sub, pub = await world.bus("sub", engine_id="red"), await world.bus("pub", engine_id="blue")
        got = recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        await turns_until(lambda: sub.stats()["mismatched"] > 2)
        assert len(got.of(Down)) == 1
        assert pub.peer_incarnation("sub") is None

    run(body)


def test_the_caller_is_named_by_its_hello():
    assert Caller("a", 1) == Caller("a", 1, None, None)


# ------------------------------------------------------------------------------ the reader's end, with no link


@pytest.fixture
def alone(recorder, run_memory):
    """``alone(body, contiguous, keys)``: a subscription whose frames the test makes itself."""

    def go(body, contiguous=True, keys=None):
        async def inner(world):
            bus = await world.bus("sub", limits=Limits())
            got, sent = recorder(), []
            subscription = Subscription(
                bus._context,
                sent.append,
                lambda _: None,
                id=1,
                peer="pub",
                stream="s",
                handler=got.event,
                keys=keys,
                position=None,
                on_state=got.state,
            )
            subscription.request()
            subscription.started(Subscribed(1, 5, 10, contiguous))
            body(subscription, got, sent)

        run_memory(inner)

    return go


def test_a_number_left_out_is_a_gap_and_one_repeated_is_dropped(alone, line):
    def body(subscription, got, sent):
        for number in (11, 13, 13, 12, 14):
            subscription.event(Event(1, number, encode_body(line(number))))
        assert got.numbers == [11, 13, 14]
        assert got.of(Gap) == [Gap(12, 12)]

    alone(body)


@pytest.mark.parametrize(("contiguous", "keys"), [(False, None), (True, {"a"})])
def test_merged_and_filtered_streams_may_leave_numbers_out(alone, line, contiguous, keys):
    def body(subscription, got, sent):
        for number in (11, 13):
            subscription.event(Event(1, number, encode_body(line(number))))
        subscription.head(Head(1, 20))
        assert got.numbers == [11, 13]
        assert not got.of(Gap)
        assert subscription.position == StreamPosition(incarnation=5, number=20)

    alone(body, contiguous, keys)


def test_what_the_publisher_skipped_is_a_gap(alone, line):
    def body(subscription, got, sent):
        subscription.skipped(Skipped(1, 11, 15))
        subscription.event(Event(1, 16, encode_body(line(16))))
        assert got.of(Gap) == [Gap(11, 15)]
        assert got.numbers == [16]

    alone(body)


def test_a_lost_tail_is_asked_after_and_told(alone):
    def body(subscription, got, sent):
        assert subscription.check(StreamPosition(incarnation=5, number=10))
        assert subscription.check(StreamPosition(incarnation=4, number=99))
        assert not subscription.check(StreamPosition(incarnation=6, number=1))
        assert not subscription.check(StreamPosition(incarnation=5, number=12))
        assert not subscription.check(StreamPosition(incarnation=5, number=12))
        assert sent == [Probe(1)]
        subscription.head(Head(1, 12))
        assert got.of(Gap) == [Gap(11, 12)]
        assert subscription.check(StreamPosition(incarnation=5, number=12))
        subscription.down("gone")
        assert not subscription.check(StreamPosition(incarnation=5, number=12))

    alone(body)


def test_until_the_publisher_knows_of_new_keys_nothing_counts_as_lost(alone, line):
    def body(subscription, got, sent):
        subscription.set_keys(None)
        assert sent == [SetKeys(1, None)]
        subscription.event(Event(1, 13, encode_body(line(13))))
        subscription.head(Head(1, 15))
        assert not got.of(Gap)
        subscription.event(Event(1, 17, encode_body(line(17))))
        assert got.of(Gap) == [Gap(16, 16)]

    alone(body, keys={"a"})


def test_it_asks_to_go_on_after_the_last_event_seen(alone, line):
    def body(subscription, got, sent):
        subscription.event(Event(1, 11, encode_body(line(11))))
        assert subscription.request() == Subscribe(1, "s", None, 5, 11)

    alone(body)


def test_an_event_of_an_unknown_type_is_counted_and_passed_over(alone, line):
    def body(subscription, got, sent):
        subscription.event(Event(1, 11, b"\x81\xa4type\xa5Later"))
        subscription.event(Event(1, 12, encode_body(line(12))))
        assert got.numbers == [12]
        assert subscription._stats.unknown_bodies == 1

    alone(body)
