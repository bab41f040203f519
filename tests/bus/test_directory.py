"""The directory of several hosts, and links between them: each host is a run folder of its own, on loopback."""

import asyncio
import os
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
import structlog
import uvloop

from engine.bus import Down, Limits, Overload, SocketBus, TcpEndpoint, UnixEndpoint, Up
from engine.bus.directory import FileDirectory, Listens, encode_table, write_table
from engine.bus.tls import client_context, make_identity, server_context, write_identity
from engine.bus.wire import Hello, encode_frame
from engine.errors import BusError
from engine.messages import ControlReply, ControlRequest

ASK, YES = ControlRequest(verb="status"), ControlReply(ok=True)
pytest.importorskip("cryptography")


class Host:
    """One host of an engine: its folder, its certificate, its table."""

    def __init__(self, folder, name, identity):
        folder.mkdir()
        self.folder, self.name = folder, name
        self.identity = write_identity(folder, identity)

    def directory(self):
        return FileDirectory(self.folder, self.name, client_context(self.identity))

    def bus(self, name, incarnation=1, limits=None):
        tcp = TcpEndpoint("127.0.0.1", 0, server_context(self.identity))
        bus = SocketBus(name, incarnation, self.directory(), tcp=tcp, limits=limits)
        bus.serve(lambda caller, message: YES)
        return bus

    def listens(self, bus):
        unix, tcp = bus.addresses
        host, _, port = tcp.rpartition(":")
        return Listens(node=self.name, unix=unix, host=host, port=int(port))

    def told(self, table):
        write_table(self.folder, encode_table(table))


@asynccontextmanager
async def started(*buses):
    for bus in buses:
        await bus.start()
    try:
        yield
    finally:
        await asyncio.gather(*(bus.close() for bus in buses))


def run(body):
    async def limited():
        async with asyncio.timeout(20):
            await body()

    uvloop.run(limited())


@pytest.fixture
def hosts(tmp_path):
    identity = make_identity()
    return [Host(tmp_path / name, name, identity) for name in ("a", "b")]


def test_the_own_host_is_reached_by_socket_file_and_another_by_address(hosts, tmp_path):
    here, _ = hosts
    table = {"x": Listens(node="a", unix="/run/x.sock", host="10.0.0.1", port=1)}
    table["y"] = Listens(node="b", unix="/run/y.sock", host="10.0.0.2", port=2)
    here.told(table)
    directory = here.directory()
    assert directory.endpoint("x") == UnixEndpoint("/run/x.sock")
    found = directory.endpoint("y")
    assert (found.host, found.port) == ("10.0.0.2", 2)
    assert found.ssl is not None
    assert directory.endpoint("z") == directory.own_socket("z") == UnixEndpoint(str(here.folder / "z.sock"))


def test_a_table_that_cannot_be_read_leaves_the_last_one(hosts):
    here, _ = hosts
    here.told({"y": Listens(node="b", unix="/run/y.sock", host="10.0.0.2", port=2)})
    directory = here.directory()
    assert directory.endpoint("y").port == 2
    write_table(here.folder, b"{")
    with structlog.testing.capture_logs() as logs:
        assert directory.endpoint("y").port == 2
    assert [log["event"] for log in logs] == ["directory_unreadable"]


def test_a_table_that_could_not_be_read_for_a_while_is_followed_again(hosts):
    """As where a process has no descriptor left: the watch ended for good, and so did each peer's own loop."""

    async def body():
        here, there = hosts
        actor, reader = there.bus("actor"), here.bus("reader")
        async with started(actor, reader):
            here.told({"actor": Listens(node="b", unix="", host="127.0.0.1", port=1)})
            asked = asyncio.create_task(reader.request("actor", ASK, timeout=15))
            file = here.folder / "directory.json"
            with structlog.testing.capture_logs() as logs:
                file.unlink()
                file.mkdir()
                while not logs:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                file.rmdir()
            here.told({"actor": there.listens(actor)})
            assert await asked == YES

    run(body)


def test_a_table_is_told_from_the_last_one_also_where_the_kernels_time_stands_still(hosts):
    """Several actors start within the few milliseconds that many kernels' file times are apart."""
    here, _ = hosts
    directory, file, stamps = here.directory(), here.folder / "directory.json", []
    for port in range(1, 4):
        here.told({"y": Listens(node="b", unix="/run/y.sock", host="10.0.0.2", port=port)})
        if not stamps:
            os.utime(file, ns=(2 * 10**18, 2 * 10**18))
        stamps.append(file.stat().st_mtime_ns)
        assert directory.endpoint("y").port == port
    assert stamps == sorted(set(stamps))


def test_an_actor_that_moves_to_another_host_is_followed(hosts):
    async def body():
        here, there = hosts
        states, moved = [], asyncio.Event()

        def on_state(state):
            states.append(state)
            if [type(seen) for seen in states] == [Up, Down, Up]:
                moved.set()

        first, second, reader = here.bus("actor"), there.bus("actor", 2), here.bus("reader")
        async with started(first, second, reader):
            for bus in (first, second):
                bus.open_stream("s", overload=Overload.SKIP)
            here.told({"actor": here.listens(first)})
            reader.subscribe("actor", "s", lambda message, number: None, on_state=on_state)
            assert await reader.request("actor", ASK, timeout=5) == YES
            assert reader.peer_incarnation("actor") == 1
            # The old one still lives and its link is up: what the directory says counts.
            here.told({"actor": there.listens(second)})
            await moved.wait()
            assert reader.peer_incarnation("actor") == 2

    run(body)


@contextmanager
def silent():
    """An address where the kernel answers, and nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener, Listens(node="b", unix="", host="127.0.0.1", port=listener.getsockname()[1])


async def caller(listener):
    """The next who connects."""
    connected, _ = await asyncio.get_running_loop().sock_accept(listener)
    return connected


def test_an_actor_that_moves_while_its_old_address_does_not_answer_is_followed(hosts):
    async def body():
        here, there = hosts
        actor, reader = there.bus("actor"), here.bus("reader")
        with silent() as (listener, listens):
            async with started(actor, reader):
                here.told({"actor": listens})
                asked = asyncio.create_task(reader.request("actor", ASK, timeout=15))
                with await caller(listener) as connected:
                    here.told({"actor": there.listens(actor)})
                    assert await asked == YES
                    while await asyncio.get_running_loop().sock_recv(connected, 65536):
                        """The hello of TLS, and then its end: nothing is left of that attempt."""

    run(body)


def test_an_address_that_does_not_answer_is_tried_again_before_long(hosts):
    async def body():
        here, _ = hosts
        reader = here.bus("reader", limits=Limits(handshake=0.05))
        with silent() as (listener, listens), ExitStack() as connections:
            async with started(reader):
                here.told({"actor": listens})
                asked = asyncio.create_task(reader.request("actor", ASK, timeout=60))
                for _ in range(3):
                    connections.enter_context(await caller(listener))
                asked.cancel()

    run(body)


def test_a_peer_without_the_engines_certificate_gets_nothing(hosts, tmp_path):
    async def body():
        here, _ = hosts
        served = []
        bus = here.bus("actor")
        bus.serve(lambda caller, message: served.append(message) or YES)
        async with started(bus):
            port = here.listens(bus).port
            for context in (no_certificate(), strangers_certificate(tmp_path)):
                assert await bytes_from(port, context) == b""
            assert await bytes_from(port, None) == b""
        assert served == []
        assert bus.stats()["frames_in"] == 0

    def no_certificate():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def strangers_certificate(tmp_path):
        stranger = Host(tmp_path / "stranger", "a", make_identity())
        context = client_context(stranger.identity)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def bytes_from(port, context):
        """What a caller is told that says hello as an actor would."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        except (ssl.SSLError, ConnectionError):
            return b""
        try:
            writer.write(encode_frame(Hello("", "caller", 1)))
            return b"" if context is None and await closed_or_tls_alert(reader) else await reader.read(1)
        except (ssl.SSLError, ConnectionError):
            return b""
        finally:
            writer.close()

    async def closed_or_tls_alert(reader):
        """Without TLS the answer can be no more than an alert (content type 21), then the end."""
        said = await reader.read()
        return said == b"" or said[0] == 21

    run(body)


def test_a_listener_without_the_engines_certificate_is_told_nothing(hosts, tmp_path):
    async def body():
        here, _ = hosts
        stranger = Host(tmp_path / "stranger", "b", make_identity())
        impostor, caller = stranger.bus("actor"), here.bus("caller")
        async with started(impostor, caller):
            here.told({"actor": stranger.listens(impostor)})
            with pytest.raises(BusError, match="actor"):
                await caller.request("actor", ASK, timeout=0.5)
        assert impostor.stats()["frames_in"] == 0

    run(body)


def test_the_certificate_is_its_owners_alone(hosts):
    assert hosts[0].identity.stat().st_mode & 0o077 == 0
