"""How the supervisor ends actors: one that is taken out, or all of them, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.actors.policy import ActorState

if TYPE_CHECKING:
    from engine.actors.supervisor import Supervisor

STOP_ORDER = (
    ("strategy",),
    ("exchange",),
    ("risk", "recorder"),
    ("user_stream", "order_book", "mirror"),
    ("clock",),
    ("venue",),
)
NAMED_ORDERS = 5
ENDED = (ActorState.STOPPED, ActorState.FAILED)
BETWEEN_LIVES = (ActorState.BACKING_OFF, ActorState.STARTING, ActorState.STALLED)
BETWEEN_LIVES_S = 3.0
"""How long the engine's end waits for an exchange actor that is being started again."""
REASON = "the engine stops"


class Shutdown:
    """Ends actors politely, and waits until they have ended; the policy kills those that take too long."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """An actor's state is another: who waits for an end looks again."""
        self._changed.set()

    async def end(self, names: Iterable[str], reason: str) -> None:
        """Stop these actors and wait until they have."""
        supervisor = self._supervisor
        names = list(names)
        for name in names:
            supervisor.policy.stop_requested(name, supervisor.now(), reason)
            supervisor.boxes.give_up(name)
        supervisor.pump()
        while any(name in supervisor.planned and supervisor.policy.state(name) not in ENDED for name in names):
            self._changed.clear()
            await self._changed.wait()

    async def end_all(self) -> None:
        """Stop the engine's actors, kind by kind, and name the orders that are left open where none was to be."""
        supervisor = self._supervisor
        await self.end(self._of_kinds(("strategy",)), REASON)
        await self._exchanges_are_back()
        supervisor.policy.shutdown_requested(supervisor.now())
        supervisor.pump()
        for kinds in STOP_ORDER:
            await self.end(self._of_kinds(kinds), REASON)
        if supervisor.config.stop.open_orders == "cancel":
            self._name_open_orders()

    def _of_kinds(self, kinds: tuple[str, ...]) -> list[str]:
        return [name for name, planned in self._supervisor.planned.items() if planned.kind in kinds]

    async def _exchanges_are_back(self) -> None:
        """An exchange actor between two lives is waited for: nobody else can cancel its account's open orders. So is a
        venue in a box, where they are to be cancelled.
        """
        try:
            async with asyncio.timeout(BETWEEN_LIVES_S):
                while any(map(self._is_between_lives, self._of_kinds(("venue", "exchange")))):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self._supervisor.log.warning(
                "an exchange actor or its venue is not back: open orders may be left as they are"
            )

    def _is_between_lives(self, name: str) -> bool:
        supervisor = self._supervisor
        return not supervisor.boxes.is_waiting(name) and supervisor.policy.state(name) in BETWEEN_LIVES

    def _name_open_orders(self) -> None:
        """They were to be cancelled: a run that leaves some is not ok."""
        for record in self._supervisor.observed:
            left = record.gauge("open_orders", []) if record.kind == "exchange" else []
            if left:
                ids = ", ".join(order["client_order_id"] for order in left[:NAMED_ORDERS])
                more = f" and {len(left) - NAMED_ORDERS} more" if len(left) > NAMED_ORDERS else ""
                self._supervisor.problem(f"{record.name} leaves orders open at the venue: {ids}{more}", record.name)
