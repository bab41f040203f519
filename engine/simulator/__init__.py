"""The venue in a box: a separate process that speaks a real venue's protocol to any client.

:class:`VenueBox` serves it from the running event loop; ``engine simulate`` (:mod:`engine.simulator.command`) is the
program around it. Inside, :mod:`~engine.simulator.venue` is a pure state machine, :mod:`~engine.simulator.ledger` its
memory, and :mod:`~engine.simulator.binance` the protocol.
"""

from engine.simulator.box import VenueBox
from engine.simulator.config import AccountConfig, BoxConfig, BoxInfo, PairConfig

__all__ = ["AccountConfig", "BoxConfig", "BoxInfo", "PairConfig", "VenueBox"]
