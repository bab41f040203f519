"""What only real processes and real sockets show."""

import asyncio
import os
import pathlib
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

import pytest

from engine.bus import Down, Gap, Limits, Overload, RunDirectory, SocketBus, TcpEndpoint, Up
from engine.errors import NameTaken, PeerLost
from engine.messages import Accepted, OrderFate, OrderState, Reason

ASK = OrderFate(client_order_id="x")
YES = Accepted(client_order_id="x", state=OrderState.OPEN)

READER = """
import asyncio, sys, uvloop
from engine.bus import Down, Gap, RunDirectory, SocketBus, Up
from engine.messages import LogLine, OrderFate

async def main(run_dir):
    bus = SocketBus("child", 1, RunDirectory(run_dir))
    handled = []
    def serve(caller, message):
        handled.append(caller.command_id)
        return message
    bus.serve(serve)
    await bus.start()
    def event(message, number):
        bus.tell("pub", LogLine(actor="child", level="event", event="", time_ns=number))
    def state(state):
        bus.tell("pub", LogLine(actor="child", level=type(state).__name__, event=repr(state), time_ns=0))
    bus.subscribe("pub", "s", event, on_state=state)
    await asyncio.Event().wait()

uvloop.run(main(sys.argv[1]))
"""


class Child:
    def __init__(self, run_dir):
        self.process = subprocess.Popen([sys.executable, "-c", READER, run_dir])
        self.pid = self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    async def stopped(self):
        """Until the kernel has really stopped it."""
        self.signal(signal.SIGSTOP)
        while True:
            status = pathlib.Path(f"/proc/{self.pid}/stat").read_text()
            if status.rsplit(")", 1)[1].split()[0] == "T":
                return
            await asyncio.sleep(0.001)

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def with_child(run_sockets, recorder):
    """``with_child(body)``: a publisher here, and a process that reads it and tells what it hears."""

    def go(body):
        async def inner(world):
            pub = await world.bus("pub", limits=Limits(tells=4096))
            told = recorder()
            pub.serve(lambda caller, message: told.append(message))
            child = Child(world.run_dir)
            try:
                await body(world, pub, told, child)
            finally:
                child.end()
                for suffix in (".sock", ".lock"):
                    if os.path.exists(path := os.path.join(world.run_dir, f"child{suffix}")):
                        os.unlink(path)

        return run_sockets(inner, seconds=30)

    return go


@pytest.mark.processes
def test_a_stopped_reader_costs_the_others_nothing(with_child, recorder, line):
    async def body(world, pub, told, child):
        quick = await world.bus("quick", limits=Limits())
        stream = pub.open_stream("s", overload=Overload.SKIP, queue=100)
        got = recorder()
        quick.subscribe("pub", "s", got.event, on_state=got.state)
        await got.until(lambda: got.of(Up))
        await told.until(lambda: any(message.level == "Up" for message in told.events))
        await child.stopped()
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        got.events = Counted()
        for number in range(1, 20_001):
            stream.publish(line(number, 5000))
            if number % 10 == 0:
                await asyncio.sleep(0)
        await got.until(lambda: got.events.last == 20_000)
        assert got.events.count == 20_000
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        assert grown_kib < 20_000
        assert pub.stats()["skipped"] > 15_000
        child.signal(signal.SIGCONT)
        await told.until(lambda: any(message.time_ns == 20_000 for message in told.events))
        assert [message.level for message in told.events].count("Gap") == 1
        assert not got.of(Gap)

    with_child(body)


class Counted:
    """Counts events instead of keeping them."""

    def __init__(self):
        self.count = self.last = 0

    def append(self, event):
        self.count += 1
        self.last = event[0]


@pytest.mark.processes
def test_a_killed_process_is_known_at_once_and_its_name_is_taken_over(with_child, turns_until):
    async def body(world, pub, told, child):
        pub.open_stream("s", overload=Overload.SKIP)
        await told.until(lambda: told.events)
        assert await pub.request("child", ASK, timeout=5) == ASK
        assert pub.peer_incarnation("child") == 1
        with pytest.raises(NameTaken, match=str(child.pid)):
            await world.bus("child", 2)
        await child.stopped()
        waiting = asyncio.ensure_future(pub.request("child", ASK, timeout=60))
        await asyncio.sleep(0)
        child.signal(signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(PeerLost):
            await waiting
        assert time.monotonic() - started < 1
        await turns_until(lambda: pub.peer_incarnation("child") is None)
        assert os.path.exists(world.directory.endpoint("child").path)
        child.process.wait()
        heir = await world.bus("child", 2)
        heir.serve(lambda caller, message: YES)
        assert await pub.request("child", ASK, timeout=5) == YES
        await heir.close()

    with_child(body)


@pytest.mark.processes
def test_a_process_that_wakes_up_refuses_the_old_commands_in_its_socket(with_child):
    async def body(world, pub, told, child):
        pub.open_stream("s", overload=Overload.SKIP)
        await told.until(lambda: told.events)
        assert await pub.request("child", ASK, timeout=5) == ASK
        await child.stopped()
        command = asyncio.ensure_future(pub.command("child", ASK, command_id="old", expires_in=0.05, timeout=10))
        await asyncio.sleep(0.06)
        assert not command.done()
        child.signal(signal.SIGCONT)
        answer = await command
        assert (answer.client_order_id, answer.reason) == ("old", Reason.EXPIRED)
        assert await pub.command("child", ASK, command_id="new", to_incarnation=1) == ASK

    with_child(body)


@pytest.mark.processes
def test_closing_does_not_wait_for_a_stopped_reader(with_child, line):
    async def body(world, pub, told, child):
        stream = pub.open_stream("s", overload=Overload.SKIP, queue=10)
        await told.until(lambda: told.events)
        await child.stopped()
        while not pub.stats()["skipped"]:
            stream.publish(line(1, 50_000))
        started = time.monotonic()
        await pub.close()
        assert time.monotonic() - started < 3

    with_child(body)


def test_the_socket_is_its_owners_only_and_files_go_with_the_bus(run_sockets):
    async def body(world):
        bus = await world.bus("pub")
        path = world.directory.endpoint("pub").path
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(world.directory.lock_path("pub")).st_mode) == 0o600
        await bus.close()
        await bus.close()
        assert os.listdir(world.run_dir) == []

    run_sockets(body)


def test_a_taken_name_leaves_its_holder_alone(run_sockets):
    async def body(world):
        first = await world.bus("pub", 1)
        first.serve(lambda caller, message: YES)
        second = await world.bus("pub", 2, start=False)
        with pytest.raises(NameTaken, match=str(os.getpid())):
            await second.start()
        await second.close()
        client = await world.bus("client")
        assert await client.request("pub", ASK) == YES

    run_sockets(body)


def test_a_stale_socket_is_replaced(run_sockets):
    async def body(world):
        path = world.directory.endpoint("pub").path
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
        pub, client = await world.bus("pub"), await world.bus("client")
        pub.serve(lambda caller, message: YES)
        assert await client.request("pub", ASK) == YES

    run_sockets(body)


def test_a_bus_that_cannot_bind_gives_its_name_back(run_sockets):
    async def body(world):
        os.mkdir(world.directory.endpoint("pub").path)
        bus = await world.bus("pub", start=False)
        with pytest.raises(OSError):
            await bus.start()
        os.rmdir(world.directory.endpoint("pub").path)
        await bus.start()

    run_sockets(body)


def test_a_bus_that_does_not_listen_asks_all_the_same(run_sockets):
    async def body(world):
        pub = await world.bus("pub")
        pub.serve(lambda caller, message: YES)
        guest = await world.bus("guest", listen=False)
        assert await guest.request("pub", ASK) == YES
        assert sorted(os.listdir(world.run_dir)) == ["pub.lock", "pub.sock"]

    run_sockets(body)


def test_news_from_the_directory_connects_at_once(run_sockets):
    async def body(world):
        client = await world.bus("client", limits=Limits(backoff_min=30, backoff_max=60))
        answer = asyncio.ensure_future(client.request("pub", ASK, timeout=10))
        await asyncio.sleep(0.01)
        pub = await world.bus("pub", start=False)
        pub.serve(lambda caller, message: YES)
        await pub.start()
        world.directory.changed("pub")
        assert await answer == YES

    run_sockets(body)


class TcpDirectory(RunDirectory):
    """Everyone by TCP; the locks stay on this host."""

    def __init__(self, run_dir):
        super().__init__(run_dir)
        self.endpoints = {}

    def endpoint(self, name):
        return self.endpoints.get(name)

    def moved(self, name, endpoint):
        self.endpoints[name] = endpoint
        self.changed(name)


async def over_tcp(world, recorder, line, server_tls=None, client_tls=None):
    directory = TcpDirectory(world.run_dir)
    pub = SocketBus("pub", 1, directory, tcp=TcpEndpoint("127.0.0.1", 0, server_tls))
    sub = SocketBus("sub", 1, directory, listen=False)
    world.buses += [pub, sub]
    got = recorder()
    pub.serve(lambda caller, message: YES)
    stream = pub.open_stream("s", overload=Overload.SKIP)
    sub.subscribe("pub", "s", got.event, on_state=got.state)
    await pub.start()
    name = "localhost" if client_tls else None
    directory.moved("pub", TcpEndpoint("127.0.0.1", pub.tcp_endpoint.port, client_tls, name))
    await got.until(lambda: got.of(Up))
    for number in range(1, 1001):
        stream.publish(line(number, 100))
    await got.until(lambda: len(got.events) == 1000)
    assert await sub.command("pub", ASK, command_id="x") == YES
    await pub.close()
    await got.until(lambda: got.of(Down))


def test_the_same_links_run_over_tcp(run_sockets, recorder, line):
    async def body(world):
        await over_tcp(world, recorder, line)

    run_sockets(body)


def test_both_ends_notice_that_the_other_host_vanished(run_sockets):
    """Who only listens had nothing to send, and kept the readers of a host that was gone for ever."""

    async def body(world):
        directory = TcpDirectory(world.run_dir)
        pub = SocketBus("pub", 1, directory, tcp=TcpEndpoint("127.0.0.1", 0))
        sub = SocketBus("sub", 1, directory, listen=False)
        world.buses += [pub, sub]
        pub.serve(lambda caller, message: YES)
        await pub.start()
        directory.moved("pub", TcpEndpoint("127.0.0.1", pub.tcp_endpoint.port))
        assert await sub.request("pub", ASK) == YES
        for link in (*pub._links, sub._peers["pub"].peer._channel):
            sock = link._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert idle + 3 * sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) <= 15
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000

    run_sockets(body)


@pytest.fixture
def certificate(tmp_path):
    """A certificate for localhost that signs itself, used by both ends."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return str(certificate), str(key)


def test_the_same_links_run_over_mutual_tls(run_sockets, recorder, line, certificate):
    def context(purpose):
        made = ssl.create_default_context(purpose, cafile=certificate[0])
        made.load_cert_chain(*certificate)
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    async def body(world):
        server, client = context(ssl.Purpose.CLIENT_AUTH), context(ssl.Purpose.SERVER_AUTH)
        await over_tcp(world, recorder, line, server, client)

    run_sockets(body)


def test_a_connection_that_was_taken_just_before_a_bus_closed_does_not_outlive_it(run_sockets):
    """Its caller would wait for ever for streams that nobody opens any more."""

    async def body(world):
        pub = await world.bus("pub")
        link = pub._accept()
        await pub.close()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: link, ours)
        async with asyncio.timeout(5):
            assert await loop.sock_recv(theirs, 1) == b""
            await link.done
        theirs.close()

    run_sockets(body)
