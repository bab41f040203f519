"""What the local runtime and its fork server say to each other, and how descriptors travel along.

One socket pair of sequenced packets; each packet is one MessagePack message. A spec, which may hold
credentials, is never among them: it lies in a nameless memory file whose descriptor is handed through to the
child, unread.
"""

from __future__ import annotations

import os
import socket
from typing import Final

import msgspec

_MAX_PACKET: Final = 128 * 1024
_MAX_DESCRIPTORS: Final = 2


class Configure(msgspec.Struct, frozen=True, tag=True):
    """To the fork server, first of all. ``grace_s``: what actors have to leave in once the supervisor is
    dead."""

    state_dir: str
    run_dir: str
    shm_dir: str
    grace_s: float
    preload: list[str]
    cell: str = ""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """To the fork server, with two descriptors: the spec, and the gate at which the child waits to be let
    run.

    A byte through the gate is leave to run; a gate that closes without one ends the child.
    """

    ticket: int
    name: str


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """To the fork server: leave. The runtime takes over whatever still runs."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """From the fork server: everything is imported."""


class Forked(msgspec.Struct, frozen=True, tag=True):
    """From the fork server, with the child's pidfd."""

    ticket: int
    pid: int


class ForkFailed(msgspec.Struct, frozen=True, tag=True):
    """From the fork server: no process was made."""

    ticket: int
    error: str


class Exited(msgspec.Struct, frozen=True, tag=True):
    """From the fork server, sent before the child is reaped."""

    ticket: int
    code: int | None
    signal: int | None


ToServer = Configure | Fork | Shutdown
ToRuntime = Ready | Forked | ForkFailed | Exited

_encoder = msgspec.msgpack.Encoder()
_to_server: msgspec.msgpack.Decoder[ToServer] = msgspec.msgpack.Decoder(ToServer)
_to_runtime: msgspec.msgpack.Decoder[ToRuntime] = msgspec.msgpack.Decoder(ToRuntime)


def send(link: socket.socket, message: ToServer | ToRuntime, descriptors: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError (BlockingIOError when the link is full)."""
    socket.send_fds(link, [_encoder.encode(message)], list(descriptors), socket.MSG_NOSIGNAL)


def receive_command(link: socket.socket) -> tuple[ToServer, list[int]] | None:
    """The next message to the fork server with its descriptors; None at the end of the link."""
    packet, descriptors = _receive(link)
    return (_to_server.decode(packet), descriptors) if packet else None


def receive_report(link: socket.socket) -> tuple[ToRuntime, list[int]] | None:
    """The next message of the fork server with its descriptors; None at the end of the link."""
    packet, descriptors = _receive(link)
    return (_to_runtime.decode(packet), descriptors) if packet else None


def _receive(link: socket.socket) -> tuple[bytes, list[int]]:
    try:
        packet, descriptors, _, _ = socket.recv_fds(link, _MAX_PACKET, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    return packet, descriptors


def memory_file(name: str, content: bytes) -> int:
    """A nameless file in memory that holds ``content``, as a descriptor at its start."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
