"""The clock actor: the one beat that every other actor hears."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from engine.actors.base import Actor, ActorContext
from engine.bus import Overload
from engine.clock import NextTick, TickSchedule
from engine.messages import Tick


class ClockActor(Actor):
    """Publishes a :class:`~engine.messages.Tick` at wall-clock multiples of its interval.

    A tick's number is wall time divided by the interval, so a restarted clock needs no state and numbers never go back;
    when wall time steps back it waits. A listener that falls behind is given the newest tick only.

    Params: ``interval_ns``.
    """

    kind: ClassVar[str] = "clock"
    ticked: ClassVar[bool] = False

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.interval_ns = int(context.params["interval_ns"])
        self.schedule = TickSchedule(self.interval_ns)
        self.stream = context.bus.open_stream("tick", overload=Overload.MERGE)

    async def start(self) -> dict[str, Any]:
        self.context.run(self._beat(), "beat")
        return {"interval_ns": self.interval_ns}

    async def _beat(self) -> None:
        """Never asleep for longer than an interval: wall time that stepped back may step forward again meanwhile."""
        last_n: int | None = None
        while True:
            tick = self.schedule.next(self.clock.time_ns(), last_n)
            while (wait_ns := tick.wait_ns(self.clock.time_ns())) > 0:
                await asyncio.sleep(min(wait_ns, self.interval_ns) / 1e9)
                tick = self.schedule.next(self.clock.time_ns(), last_n) if last_n is not None else tick
            self._send(tick)
            last_n = tick.n

    def _send(self, tick: NextTick) -> None:
        self.metrics.count("ticks")
        self.metrics.gauges["last_tick"] = tick.n
        if tick.skipped:
            self.metrics.count("ticks_skipped", tick.skipped)
        self.metrics.histogram("tick_lateness_ns").record(max(0, self.clock.time_ns() - tick.time_ns))
        self.stream.publish(
            Tick(
                n=tick.n,
                time_ns=tick.time_ns,
                interval_ns=self.interval_ns,
                sent_mono_ns=self.clock.monotonic_ns(),
            ),
            key="tick",
        )
