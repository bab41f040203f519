"""What a client says on a market stream: SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, properties.

Source: binance-spot-api-docs ``web-socket-streams.md`` "Live Subscribing/Unsubscribing to streams" (2026).
"""

from __future__ import annotations

import msgspec

from engine.simulator.binance.streams import MAX_STREAMS, Hub, Listener


class _Request(msgspec.Struct):
    method: str
    params: list[msgspec.Raw] = []
    id: int | str | None = None


def answer(text: bytes, listener: Listener, hub: Hub) -> bytes:
    """Carry out one message and say the reply; errors are replies too."""
    try:
        request = msgspec.json.decode(text, type=_Request)
    except msgspec.MsgspecError as error:
        return _error(3, f"Invalid JSON: {error}", None)
    try:
        result = _carry_out(request, listener, hub)
    except (ValueError, msgspec.MsgspecError) as error:
        return _error(2, f"Invalid request: {error}", request.id)
    return msgspec.json.encode({"result": result, "id": request.id})


def _carry_out(request: _Request, listener: Listener, hub: Hub) -> object:
    if request.method == "LIST_SUBSCRIPTIONS":
        return list(listener.names)
    if request.method in ("SET_PROPERTY", "GET_PROPERTY"):
        return _property(request, listener)
    if request.method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
        raise ValueError(f"unknown variant `{request.method}`, expected one of SUBSCRIBE, UNSUBSCRIBE, ...")
    names = [msgspec.json.decode(name, type=str) for name in request.params]
    if request.method == "UNSUBSCRIBE":
        hub.discard(listener, names)
        return None
    if len(listener.names) + len(names) > MAX_STREAMS:
        raise ValueError(f"a connection can listen to at most {MAX_STREAMS} streams")
    hub.add(listener, names)
    return None


def _property(request: _Request, listener: Listener) -> object:
    name = msgspec.json.decode(request.params[0], type=str) if request.params else ""
    if name != "combined":
        raise ValueError(f"unknown property {name!r}")
    if request.method == "GET_PROPERTY":
        return listener.combined
    if len(request.params) < 2:
        raise ValueError("property value missing")
    listener.combined = msgspec.json.decode(request.params[1], type=bool)
    return None


def _error(code: int, msg: str, request_id: int | str | None) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "msg": msg}, "id": request_id})
