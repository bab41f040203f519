"""A book's levels from one host to another: by the engine's bus with mutual TLS, and by a Ray call with the same bytes.

What :mod:`benchmarks.far_strategy` runs on the two hosts: ``python -m benchmarks.far_link send|receive|call|follow``.
When messages leave is given, and may be what an engine's frames did: those that are due together leave together, and
all of them are timed from then. The bus has the beats that an order-book actor sends when nothing changes; its way is
to the reader's handler, encoded, decrypted and decoded. The Ray call's is to the first line of the method, which is
given the bytes and does nothing with them, or until the caller has the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from benchmarks.bus import standard_output_as_error
from engine.book import OrderBook
from engine.bus import Down, Overload, RunDirectory, SocketBus, Stream, SubscriptionState, TcpEndpoint
from engine.bus.endpoints import Endpoint
from engine.bus.tls import PEER_NAME, client_context, make_identity, server_context, write_identity
from engine.bus.wire import encode_body
from engine.config import BooksConfig
from engine.messages import BookLevels, BooksBeat, BookUpdated, Message
from engine.runtime.paths import EnginePaths
from scripts.two_hosts import STATE, Host, TwoHosts

FOLDER: Final = "/tmp/link"
FOLLOWS: Final = f"{FOLDER}/follows"
SENDER: Final = "sender"
PORT: Final = 7411
LEVELS: Final = 50
ORDER_BOOK: Final = "order_book.binance.0"
WARM_UP: Final = 20
WARM_UP_NS: Final = 20_000_000
SPARE_S: Final = 60.0
Call = tuple[int, int, int, int]
"""When its frame was received, when it was given to Ray, when it was there, and when the answer was; monotonic ns."""
BUS, CALL_THERE, CALL_AND_BACK = "bus", "ray_one_way", "ray_call"


def measure(hosts: TwoHosts, due_ns: Sequence[int]) -> dict[str, list[int]]:
    """From beta to alpha, in ns: the bus, the way there of a Ray call, and the whole call. ``due_ns``: when messages
    leave, ascending.
    """
    identity = make_identity()
    for host in (hosts.alpha, hosts.beta):
        host.path(FOLDER).mkdir(exist_ok=True)
        write_identity(host.path(FOLDER), identity)
        host.path(f"{FOLDER}/due.json").write_text(json.dumps(list(due_ns)))
    there, back = hosts.beta.address, hosts.alpha.address
    sender = hosts.beta.start(_command("send", there), hosts.environment, f"{FOLDER}/send.out")
    found: dict[str, list[int]] = {BUS: _run(hosts, hosts.alpha, _command("receive", there))}
    if sender.wait(SPARE_S):
        raise RuntimeError(hosts.beta.path(f"{FOLDER}/send.out").read_text()[-4000:])
    return found | _run(hosts, hosts.beta, [*_command("call", hosts.address), "--to", back])


class Following:
    """Ray calls for each book that changes in the engine on beta, while it runs; they have begun once this is made."""

    def __init__(self, hosts: TwoHosts) -> None:
        hosts.beta.path(FOLDER).mkdir(exist_ok=True)
        self._output = hosts.beta.path(f"{FOLDER}/follow.out")
        begun = hosts.beta.path(FOLLOWS)
        for file in (self._output, begun):
            file.unlink(missing_ok=True)
        command = [*_command("follow", hosts.address), "--to", hosts.alpha.address]
        self._process = hosts.beta.start(command, hosts.environment, f"{FOLDER}/follow.out")
        deadline = time.monotonic() + SPARE_S
        while not begun.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the reader that calls by Ray did not begin:\n{self._output.read_text()[-4000:]}")
            time.sleep(0.1)

    def result(self) -> list[Call]:
        """Once the engine is down."""
        code, said = self._process.wait(SPARE_S), self._output.read_text()
        if code:
            raise RuntimeError(f"the reader that calls by Ray failed:\n{said[-4000:]}")
        found: list[Call] = json.loads(said.splitlines()[-1])
        return found[WARM_UP:]


def steady(rate: float, seconds: float) -> list[int]:
    """So many messages a second, one by one."""
    return [round(n * 1e9 / rate) for n in range(round(rate * seconds))]


def sample(mono_ns: int) -> BookLevels:
    """A message as a mirror gets one for each change of a book, about 1.7 KB."""
    book = OrderBook("BTC-USDT", -2, -5)
    book.apply_snapshot(
        [(f"{60000 - n * 0.37:.2f}", f"{0.01 + n * 0.00137:.5f}") for n in range(LEVELS)],
        [(f"{60001 + n * 0.37:.2f}", f"{0.01 + n * 0.00137:.5f}") for n in range(LEVELS)],
    )
    bid_cells, ask_cells = book.cells()
    return BookLevels(
        connector="binance",
        pair="BTC-USDT",
        update_id=1_000_000,
        time_ns=mono_ns,
        received_mono_ns=mono_ns,
        mono_ns=mono_ns,
        state="synced",
        price_exponent=-2,
        size_exponent=-5,
        bid_cells=bid_cells,
        ask_cells=ask_cells,
    )


def paced(due_ns: Sequence[int]) -> Iterator[int]:
    """How many messages are due, whenever some are, after the warm-up's; blocks in between."""
    for wait_s, count in _waits(due_ns):
        time.sleep(wait_s)
        yield count


async def paced_async(due_ns: Sequence[int]) -> AsyncIterator[int]:
    """The same, without blocking."""
    for wait_s, count in _waits(due_ns):
        await asyncio.sleep(wait_s)
        yield count


def _waits(due_ns: Sequence[int]) -> Iterator[tuple[float, int]]:
    began_ns = time.monotonic_ns()
    warm_up = [WARM_UP_NS * n for n in range(WARM_UP)]
    for due, together in groupby([*warm_up, *(WARM_UP_NS * WARM_UP + due for due in due_ns)]):
        yield max(0, began_ns + due - time.monotonic_ns()) / 1e9, len(list(together))


def _command(what: str, address: str) -> list[str]:
    return ["python", "-m", "benchmarks.far_link", what, address]


def _due() -> list[int]:
    found: list[int] = json.loads(Path(f"{FOLDER}/due.json").read_text())
    return found


def _run(hosts: TwoHosts, host: Host, command: list[str]) -> Any:
    done = host.run(command, hosts.environment, SPARE_S * 5)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)


# ---------------------------------------------------------------------------------------------------- on the hosts


class _Sender(RunDirectory):
    """Everybody who is looked for is the sender."""

    def __init__(self, address: str) -> None:
        super().__init__(FOLDER)
        self._there = TcpEndpoint(address, PORT, client_context(f"{FOLDER}/identity.pem"), PEER_NAME)

    def endpoint(self, name: str) -> Endpoint:
        return self._there


async def send(address: str) -> None:
    """Publish to the one reader, once it is there, with beats in between; one without a time is the end."""
    tcp = TcpEndpoint(address, PORT, server_context(f"{FOLDER}/identity.pem"))
    bus = SocketBus(SENDER, 1, RunDirectory(FOLDER), tcp=tcp)
    stream = bus.open_stream("levels", overload=Overload.SKIP)
    there = asyncio.Event()
    stream.on_readers = there.set
    await bus.start()
    try:
        await there.wait()
        message = sample(0)
        beats = asyncio.create_task(_beats(stream))
        async for count in paced_async(_due()):
            due_ns = time.monotonic_ns()
            for _ in range(count):
                stream.publish(msgspec.structs.replace(message, mono_ns=due_ns))
        beats.cancel()
        stream.publish(BooksBeat(mono_ns=0))
    finally:
        await bus.close()


async def _beats(stream: Stream) -> None:
    every_s = BooksConfig().keep_warm
    while True:
        await asyncio.sleep(every_s)
        stream.publish(BooksBeat(mono_ns=time.monotonic_ns()))


async def receive(address: str) -> list[int]:
    """How long each message took."""
    bus = SocketBus("reader", 1, _Sender(address), listen=False)
    taken: list[int] = []
    end = asyncio.Event()

    def event(message: Message, number: int) -> None:
        if isinstance(message, BookLevels):
            taken.append(time.monotonic_ns() - message.mono_ns)
        elif isinstance(message, BooksBeat) and not message.mono_ns:
            end.set()

    await bus.start()
    bus.subscribe(SENDER, "levels", event)
    await end.wait()
    await bus.close()
    return taken[WARM_UP:]


class RayReader:
    """The other end of the call."""

    def take(self, due_mono_ns: int, body: bytes) -> int:
        return time.monotonic_ns() - due_mono_ns


def start_reader(address: str, to: str) -> Any:
    """A :class:`RayReader` on the node at ``to``, which has taken its first call; ``ray.shutdown()`` ends it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=address, namespace="far_link", log_to_driver=False, configure_logging=False)
    node = next(row["NodeID"] for row in ray.nodes() if row["NodeManagerAddress"] == to)
    affinity = NodeAffinitySchedulingStrategy(node, soft=False)
    reader: Any = ray.remote(RayReader).options(num_cpus=0, scheduling_strategy=affinity).remote()
    ray.get(reader.take.remote(0, encode_body(sample(0))))
    return reader


def call(address: str, to: str) -> dict[str, list[int]]:
    """Calls of an actor on the node at ``to``, when they are due."""
    import ray

    try:
        actor = start_reader(address, to)
        body = encode_body(sample(time.monotonic_ns()))
        one_way, whole = [], []
        for count in paced(_due()):
            due_ns = time.monotonic_ns()
            for answer in [actor.take.remote(due_ns, body) for _ in range(count)]:
                one_way.append(ray.get(answer))
                whole.append(time.monotonic_ns() - due_ns)
        return {CALL_THERE: one_way[WARM_UP:], CALL_AND_BACK: whole[WARM_UP:]}
    finally:
        ray.shutdown()


async def follow(address: str, to: str) -> list[Call]:
    """A call of an actor on the node at ``to`` for each book that changes in the engine on this host, until its
    order-book actor ends. As in :func:`call`, those that are due together are made together.
    """
    import ray

    try:
        reader = start_reader(address, to)
        body = encode_body(sample(time.monotonic_ns()))
        info = EnginePaths.for_state(Path(STATE)).read_run_json()
        if info is None:
            raise RuntimeError(f"no engine runs on {STATE}")
        bus = SocketBus(f"caller-{os.getpid()}", 1, RunDirectory(info.run_dir), engine_id=info.engine_id, listen=False)
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        made: list[tuple[int, int, Any]] = []
        taken: list[Call] = []

        def changed(message: Message, number: int) -> None:
            if isinstance(message, BookUpdated):
                if not made:
                    loop.call_soon(wait)
                given_ns = time.monotonic_ns()
                made.append((message.received_mono_ns, given_ns, reader.take.remote(given_ns, body)))

        def wait() -> None:
            for received_ns, given_ns, answer in made:
                there_ns = given_ns + ray.get(answer)
                taken.append((received_ns, given_ns, there_ns, time.monotonic_ns()))
            made.clear()

        def state(state: SubscriptionState) -> None:
            if isinstance(state, Down):
                end.set()

        await bus.start()
        bus.subscribe(ORDER_BOOK, "book", changed, on_state=state)
        Path(FOLLOWS).touch()
        await end.wait()
        await bus.close()
        return taken
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("send", "receive", "call", "follow"))
    parser.add_argument("address", help="of the sender, or of the Ray cluster")
    parser.add_argument("--to", help="the address of the node to call")
    arguments = parser.parse_args()
    if arguments.what == "send":
        uvloop.run(send(arguments.address))
    elif arguments.what == "receive":
        print(json.dumps(uvloop.run(receive(arguments.address))))
    else:
        with standard_output_as_error():
            if arguments.what == "call":
                found: Any = call(arguments.address, arguments.to)
            else:
                found = uvloop.run(follow(arguments.address, arguments.to))
        print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
