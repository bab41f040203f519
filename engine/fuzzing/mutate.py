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
_PIECES = (b'"', b",", b"[", b"]", b"{", b"}", b" ", b"\\", b"0", b"\n", b"\x00", b"\xff")


def mutated(random: Random, frame: bytes, other: bytes) -> bytes:
    """The frame, changed in one to four ways; about one in ten stays as it is. ``other`` lends its parts."""
    if random.random() < 0.1:
        return frame
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        frame = random.choice(_MUTATIONS)(random, frame, other)
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
    places = [at for at, byte in enumerate(frame) if 48 <= byte <= 57]
    if not places:
        return frame
    at = random.choice(places)
    return frame[:at] + bytes([random.randrange(48, 58)]) + frame[at + 1 :]


def _wrap(random: Random, frame: bytes, other: bytes) -> bytes:
    return random.choice((b"[%b]", b" %b ", b'{"data":%b}', b"%b\n", b"\xef\xbb\xbf%b")) % frame


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _flip_bit, _delete, _truncate, _repeat, _insert, _splice),
    *(_value, _value, _value, _borrow, _borrow, _digit, _digit, _wrap),
)
