"""The bus between two processes: one-way latency at a steady rate, and throughput of a burst.

The peer is a Ray actor that is sent the same bytes by one-way calls. Prints a JSON object a line; ``ratio`` is the
peer's figure over ours for times and ours over the peer's for rates, so that above 1 ours is the better.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from engine.bus import Limits, Overload, RunDirectory, SocketBus, Stream, Up
from engine.bus.wire import encode_body
from engine.messages import ControlReply, ControlRequest, LogLine, Message
from engine.metrics import Histogram

RATE = 2_000
SECONDS = 5.0
WARM_UP = 1_000
BURST = 200_000
RAY_BURST = 10_000
PADDING = "x" * 120
"""Makes a message of about 200 bytes."""


class Figures(NamedTuple):
    """Times in microseconds, the rate in messages a second."""

    p50: float
    p99: float
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


def pace(send: Callable[[int], Any], count: int) -> None:
    """Send ``count`` messages at the rate, one after the other, blocking between them."""
    due = time.monotonic_ns()
    for _ in range(count):
        due += 1_000_000_000 // RATE
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        send(time.monotonic_ns())


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


async def publish_steadily(stream: Stream, count: int) -> None:
    due = time.monotonic_ns()
    for _ in range(count):
        due += 1_000_000_000 // RATE
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)  # noqa: ASYNC251
        stream.publish(message(time.monotonic_ns()))
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
    bus.serve(lambda caller, request: ready.set())
    await bus.start()
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.bus", run_dir)
    try:
        await ready.wait()
        await publish_steadily(stream, WARM_UP + int(RATE * SECONDS))
        steady = await result(bus, WARM_UP + int(RATE * SECONDS))
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
    rate = BURST / (burst["last_ns"] - start_ns) * 1e9
    return Figures(steady["p50"] / 1e3, steady["p99"] / 1e3, rate)


async def result(bus: SocketBus, count: int) -> dict[str, int]:
    """What the receiver measured, once it has that many messages."""
    reply = await bus.request("receiver", ControlRequest(verb="result", args={"count": count}), timeout=60)
    if not isinstance(reply, ControlReply) or not reply.ok:
        raise RuntimeError(f"the receiver did not get {count} messages: {reply}")
    data: dict[str, int] = reply.data
    return data


# ------------------------------------------------------------------------------------------------------------- Ray


def measure_ray() -> Figures | None:
    """None, said on standard error, when Ray is not installed."""
    try:
        import ray
    except ImportError:
        print("ray is not installed: no peer to compare with (pip install 'engine[cluster]')", file=sys.stderr)
        return None
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        return _measure_ray(ray.remote(RayReceiver).remote(), ray.get)
    finally:
        ray.shutdown()


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
    pace(lambda now_ns: actor.take.remote(now_ns, body), WARM_UP + int(RATE * SECONDS))
    steady = get(actor.result.remote())
    start_ns = time.monotonic_ns()
    for _ in range(RAY_BURST):
        actor.take.remote(0, body)
    burst = get(actor.result.remote())
    rate = RAY_BURST / (burst["last_ns"] - start_ns) * 1e9
    return Figures(steady["p50"] / 1e3, steady["p99"] / 1e3, rate)


# ---------------------------------------------------------------------------------------------------------- report


def lines(ours: Figures, ray: Figures | None) -> list[dict[str, Any]]:
    cases = [
        ("one_way_p50", "us", ours.p50, ray and ray.p50),
        ("one_way_p99", "us", ours.p99, ray and ray.p99),
        ("burst", "messages/s", ours.burst, ray and ray.burst),
    ]
    return [_line(*case) for case in cases]


def _line(case: str, unit: str, ours: float, ray: float | None) -> dict[str, Any]:
    ratio = {}
    if ray:
        ratio["ray"] = round(ours / ray if unit == "messages/s" else ray / ours, 1)
    return {
        "bench": "bus",
        "case": case,
        "ours": round(ours, 1),
        "unit": unit,
        "peers": {"ray": round(ray, 1)} if ray else {},
        "ratio": ratio,
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bus-") as run_dir:
        ours = uvloop.run(measure_ours(str(Path(run_dir))))
    for line in lines(ours, measure_ray()):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(receive(sys.argv[1]))
    else:
        main()
