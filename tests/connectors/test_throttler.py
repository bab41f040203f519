"""Requests that wait for a venue's limits, and are let out in order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.clock import WallClock
from engine.connectors import throttler as throttler_module
from engine.connectors.errors import RateLimited, TransportError, never_sent
from engine.connectors.throttler import ACCOUNT, MOST_SILENCE_S, Priority, RateLimit, Throttler

MS = 1_000_000
S = 1000 * MS
ONE = {"weight": 1}


def throttler(limit: int = 100, interval_ms: int = 60_000, **more: Any) -> Throttler:
    clock = WallClock()
    limits = {"weight": RateLimit(limit, interval_ms * MS), **more.pop("limits", {})}
    return Throttler(limits, clock=clock, venue_now_ns=clock.monotonic_ns, **more)


def soon(seconds: float = 10.0) -> int:
    return WallClock().monotonic_ns() + round(seconds * S)


def test_without_patience_a_request_is_refused_at_once(run: Any) -> None:
    async def work() -> None:
        of = throttler(10)
        for _ in range(10):
            await of.acquire(ONE, Priority.CANCEL)
        with pytest.raises(RateLimited) as refused:
            await of.acquire(ONE, Priority.CANCEL)
        assert refused.value.local
        assert never_sent(refused.value)
        assert 0 < refused.value.retry_after_s <= 122
        with pytest.raises(RateLimited):
            of.try_acquire(ONE, Priority.CANCEL)
        assert of.refused == 2

    run(work())


def test_a_request_is_refused_at_once_if_room_comes_after_its_deadline(run: Any) -> None:
    async def work() -> None:
        of = throttler(1)
        of.try_acquire(ONE, Priority.CANCEL)
        began = WallClock().monotonic_ns()
        with pytest.raises(RateLimited):
            await of.acquire(ONE, Priority.PLACE, soon(1.0))
        assert WallClock().monotonic_ns() - began < 500 * MS
        assert of.waiting == 0

    run(work())


def test_a_request_waits_for_room_and_no_longer(run: Any) -> None:
    async def work() -> None:
        of = throttler(2, 200)
        sent = []
        for _ in range(5):
            await of.acquire(ONE, Priority.CANCEL, soon())
            sent.append(WallClock().monotonic_ns())
        for first, third in zip(sent, sent[2:], strict=False):
            assert third - first >= 200 * MS
        assert sent[-1] - sent[0] < 2 * S

    run(work())


def test_waits_that_a_loop_takes_for_none_are_waits_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop rounds to milliseconds, and has no time for a timer that is due at once."""
    monkeypatch.setattr(throttler_module, "_LEAST_WAIT_NS", 100_000)

    async def work() -> None:
        of = throttler(1, 5)
        of.try_acquire(ONE, Priority.CANCEL)
        first = asyncio.ensure_future(of.acquire(ONE, Priority.CANCEL, soon()))
        await asyncio.sleep(0)
        for _ in range(3):
            of._arm(0)
        await first
        assert of.waiting == 0

    uvloop.run(work())


def test_the_pressing_go_first_and_their_like_in_order(run: Any) -> None:
    async def work() -> None:
        of = throttler(1, 60, limits={"weight": RateLimit(1, 60 * MS, reserve=0)})
        of.try_acquire(ONE)
        order: list[tuple[Priority, int]] = []

        async def want(priority: Priority, number: int) -> None:
            await of.acquire(ONE, priority, soon())
            order.append((priority, number))

        async with asyncio.TaskGroup() as tasks:
            for number in range(2):
                for priority in reversed(Priority):
                    tasks.create_task(want(priority, number))
        assert order == [(priority, number) for priority in Priority for number in range(2)]
        assert of.waiting == 0

    run(work())


def test_nothing_passes_what_presses_more_at_the_limit_that_it_waits_for(run: Any) -> None:
    async def work() -> None:
        of = throttler(10, 300, limits={"orders": RateLimit(1, 300 * MS, ACCOUNT, reserve=0)})
        of.try_acquire({"weight": 9}, Priority.CANCEL)
        waiting = asyncio.create_task(of.acquire({"weight": 2}, Priority.CANCEL, soon()))
        await asyncio.sleep(0)
        with pytest.raises(RateLimited, match="others wait"):
            of.try_acquire(ONE, Priority.CANCEL)
        of.try_acquire({"orders": 1}, Priority.PLACE)
        behind = asyncio.create_task(of.acquire({"orders": 1}, Priority.PLACE, soon()))
        await asyncio.sleep(0)
        of.try_acquire({})
        await asyncio.gather(waiting, behind)

    run(work())


def test_room_that_others_took_is_waited_for_again_but_not_past_the_deadline(run: Any) -> None:
    async def work() -> None:
        of = throttler(1, 200, limits={"weight": RateLimit(1, 200 * MS, reserve=0)})
        of.try_acquire(ONE)
        pressing = [asyncio.create_task(of.acquire(ONE, Priority.CANCEL, soon())) for _ in range(2)]
        patient = asyncio.create_task(of.acquire(ONE, Priority.POLL, soon(0.5)))
        with pytest.raises(RateLimited):
            await patient
        await asyncio.gather(*pressing)
        assert of.waiting == 0

    run(work())


def test_a_silence_that_begins_while_requests_wait_holds_them(run: Any) -> None:
    async def work() -> None:
        of = throttler(1, 50, limits={"weight": RateLimit(1, 50 * MS, reserve=0)})
        of.try_acquire(ONE)
        began = WallClock().monotonic_ns()
        waiting = asyncio.create_task(of.acquire(ONE, Priority.CANCEL, soon()))
        await asyncio.sleep(0)
        of.silence(0.4)
        await waiting
        assert WallClock().monotonic_ns() - began >= 400 * MS

    run(work())


def test_whoever_stops_waiting_leaves_nothing_behind(run: Any) -> None:
    async def work() -> None:
        of = throttler(1, 300, limits={"weight": RateLimit(1, 300 * MS, reserve=0)})
        of.try_acquire(ONE)
        gone = asyncio.create_task(of.acquire(ONE, Priority.CANCEL, soon()))
        stays = asyncio.create_task(of.acquire(ONE, Priority.PLACE, soon()))
        await asyncio.sleep(0)
        assert of.waiting == 2
        gone.cancel()
        await stays
        assert gone.cancelled()
        assert of.waiting == 0

        late = asyncio.create_task(of.acquire(ONE, Priority.CANCEL, soon()))
        await asyncio.sleep(0)
        of.set_limits({"weight": RateLimit(3, 300 * MS)})
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert of.used()["weight"] <= 1

    run(work())


def test_a_raised_limit_lets_out_what_waits_and_keeps_whose_it_is(run: Any) -> None:
    async def work() -> None:
        of = throttler(1, limits={"weight": RateLimit(1, 60 * S, ACCOUNT, reserve=0)})
        of.try_acquire(ONE)
        waiting = asyncio.create_task(of.acquire(ONE, Priority.POLL, soon(600)))
        await asyncio.sleep(0)
        of.set_limits({"weight": RateLimit(2, 60 * S)})
        await waiting
        with pytest.raises(RateLimited):
            of.try_acquire(ONE)

    run(work())


def test_what_was_not_sent_makes_room_for_what_waits(run: Any) -> None:
    async def work() -> None:
        of = throttler(1, limits={"weight": RateLimit(1, 60 * S, reserve=0)})
        grant = of.try_acquire(ONE)
        waiting = asyncio.create_task(of.acquire(ONE, Priority.PLACE, soon(600)))
        await asyncio.sleep(0)
        of.refund(grant)
        await waiting

    run(work())


def test_closing_tells_what_still_waits_that_it_was_not_sent(run: Any) -> None:
    async def work() -> None:
        of = throttler(1)
        of.try_acquire(ONE, Priority.CANCEL)
        waiting = asyncio.create_task(of.acquire(ONE, Priority.CANCEL, soon(600)))
        await asyncio.sleep(0)
        of.close()
        with pytest.raises(TransportError) as failed:
            await waiting
        assert not failed.value.sent

    run(work())


def test_many_that_wait_are_let_out_without_asking_again_and_again(run: Any) -> None:
    async def work() -> None:
        of = throttler(1000, 100, limits={"weight": RateLimit(1000, 100 * MS, reserve=0)})
        charges = 0
        charge = of._budget.charge

        def counted(*arguments: Any) -> Any:
            nonlocal charges
            charges += 1
            return charge(*arguments)

        of._budget.charge = counted
        await asyncio.gather(*(of.acquire(ONE, Priority.POLL, soon(15)) for _ in range(5000)))
        assert of.waited >= 4000
        assert charges < 5000 + 300

    run(work())


def test_two_in_one_memory_share_what_there_is(run: Any, tmp_path: Path) -> None:
    async def work() -> None:
        one, two = (throttler(10, shared=tmp_path / "limits", address="a") for _ in range(2))
        for of in (one, two) * 5:
            of.try_acquire(ONE, Priority.CANCEL)
        for of in (one, two):
            with pytest.raises(RateLimited):
                of.try_acquire(ONE, Priority.CANCEL)
        assert one.used() == two.used() == {"weight": 10}

    run(work())


@pytest.mark.parametrize("seconds", [1e30, float("inf")])
def test_no_silence_lasts_longer_than_any_ban(seconds: float) -> None:
    of = throttler()
    of.silence(seconds)
    with pytest.raises(RateLimited) as refused:
        of.try_acquire(ONE)
    assert refused.value.retry_after_s == pytest.approx(MOST_SILENCE_S, abs=60)


@pytest.mark.parametrize("seconds", [-5.0, -1e30])
def test_a_silence_that_is_over_is_none(seconds: float) -> None:
    of = throttler()
    of.silence(seconds)
    of.try_acquire(ONE)
