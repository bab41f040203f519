"""Clocks of other hosts, as the supervisor's report and its log show them."""

from __future__ import annotations

from engine.actors.clock import ClockActor
from engine.actors.host_clocks import HostClocks
from engine.actors.observed import Observations
from engine.actors.plan import PlannedActor
from engine.clock import WallClock
from engine.messages import ActorStats

SECOND = 1_000_000_000
HALF = SECOND // 2


class SetClock(WallClock):
    """A host's wall clock that was set by hand."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_ns = round(ahead_s * SECOND)

    def time_ns(self) -> int:
        return super().time_ns() + self.ahead_ns


async def far_host(world, ahead_s: float):
    """An actor on a host whose clock is ahead, the clocks as a supervisor here keeps them, and that host's clock."""
    clock = SetClock(ahead_s)
    observed = Observations()
    own = observed.add_supervisor("supervisor", 1)
    observed.add(PlannedActor("clock", "clock"))
    observed.spawned("clock", 2, "far")
    listener = await world.supervisor()
    await world.start(ClockActor, "clock", params={"interval_ns": SECOND}, clock=clock)
    return HostClocks(listener.bus, world.clock, observed, own, HALF), observed, clock


def test_an_offset_at_the_clock_seam_shows_by_host_and_is_told_once(run) -> None:
    async def body(world) -> None:
        clocks, observed, far = await far_host(world, 3.0)
        await clocks.measure()
        assert clocks.rows()[1]["clock_offset_ms"] is None  # nobody runs there yet

        observed.of("clock").state = "running"
        for _ in range(2):
            await clocks.measure()
        here, there = clocks.rows()
        assert here == {
            "host": observed.of("supervisor").host,
            "clock_offset_ms": 0,
            "clock_error_ms": 0,
            "databases": {},
        }
        assert there["host"] == "far"
        assert abs(there["clock_offset_ms"] - 3000) <= there["clock_error_ms"] < 1000

        far.ahead_ns = 0  # set right, and wrong again: told again
        await clocks.measure()
        assert abs(clocks.rows()[1]["clock_offset_ms"]) <= clocks.rows()[1]["clock_error_ms"]
        far.ahead_ns = -5 * SECOND
        await clocks.measure()

    logs = run(body)
    told = [entry for entry in logs if "clock differs" in entry["event"]]
    assert [(entry["log_level"], entry["host"], round(entry["ahead_s"])) for entry in told] == [
        ("warning", "far", 3),
        ("warning", "far", -5),
    ]


def test_a_host_that_does_not_answer_keeps_what_is_known_of_it(run) -> None:
    async def body(world) -> None:
        clocks, observed, _ = await far_host(world, 0.2)
        observed.of("clock").state = "running"
        await clocks.measure()
        before = clocks.rows()[1]["clock_offset_ms"]
        await world.running[0].kill()
        world.monkeypatch.setattr("engine.actors.host_clocks.TIMEOUT_S", 0.05)
        await clocks.measure()
        after = clocks.rows()[1]
        assert abs(after["clock_offset_ms"] - before) <= after["clock_error_ms"]

    logs = run(body)
    assert [entry["host"] for entry in logs if entry["event"] == "a host's clock could not be asked"] == ["far"]
    assert not [entry for entry in logs if "clock differs" in entry["event"]]


def test_an_accounts_database_is_listed_with_the_host_that_measured_it(run) -> None:
    async def body(world) -> None:
        clocks, observed, _ = await far_host(world, 0)
        observed.add(PlannedActor("exchange.binance.main", "exchange", "binance"))
        observed.spawned("exchange.binance.main", 3, "far")
        gauges = {"clock_offset_ms": 12, "clock_error_ms": 1}
        observed.stats(ActorStats(actor="exchange.binance.main", incarnation=1, gauges=gauges))
        assert [row["databases"] for row in clocks.rows()] == [{}, {"binance/main": gauges}]

    run(body)
