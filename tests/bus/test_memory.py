"""The twin in memory, and the whole bus under random stalls, deaths and returns."""

import asyncio

import pytest
import structlog
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bus import Down, Gap, Limits, MemoryBus, MemoryEndpoint, MemoryNetwork, Overload, UnixEndpoint, Up
from engine.bus.wire import encode_body
from engine.errors import NameTaken
from engine.messages import LogLine, OrderFate, StreamPosition

ASK = OrderFate(client_order_id="x")
TIGHT = Limits(high_water=400, backoff_min=0.0001, backoff_max=0.001, replay_batch=3, frames_per_turn=4)


def test_a_name_is_taken_once(run_memory):
    async def body(world):
        await world.bus("pub", 1)
        with pytest.raises(NameTaken, match="incarnation 1"):
            await world.bus("pub", 2)
        assert world.network.endpoint("pub") == MemoryEndpoint("pub")
        assert world.network.endpoint("nobody") is None
        assert not world.network.is_stalled("pub")

    run_memory(body)


def test_it_reaches_nothing_outside_its_network(run_memory):
    async def body(world):
        bus = await world.bus("pub")
        with pytest.raises(OSError, match="cannot reach"):
            await bus._connect(UnixEndpoint("/tmp/x"), bus.accept)
        with pytest.raises(ConnectionRefusedError):
            world.network.connect("pub", "nobody", bus.accept)

    run_memory(body)


def test_a_link_that_is_cut_loses_what_is_under_way_and_both_ends_know(run_memory, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got, peers = recorder(), recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        await got.until(lambda: got.of(Up))
        pub.on_peer(peers.append)
        stream.publish(line(1))
        assert world.network.cut(lambda one, other: (one, other) == ("pub", "sub")) == 1
        assert not world.network.cut(lambda one, other: "nobody" in (one, other))
        await peers.until(lambda: any(not event.up for event in peers.events))
        await got.until(lambda: got.of(Down) and len(got.of(Up)) == 2)
        stream.publish(line(2))
        await got.until(lambda: got.events)
        assert [number for number, _ in got.events] == [2]

    run_memory(body)


def test_a_link_that_is_parted_holds_what_is_said_until_it_heals(run_memory, recorder, line):
    async def body(world):
        pub, sub, other = await world.bus("pub"), await world.bus("sub"), await world.bus("other")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got, free = recorder(), recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        other.subscribe("pub", "s", free.event, on_state=free.state)
        await got.until(lambda: got.of(Up))
        await free.until(lambda: free.of(Up))
        heal = world.network.part(lambda one, two: (one, two) == ("sub", "pub"))
        stream.publish(line(1))
        await free.until(lambda: free.events)
        assert not got.events
        assert not got.of(Down)
        heal()
        await got.until(lambda: got.events)
        assert not world.network.is_parted("pub", "sub")

    run_memory(body)


def test_nothing_of_a_killed_bus_runs_on_and_its_peers_know(run_memory, recorder, line):
    async def body(world):
        pub, sub = await world.bus("pub"), await world.bus("sub")
        stream = pub.open_stream("s", overload=Overload.SKIP)
        got, handled, peers = recorder(), [], recorder()
        sub.subscribe("pub", "s", got.event, on_state=got.state)
        sub.on_peer(handled.append)
        pub.on_peer(peers.append)
        sub.serve(lambda caller, message: handled.append(message))
        await got.until(lambda: got.of(Up))
        pub.tell("sub", ASK)
        handled.clear()
        stream.publish(line(1))
        world.network.kill("sub")
        await peers.until(lambda: any(not event.up for event in peers.events))
        assert not got.events
        assert not got.of(Down)
        assert not handled
        assert not sub.tell("pub", ASK)
        await sub.close()
        assert stream.readers == 0

    run_memory(body)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 12)),
        st.tuples(st.just("turns"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["stall", "resume", "kill", "close", "move"]), st.just(0)),
    ),
    max_size=40,
)


class Rehearsal:
    """A publisher with history and one reader, of which anything may be killed, stalled or moved on."""

    def __init__(self, history, got):
        self.network = MemoryNetwork()
        self.kept, self.got = history, got
        self.incarnation = 0

    async def begin(self):
        self.sub = MemoryBus(self.network, "sub", 1, limits=TIGHT)
        await self.sub.start()
        position = StreamPosition(incarnation=7, number=0)
        self.sub.subscribe("pub", "s", self.got.event, on_state=self.got.state, position=position)
        await self.publisher()

    async def publisher(self):
        self.incarnation += 1
        self.pub = MemoryBus(self.network, "pub", self.incarnation, limits=TIGHT)
        self.stream = self.pub.open_stream("s", overload=Overload.CLOSE, queue=4, history=self.kept, incarnation=7)
        await self.pub.start()

    async def do(self, verb, count):
        if verb == "publish":
            for _ in range(count):
                number = self.kept.last() + 1
                message = LogLine(actor="a", level="info", event="x" * 60, time_ns=number)
                self.kept.append(encode_body(message))
                self.stream.publish(message, number=number)
        elif verb == "turns":
            for _ in range(count):
                await asyncio.sleep(0)
        elif verb in ("stall", "resume"):
            getattr(self.network, verb)("sub")
        elif verb == "kill":
            self.network.kill("pub")
            await self.publisher()
        elif verb == "close":
            self.network.resume("sub")
            await self.pub.close()
            await self.publisher()
        else:
            await self.do("publish", 1)
            self.network._watchers.changed("pub")

    async def finish(self):
        self.network.resume("sub")
        await self.do("publish", 1)
        await self.got.until(lambda: self.got.numbers[-1:] == [self.kept.last()])
        await asyncio.gather(self.sub.close(), self.pub.close())


def test_every_event_of_a_history_arrives_once_and_in_order_whatever_happens(recorder, history):
    @settings(max_examples=150, deadline=None)
    @given(operations=OPERATIONS)
    def holds(operations):
        uvloop.run(rehearse(Rehearsal(history(), recorder()), operations))

    with structlog.testing.capture_logs():
        holds()


async def rehearse(rehearsal, operations):
    async with asyncio.timeout(10):
        await rehearsal.begin()
        for verb, count in operations:
            await rehearsal.do(verb, count)
        await rehearsal.finish()
    numbers = range(1, rehearsal.kept.last() + 1)
    assert [(number, message.time_ns) for number, message in rehearsal.got.events] == list(
        zip(numbers, numbers, strict=True)
    )
    assert not rehearsal.got.of(Gap)
    assert not rehearsal.network._pipes
