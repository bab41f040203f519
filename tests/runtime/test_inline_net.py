"""TCP in memory: what asyncio's transports promise, and what can go wrong on the way."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from engine.runtime.inline import Place
from engine.runtime.memory_net import KERNEL_BUFFER, Weather

PORT = 4000
LATENCY_NS = 1_000_000


class Recorder(asyncio.Protocol):
    """Keeps what happens to it, with the loop's time."""

    def __init__(self, keep_open=False):
        self.events = []
        self.keep_open = keep_open
        self.transport = None

    def note(self, *event):
        self.events.append((round(asyncio.get_running_loop().time(), 6), *event))

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        self.note("data", data)

    def eof_received(self):
        self.note("eof")
        return self.keep_open

    def connection_lost(self, exc):
        self.note("lost", type(exc).__name__ if exc else None)

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    @property
    def kinds(self):
        return [event[1] for event in self.events]

    @property
    def received(self):
        return b"".join(event[2] for event in self.events if event[1] == "data")


@pytest.fixture
def place():
    return Place(10**18, Weather(LATENCY_NS))


def run(place, work):
    with asyncio.Runner(loop_factory=lambda: place.loop) as runner:
        return runner.run(work)


async def pair(place, keep_open=False):
    """A connection: its client's and its server's protocol."""
    there = []

    def accept():
        there.append(Recorder(keep_open))
        return there[-1]

    await place.loop.create_server(accept, "127.0.0.1", PORT)
    _, here = await place.loop.create_connection(lambda: Recorder(keep_open), "127.0.0.1", PORT)
    await asyncio.sleep(0)
    return here, there[0]


def test_bytes_take_their_time_and_keep_their_order(place):
    async def body():
        here, there = await pair(place)
        began = place.loop.time()
        here.transport.write(b"one ")
        here.transport.writelines([b"two ", bytearray(b"three")])
        await asyncio.sleep(1)
        assert there.events[-1] == (round(began + 0.001, 6), "data", b"one two three")
        assert here.transport.get_extra_info("peername") == ("127.0.0.1", PORT)

    run(place, body())


def test_nobody_listens_means_refused_and_a_taken_port_is_taken(place):
    async def body():
        with pytest.raises(ConnectionRefusedError):
            await place.loop.create_connection(Recorder, "127.0.0.1", PORT)
        server = await place.loop.create_server(Recorder, "127.0.0.1", PORT)
        with pytest.raises(OSError, match="in use"):
            await place.loop.create_server(Recorder, "127.0.0.1", PORT)
        assert server.is_serving()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await place.loop.create_connection(Recorder, "127.0.0.1", PORT)
        free = await place.loop.create_server(Recorder, "127.0.0.1", 0)
        assert free.sockets[0].getsockname()[1] > 0

    run(place, body())


def test_closing_sends_what_was_written_then_the_end(place):
    async def body():
        here, there = await pair(place)
        here.transport.write(b"last words")
        here.transport.close()
        here.transport.write(b"too late")
        await asyncio.sleep(1)
        assert here.transport.is_closing()
        assert here.kinds == ["made", "lost"]
        assert there.kinds == ["made", "data", "eof", "lost"]
        assert there.received == b"last words"
        assert not place.net.connections

    run(place, body())


def test_half_a_close_leaves_the_other_half_open(place):
    async def body():
        here, there = await pair(place, keep_open=True)
        here.transport.write_eof()
        with pytest.raises(RuntimeError):
            here.transport.write(b"more")
        await asyncio.sleep(1)
        there.transport.write(b"answer")
        await asyncio.sleep(1)
        assert there.kinds == ["made", "eof"]
        assert here.received == b"answer"

    run(place, body())


def test_data_for_a_closed_end_is_answered_with_a_reset(place):
    async def body():
        here, there = await pair(place, keep_open=True)
        there.transport.close()
        await asyncio.sleep(1)
        here.transport.write(b"anybody there")
        await asyncio.sleep(1)
        assert here.events[-1][1:] == ("lost", "ConnectionResetError")

    run(place, body())


def test_a_reader_that_pauses_makes_the_writer_pause(place):
    async def body():
        here, there = await pair(place)
        there.transport.pause_reading()
        sent = 0
        while "pause" not in here.kinds:
            here.transport.write(b"x" * 50_000)
            sent += 50_000
        assert sent > KERNEL_BUFFER
        await asyncio.sleep(1)
        assert not there.received
        there.transport.resume_reading()
        await asyncio.sleep(1)
        assert len(there.received) == sent
        assert here.kinds[-1] == "resume"
        assert here.transport.get_write_buffer_size() == 0

    run(place, body())


def test_cut_is_heard_at_both_ends_and_loses_what_was_under_way(place):
    async def body():
        here, there = await pair(place)
        here.transport.write(b"lost")
        (connection,) = place.net.connections.values()
        connection.cut()
        await asyncio.sleep(1)
        assert here.events[-1][1:] == there.events[-1][1:] == ("lost", "ConnectionResetError")
        assert not there.received

    run(place, body())


def test_nothing_passes_a_partition_and_all_of_it_after(place):
    async def body():
        here, there = await pair(place)
        (connection,) = place.net.connections.values()
        here.transport.write(b"a")
        connection.freeze()
        here.transport.write(b"b")
        await asyncio.sleep(60)
        assert there.kinds == ["made"]
        connection.thaw()
        await asyncio.sleep(1)
        assert there.received == b"ab"

    run(place, body())


def test_what_a_killed_process_had_written_arrives_and_then_its_end(place):
    victim = place.process("victim")
    server = place.process("server")
    there = []

    async def serve():
        def accept():
            there.append(Recorder())
            return there[-1]

        await place.loop.create_server(accept, "127.0.0.1", PORT)

    async def act():
        _, protocol = await place.loop.create_connection(Recorder, "127.0.0.1", PORT)
        protocol.transport.write(b"sent before")
        try:
            await asyncio.sleep(100)
        finally:
            protocol.transport.write(b"sent in death")

    async def body():
        await place.start(server, serve())
        place.start(victim, act())
        await asyncio.sleep(0.002_5)
        assert there[0].kinds == ["made"]
        victim.kill()
        await asyncio.sleep(1)
        assert there[0].kinds == ["made", "data", "eof", "lost"]
        assert there[0].received == b"sent before"
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            await place.loop.create_connection(Recorder, "127.0.0.1", PORT)

    run(place, body())


def test_a_stopped_server_takes_connections_and_bytes_and_handles_them_later(place):
    server = place.process("server")
    there = []

    async def serve():
        def accept():
            there.append(Recorder())
            return there[-1]

        await place.loop.create_server(accept, "127.0.0.1", PORT)

    async def body():
        await place.start(server, serve())
        server.stop()
        _, here = await place.loop.create_connection(Recorder, "127.0.0.1", PORT)
        here.transport.write(b"patience")
        await asyncio.sleep(5)
        assert not there
        server.resume()
        await asyncio.sleep(1)
        assert there[0].received == b"patience"

    run(place, body())


def test_http_of_aiohttp_runs_over_it_at_both_ends(place):
    async def hello(request):
        await asyncio.sleep(2)
        return web.json_response({"got": await request.text(), "from": request.remote})

    async def body():
        app = web.Application()
        app.router.add_post("/", hello)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", PORT).start()
        async with aiohttp.ClientSession() as session:
            for text in ("one", "two"):
                async with session.post(f"http://127.0.0.1:{PORT}/", data=text) as response:
                    assert (await response.json())["got"] == text
            assert len(place.net.connections) == 1
            timeout = aiohttp.ClientTimeout(total=1)
            with pytest.raises(asyncio.TimeoutError):
                await session.post(f"http://127.0.0.1:{PORT}/", data="slow", timeout=timeout)
        await runner.cleanup()
        return place.loop.time()

    assert 5 < run(place, body()) < 10
