"""The open orders of a strategy that is gone."""

from __future__ import annotations

import asyncio

import structlog

from engine.actors.plan import PlannedActor
from engine.bus import Bus
from engine.clock import Clock
from engine.errors import BusError
from engine.messages import CancelAll, CancelAllResult

CANCEL_ORDERS_S = 15.0
"""How long a detach waits for the cancelling of the strategy's orders, which goes on after that."""
ANSWER_S = 5.0
AGAIN_S = 0.1


async def cancel_orders_of(planned: PlannedActor, bus: Bus, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
    """Cancel what a strategy's actor has left at every account that it traded; of its next life's orders none."""
    settings = planned.params["strategy"]
    cancel = CancelAll(strategy=settings["name"], made_by_ns=clock.time_ns())
    for market in settings["markets"].values():
        if market["exchange"]:
            await _cancel_at(market["exchange"], cancel, planned.name, bus, clock, log)


async def _cancel_at(
    exchange: str, cancel: CancelAll, actor: str, bus: Bus, clock: Clock, log: structlog.stdlib.BoundLogger
) -> None:
    """Asked until the exchange actor answers: it may be between two lives."""
    began, told = clock.monotonic_ns(), False
    while True:
        try:
            reply = await bus.request(exchange, cancel, timeout=ANSWER_S)
        except BusError as error:
            if not told and clock.monotonic_ns() - began > CANCEL_ORDERS_S * 1e9:
                told = True
                log.error("a strategy's orders could not be cancelled yet", about=actor, error=str(error))
            await asyncio.sleep(AGAIN_S)
        else:
            if isinstance(reply, CancelAllResult) and reply.failed:
                log.error("a strategy's orders are not cancelled yet", about=actor, orders=reply.failed)
            return
