"""Breaks frames: bytes at random, and JSON where it hurts."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

Mutation = Callable[[Random, bytes, bytes], bytes]

_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')
_INTERESTING = (
    *(b"0", b"-0", b"-1", b"1.0", b"1e3", b"1e400", b"9223372036854775807", b"9223372036854775808", b"1" * 60),
    *(b"00", b"1.", b".5", b"+1", b"1_0", b"0x10", b"NaN", b"-Infinity", b"nul", b"null", b"true", b"[]", b"{}"),
    *(b'""', b'"0"', b'"-1"', b'"1e5"', b'"NaN"', b'" 1"', b'"1,5"', b'"\xef\xbc\x91"', b'"\\u0031"', b'"\\ud800"'),
    *(
        b'"\\q"',
        b'"\x01"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"0.000000000000000000000000000001"',
        b'"1' + b"0" * 40 + b'"',
    ),
)
_MEMBER = re.compile(rb'("(?:[^"\\]|\\.)*"):("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)')
_KEY = re.compile(rb'"(?:[^"\\]|\\.)*":')
_BETWEEN = re.compile(rb"[\[\]{},:]")
_DIGIT = re.compile(rb"[0-9]")
_PIECES = (b'"', b",", b"[", b"]", b"{", b"}", b" ", b"\\", b"0", b"\n", b"\x00", b"\xff")


def mutated(random: Random, frame: bytes, other: bytes) -> bytes:
    """The frame, changed in one to four ways; about one in ten stays as it is. ``other`` lends its parts."""
    if random.random() < 0.1:
        return frame
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        frame = random.choice(MUTATIONS)(random, frame, other)
    return frame


def reworded(random: Random, frame: bytes, other: bytes) -> bytes:
    """The frame with a few other digits: it most likely stays readable, and means something else."""
    for _ in range(random.choice((1, 1, 2, 4))):
        frame = _digit(random, frame, other)
    return frame


def _flip(random: Random, frame: bytes, other: bytes) -> bytes:
    at = random.randrange(max(len(frame), 1))
    return frame[:at] + bytes([random.randrange(256)]) + frame[at + 1 :]


def _flip_bit(random: Random, frame: bytes, other: bytes) -> bytes:
    if not frame:
        return frame
    at = random.randrange(len(frame))
    return frame[:at] + bytes([frame[at] ^ (1 << random.randrange(8))]) + frame[at + 1 :]


def _delete(random: Random, frame: bytes, other: bytes) -> bytes:
    at = random.randrange(max(len(frame), 1))
    return frame[:at] + frame[at + random.choice((1, 1, 2, 8)) :]


def _truncate(random: Random, frame: bytes, other: bytes) -> bytes:
    return frame[: random.randrange(len(frame) + 1)]


def _repeat(random: Random, frame: bytes, other: bytes) -> bytes:
    start = random.randrange(max(len(frame), 1))
    end = start + random.randrange(1, 30)
    return frame[:end] + frame[start:end] + frame[end:]


def _insert(random: Random, frame: bytes, other: bytes) -> bytes:
    at = random.randrange(len(frame) + 1)
    return frame[:at] + random.choice(_PIECES) + frame[at:]


def _splice(random: Random, frame: bytes, other: bytes) -> bytes:
    return frame[: random.randrange(len(frame) + 1)] + other[random.randrange(len(other) + 1) :]


def _value(random: Random, frame: bytes, other: bytes) -> bytes:
    """One value, or one key, becomes another."""
    found = list(_VALUE.finditer(frame))
    if not found:
        return frame
    match = random.choice(found)
    return frame[: match.start()] + random.choice(_INTERESTING) + frame[match.end() :]


def _borrow(random: Random, frame: bytes, other: bytes) -> bytes:
    """One value becomes a value of another frame."""
    mine, theirs = list(_VALUE.finditer(frame)), list(_VALUE.finditer(other))
    if not mine or not theirs:
        return frame
    match = random.choice(mine)
    return frame[: match.start()] + random.choice(theirs)[0] + frame[match.end() :]


def _digit(random: Random, frame: bytes, other: bytes) -> bytes:
    """One digit becomes another: the frame most likely stays readable, and means something else."""
    match = _DIGIT.search(frame, random.randrange(len(frame) + 1)) or _DIGIT.search(frame)
    if match is None:
        return frame
    at = match.start()
    return frame[:at] + bytes([random.randrange(48, 58)]) + frame[at + 1 :]


def _requote(random: Random, frame: bytes, other: bytes) -> bytes:
    """A number becomes a string, or a string what stands between its quotation marks."""
    return _with_value(random, frame, lambda value: value[1:-1] if value.startswith(b'"') else b'"%b"' % value)


def _notation(random: Random, frame: bytes, other: bytes) -> bytes:
    """A number is written otherwise: with an exponent, more digits, or zeros in front."""
    form = random.choice(
        (b"%be0", b"%bE+2", b"%be-3", b"%b00000000", b"0%b", b"%b123456789012345678901234567890", b"-%b")
    )
    return _with_value(
        random, frame, lambda value: b'"%b"' % (form % value[1:-1]) if value[:1] == b'"' else form % value
    )


def _escape(random: Random, frame: bytes, other: bytes) -> bytes:
    """One letter of a string is written as an escape."""

    def escaped(value: bytes) -> bytes:
        if len(value) < 3 or not value.startswith(b'"') or b"\\" in value:
            return value
        at = random.randrange(1, len(value) - 1)
        return value[:at] + b"\\u%04x" % value[at] + value[at + 1 :]

    return _with_value(random, frame, escaped)


def _nest(random: Random, frame: bytes, other: bytes) -> bytes:
    depth = random.choice((1, 1, 2, 3000))
    return _with_value(random, frame, lambda value: b"[" * depth + value + b"]" * depth)


def _double_key(random: Random, frame: bytes, other: bytes) -> bytes:
    """An object names a key twice."""
    members = list(_MEMBER.finditer(frame))
    if not members:
        return frame
    match = random.choice(members)
    value = random.choice((match[2], random.choice(members)[2], random.choice(_INTERESTING)))
    return frame[: match.start()] + match[1] + b":" + value + b"," + frame[match.start() :]


def _unknown_field(random: Random, frame: bytes, other: bytes) -> bytes:
    keys = list(_KEY.finditer(frame))
    if not keys:
        return frame
    at = random.choice(keys).start()
    return frame[:at] + b'"zz":' + random.choice((b"1", b'"x"', b"[1,{}]", b"null")) + b"," + frame[at:]


def _reorder(random: Random, frame: bytes, other: bytes) -> bytes:
    """Two members change places."""
    members = list(_MEMBER.finditer(frame))
    at = random.randrange(max(len(members) - 1, 1))
    if len(members) < 2 or frame[members[at].end() : members[at + 1].start()] != b",":
        return frame
    first, second = members[at], members[at + 1]
    return frame[: first.start()] + second[0] + b"," + first[0] + frame[second.end() :]


def _space(random: Random, frame: bytes, other: bytes) -> bytes:
    """White space between two tokens."""
    found = list(_BETWEEN.finditer(frame))
    if not found:
        return frame
    at = random.choice(found).end()
    return frame[:at] + random.choice((b" ", b"\t", b"\r\n", b"  ", b"\x0b", b"\xc2\xa0")) + frame[at:]


def _with_value(random: Random, frame: bytes, change: Callable[[bytes], bytes]) -> bytes:
    found = list(_VALUE.finditer(frame))
    if not found:
        return frame
    match = random.choice(found)
    return frame[: match.start()] + change(match[0]) + frame[match.end() :]


def _wrap(random: Random, frame: bytes, other: bytes) -> bytes:
    return random.choice((b"[%b]", b" %b ", b'{"data":%b}', b"%b\n", b"\xef\xbb\xbf%b")) % frame


MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _flip_bit, _delete, _truncate, _repeat, _insert, _splice),
    *(_value, _value, _value, _borrow, _borrow, _digit, _digit, _wrap),
    *(_requote, _notation, _escape, _nest, _double_key, _unknown_field, _reorder, _space),
)
