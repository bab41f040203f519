"""From a copy of the fork server to an actor's process."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from engine.runtime.base import ActorSpec
from engine.runtime.processes import TOKEN_VARIABLE, set_title, unborn_title
from engine.runtime.watch import PIDFD_VARIABLE

EXIT_NOT_LET_RUN: Final = 0
EXIT_UNHANDLED: Final = 70
"""The exit code of a process whose entry raised; the traceback is in its output file."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What a child is given: its name, its output file, the spec, the gate and the supervisor's pidfd."""

    name: str
    output: Path
    spec: int
    gate: int
    supervisor: int


def become(birth: Birth) -> NoReturn:
    """Turn this fresh copy of the fork server into the actor's process and run it to its end.

    The process leaves the terminal's reach (a session of its own, SIGINT ignored), keeps of the fork server's
    descriptors only those of its birth, waits until it is let run, and then calls the spec's entry.
    """
    code = EXIT_UNHANDLED
    try:
        _detach(birth)
        code = _run(birth) if _let_run(birth) else EXIT_NOT_LET_RUN
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _detach(birth: Birth) -> None:
    set_title(unborn_title(os.environ[TOKEN_VARIABLE]))
    os.setsid()
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    lowest = 3
    for kept in (*sorted((birth.spec, birth.gate, birth.supervisor)), os.sysconf("SC_OPEN_MAX")):
        os.closerange(lowest, kept)
        lowest = kept + 1


def _let_run(birth: Birth) -> bool:
    """Wait at the gate. The runtime knows this process before it opens; it closes when the runtime does
    not."""
    poll = select.poll()
    poll.register(birth.gate, select.POLLIN)
    poll.register(birth.supervisor, select.POLLIN)
    ready = [descriptor for descriptor, _ in poll.poll()]
    allowed = birth.supervisor not in ready and os.read(birth.gate, 1) != b""
    os.close(birth.gate)
    return allowed


def _run(birth: Birth) -> int:
    output = os.open(birth.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    set_title(birth.name)
    os.environ[PIDFD_VARIABLE] = str(birth.supervisor)
    os.environ.pop(TOKEN_VARIABLE, None)
    sys.argv = [birth.name]
    gc.enable()
    faulthandler.enable()
    with os.fdopen(birth.spec, "rb") as file:
        spec = msgspec.msgpack.decode(file.read(), type=ActorSpec)
    try:
        return _entry(spec)(spec)
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1


def _entry(spec: ActorSpec) -> Callable[[ActorSpec], int]:
    module, _, function = spec.entry.partition(":")
    found: Callable[[ActorSpec], int] = getattr(importlib.import_module(module), function)
    return found


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
