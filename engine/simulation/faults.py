"""Carries out a plan's faults on a world."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from engine.bus.memory import Between
from engine.runtime.inline import Seat
from engine.runtime.memory_net import Connection
from engine.simulation.meetings import states_held
from engine.simulation.plan import CUT_KINDS, TRADING_S, PlannedFault
from engine.simulation.venue import SimulatedVenue
from engine.simulation.weather import RequestFault
from engine.simulation.wire import CANCEL, ORDER
from engine.simulation.world import World
from engine.simulator.faults import Fault

WAIT_FOR_TARGET_S = 3.0
LOOK_EVERY_S = 0.05
MEET_WITHIN_S = 2.0
MEET_LOOK_S = 0.007
RETRY_AFTER_S = 3


class Injector:
    """Strikes one world. A fault whose target does not come to life in time does not strike, and is not counted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._pending: list[asyncio.Task[None]] = []
        self._operator = asyncio.Lock()

    async def strike_all(self, world: World) -> None:
        """All faults of the plan, each at its time and beside the others; returns when all are over."""
        for fault in world.plan.faults:
            await asyncio.sleep(max(0.0, fault.at_s - world.now_s))
            self._pending.append(asyncio.create_task(self._strike(fault)))
        for task in self._pending:
            await task
        world.storm.faults.clear()
        for venue in world.venues.values():
            if venue.box is not None:
                venue.box.faults.clear()

    async def _strike(self, fault: PlannedFault) -> None:
        self.world.tell("plan", str(fault))
        await self._meet(fault)
        strike: Callable[[PlannedFault], Awaitable[None]] | None
        name, _, rest = fault.kind.partition("_")
        if fault.kind in _BOX_FAULTS:
            await self._box_fault(fault)
            return
        strike = getattr(self, f"_{fault.kind}", None)
        if strike is None and name in ("kill", "pause"):
            strike = self._kill if name == "kill" else self._pause
        assert strike is not None, f"nobody knows how to do {fault.kind} ({rest})"
        await strike(fault)

    async def _meet(self, fault: PlannedFault) -> None:
        """Wait until an order of the account is in the state that the fault is to meet, for a while at most."""
        until_s = self.world.now_s + MEET_WITHIN_S
        while fault.meets and self.world.now_s < until_s:
            if fault.meets in states_held(self.world, self.world.venues[fault.venue]):
                return
            await asyncio.sleep(MEET_LOOK_S)

    # ----------------------------------------------------------------------------------------------------- processes

    async def _kill(self, fault: PlannedFault) -> None:
        seat = await self._target(fault.kind.partition("_")[2], fault.venue)
        if seat is not None:
            self._light(seat, fault.args["steps"], fault.kind)

    async def _kill_two(self, fault: PlannedFault) -> None:
        kinds: list[str] = fault.args["kinds"]
        for kind in kinds:
            if kind == "venue":
                self._burn_venue(self.world.venues[fault.venue], fault.args["steps"], 0.5, "kill_two")
            else:
                seat = await self._target(kind, fault.venue)
                if seat is not None:
                    self._light(seat, fault.args["steps"], "kill_two")

    async def _kill_venue(self, fault: PlannedFault) -> None:
        self._burn_venue(self.world.venues[fault.venue], fault.args["steps"], fault.args["down_s"], "kill_venue")
        await asyncio.sleep(fault.args["down_s"] + 1.0)

    async def _kill_supervisor(self, fault: PlannedFault) -> None:
        world = self.world
        engine = world.engine
        if engine is None or engine.gone or world.supervisor is None:
            return
        burnt, ended = asyncio.Event(), asyncio.Event()

        def burn() -> None:
            burnt.set()
            ended.set()

        engine.light_fuse(fault.args["steps"], burn)
        engine.on_death.append(ended.set)
        await ended.wait()
        if not burnt.is_set():
            return  # another of its kind was the first
        world.count("kill_supervisor")
        world.kills["supervisor"] += 1
        await world.kill_engine()
        await asyncio.sleep(fault.args["down_s"])
        world.start_engine()

    async def _kill_after_send(self, fault: PlannedFault) -> None:
        steps: int = fault.args["steps"]
        self._request_fault(fault, RequestFault(self._port(fault), ORDER, then=lambda name: self._doom(name, steps)))
        await asyncio.sleep(WAIT_FOR_TARGET_S)

    async def _pause(self, fault: PlannedFault) -> None:
        seat = await self._target(fault.kind.partition("_")[2], fault.venue)
        runtime = self.world.runtime
        if seat is None or runtime is None:
            return
        name = seat.process.name
        self.world.count(fault.kind, self._venue_of(name))
        runtime.send_signal(name, signal.SIGSTOP)
        await asyncio.sleep(fault.args["for_s"])
        if runtime.seat(name) is seat:
            runtime.send_signal(name, signal.SIGCONT)

    def _light(self, seat: Seat, steps: int, kind: str) -> None:
        world, runtime, name = self.world, self.world.runtime, seat.process.name

        def burnt() -> None:
            if runtime is not None and runtime.seat(name) is seat:
                world.count(kind, self._venue_of(name))
                world.kills[name.partition(".")[0]] += 1
                world.tell("fault", f"{name} is killed after {seat.process.steps} callbacks")
                runtime.send_signal(name, signal.SIGKILL)

        seat.process.light_fuse(steps, burnt)

    def _venue_of(self, name: str) -> str:
        """The venue that an actor works for; "" for those that work for all."""
        parts = name.split(".")
        return next((venue.name for venue in self.world.venues.values() if venue.connector in parts), "")

    def _burn_venue(self, venue: SimulatedVenue, steps: int, down_s: float, kind: str) -> None:
        world, process = self.world, venue.process
        if process is None or process.gone:
            return

        def burnt() -> None:
            if process.gone:
                return
            world.count(kind, venue.name)
            world.kills["venue"] += 1
            venue.kill()
            world.place.loop.call_later(down_s, world.start_venue, venue, context=contextvars.Context())

        process.light_fuse(steps, burnt)

    def _doom(self, name: str, steps: int) -> None:
        """The sender of what is being written dies."""
        runtime = self.world.runtime
        seat = runtime.seat(name) if runtime is not None else None
        if seat is not None:
            self._light(seat, steps, "kill_exchange")

    async def _target(self, kind: str, venue: str) -> Seat | None:
        """A living actor of that kind, of that venue's connector where the kind has one for each."""
        world = self.world
        connector = world.venues[venue].connector
        for _ in range(round(WAIT_FOR_TARGET_S / LOOK_EVERY_S)):
            runtime, supervisor = world.runtime, world.supervisor
            if runtime is not None and supervisor is not None:
                names = [
                    planned.name
                    for planned in supervisor.planned.values()
                    if planned.kind == kind and planned.connector in ("", connector)
                ]
                seats = [seat for name in names if (seat := runtime.seat(name)) is not None]
                if seats:
                    return seats[round(world.now_s * 1000) % len(seats)]
            await asyncio.sleep(LOOK_EVERY_S)
        return None

    # ------------------------------------------------------------------------------------------------------- network

    async def _cut(self, fault: PlannedFault) -> None:
        for connection in self._connections(fault):
            self.world.count("cut", fault.venue)
            connection.cut()

    async def _half_open(self, fault: PlannedFault) -> None:
        for connection in self._connections(fault):
            self.world.count("half_open", fault.venue)
            connection.freeze()

    async def _partition(self, fault: PlannedFault) -> None:
        world = self.world
        heal = world.storm.part(fault.args["kind"], self._port(fault))
        frozen = [connection for connection in self._connections(fault) if not connection.frozen]
        for connection in frozen:
            connection.freeze()
        world.count("partition", fault.venue)
        await asyncio.sleep(fault.args["for_s"])
        heal()
        for connection in frozen:
            connection.thaw()
        world.tell("fault", "partition heals")

    async def _bus_cut(self, fault: PlannedFault) -> None:
        for _ in range(self.world.place.buses.cut(self._bus_link(fault))):
            self.world.count("bus_cut", fault.venue)

    async def _bus_silent(self, fault: PlannedFault) -> None:
        """Requests between actors time out, commands expire, and what was said arrives late."""
        heal = self.world.place.buses.part(self._bus_link(fault))
        self.world.count("bus_silent", fault.venue)
        await asyncio.sleep(fault.args["for_s"])
        heal()
        self.world.tell("fault", "the bus is whole")

    def _bus_link(self, fault: PlannedFault) -> Between:
        """Links between actors of the two kinds; those that belong to a connector are those of the fault's venue."""
        one, other = (self._bus_end(kind, fault.venue) for kind in fault.args["link"])
        return lambda here, there: (one(here) and other(there)) or (one(there) and other(here))

    def _bus_end(self, kind: str, venue: str) -> Callable[[str], bool]:
        start = f"{kind}.{self.world.venues[venue].connector}." if kind in CUT_KINDS else kind
        return lambda name: name.startswith(start)

    def _connections(self, fault: PlannedFault, kind: str | None = None) -> list[Connection]:
        kind, port = fault.args["kind"] if kind is None else kind, self._port(fault)
        connections = self.world.place.net.connections.values()
        return [each for each in connections if each.port == port and each.client.owner.startswith(kind)]

    def _port(self, fault: PlannedFault) -> int:
        return self.world.venues[fault.venue].port

    # ------------------------------------------------------------------------------------------------------- requests

    async def _request_lost(self, fault: PlannedFault) -> None:
        await self._on_request(fault, ORDER, lose=True, silent=fault.args["silent"])

    async def _cancel_lost(self, fault: PlannedFault) -> None:
        await self._on_request(fault, CANCEL, lose=True, silent=fault.args["silent"])

    async def _reply_lost(self, fault: PlannedFault) -> None:
        await self._on_request(fault, ORDER, lose_reply=True)

    async def _request_late(self, fault: PlannedFault) -> None:
        await self._on_request(fault, ORDER, delay_ns=round(fault.args["by_s"] * 1e9))

    async def _request_outlives_sender(self, fault: PlannedFault) -> None:
        steps: int = fault.args["steps"]
        delay_ns = round(fault.args["by_s"] * 1e9)
        await self._on_request(fault, ORDER, delay_ns=delay_ns, then=lambda name: self._doom(name, steps))

    async def _on_request(self, fault: PlannedFault, request: tuple[bytes, bytes], **what: Any) -> None:
        self._request_fault(fault, RequestFault(self._port(fault), request, fault.args.get("count", 1), **what))
        await asyncio.sleep(WAIT_FOR_TARGET_S)

    def _request_fault(self, fault: PlannedFault, what: RequestFault) -> None:
        self.world.storm.faults.append((fault.kind, what))

    # --------------------------------------------------------------------------------------------------- the operator

    async def _halt(self, fault: PlannedFault) -> None:
        """Trading is halted by hand, and resumed; nothing may leave in between, whatever else goes wrong.

        ``cut_off_s``: for so long the venue has been out of reach by then; it is in reach again as long after.
        """
        world = self.world
        async with self._operator:
            cut_off_s: float = fault.args["cut_off_s"]
            if cut_off_s:
                heal = world.storm.part("exchange", self._port(fault))
                for connection in self._connections(fault, "exchange"):
                    connection.cut()
                await asyncio.sleep(cut_off_s)
                asyncio.get_running_loop().call_later(cut_off_s, heal)
            present = world.states()
            reply = await world.operate("halt")
            if reply is not None and reply.ok:
                world.count("halt", present=present)
                world.wire.halt(reply.data["acknowledged"])
                await asyncio.sleep(fault.args["for_s"])
            world.wire.resume()
            while (reply := await world.operate("resume")) is None or not reply.ok:  # noqa: ASYNC110 - no engine, no news
                await asyncio.sleep(LOOK_EVERY_S)

    # ------------------------------------------------------------------------------------------------- the venue's own

    async def _clock_skew(self, fault: PlannedFault) -> None:
        self.world.venues[fault.venue].skew_ns += round(fault.args["by_s"] * 1e9)
        self.world.count("clock_skew", fault.venue)

    async def _unheard_fills(self, fault: PlannedFault) -> None:
        """The account's stream is dropped, and its orders are filled before anybody listens again."""
        venue = self.world.venues[fault.venue]
        if not venue.sweep_unheard(fault.args["levels"]):
            return
        self.world.count("unheard_fills", fault.venue)
        heard_within_s = fault.args.get("heard_within_s")
        if heard_within_s is not None:
            made = venue.fills()
            await asyncio.sleep(heard_within_s)
            for pair, trade_id in sorted(made - self.world.journaled_fills(venue)):
                text = f"{pair} trade {trade_id}, made unheard, is not in the journal {heard_within_s:g} s later"
                self.world.find(f"{venue.connector}: {text}")

    async def _box_fault(self, fault: PlannedFault) -> None:
        box = self.world.venues[fault.venue].box
        if box is None or not hasattr(box, "desk"):
            return
        before = dict(box.faults.struck)
        box.inflict([_BOX_FAULTS[fault.kind](fault.args)])
        until = min(self.world.now_s + 2 * WAIT_FOR_TARGET_S, TRADING_S - 1.0)
        while self.world.now_s < until and box.faults.struck == before:  # noqa: ASYNC110 - the box tells nobody
            await asyncio.sleep(LOOK_EVERY_S)
        if box.faults.struck != before:
            self.world.count(fault.kind, fault.venue)


def _limit(status: int) -> Callable[[dict[str, Any]], Fault]:
    def make(args: dict[str, Any]) -> Fault:
        return Fault(
            kind="reject",
            count=args["count"],
            status=status,
            code=-1003,
            msg="Too many requests.",
            retry_after_s=RETRY_AFTER_S,
        )

    return make


_BOX_FAULTS: dict[str, Callable[[dict[str, Any]], Fault]] = {
    "user_late": lambda args: Fault(kind="late_user", count=args["count"], ms=args["ms"]),
    "user_duplicated": lambda args: Fault(kind="duplicate_user", count=args["count"]),
    "user_lost": lambda args: Fault(kind="skip_user", count=args["count"]),
    "http_5xx": lambda args: Fault(
        kind="http_status", count=args["count"], status=args["status"], match=args["match"], body="unavailable"
    ),
    "http_429": _limit(429),
    "http_418": _limit(418),
    "venue_slow": lambda args: Fault(kind="latency", count=args["count"], ms=args["ms"], match="order"),
    "venue_drops_reply": lambda args: Fault(kind="drop_reply", count=args["count"], match=args["match"]),
    "book_gap": lambda args: Fault(kind="skip_depth", count=args["count"]),
    "streams_dropped": lambda args: Fault(kind="disconnect_streams"),
    "user_stream_dropped": lambda args: Fault(kind="disconnect_user"),
}
