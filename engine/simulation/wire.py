"""What leaves for the venues: every order is seen as its bytes are written, whether or not it ever arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from engine.actors.account_link import COMMAND_EXPIRY_S
from engine.orders.ids import made_ns
from engine.orders.watch import Timing
from engine.runtime.memory_net import Connection

ORDER: Final = (b"POST /api/v3/order?", b'"method":"order.place"')
"""How a request that places an order begins, and what a WebSocket message that does holds."""
CANCEL: Final = (b"DELETE /api/v3/order?", b'"method":"order.cancel"')
OLDEST_NS: Final = round(COMMAND_EXPIRY_S * 1e9) + Timing().send_within
"""So old an order can be when it leaves: taken up as its command expires, written as it is given up."""
_ID_IN_ADDRESS: Final = b"newClientOrderId="
_MASKED_TEXT: Final = 0x81


class _Params(msgspec.Struct):
    client_order_id: str = msgspec.field(name="newClientOrderId")


class _Message(msgspec.Struct):
    params: _Params


_decode = msgspec.json.Decoder(_Message).decode


class Wire:
    """Looks at every order that an exchange actor writes, and finds what must never leave.

    ``now_ns``: the engine's wall clock. ``find`` is told of an id that is written twice, of an order that is older than
    its command allows, and of one that is written after its exchange actor acknowledged a halt.
    """

    def __init__(self, now_ns: Callable[[], int], find: Callable[[str], None]) -> None:
        self.written: dict[str, int] = {}
        self._now_ns = now_ns
        self._find = find
        self._halted: frozenset[str] = frozenset()

    def halt(self, exchanges: Iterable[str]) -> None:
        """These exchange actors have acknowledged a halt."""
        self._halted = frozenset(exchanges)

    def resume(self) -> None:
        """Orders may be placed again."""
        self._halted = frozenset()

    def look(self, connection: Connection, data: bytes) -> None:
        """Bytes are being written to a venue."""
        owner = connection.client.owner
        if not owner.startswith("exchange."):
            return
        client_order_id = _order_id(data)
        if not client_order_id:
            return
        count = self.written[client_order_id] = self.written.get(client_order_id, 0) + 1
        if count > 1:
            self._find(f"order {client_order_id} is sent for the {count}. time")
        age_ns = self._now_ns() - made_ns(client_order_id)
        if age_ns > OLDEST_NS:
            self._find(f"order {client_order_id} is sent {age_ns / 1e9:.3f} s after it was made: its command expired")
        if owner in self._halted:
            self._find(f"order {client_order_id} is sent after {owner} acknowledged a halt")


def is_request(data: bytes, request: tuple[bytes, bytes]) -> bool:
    """Whether these bytes, as a client wrote them, are that request (:data:`ORDER`, :data:`CANCEL`)."""
    return data.startswith(request[0]) or request[1] in _message(data)


def _order_id(data: bytes) -> str:
    """The client order id that is placed with these bytes; empty for anything else."""
    if data.startswith(ORDER[0]):
        return data.partition(_ID_IN_ADDRESS)[2].partition(b"&")[0].decode()
    message = _message(data)
    return _decode(message).params.client_order_id if ORDER[1] in message else ""


def _message(data: bytes) -> bytes:
    """The text of a client's frame; empty for anything else."""
    if len(data) < 8 or data[0] != _MASKED_TEXT:
        return b""
    length = data[1] & 0x7F
    start = 2 + (2 if length == 126 else 8 if length == 127 else 0)
    mask, masked = data[start : start + 4], data[start + 4 :]
    key = (mask * (len(masked) // 4 + 1))[: len(masked)]
    return (int.from_bytes(masked) ^ int.from_bytes(key)).to_bytes(len(masked))
