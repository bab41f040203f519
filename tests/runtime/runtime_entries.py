"""What the processes of these tests run. Each says on the datagram socket in ``params["report"]`` what it does."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import uvloop

from engine.runtime.base import ActorSpec
from engine.runtime.locks import take_lock
from engine.runtime.watch import supervisor_alive, watch_supervisor


def tell(spec: ActorSpec, word: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(f"{word} {spec.name} {spec.incarnation} {os.getpid()}".encode(), spec.params["report"])


def hold_name(spec: ActorSpec) -> None:
    if take_lock(Path(spec.run_dir) / f"{spec.name}.lock") is None:
        tell(spec, "twice")
        raise SystemExit(3)


def live(spec: ActorSpec) -> int:
    """A well-behaved actor: holds its name, leaves on SIGTERM and at the supervisor's death."""

    async def main() -> int:
        left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, left.set_result, 0)
        watch_supervisor(loop, lambda: left.set_result(9))
        hold_name(spec)
        tell(spec, "up")
        return await left

    return uvloop.run(main())


def stubborn(spec: ActorSpec) -> int:
    """Ignores SIGTERM and the supervisor's death."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hold_name(spec)
    tell(spec, "up")
    while True:
        signal.pause()


def leave(spec: ActorSpec) -> int:
    tell(spec, "alive" if supervisor_alive() else "orphan")
    return int(spec.params["code"])


def crash(spec: ActorSpec) -> int:
    raise ValueError(f"{spec.name} cannot go on")


def exit_with_words(spec: ActorSpec) -> int:
    sys.exit("nothing to do")


def describe(spec: ActorSpec) -> int:
    """Write down what the process was born with."""
    facts = {
        "stdin": os.readlink("/proc/self/fd/0"),
        "session": str(os.getsid(0) == os.getpid()),
        "sigint": str(signal.getsignal(signal.SIGINT) is signal.SIG_IGN),
        "umask": oct(os.umask(0)),
        "descriptors": " ".join(sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in open_descriptors())),
        "params": str(len(spec.params)),
    }
    for key, value in facts.items():
        print(key, "=", value)
    return live(spec)


def open_descriptors() -> list[int]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(entry))
        except OSError:
            continue
        found.append(int(entry))
    return [fd for fd in found if fd > 2]


def with_helper(spec: ActorSpec) -> int:
    """An actor that started a program of its own."""
    helper = subprocess.Popen(["sleep", "1000"])
    tell(spec, f"helper:{helper.pid}")
    return live(spec)
