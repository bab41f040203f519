"""Binance's private stream: a subscription on the WebSocket API, signed by itself.

Source: "User Data Streams" and "User Data Stream requests" of the Spot WebSocket API documentation (2026);
listen keys of the REST API were removed in February 2026. The venue answers a ``ping`` request with a frame,
which is how a quiet account's connection shows that it lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.connectors.base import (
    Ack,
    UserDataProtocol,
    UserEvent,
    UserRefused,
    UserSubscribed,
    UserTerminated,
    VenueNotice,
)
from engine.connectors.binance import reports
from engine.connectors.binance.auth import signed_params
from engine.connectors.binance.errors import FrameError, from_status
from engine.connectors.decoding import UNREADABLE
from engine.connectors.errors import AuthError, ClockError, MalformedFrame, MalformedReply, RateLimited
from engine.connectors.settings import Credentials
from engine.connectors.symbols import SymbolMap
from engine.messages import VenueBalanceUpdate

_SUBSCRIBE_ID = "subscribe"
_PING = '{"id":"ping","method":"ping"}'
_IGNORED = frozenset({"balanceUpdate", "listStatus", "externalLockUpdate"})
"""Events that say nothing which another does not say: a deposit is also an ``outboundAccountPosition``."""


class _Frame(msgspec.Struct):
    id: str | int | None = None
    status: int | None = None
    error: FrameError | None = None
    event: msgspec.Raw = msgspec.Raw()
    e: str = ""


class _Kind(msgspec.Struct):
    e: str
    reason: str = ""


_frame = msgspec.json.Decoder(_Frame).decode
_kind = msgspec.json.Decoder(_Kind).decode
_execution = msgspec.json.Decoder(reports.ExecutionReport).decode
_position = msgspec.json.Decoder(reports.AccountPosition).decode


class BinanceUserData(UserDataProtocol):
    """Order updates with their fills, and balances."""

    silence_after_s = 50.0
    keepalive = (20.0, _PING)

    def __init__(self, ws_api: str, symbols: SymbolMap, credentials: Credentials, recv_window_ms: int) -> None:
        self._url = ws_api
        self._symbols = symbols
        self._credentials = credentials
        self._recv_window_ms = recv_window_ms

    @property
    def url(self) -> str:
        return self._url

    def opening(self, now_ms: int) -> list[str]:
        params = signed_params(
            {
                "apiKey": self._credentials.api_key,
                "recvWindow": self._recv_window_ms,
                "timestamp": now_ms,
            },
            self._credentials.api_secret,
        )
        request: dict[str, Any] = {
            "id": _SUBSCRIBE_ID,
            "method": "userDataStream.subscribe.signature",
            "params": params,
        }
        return [msgspec.json.encode(request).decode()]

    def feed(self, data: str | bytes) -> Sequence[UserEvent]:
        try:
            frame = _frame(data)
            if bytes(frame.event):
                return self._event(bytes(frame.event))
            if frame.status is not None:
                return (self._answer(frame),)
            if frame.e:
                return self._event(data)
        except (*UNREADABLE, MalformedReply) as error:
            raise MalformedFrame(str(error), data) from error
        raise MalformedFrame("neither an event nor an answer", data)

    def _event(self, data: str | bytes) -> Sequence[UserEvent]:
        kind = _kind(data)
        if kind.e == "executionReport":
            return (reports.stream_update(_execution(data), self._symbols),)
        if kind.e == "outboundAccountPosition":
            position = _position(data)
            found = reports.balances((asset.a, asset.f, asset.l) for asset in position.B)
            at_ms = position.u or position.E
            return (VenueBalanceUpdate(balances=found, venue_time_ns=at_ms * reports.MS),)
        if kind.e == "eventStreamTerminated":
            return (UserTerminated(kind.reason or "the venue ended the subscription"),)
        if kind.e == "serverShutdown":
            return (VenueNotice(kind.e, "the venue announced that this connection will end", reconnect=True),)
        return () if kind.e in _IGNORED else (VenueNotice(kind.e, "an event that is not known"),)

    def _answer(self, frame: _Frame) -> UserEvent:
        succeeded = frame.status is not None and 200 <= frame.status < 300
        if frame.id != _SUBSCRIBE_ID and not (frame.id is None and not succeeded):
            if succeeded:
                return Ack(frame.id)
            error = frame.error or FrameError(code=frame.status or 0)
            return VenueNotice(str(error.code), error.msg)
        if succeeded:
            return UserSubscribed()
        error = frame.error or FrameError(code=frame.status or 0)
        meaning = from_status(frame.status or 0, error, error.retry_after_s())
        return UserRefused(
            f"{error.msg} (code {error.code})",
            retryable=not isinstance(meaning, AuthError),
            clock=isinstance(meaning, ClockError),
            silence_s=meaning.retry_after_s if isinstance(meaning, RateLimited) else 0.0,
        )
