"""The venue in a box: a separate process that speaks a real venue's protocol to any client.

:class:`VenueBox` serves it from the running event loop; ``engine simulate`` (:mod:`engine.simulator.command`) is the
program around it. Inside, :mod:`~engine.simulator.venue` is a pure state machine, :mod:`~engine.simulator.ledger` its
memory, and :mod:`~engine.simulator.binance` the protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.simulator.config import AccountConfig, BoxConfig, BoxInfo, PairConfig

if TYPE_CHECKING:
    from engine.simulator.box import VenueBox

__all__ = ["AccountConfig", "BoxConfig", "BoxInfo", "PairConfig", "VenueBox"]


def __getattr__(name: str) -> Any:
    """The box itself, with its web server, is loaded only where one is run."""
    if name == "VenueBox":
        from engine.simulator.box import VenueBox

        return VenueBox
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
