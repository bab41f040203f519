"""A request's parameters, read with Binance's errors for what is missing, malformed or too precise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from engine.simulator.amounts import TooPrecise, parse_amount
from engine.simulator.binance.errors import ApiError, illegal, missing, too_precise

_AMOUNT = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
_INTEGER = r"^[0-9]{1,20}$"
CLIENT_ID = r"^[a-zA-Z0-9-_]{1,36}$"
_amount = re.compile(_AMOUNT)
_integer = re.compile(_INTEGER)
_client_id = re.compile(r"[a-zA-Z0-9\-_]{1,36}")
_T = TypeVar("_T")


def from_form(query: str, body: str) -> dict[str, str]:
    """Query string and form body decoded; what the query says wins. -1101 for a name twice in one of them."""
    params: dict[str, str] = {}
    for form in (body, query):
        seen = set()
        for name, value in parse_qsl(form, keep_blank_values=True):
            if name in seen:
                raise ApiError(-1101, "Duplicate values for a parameter detected.")
            seen.add(name)
            params[name] = value
    return params


def from_json(params: Mapping[str, object]) -> dict[str, str]:
    """The WebSocket API's parameters as text, the way that they are signed."""
    return {name: _text(value) for name, value in params.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return msgspec.json.encode(value).decode()


def optional(params: Mapping[str, str], name: str) -> str | None:
    """None when absent; -1105 when sent empty."""
    value = params.get(name)
    if value == "":
        raise ApiError(-1105, f"Parameter '{name}' was empty.")
    return value


def required(params: Mapping[str, str], name: str) -> str:
    value = params.get(name)
    if not value:
        raise missing(name)
    return value


def amount(params: Mapping[str, str], name: str) -> int | None:
    """A price or size in units of 10^-8; None when absent."""
    text = optional(params, name)
    if text is None:
        return None
    if not _amount.fullmatch(text):
        raise illegal(name, _AMOUNT)
    try:
        return parse_amount(text)
    except TooPrecise:
        raise too_precise(name) from None


def required_amount(params: Mapping[str, str], name: str) -> int:
    required(params, name)
    value = amount(params, name)
    if value is None:
        raise missing(name)
    return value


def integer(params: Mapping[str, str], name: str) -> int | None:
    text = optional(params, name)
    if text is None:
        return None
    if not _integer.fullmatch(text):
        raise illegal(name, _INTEGER)
    return int(text)


def bounded(params: Mapping[str, str], name: str, default: int, highest: int) -> int:
    """A count such as ``limit``; more than the highest is taken as the highest."""
    value = integer(params, name)
    if value is None:
        return default
    if value < 1:
        raise ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")
    return min(value, highest)


def client_id(params: Mapping[str, str], name: str) -> str | None:
    text = optional(params, name)
    if text is not None and not _client_id.fullmatch(text):
        raise illegal(name, CLIENT_ID)
    return text


def choice(params: Mapping[str, str], name: str, choices: Mapping[str, _T], error: ApiError) -> _T:
    """One of the choices; ``error`` for any other value."""
    try:
        return choices[required(params, name)]
    except KeyError:
        raise error from None


def flag(params: Mapping[str, str], name: str) -> bool:
    text = optional(params, name)
    if text is None:
        return False
    if text.lower() not in ("true", "false"):
        raise illegal(name, "^(true|false)$")
    return text.lower() == "true"


def names(params: Mapping[str, str], name: str) -> list[str] | None:
    """A JSON list of strings such as ``symbols=["BTCUSDT","ETHUSDT"]``."""
    text = optional(params, name)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        raise illegal(name, '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$') from None
