"""The bus between two processes: one-way latency at steady rates, and throughput of a burst.

The peer is a Ray actor that is sent the same bytes by one-way calls. The lower rate is one that either side sustains;
at the higher one a peer's figure may be that of its queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvloop

from benchmarks.common import Line, Options, line, median, say
from engine.bus import Limits, Overload, RunDirectory, SocketBus, Stream, Up
from engine.bus.wire import encode_body
from engine.messages import ControlReply, ControlRequest, LogLine, Message
from engine.metrics import Histogram

RATES = (2_000, 500)
"""Messages a second."""
SECONDS = 5.0
WARM_UP = 500
BURST = 200_000
RAY_BURST = 10_000
PADDING = "x" * 120
"""Makes a message of about 200 bytes."""


class Latency(NamedTuple):
    """In microseconds."""

    p50: float
    p99: float


class Figures(NamedTuple):
    """Latency by rate, and the rate of a burst in messages a second."""

    latency: dict[int, Latency]
    burst: float


def message(sent_mono_ns: int) -> LogLine:
    return LogLine(actor="benchmark", level="info", event=PADDING, time_ns=sent_mono_ns)


class Receiver:
    """Counts what arrives and how long it took."""

    def __init__(self) -> None:
        self.latencies = Histogram()
        self.count = 0
        self.last_ns = 0

    def take(self, sent_mono_ns: int) -> None:
        self.count += 1
        self.last_ns = time.monotonic_ns()
        if self.count > WARM_UP:
            self.latencies.record(self.last_ns - sent_mono_ns)

    def result(self) -> dict[str, int]:
        """What arrived since the last call."""
        p50, p99 = self.latencies.percentile(0.5), self.latencies.percentile(0.99)
        figures = {"count": self.count, "last_ns": self.last_ns, "p50": p50 or 0, "p99": p99 or 0}
        self.latencies, self.count = Histogram(), 0
        return figures


def steps(rate: int) -> Iterator[int]:
    """The time at which to send each message, once it has come; blocks in between."""
    due = time.monotonic_ns()
    for _ in range(steady_count(rate)):
        due += 1_000_000_000 // rate
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        yield time.monotonic_ns()


def steady_count(rate: int) -> int:
    return WARM_UP + int(rate * SECONDS)


def latency(figures: dict[str, int]) -> Latency:
    return Latency(figures["p50"] / 1e3, figures["p99"] / 1e3)


# ------------------------------------------------------------------------------------------------------------ ours


async def receive(run_dir: str) -> None:
    """The other process: reads the stream and answers with what it measured."""
    bus = SocketBus("receiver", 1, RunDirectory(run_dir))
    receiver, complete, done = Receiver(), asyncio.Event(), asyncio.Event()
    expected = 0

    def event(body: Message, number: int) -> None:
        if isinstance(body, LogLine):
            receiver.take(body.time_ns)
            if receiver.count == expected:
                complete.set()

    async def serve(caller: object, request: Message) -> ControlReply:
        nonlocal expected
        if not isinstance(request, ControlRequest):
            return ControlReply(ok=False, error=f"not understood: {request}")
        if request.verb == "stop":
            done.set()
            return ControlReply(ok=True)
        expected = request.args["count"]
        if receiver.count < expected:
            complete.clear()
            await complete.wait()
        return ControlReply(ok=True, data=receiver.result())

    bus.serve(serve)
    await bus.start()
    up = asyncio.Event()
    bus.subscribe("sender", "bench", event, on_state=lambda state: up.set() if isinstance(state, Up) else None)
    await up.wait()
    bus.tell("sender", ControlReply(ok=True))
    await done.wait()
    await bus.close()


async def publish_steadily(stream: Stream, rate: int) -> None:
    for now_ns in steps(rate):
        stream.publish(message(now_ns))
        await asyncio.sleep(0)


async def publish_burst(stream: Stream, count: int) -> None:
    for number in range(count):
        stream.publish(message(0))
        if number % 200 == 0:
            await asyncio.sleep(0)


async def measure_ours(run_dir: str) -> Figures:
    bus = SocketBus("sender", 1, RunDirectory(run_dir), limits=Limits())
    stream = bus.open_stream("bench", overload=Overload.SKIP, queue=BURST)
    ready = asyncio.Event()
    by_rate: dict[int, Latency] = {}
    bus.serve(lambda caller, request: ready.set())
    await bus.start()
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.bus", run_dir)
    try:
        await ready.wait()
        for rate in RATES:
            await publish_steadily(stream, rate)
            by_rate[rate] = latency(await result(bus, steady_count(rate)))
        start_ns = time.monotonic_ns()
        await publish_burst(stream, BURST)
        burst = await result(bus, BURST)
        await bus.request("receiver", ControlRequest(verb="stop"))
    except BaseException:
        child.kill()
        raise
    finally:
        await child.wait()
        await bus.close()
    return Figures(by_rate, BURST / (burst["last_ns"] - start_ns) * 1e9)


async def result(bus: SocketBus, count: int) -> dict[str, int]:
    """What the receiver measured, once it has that many messages."""
    reply = await bus.request("receiver", ControlRequest(verb="result", args={"count": count}), timeout=60)
    if not isinstance(reply, ControlReply) or not reply.ok:
        raise RuntimeError(f"the receiver did not get {count} messages: {reply}")
    data: dict[str, int] = reply.data
    return data


# ------------------------------------------------------------------------------------------------------------- Ray


def measure_ray(runs: int) -> list[Figures]:
    """Empty, and said on standard error, when Ray is not installed."""
    try:
        import ray
    except ImportError:
        say("ray is not installed: no peer to compare with (pip install 'engine[cluster]')")
        return []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder, standard_output_as_error():
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        try:
            actor = ray.remote(RayReceiver).remote()
            return [_measure_ray(actor, ray.get) for _ in range(runs)]
        finally:
            ray.shutdown()


@contextmanager
def standard_output_as_error() -> Iterator[None]:
    """Ray prints warnings where our lines go, from beneath Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class RayReceiver:
    """The same measurement in a Ray actor."""

    def __init__(self) -> None:
        self._receiver = Receiver()

    def take(self, sent_mono_ns: int, body: bytes) -> None:
        self._receiver.take(sent_mono_ns)

    def result(self) -> dict[str, int]:
        return self._receiver.result()


def _measure_ray(actor: Any, get: Callable[[Any], Any]) -> Figures:
    body = encode_body(message(0))
    by_rate: dict[int, Latency] = {}
    for rate in RATES:
        for now_ns in steps(rate):
            actor.take.remote(now_ns, body)
        by_rate[rate] = latency(get(actor.result.remote()))
    start_ns = time.monotonic_ns()
    for _ in range(RAY_BURST):
        actor.take.remote(0, body)
    burst = get(actor.result.remote())
    return Figures(by_rate, RAY_BURST / (burst["last_ns"] - start_ns) * 1e9)


# ---------------------------------------------------------------------------------------------------------- report


def run(options: Options) -> Iterator[Line]:
    runs = options.times(3)
    ours = []
    for number in range(runs):
        say(f"bus: run {number + 1}")
        with tempfile.TemporaryDirectory(prefix="bench-") as run_dir:
            ours.append(uvloop.run(measure_ours(run_dir)))
    say("bus: ray")
    peer = measure_ray(runs)
    for rate in RATES:
        for place, name in enumerate(Latency._fields):
            times = [[found.latency[rate][place] for found in side] for side in (ours, peer)]
            yield _line(f"one_way_{name}_at_{rate}", "us", *times)
    yield _line("burst", "messages/s", [found.burst for found in ours], [found.burst for found in peer])


def _line(case: str, unit: str, ours: list[float], peer: list[float]) -> Line:
    return line(
        "bus",
        median(ours),
        unit,
        {"ray": median(peer)} if peer else {},
        more_is_better=unit == "messages/s",
        case=case,
        bytes=len(encode_body(message(time.monotonic_ns()))),
        runs=len(ours),
    )


if __name__ == "__main__":
    uvloop.run(receive(sys.argv[1]))
