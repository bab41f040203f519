"""The wall clocks of the hosts that an engine runs on, compared with the supervisor's, for the report.

Nothing is judged by it: whether a book is fresh or a lease holds is told by one host's monotonic clock alone. But ticks
come by the clock actor's wall time, logs are sorted by their hosts', and an operator wants to know whose is wrong.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from engine.actors.observed import Observations
from engine.bus import Bus
from engine.clock import Clock, ClockOffset, TimeExchange
from engine.errors import BusError
from engine.messages import AskTime, TimeIs
from engine.report import ActorRecord

EVERY_S: Final = 10.0
AT_ONCE: Final = 4
"""Questions each time: the first finds everything asleep."""
TIMEOUT_S: Final = 2.0
ASKED_FIRST: Final = ("mirror", "user_stream", "order_book", "exchange", "venue")


class HostClocks:
    """Asks one actor of each other host for the time. ``warn_ns``: a clock that is further off is told of, once."""

    def __init__(self, bus: Bus, clock: Clock, observed: Observations, own: ActorRecord, warn_ns: int) -> None:
        self._bus = bus
        self._clock = clock
        self._observed = observed
        self._own = own
        self._warn_ns = warn_ns
        self._offsets: dict[str, ClockOffset] = {}
        self._told: set[str] = set()
        self._log = structlog.get_logger()

    async def keep(self) -> None:
        """Measure again and again, until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(EVERY_S)

    async def measure(self) -> None:
        """Ask every other host a few times; one that does not answer keeps what is known of it."""
        hosts = {record.host for record in self._observed} - {self._own.host, ""}
        await asyncio.gather(*(self._measure(host) for host in sorted(hosts)))

    def rows(self) -> list[dict[str, Any]]:
        """For each host how far its clock is ahead of the supervisor's, give or take the error, in ms; None where that
        is not known. ``databases``: the same against the database of each account there that is held in one.
        """
        others = {record.host for record in self._observed} - {"", self._own.host}
        names = [self._own.host, *sorted(others)]
        return [{"host": host, **self._row(host), "databases": self._databases(host)} for host in names]

    def _row(self, host: str) -> dict[str, float | None]:
        if host == self._own.host:
            return {"clock_offset_ms": 0.0, "clock_error_ms": 0.0}
        offset = self._offsets.get(host)
        if offset is None or not offset.known:
            return {"clock_offset_ms": None, "clock_error_ms": None}
        lead_ns, error_ns = self._lead(offset)
        return {"clock_offset_ms": round(lead_ns / 1e6, 3), "clock_error_ms": round(error_ns / 1e6, 3)}

    def _databases(self, host: str) -> dict[str, dict[str, Any]]:
        return {
            f"{record.connector}/{record.name.split('.')[-1]}": {
                "clock_offset_ms": record.gauge("clock_offset_ms"),
                "clock_error_ms": record.gauge("clock_error_ms"),
            }
            for record in self._observed
            if record.host == host and record.gauge("clock_offset_ms") is not None
        }

    def _lead(self, offset: ClockOffset) -> tuple[int, int]:
        mono_ns = self._clock.monotonic_ns()
        return offset.lead_ns(self._clock.time_ns(), mono_ns), offset.error_ns(mono_ns)

    async def _measure(self, host: str) -> None:
        actor = self._someone_at(host)
        if actor is None:
            return
        try:
            for _ in range(AT_ONCE):
                await self._ask(host, actor)
        except BusError as error:
            self._log.info("a host's clock could not be asked", host=host, about=actor, error=str(error))
        else:
            self._judge(host)

    async def _ask(self, host: str, actor: str) -> None:
        asked_ns = self._clock.monotonic_ns()
        answer = await self._bus.request(actor, AskTime(), timeout=TIMEOUT_S)
        heard_ns = self._clock.monotonic_ns()
        if isinstance(answer, TimeIs):
            exchange = TimeExchange(asked_ns, answer.received_ns, answer.answered_ns, heard_ns)
            self._offsets.setdefault(host, ClockOffset()).add(exchange)

    def _someone_at(self, host: str) -> str | None:
        living = [record for record in self._observed if record.host == host and record.state == "running"]
        ranks = {kind: rank for rank, kind in enumerate(ASKED_FIRST)}
        found = min(living, key=lambda record: (ranks.get(record.kind, len(ranks)), record.name), default=None)
        return found.name if found is not None else None

    def _judge(self, host: str) -> None:
        lead_ns, error_ns = self._lead(self._offsets[host])
        if abs(lead_ns) - error_ns <= self._warn_ns:
            self._told.discard(host)
        elif host not in self._told:
            self._told.add(host)
            self._log.warning(
                "a host's clock differs from the supervisor's",
                host=host,
                ahead_s=round(lead_ns / 1e9, 3),
                error_s=round(error_ns / 1e9, 3),
            )
