"""The virtual loop: its time, its order, and the processes on it."""

import asyncio
import contextlib
import time

import pytest

from engine.clock import VirtualClock
from engine.runtime.virtual_loop import CURRENT, VirtualLoop, VirtualProcess, VirtualTimeError, running_loop


@pytest.fixture
def loop():
    loop = VirtualLoop(VirtualClock(1_000_000_000_000))
    yield loop
    loop.close()


def run(loop, work, process=None):
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work, context=process.context if process is not None else None)


def test_an_hour_passes_at_once_and_to_the_nanosecond(loop):
    async def body():
        await asyncio.sleep(3600)
        return loop.time(), loop.clock.time_ns()

    began = time.monotonic()
    assert run(loop, body()) == (3600.0, 1_000_000_000_000 + 3600 * 10**9)
    assert time.monotonic() - began < 5


def test_timers_run_by_time_and_those_of_one_instant_in_the_order_of_their_making(loop):
    async def body():
        seen = []
        for name, delay in (("late", 0.2), ("a", 0.1), ("b", 0.1), ("now", 0), ("c", 0.1)):
            loop.call_later(delay, seen.append, name)
        loop.call_soon(seen.append, "soon")
        cancelled = loop.call_later(0.1, seen.append, "cancelled")
        cancelled.cancel()
        await asyncio.sleep(1)
        return seen

    assert run(loop, body()) == ["soon", "now", "a", "b", "c", "late"]


def test_a_timer_never_fires_before_the_time_that_the_loop_shows(loop):
    async def body():
        for divisor in range(1, 400):
            when = loop.time() + 1 / divisor
            reached = loop.create_future()
            loop.call_at(when, reached.set_result, None)
            await reached
            assert loop.time() >= when

    run(loop, body())


def test_many_cancelled_timers_are_forgotten(loop):
    async def body():
        for _ in range(5000):
            loop.call_later(100, print).cancel()
        return len(loop._timers)

    assert run(loop, body()) < 1000


def test_time_outs_are_in_virtual_time(loop):
    async def body():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await loop.create_future()
        return loop.time()

    assert run(loop, body()) == 30.0


def test_waiting_for_what_can_never_come_is_an_error(loop):
    async def body():
        await loop.create_future()

    task = loop.create_task(body())
    with pytest.raises(VirtualTimeError, match="nothing is left"):
        loop.run_until_complete(task)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_time_that_stands_still_is_an_error(loop, monkeypatch):
    monkeypatch.setattr("engine.runtime.virtual_loop.MAX_TURNS_AT_ONE_INSTANT", 100)

    async def body():
        while True:  # noqa: ASYNC110 - standing still is what is tested
            await asyncio.sleep(0)

    task = loop.create_task(body())
    with pytest.raises(VirtualTimeError, match="time stands still"):
        loop.run_until_complete(task)
    loop._turns = 0
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_there_are_no_threads_names_or_sockets(loop):
    async def body():
        with pytest.raises(VirtualTimeError, match="threads"):
            await loop.run_in_executor(None, print)
        with pytest.raises(VirtualTimeError, match="threads"):
            await asyncio.to_thread(print)
        with pytest.raises(VirtualTimeError, match="names"):
            await loop.getaddrinfo("venue.example", 443)
        with pytest.raises(VirtualTimeError, match="no network"):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1)
        with pytest.raises(VirtualTimeError, match="TLS"):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", 1, ssl=True)
        assert running_loop() is loop

    run(loop, body())


def test_another_loop_is_told_from_it():
    async def body():
        with pytest.raises(VirtualTimeError, match="virtual loop"):
            running_loop()

    asyncio.run(body())


def test_what_a_process_makes_belongs_to_it(loop):
    process = VirtualProcess("p")

    async def child():
        return CURRENT.get()

    async def body():
        timer = loop.create_future()
        loop.call_later(1, lambda: timer.set_result(CURRENT.get()))
        return await asyncio.create_task(child()), await timer

    assert run(loop, body(), process) == (process, process)
    assert CURRENT.get() is None


def test_a_stopped_process_holds_still_while_time_passes_and_goes_on_in_order(loop):
    process = VirtualProcess("p")
    seen = []

    async def beat():
        for number in range(5):
            await asyncio.sleep(1)
            seen.append((number, loop.time()))

    async def body():
        task = loop.create_task(beat(), context=process.context)
        await asyncio.sleep(2.5)
        process.stop()
        assert process.is_stopped
        await asyncio.sleep(10)
        assert len(seen) == 2
        process.resume()
        await task
        return seen

    assert run(loop, body()) == [(0, 1.0), (1, 2.0), (2, 12.5), (3, 13.5), (4, 14.5)]


def test_a_killed_process_does_nothing_more_and_its_clean_up_reaches_nobody(loop):
    process = VirtualProcess("p")
    reached, acts = [], []
    process.on_death.append(lambda: acts.append("files closed"))

    async def stubborn():
        try:
            await asyncio.sleep(5)
            reached.append("woke")
        finally:
            acts.append("cleaned up")
            loop.call_soon(reached.append, "booked by the dead")
            await asyncio.sleep(1)
            reached.append("waited")

    async def body():
        task = loop.create_task(stubborn(), context=process.context)
        await asyncio.sleep(1)
        process.kill()
        process.kill()
        await asyncio.sleep(100)
        assert task not in asyncio.all_tasks()

    run(loop, body())
    assert acts == ["files closed", "cleaned up"]
    assert not reached


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_fuse_kills_between_two_callbacks(loop, steps):
    process = VirtualProcess("p")
    seen = []

    async def count():
        while True:
            seen.append(len(seen))
            await asyncio.sleep(1)

    async def body():
        loop.create_task(count(), context=process.context)
        process.light_fuse(steps, process.kill)
        await asyncio.sleep(50)

    run(loop, body())
    assert process.gone
    # Each second takes two callbacks: the timer's and the task's.
    assert len(seen) == steps // 2


def test_a_fuse_that_was_put_out_burns_nothing(loop):
    process = VirtualProcess("actor")

    async def body():
        loop.create_task(asyncio.sleep(5), context=process.context)
        process.light_fuse(2, process.kill)
        process.snuff()
        await asyncio.sleep(50)

    run(loop, body())
    assert not process.gone


def test_a_generator_left_half_way_is_closed_in_its_process_unless_that_is_dead(loop):
    living, dead = VirtualProcess("living"), VirtualProcess("dead")
    closed = []

    async def numbers():
        try:
            while True:
                await asyncio.sleep(1)
                yield 1
        finally:
            closed.append(CURRENT.get())

    async def leave(process):
        async for _ in numbers():
            break

    async def body():
        await loop.create_task(leave(living), context=living.context)
        await asyncio.sleep(1)
        loop.create_task(leave(dead), context=dead.context)
        await asyncio.sleep(0.5)
        dead.kill()
        await asyncio.sleep(5)

    run(loop, body())
    assert closed[0] is living
    assert dead not in closed[2:]
