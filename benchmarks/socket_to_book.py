"""The most depth frames a second from a socket to the book in shared memory, in one order-book actor on one core.

Another process sends frames as fast as they are read. Figures are frames a second of the reader's own CPU time, so that
the sender and the machine's other work do not count; ``wall`` is by the clock on the wall. The stages tell where the
time goes: each case does what the one before it does, and more.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.book_workloads import synthetic
from benchmarks.common import Line, Options, line, median, say
from benchmarks.feed_bench import Reading, framed, sender
from engine.connectors.base import ConnectionPlan
from engine.connectors.feed import FeedResult

PAIR = "BTC-USDT"
CASES = ("socket", "decoded", "published")
_NOTHING = FeedResult()


def run(options: Options) -> Iterator[Line]:
    count = 20_000 if options.quick else 200_000
    workload = synthetic(20_000)
    stream = [framed(frame) for frame in workload.frames]
    figures: dict[str, list[float]] = {case: [] for case in CASES}
    walls: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(options.times(5)):
        say(f"socket_to_book: run {number + 1}")
        for case in CASES:
            cpu_s, wall_s, read = uvloop.run(_measure(case, workload, stream, count))
            figures[case].append(read / cpu_s)
            walls[case].append(read / wall_s)
    each_us = {case: 1e6 / median(values) for case, values in figures.items()}
    yield line(
        "socket_to_book",
        median(figures["published"]),
        "frames/s of CPU",
        wall=round(median(walls["published"])),
        bytes=round(sum(map(len, stream)) / len(stream)),
        frames=count,
        us={
            "reading and cutting frames": round(each_us["socket"], 2),
            "decode and apply": round(each_us["decoded"] - each_us["socket"], 2),
            "shared memory, latency, wake-ups": round(each_us["published"] - each_us["decoded"], 2),
            "all": round(each_us["published"], 2),
        },
    )


async def _measure(case: str, workload: object, stream: list[bytes], count: int) -> tuple[float, float, int]:
    """CPU and wall seconds for so many frames, and how many they were."""

    def send(links: list[socket.socket]) -> None:
        link = links[0]
        sent = 0
        link.recv(1)  # the reader is ready: it sends a frame of its own
        while sent < count:
            part = stream[sent % len(stream) : sent % len(stream) + 500]
            link.sendall(b"".join(part))
            sent += len(part)

    with sender(1, send) as port, tempfile.TemporaryDirectory(prefix="bench-", dir="/dev/shm") as folder:
        async with Reading(Path(folder), port, workload, [PAIR]) as reading:  # type: ignore[arg-type]
            actor = reading.actor
            await reading.until(lambda: bool(actor.sockets) and actor.sockets[0].is_open)
            await reading.until(lambda: not actor.feed.books[PAIR].awaiting_snapshot)
            seen = _tap(reading, case, count, len(stream))
            began, cpu = time.monotonic(), time.thread_time()
            actor.sockets[0].send("go")
            await seen
            cpu_s, wall_s = time.thread_time() - cpu, time.monotonic() - began
            reading.check()
            return cpu_s, wall_s, count


def _tap(reading: Reading, case: str, count: int, cycle: int) -> asyncio.Future[None]:
    """Have the actor do no more than the case says; done when all frames have come.

    The recording begins anew when it is over: the book is put back to where it begins.
    """
    actor, feed = reading.actor, reading.actor.feed
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen = 0
    whole = actor.on_frame

    def on_frame(plan: ConnectionPlan, stream: object, data: bytes, received_ns: int) -> None:
        nonlocal seen
        seen += 1
        if case == "published":
            whole(plan, stream, data, received_ns)  # type: ignore[arg-type]
        elif case == "decoded":
            feed.on_frame(plan, data, received_ns)
        if not seen % cycle:
            feed.books[PAIR].update_id = 1
        if seen == count:
            done.set_result(None)

    actor.on_frame = on_frame  # type: ignore[method-assign, assignment]
    return done
