"""JSON to the letter, and the checks that a plain decoder makes by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn

INT64 = 2**63 - 1
MILLIS = INT64 // 1_000_000
MICROS = INT64 // 1_000
_AMOUNT = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})?")
_INTEGER = re.compile(r"-?[0-9]+")


class Refused(Exception):
    """The frame is not what the venue promises."""


class Ambiguous(Exception):
    """An object names a key twice: JSON does not say what that means, and nor do we."""


class Number(str):
    """A JSON number, as it was written."""

    __slots__ = ()


def refuse(why: str) -> NoReturn:
    raise Refused(why)


def parse(data: bytes) -> Any:
    """The document; numbers as :class:`Number`. Refused for anything but strict JSON in UTF-8."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=Number,
            parse_float=Number,
            parse_constant=lambda name: refuse(f"{name} is no JSON"),
            object_pairs_hook=_object,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise Refused(str(error)) from None
    if b"\\u" in data:  # no other spelling makes half a character
        _check_surrogates(value)
    return value


class _Twice(dict[str, Any]):
    """An object that names a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs) if len({key for key, _ in pairs}) == len(pairs) else _Twice(pairs)


def has_repeated_keys(value: Any) -> bool:
    """Whether any object in the document names a key twice."""
    if isinstance(value, dict):
        return isinstance(value, _Twice) or any(has_repeated_keys(one) for one in value.values())
    return isinstance(value, list) and any(has_repeated_keys(one) for one in value)


def _check_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            refuse("half a character")
    elif isinstance(value, list):
        for one in value:
            _check_surrogates(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_surrogates(key)
            _check_surrogates(one)


# ------------------------------------------------------------------------------------------------------ checks

MISSING: Any = object()
Check = Callable[[Any], Any]


def obj(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else refuse("no object")


def array(value: Any) -> list[Any]:
    return value if isinstance(value, list) else refuse("no list")


def field(value: dict[str, Any], name: str, check: Check, default: Any = MISSING) -> Any:
    """A field that passes the check; its default where it is absent, Refused if it has none."""
    if name not in value:
        return refuse(f"no {name}") if default is MISSING else default
    return check(value[name])


def text(value: Any) -> str:
    return value if isinstance(value, str) and not isinstance(value, Number) else refuse("no text")


def boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else refuse("neither true nor false")


def integer(low: int | None = None, high: int | None = None) -> Check:
    def check(value: Any) -> int:
        if not isinstance(value, Number) or not _INTEGER.fullmatch(value) or len(value) > 4000:
            refuse("no whole number")
        number = int(value)
        if (low is not None and number < low) or (high is not None and number > high):
            refuse("out of range")
        return number

    return check


def nullable(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def either(*checks: Check) -> Check:
    def check(value: Any) -> Any:
        for one in checks:
            try:
                return one(value)
            except Refused:
                continue
        return refuse("none of what it may be")

    return check


def one_of(*allowed: str) -> Check:
    return lambda value: value if text(value) in allowed else refuse(f"none of {allowed}")


def matching(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: value if compiled.fullmatch(text(value)) else refuse(f"does not match {pattern}")


def amount(value: Any) -> str:
    return text(value) if _AMOUNT.fullmatch(text(value)) else refuse("no amount")


def decimal(value: Any) -> Decimal:
    """A JSON number or a decimal text, zero or more, of at most 40 digits on either side of the point."""
    if not isinstance(value, str):
        refuse("no number")
    try:
        number = Decimal(value)
    except ArithmeticError:
        refuse("no number")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -40 or max(exponent, number.adjusted()) > 40:
        refuse("no amount")
    return number.copy_abs() if number >= 0 else refuse("below zero")


ident = integer(0, INT64)
millis = integer(0, MILLIS)
millis_or_micros = integer(0, MICROS)
id_text = matching(r"[0-9]{1,18}")
millis_text = matching(r"[0-9]{1,12}|[0-8][0-9]{12}")


def pairs(value: Any) -> list[tuple[str, str]]:
    """Levels of just two texts."""
    return [(text(level[0]), text(level[1])) if len(array(level)) == 2 else refuse("no pair") for level in array(value)]


def pairs_or_early(value: Any) -> list[tuple[str, str]]:
    """Levels of just two texts, or of two texts and a list."""
    if any(len(array(level)) == 3 for level in array(value)):
        return [(price, size) for price, size, _ in map(_early, value)]
    return pairs(value)


def _early(level: list[Any]) -> tuple[str, str, list[Any]]:
    price, size, ignored = level if len(level) == 3 else refuse("no early level")
    return text(price), text(size), array(ignored)
