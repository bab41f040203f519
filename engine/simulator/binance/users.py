"""Who listens to an account's events: WebSocket API subscriptions and listen keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from engine.simulator.binance import shapes
from engine.simulator.binance.streams import Sink, wrap
from engine.simulator.events import OrderEvent, UserEvent


@dataclass(slots=True, eq=False)
class UserSocket:
    """A connection that carries user data: subscription id → account, or a listen key's account.

    ``listen_key_stream`` is the key where the connection asked for the combined form.
    """

    sink: Sink
    subscriptions: dict[int, str] = field(default_factory=dict)
    listen_key_account: str = ""
    listen_key_stream: str = ""
    next_id: int = 0


class Users:
    """All connections with user data."""

    def __init__(self) -> None:
        self.sockets: dict[UserSocket, None] = {}
        self.frames_sent = 0

    def subscribe(self, socket: UserSocket, account: str) -> int:
        """A new subscription's id; ValueError when the connection has one for the account."""
        if account in socket.subscriptions.values():
            raise ValueError("Subscription already active in this session.")
        number = socket.next_id
        socket.next_id += 1
        socket.subscriptions[number] = account
        self.sockets[socket] = None
        return number

    def tell(self, event: UserEvent) -> None:
        account = event.order.account if isinstance(event, OrderEvent) else event.account
        body = _Lazy(lambda: _encode(event))
        for socket in self.sockets:
            if socket.listen_key_account == account:
                stream = socket.listen_key_stream
                socket.sink.send(wrap(stream, body.get()) if stream else body.get())
                self.frames_sent += 1
            for number, subscribed in socket.subscriptions.items():
                if subscribed == account:
                    socket.sink.send(b'{"subscriptionId":%d,"event":%s}' % (number, body.get()))
                    self.frames_sent += 1

    def drop_all(self) -> int:
        """Drop every connection with user data at once."""
        count = len(self.sockets)
        for socket in list(self.sockets):
            socket.sink.abort()
        return count


def listen_key(api_key: str, api_secret: str) -> str:
    """An account's listen key: the same in every life of the venue."""
    digest = hmac.new(api_secret.encode(), f"listenKey/{api_key}".encode(), hashlib.sha256)
    return digest.hexdigest()[:60]


class _Lazy:
    """Made at most once, and only when asked for."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._value = b""

    def get(self) -> bytes:
        if not self._value:
            self._value = self._make()
        return self._value


def _encode(event: UserEvent) -> bytes:
    if isinstance(event, OrderEvent):
        return msgspec.json.encode(shapes.execution_report(event))
    return msgspec.json.encode(shapes.account_position(event))
