"""What the parts of an exchange actor work on together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.actors.base import ActorContext
from engine.connectors.base import ExchangeClient, VenueFill
from engine.orders.account import Account
from engine.orders.effects import Effect
from engine.orders.journal import Journal


@dataclass(frozen=True, slots=True)
class Desk:
    """One account: its core, its journal, its venue. ``do`` carries out what the core decides."""

    context: ActorContext
    client: ExchangeClient
    core: Account
    journal: Journal
    pairs: list[str]
    do: Callable[[Iterable[Effect]], None]

    def now(self) -> int:
        """The venue's present time, as well as it is known: orders and their evidence are dated on its clock."""
        return self.client.time.now_ns()

    @property
    def listed(self) -> list[str]:
        """The pairs that the venue has: asked about another it may answer nothing but an error."""
        return [pair for pair in self.pairs if pair in self.core.rules]

    def take_fill(self, found: VenueFill) -> None:
        """Give the core an execution that the venue was asked for."""
        self.do(
            self.core.venue_fill(found.pair, found.fill, self.now(), found.client_order_id, found.exchange_order_id)
        )
