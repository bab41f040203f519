"""The venue in a box as an actor, so that the supervisor starts it, restarts it and stops it last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.actors.base import Actor, ActorContext
from engine.errors import EngineError
from engine.logs import register_secret
from engine.messages import NetworkStatus, StopActor
from engine.runtime.locks import held_locks
from engine.simulator.box import VenueBox
from engine.simulator.config import BoxConfig


class VenueActor(Actor):
    """Runs one :class:`~engine.simulator.box.VenueBox`; its addresses and key are what connectors are started with.

    Params: ``box`` (a :class:`~engine.simulator.box.BoxConfig` as plain data).
    """

    kind: ClassVar[str] = "venue"

    def __init__(self, context: ActorContext) -> None:
        super().__init__(context)
        self.config = self._reachable(msgspec.convert(context.params["box"], BoxConfig))
        self.box = VenueBox(self.config, context.clock.time_ns)

    def _reachable(self, config: BoxConfig) -> BoxConfig:
        """Who works at it may be on another host: then it listens where its host is reached by others."""
        link = self.context.spec.link
        if link is None or not self.context.params.get("for_other_hosts"):
            return config
        return msgspec.structs.replace(config, host=link.address)

    async def start(self) -> dict[str, Any]:
        info = await self.box.start()
        register_secret(info.api_key)
        register_secret(info.api_secret)
        self.metrics.network = NetworkStatus.CONNECTED
        self.metrics.gauges["endpoint"] = info.rest
        self.context.run(self._watch(), "watch")
        self.log.info("the venue in a box listens", rest=info.rest, speaks=info.venue)
        described: dict[str, Any] = msgspec.to_builtins(info)
        return described

    async def _watch(self) -> None:
        """A box that can no longer write its ledger must not go on answering."""
        reason = await self.box.failed()
        raise EngineError(f"the venue in a box cannot go on: {reason}")

    async def stop(self, order: StopActor) -> None:
        await self.box.stop()

    def abandon(self) -> None:
        self.box.abandon()

    async def dead_man(self, grace_s: float) -> None:
        """Stay open for as long as exchange actors may still cancel their orders here."""
        run_dir = Path(self.context.spec.run_dir)
        # A lock on a file is all that is left to ask: nobody lives who could tell of an exchange actor's end.
        while any(lock.name.startswith("exchange.") for lock in held_locks(run_dir)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await self.box.stop()
