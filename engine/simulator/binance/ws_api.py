"""The WebSocket API: the same operations as REST, and the user data subscriptions.

Source: binance-spot-api-docs ``web-socket-api.md`` and ``user-data-stream.md`` (2026).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from engine.simulator.binance import auth
from engine.simulator.binance import params as read
from engine.simulator.binance.api import Operation
from engine.simulator.binance.desk import Desk, refusal_of
from engine.simulator.binance.errors import ApiError, missing
from engine.simulator.binance.routes import WEBSOCKET
from engine.simulator.binance.streams import Sink
from engine.simulator.binance.users import UserSocket


class _Request(msgspec.Struct):
    method: str
    id: int | str | None = None
    params: dict[str, object] = {}


class Session:
    """One connection. :meth:`answer` gives the reply to a message, or None when it is to be dropped on demand."""

    def __init__(self, desk: Desk, sink: Sink, caller: str) -> None:
        self._desk = desk
        self._caller = caller
        self._user = UserSocket(sink)
        self._places_for = ""

    def close(self) -> None:
        self._desk.users.sockets.pop(self._user, None)

    async def answer(self, text: bytes) -> bytes | None:
        try:
            request = msgspec.json.decode(text, type=_Request)
        except msgspec.MsgspecError:
            return self._reply(None, 400, error=ApiError(-1135, "Invalid JSON Request"))
        self._places_for = ""
        fault = await self._desk.befall(f"WS {request.method}")
        status = 200
        try:
            if fault is not None and fault.kind == "http_status":
                raise ApiError(-1000, fault.body or "An unknown error occurred.", status=fault.status)
            refusal = refusal_of(fault)
            if refusal is not None:
                raise refusal
            reply = self._reply(request.id, status, result=self._perform(request))
        except ApiError as error:
            reply = self._reply(request.id, error.status, error=error)
        if fault is not None and fault.kind == "drop_reply":
            return None
        if fault is not None and fault.kind == "late_reply":
            await self._desk.sleep(fault.ms / 1000)
        return reply

    def _perform(self, request: _Request) -> object:
        params = read.from_json(request.params)
        match request.method:
            case "userDataStream.subscribe.signature":
                return self._subscribe(params)
            case "userDataStream.unsubscribe":
                return self._unsubscribe(params)
            case "userDataStream.subscribe" | "session.logon":
                raise ApiError(-4056, "HMAC_SHA256 API key is not supported.")
            case "session.subscriptions":
                return [{"subscriptionId": number} for number in self._user.subscriptions]
            case "session.status" | "session.logout":
                return {"apiKey": None, "authorizedSince": None, "connectedSince": None, "returnRateLimits": True}
        operation = WEBSOCKET.get(request.method)
        if operation is None:
            raise ApiError(-1000, f"Method '{request.method}' is not known.")

        def identify(now_ns: int) -> str:
            account = self._account(params, now_ns)
            self._places_for = account if operation.places else ""
            return account

        return self._desk.serve(operation, params, self._caller, identify)

    def _account(self, params: Mapping[str, str], now_ns: int) -> str:
        key = params.get("apiKey")
        if not key:
            raise missing("apiKey")
        return self._desk.identify(params, key, auth.websocket_payload(params), now_ns)

    def _subscribe(self, params: Mapping[str, str]) -> object:
        def subscribe(account: str) -> object:
            try:
                return {"subscriptionId": self._desk.users.subscribe(self._user, account)}
            except ValueError as error:
                raise ApiError(-1000, str(error)) from error

        operation = Operation(lambda api, call: subscribe(call.account), 2, signed=True)
        return self._desk.serve(operation, params, self._caller, lambda now_ns: self._account(params, now_ns))

    def _unsubscribe(self, params: Mapping[str, str]) -> object:
        """One subscription, or all of them where none is named."""
        number = read.integer(params, "subscriptionId")
        if number is None:
            self._user.subscriptions.clear()
        elif self._user.subscriptions.pop(number, None) is None:
            raise ApiError(-1000, f"Subscription {number} is not active in this session.")
        return {}

    def _reply(
        self, request_id: int | str | None, status: int, result: object = None, error: ApiError | None = None
    ) -> bytes:
        body: dict[str, object] = {"id": request_id, "status": status}
        limits, now_ns = self._desk.api.limits, self._desk.clock()
        if error is not None:
            body["error"] = error.body() | _retry_after(error, now_ns // 1_000_000)
        else:
            body["result"] = result
        orders = limits.order_report(self._places_for, now_ns) if self._places_for else []
        body["rateLimits"] = [*orders, limits.weight_report(self._caller, now_ns)]
        return msgspec.json.encode(body)


def _retry_after(error: ApiError, now_ms: int) -> dict[str, object]:
    """When to come back, as an instant of the venue's clock: here instead of in a header."""
    if error.retry_after is None:
        return {}
    return {"data": {"serverTime": now_ms, "retryAfter": now_ms + error.retry_after * 1000}}
