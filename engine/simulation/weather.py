"""The network of a simulated run: uneven, parted at times, and unkind to single requests."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass

from engine.runtime.memory_net import Connection, Weather
from engine.simulation.wire import Wire, is_request

NEVER_NS = 10**18


@dataclass
class RequestFault:
    """What befalls the next ``count`` requests to a port: those that begin with ``request``'s first text, or are
    messages of a WebSocket with its second.

    ``lose``: they never arrive; the connection is cut, or goes silent. ``lose_reply``: they arrive, and the connection
    is cut instead of the reply. ``delay_ns``: they arrive late. ``then`` is called as they are written.
    """

    port: int
    request: tuple[bytes, bytes]
    count: int = 1
    lose: bool = False
    silent: bool = False
    lose_reply: bool = False
    delay_ns: int = 0
    then: Callable[[str], None] | None = None


class Storm(Weather):
    """Latency with jitter; partitions between processes and ports; faults for single requests.

    ``struck`` is told of each fault and the port that it strikes, ``wire`` of all that is written to a venue.
    """

    def __init__(
        self, rng: random.Random, latency_ns: int, jitter_ns: int, struck: Callable[[str, int], None], wire: Wire
    ) -> None:
        super().__init__(latency_ns)
        self.faults: list[tuple[str, RequestFault]] = []
        self._rng = rng
        self._jitter_ns = jitter_ns
        self._struck = struck
        self._wire = wire
        self._parted: dict[object, tuple[str, int]] = {}
        self._doomed: set[int] = set()

    def part(self, kind: str, port: int) -> Callable[[], None]:
        """From now on nothing passes between processes of that kind ("" for all) and the port; returns the end."""
        key = object()
        self._parted[key] = (kind, port)
        return lambda: self._parted.pop(key, None) and None

    def answers(self, client: str, port: int) -> bool:
        return not any(port == parted and client.startswith(kind) for kind, parted in self._parted.values())

    def delay_ns(self, connection: Connection, to_server: bool, data: bytes) -> int:
        delay = self.latency_ns + int(self._rng.expovariate(1.0) * self._jitter_ns)
        if to_server:
            self._wire.look(connection, data)
            return self._befall(connection, data, delay)
        if connection.number in self._doomed:
            self._doomed.discard(connection.number)
            _soon(connection.cut)
            return NEVER_NS
        return delay

    def _befall(self, connection: Connection, data: bytes, delay: int) -> int:
        for entry in self.faults:
            name, fault = entry
            if fault.port == connection.port and is_request(data, fault.request):
                break
        else:
            return delay
        fault.count -= 1
        if not fault.count:
            self.faults.remove(entry)
        self._struck(name, connection.port)
        if fault.then is not None:
            fault.then(connection.client.owner)
        if fault.lose:
            _soon(connection.freeze if fault.silent else connection.cut)
            return NEVER_NS
        if fault.lose_reply:
            self._doomed.add(connection.number)
        return delay + fault.delay_ns


def _soon(act: Callable[[], None]) -> None:
    """Done by nobody's process, so that it happens whoever dies first."""
    asyncio.get_running_loop().call_soon(act, context=contextvars.Context())
