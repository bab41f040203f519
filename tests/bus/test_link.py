"""One link: malformed frames, turns, and handshakes that never come."""

import asyncio
import socket
import struct
from itertools import pairwise

from msgspec import Raw

from engine.bus import Limits, Overload, Up
from engine.bus.link import LOOK_EVERY
from engine.bus.wire import (
    Event,
    FrameSplitter,
    Hello,
    Request,
    Subscribe,
    Subscribed,
    decode_envelope,
    encode_body,
    encode_frame,
)
from engine.clock import VirtualClock
from engine.messages import OrderFate

ASK = OrderFate(client_order_id="x")
HELLO = encode_frame(Hello("", "raw", 1))


def raw_connection(world, name):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    connection.connect(world.directory.endpoint(name).path)
    return connection


async def closed_by_peer(connection):
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(connection, 65536):
        pass
    connection.close()


def test_malformed_frames_close_that_connection_alone(run_sockets, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub", limits=Limits(max_frame=1000)), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got = recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        await got.until(lambda: got.of(Up))
        loop = asyncio.get_running_loop()
        bad = [
            struct.pack("<I", 1001) + b"x",
            struct.pack("<I", 0),
            HELLO + struct.pack("<I", 1) + b"\xc1",
            HELLO + HELLO,
            HELLO + encode_frame(Subscribe(1, "s")) * 2,
            encode_frame(Subscribe(1, "s")),
        ]
        for count, frames in enumerate(bad, 1):
            connection = raw_connection(world, "pub")
            await loop.sock_sendall(connection, frames)
            await closed_by_peer(connection)
            assert pub.stats()["malformed"] == count
        stream.publish(line(1))
        await got.until(lambda: got.events)
        assert not got.states[1:]

    logs = run_sockets(body)
    assert sum(entry["event"] == "malformed_frame" for entry in logs) == 6


async def envelopes(connection, count):
    """The first envelopes that come."""
    splitter, found = FrameSplitter(1 << 20), []
    while len(found) < count:
        found += map(decode_envelope, splitter.feed(await asyncio.get_running_loop().sock_recv(connection, 65536)))
    return found


def test_any_number_that_fits_may_be_a_callers_id_also_before_the_stream_is_open(run_sockets, line, turns_until):
    """An id is its caller's choice: one above 32 bits made the publisher fail that opened the stream."""
    ids = [2**40, 2**64 - 1, -1]

    async def body(world):
        pub = await world.bus("pub")
        connection = raw_connection(world, "pub")
        asked = b"".join(encode_frame(Subscribe(number, "s")) for number in ids)
        await asyncio.get_running_loop().sock_sendall(connection, HELLO + asked)
        await turns_until(lambda: pub.stats()["frames_in"] == 4)
        stream = pub.open_stream("s", overload=Overload.SKIP)
        stream.publish(line(1))
        _, *got = await envelopes(connection, 1 + 2 * len(ids))
        assert [envelope.id for envelope in got if isinstance(envelope, Subscribed)] == ids
        assert [envelope.id for envelope in got if isinstance(envelope, Event)] == ids
        connection.close()

    run_sockets(body)


def test_a_caller_that_says_nothing_is_let_go(run_sockets):
    async def body(world):
        await world.bus("pub", limits=Limits(handshake=0.02))
        await closed_by_peer(raw_connection(world, "pub"))

    run_sockets(body)


def test_a_rejected_caller_is_told_why(run_sockets):
    async def body(world):
        await world.bus("pub", engine_id="blue")
        connection = raw_connection(world, "pub")
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, encode_frame(Hello("red", "raw", 1)))
        answer = await loop.sock_recv(connection, 65536)
        assert "engine 'red'" in decode_envelope(answer[4:]).reason
        await closed_by_peer(connection)

    run_sockets(body)


def test_a_peer_that_answers_under_another_name_is_refused(run_sockets, recorder):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        endpoint = world.directory.endpoint("pub")
        world.directory.endpoint = lambda name: endpoint
        got = recorder()
        sub.subscribe("other", "s", got.event, on_state=got.state)
        await got.until(lambda: got.states)
        assert "'pub' listens where 'other' should" in got.states[0].reason
        assert sub.peer_incarnation("other") is None
        assert pub.name == "pub"

    run_sockets(body)


def test_a_burst_gives_way_to_other_work_and_loses_nothing(run, recorder, line):
    async def body(world):
        pub = await world.bus("pub")
        sub = await world.bus("sub", limits=Limits(frames_per_turn=10))
        stream = pub.open_stream("s", overload=Overload.SKIP, queue=10_000)
        got, turns = recorder(), []
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        await got.until(lambda: got.of(Up))
        for number in range(1, 1001):
            stream.publish(line(number))
        closing = asyncio.ensure_future(pub.close())
        while len(got.events) < 1000:
            turns.append(len(got.events))
            await asyncio.sleep(0)
        await closing
        assert got.numbers == list(range(1, 1001))
        assert max(after - before for before, after in pairwise(turns)) <= 30

    run(body)


def test_frames_that_take_long_give_way_to_other_work(run_sockets):
    """Who asks for 100 pages at once and then reads kept the actor from its ticks until the last was made."""

    async def body(world):
        clock = VirtualClock(10**18)
        pub = await world.bus("pub", clock=clock)
        handled, turns = [], []

        def long(caller, message):
            handled.append(message)
            clock.advance(20_000_000)
            return message

        pub.serve(long)
        asked = b"".join(encode_frame(Request(number, Raw(encode_body(ASK)))) for number in range(100))
        connection = raw_connection(world, "pub")
        await asyncio.get_running_loop().sock_sendall(connection, HELLO + asked)
        while len(handled) < 100:
            turns.append(len(handled))
            await asyncio.sleep(0)
        turns.append(len(handled))
        assert max(after - before for before, after in pairwise(turns)) <= 2 * LOOK_EVERY
        connection.close()

    run_sockets(body)


def test_events_before_the_death_of_the_publisher_are_all_handled(run, recorder, line):
    async def body(world):
        pub = await world.bus("pub", limits=Limits())
        sub = await world.bus("sub", limits=Limits(frames_per_turn=7))
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got = recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        await got.until(lambda: got.of(Up))
        for number in range(1, 101):
            stream.publish(line(number))
        await pub.close()
        await got.until(lambda: len(got.states) == 2)
        assert got.numbers == list(range(1, 101))

    run(body)
