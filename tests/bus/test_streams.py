"""Streams and what becomes of slow readers, on both buses."""

import asyncio

import pytest

from engine.bus import Down, Gap, Limits, Overload, Up
from engine.bus.wire import encode_body
from engine.errors import BusError
from engine.messages import StreamPosition


async def reader(bus, record, stream="s", **options):
    record = record()
    record.subscription = bus.subscribe("pub", stream, record.event, on_state=record.state, **options)
    await record.until(lambda: record.of(Up))
    return record


async def pub_hears(pub, *names):
    """Until these have asked for something that is not there yet."""
    while {session._caller.name for session in pub._server.sessions if session._awaited} != set(names):  # noqa: ASYNC110
        await asyncio.sleep(0)


async def publish_until(stream, condition, make, key=None):
    """Publish until the condition holds, without letting the reader's end of the loop run dry."""
    while not condition():
        stream.publish(make(stream.last + 1, 500), key=key)
        if stream.last % 10 == 0:
            await asyncio.sleep(0)
        assert stream.last < 100_000


def test_events_arrive_numbered_and_in_order(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub", 7), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        stream.publish(line(1))
        got = await reader(sub, recorder)
        assert got.states == [Up(StreamPosition(incarnation=7, number=1), None, None, False)]
        for number in range(2, 50):
            assert stream.publish(line(number)) == number
        await got.until(lambda: len(got.events) == 48)
        assert got.events == [(number, line(number)) for number in range(2, 50)]
        assert pub.positions() == {"s": StreamPosition(incarnation=7, number=49)}
        assert got.subscription.position == stream.position
        assert got.subscription.check(stream.position)

    run(body)


def test_the_first_reader_and_the_end_of_the_last_are_told(run, recorder):
    async def body(world):
        pub, one, two = await world.bus("pub"), await world.bus("one"), await world.bus("two")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        told, news = [], asyncio.Event()

        def readers():
            told.append(stream.readers)
            news.set()

        stream.on_readers = readers
        first, second = await reader(one, recorder), await reader(two, recorder)
        assert told == [1]
        first.subscription.close()
        news.clear()
        second.subscription.close()
        await news.wait()
        assert told == [1, 0]
        await reader(one, recorder)
        news.clear()
        await one.close()
        await news.wait()
        assert told == [1, 0, 1, 0]

    run(body)


def test_all_subscribers_get_the_same_event_and_a_closed_one_gets_none(run, recorder, line):
    async def body(world):
        pub, one, two = await world.bus("pub"), await world.bus("one"), await world.bus("two")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        first, second = await reader(one, recorder), await reader(two, recorder)
        third = await reader(two, recorder)
        assert stream.readers == 3
        third.subscription.close()
        stream.publish(line(1))
        await first.until(lambda: first.events)
        await second.until(lambda: second.events)
        stream.publish(line(2))
        await second.until(lambda: len(second.events) == 2)
        assert third.events == []
        assert stream.readers == 2

    run(body)


def test_a_stream_opened_after_its_subscribers_came_is_served_to_them(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        got = recorder()
        subscription = sub.subscribe("pub", "s", got.event, on_state=got.state, keys={"a"})
        other = await reader_of_open_stream(pub, sub)
        subscription.set_keys(None)
        await other()
        stream = pub.open_stream("s", overload=Overload.SKIP)
        await got.until(lambda: got.of(Up))
        stream.publish(line(1), key="b")
        await got.until(lambda: got.events)

    async def reader_of_open_stream(pub, sub):
        mark = pub.open_stream("mark", overload=Overload.SKIP)
        seen = recorder()
        sub.subscribe("pub", "mark", seen.event, on_state=seen.state)
        await seen.until(lambda: seen.of(Up))

        async def round_trip():
            mark.publish(line(1))
            await seen.until(lambda: seen.events)

        return round_trip

    run(body)


def test_a_closed_stream_is_told_and_may_open_again(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        with pytest.raises(ValueError, match="already open"):
            pub.open_stream("s", overload=Overload.SKIP)
        got = await reader(sub, recorder)
        pub.close_stream(stream)
        await got.until(lambda: got.of(Down))
        assert pub.positions() == {}
        again = pub.open_stream("s", overload=Overload.SKIP)
        await got.until(lambda: len(got.of(Up)) == 2)
        again.publish(line(1))
        await got.until(lambda: got.events)

    run(body)


def test_keys_are_filtered_at_the_publisher(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got = await reader(sub, recorder, keys={"a", "b"})
        for key in ("a", "c", "b", None, "c"):
            stream.publish(line(0), key=key)
        await got.until(lambda: len(got.events) == 3)
        assert got.numbers == [1, 3, 4]
        assert sub.stats()["frames_in"] == 1 + 1 + 3
        assert not got.of(Gap)

    run(body)


def test_keys_may_change_and_nothing_filtered_counts_as_lost(run, recorder, line, turns_until):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got = await reader(sub, recorder, keys={"a"})
        stream.publish(line(1), key="b")
        assert not got.subscription.check(stream.position)
        got.subscription.set_keys(None)
        stream.publish(line(2), key="b")
        await turns_until(lambda: got.subscription.position == stream.position)
        assert got.subscription.check(stream.position)
        stream.publish(line(3), key="b")
        await got.until(lambda: got.events)
        assert got.numbers == [3]
        assert not got.of(Gap)

    run(body)


def test_a_slow_reader_gets_the_newest_of_each_key(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.MERGE, queue=10)
        got = await reader(sub, recorder)
        world.stall(sub)
        await publish_until(stream, lambda: pub.stats()["merged"] > 20, line, key="a")
        last_b = stream.publish(line(stream.last + 1), key="b")
        last_a = stream.publish(line(stream.last + 1), key="a")
        world.resume(sub)
        await got.until(lambda: got.numbers[-1:] == [last_a])
        assert got.numbers[-2] == last_b
        assert got.numbers == sorted(set(got.numbers))
        assert not got.of(Gap)
        assert got.subscription.check(stream.position)

    run(body)


def test_merged_keys_are_bounded(run_memory, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.MERGE, queue=10)
        got = await reader(sub, recorder)
        world.stall(sub)
        for number in range(1, 200):
            stream.publish(line(number, 500), key=str(number))
        world.resume(sub)
        await got.until(lambda: got.numbers[-1:] == [199])
        assert got.numbers[-10:] == list(range(190, 200))

    run_memory(body)


def test_a_slow_reader_is_told_what_was_skipped(run, recorder, line):
    async def body(world):
        pub, sub, quick = await world.bus("pub"), await world.bus("sub"), await world.bus("quick")
        stream = pub.open_stream("s", overload=Overload.SKIP, queue=10)
        got, other = await reader(sub, recorder), await reader(quick, recorder)
        world.stall(sub)
        await publish_until(stream, lambda: pub.stats()["skipped"] > 20, line)
        world.resume(sub)
        await got.until(lambda: got.numbers[-1:] == [stream.last])
        (gap,) = got.of(Gap)
        assert got.numbers[-10:] == list(range(stream.last - 9, stream.last + 1))
        assert gap.to == stream.last - 10
        assert gap.to - gap.from_ + 1 == pub.stats()["skipped"]
        assert got.numbers == [*range(1, gap.from_), *range(gap.to + 1, stream.last + 1)]
        await other.until(lambda: other.numbers[-1:] == [stream.last])
        assert other.numbers == list(range(1, stream.last + 1))

    run(body)


def test_a_slow_reader_is_closed_and_replays_from_history(run, recorder, line, history):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        kept = history()
        stream = pub.open_stream("s", overload=Overload.CLOSE, queue=10, history=kept, incarnation=3)
        got = await reader(sub, recorder)
        world.stall(sub)
        while not pub.stats()["closed_slow_readers"]:
            number = kept.append(encode_body(line(kept.last() + 1, 500)))
            stream.publish(line(number, 500), number=number)
            await asyncio.sleep(0)
        for _ in range(5):
            number = kept.append(encode_body(line(kept.last() + 1, 500)))
            stream.publish(line(number, 500), number=number)
        world.resume(sub)
        await got.until(lambda: got.numbers[-1:] == [stream.last])
        assert got.numbers == list(range(1, stream.last + 1))
        assert got.of(Down)
        assert not got.of(Gap)
        assert pub.stats()["closed_slow_readers"] == 1

    run(body)


def test_replay_takes_history_in_batches_while_events_go_on(run, recorder, line, history):
    async def body(world):
        limits = Limits(high_water=4096, replay_batch=16)
        pub, sub = await world.bus("pub", limits=limits), await world.bus("sub")
        kept = history()
        stream = pub.open_stream("s", overload=Overload.CLOSE, history=kept, incarnation=9)

        def publish():
            number = kept.append(encode_body(line(kept.last() + 1, 300)))
            stream.publish(line(number, 300), number=number)

        for _ in range(500):
            publish()
        got = recorder()
        position = StreamPosition(incarnation=9, number=20)
        sub.subscribe("pub", "s", got.event, on_state=got.state, position=position)
        while len(got.events) < 680:
            if stream.last < 700:
                publish()
            await asyncio.sleep(0)
        assert got.events == [(number, line(number, 300)) for number in range(21, 701)]
        (up,) = got.of(Up)
        assert (up.replayed_from, up.missed, up.incarnation_changed) == (21, None, False)
        assert {limit for _, limit in kept.reads} == {16}

    run(body)


def test_replay_never_runs_ahead_of_what_was_published(run, recorder, line, history):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        kept = history()
        kept.append(encode_body(line(1)))
        stream = pub.open_stream("s", overload=Overload.CLOSE, history=kept, incarnation=9)
        kept.append(encode_body(line(2)))
        got = await reader(sub, recorder, position=StreamPosition(incarnation=9, number=0))
        await got.until(lambda: got.numbers == [1])
        stream.publish(line(2), number=2)
        await got.until(lambda: got.numbers == [1, 2])

    run(body)


def test_replay_filters_by_the_key_of_each_event(run, recorder, line, history):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        kept = history()
        for number in range(1, 7):
            kept.append(encode_body(line(number)))
        stream = pub.open_stream(
            "s",
            overload=Overload.CLOSE,
            history=kept,
            key_of=lambda message: str(message.time_ns % 3),
        )
        got = await reader(sub, recorder, keys={"0"}, position=StreamPosition(incarnation=0, number=0))
        kept.append(encode_body(line(7)))
        stream.publish(line(7), number=7)
        kept.append(encode_body(line(9)))
        stream.publish(line(9), number=8)
        await got.until(lambda: len(got.events) == 3)
        assert got.numbers == [3, 6, 8]

    run(body)


def test_a_history_that_fails_costs_the_reader_that_waited_for_the_stream_and_not_who_opens_it(
    run, recorder, line, history
):
    async def body(world):
        pub, sub, other = [await world.bus(name) for name in ("pub", "sub", "other")]
        kept = history()
        kept.append(encode_body(line(1)))

        def since(number, limit):
            raise OSError("the disk is gone")

        kept.since = since
        waiting, live = recorder(), recorder()
        position = StreamPosition(incarnation=0, number=0)
        sub.subscribe("pub", "s", waiting.event, position=position, on_state=waiting.state)
        other.subscribe("pub", "s", live.event, on_state=live.state)
        await pub_hears(pub, "sub", "other")
        stream = pub.open_stream("s", overload=Overload.CLOSE, history=kept, incarnation=3)
        await waiting.until(lambda: waiting.of(Down))
        await live.until(lambda: live.of(Up))
        stream.publish(line(2))
        await live.until(lambda: live.events)
        assert not waiting.events

    run(body)


@pytest.mark.parametrize(
    ("asked", "replayed_from", "missed", "changed"),
    [
        (None, None, None, False),
        ((5, 10), None, None, False),
        ((5, 8), 9, None, False),
        ((5, 2), 6, (3, 5), False),
        ((0, 0), 6, (1, 5), False),
        ((5, 11), None, (1, 10), True),
        ((4, 8), None, (1, 10), True),
    ],
)
def test_a_new_reader_is_told_where_the_stream_stands(
    run, recorder, line, history, asked, replayed_from, missed, changed
):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        kept = history(keep=5)
        for number in range(1, 11):
            kept.append(encode_body(line(number)))
        stream = pub.open_stream("s", overload=Overload.CLOSE, history=kept, incarnation=5)
        position = asked and StreamPosition(incarnation=asked[0], number=asked[1])
        got = await reader(sub, recorder, position=position)
        assert got.states == [Up(stream.position, replayed_from, missed, changed)]
        kept.append(encode_body(line(11)))
        stream.publish(line(11), number=11)
        await got.until(lambda: got.numbers[-1:] == [11])
        assert got.numbers == list(range(replayed_from or 11, 12))
        assert not got.of(Gap)

    run(body)


def test_without_history_what_was_missed_is_told(run, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub", 3), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        for number in range(1, 6):
            stream.publish(line(number))
        got = await reader(sub, recorder, position=StreamPosition(incarnation=3, number=2))
        assert got.states == [Up(stream.position, None, (3, 5), False)]

    run(body)


def test_a_history_that_fails_closes_the_link_and_is_logged(run_memory, recorder, line, history):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        kept = history()
        kept.append(encode_body(line(1)))
        failures = []
        read = kept.since

        def since(number, limit):
            if not failures:
                failures.append(number)
                raise RuntimeError("disk")
            return read(number, limit)

        kept.since = since
        pub.open_stream("s", overload=Overload.CLOSE, history=kept)
        got = await reader(sub, recorder, position=StreamPosition(incarnation=1, number=0))
        await got.until(lambda: got.events)
        assert failures == [0]

    assert any(entry["log_level"] == "error" for entry in run_memory(body))


def test_publishing_is_checked(run_memory, recorder, line, history):
    async def body(world):
        limits = Limits(max_frame=2000)
        pub, sub = await world.bus("pub", limits=limits), await world.bus("sub")
        with pytest.raises(ValueError, match="at least one"):
            pub.open_stream("s", overload=Overload.SKIP, queue=0)
        stream = pub.open_stream("s", overload=Overload.SKIP)
        stream.publish(line(1), number=5)
        with pytest.raises(ValueError, match="cannot publish 5"):
            stream.publish(line(1), number=5)
        kept = pub.open_stream("kept", overload=Overload.CLOSE, history=history())
        with pytest.raises(ValueError, match="key_of"):
            kept.publish(line(1), key="a")
        await reader(sub, recorder)
        with pytest.raises(BusError, match="above the frame limit"):
            stream.publish(line(1, 3000))
        assert stream.last == 5

    run_memory(body)
