"""The network of a simulated run: uneven, parted at times, and unkind to single requests."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass

from engine.runtime.memory_net import Connection, Weather

NEVER_NS = 10**18
ORDER = (b"POST /api/v3/order", b'"order.place"')
CANCEL = (b"DELETE /api/v3/order", b'"order.cancel"')
_MASKED_TEXT = 0x81


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
    """Latency with jitter; partitions between processes and ports; faults for single requests."""

    def __init__(self, rng: random.Random, latency_ns: int, jitter_ns: int, struck: Callable[[str], None]) -> None:
        super().__init__(latency_ns)
        self.faults: list[tuple[str, RequestFault]] = []
        self._rng = rng
        self._jitter_ns = jitter_ns
        self._struck = struck
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
            return self._befall(connection, data, delay)
        if connection.number in self._doomed:
            self._doomed.discard(connection.number)
            _soon(connection.cut)
            return NEVER_NS
        return delay

    def _befall(self, connection: Connection, data: bytes, delay: int) -> int:
        for entry in self.faults:
            name, fault = entry
            if fault.port == connection.port and _is(data, fault.request):
                break
        else:
            return delay
        fault.count -= 1
        if not fault.count:
            self.faults.remove(entry)
        self._struck(name)
        if fault.then is not None:
            fault.then(connection.client.owner)
        if fault.lose:
            _soon(connection.freeze if fault.silent else connection.cut)
            return NEVER_NS
        if fault.lose_reply:
            self._doomed.add(connection.number)
        return delay + fault.delay_ns


def _is(data: bytes, request: tuple[bytes, bytes]) -> bool:
    """Whether these bytes, as a client wrote them, are that request."""
    return data.startswith(request[0]) or request[1] in _message(data)


def _message(data: bytes) -> bytes:
    """The text of a client's frame; empty for anything else."""
    if len(data) < 8 or data[0] != _MASKED_TEXT:
        return b""
    length = data[1] & 0x7F
    start = 2 + (2 if length == 126 else 8 if length == 127 else 0)
    mask, masked = data[start : start + 4], data[start + 4 :]
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))


def _soon(act: Callable[[], None]) -> None:
    """Done by nobody's process, so that it happens whoever dies first."""
    asyncio.get_running_loop().call_soon(act, context=contextvars.Context())
