"""Where actors run: the small interface that every runtime implements.

A runtime starts an actor from its :class:`ActorSpec`, delivers signals to it and says when it has ended. It
decides nothing: restarts are the supervisor's policy, polite stops are messages on the bus. What other
runtimes need to be:

- ``local`` (:mod:`engine.runtime.local`): a process each, from a fork server.
- ``inline``: ``spawn`` starts a task of the one event loop and returns this process's pid; SIGTERM cancels
  the task, SIGKILL drops it without its cleaning up; a task's end is the :class:`Exit`.
- ``cluster`` (:mod:`engine.runtime.cluster`): ``spawn`` asks a cell on the chosen host, which is a ``local`` runtime
  there; signals travel the same way and a lost cell is the :class:`Exit` of each of its actors, with neither code nor
  signal.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from engine.errors import ConfigError, RuntimeFailure

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]*\Z")
TERM_GRACE_S: Final = 2.0
KILL_GRACE_S: Final = 5.0


class HostLink(msgspec.Struct, frozen=True, kw_only=True):
    """How an actor of an engine on several hosts is reached: the host's name and its Ray node, the address to listen on
    for other hosts, and the file of the engine's certificate.
    """

    host: str
    node: str
    address: str
    identity: str


class ActorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that an actor's process is told. Folders are absolute paths.

    ``params`` must be MessagePack-able and may hold credentials: no representation of a spec shows them, and
    they reach the process through memory alone. ``entry`` is ``module:function``, called as
    ``function(spec)`` in the process; what it returns is the exit code. ``place`` says where it may run, the best
    first; ``link`` is set where the engine runs on several hosts. ``rank``, above 0, and ``awake``: see
    :mod:`engine.runtime.scheduling`.
    """

    name: str
    kind: str
    connector: str
    incarnation: int
    run_dir: str
    shm_dir: str
    state_dir: str
    engine_id: str
    entry: str
    params: dict[str, Any] = {}
    place: tuple[str, ...] = ()
    cell: str = ""
    rank: int = 0
    awake: bool = False
    link: HostLink | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value!r}" for key, value in self.__rich_repr__())
        return f"ActorSpec({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        hidden = f"<{len(self.params)} hidden>"
        return [(key, hidden if key == "params" else getattr(self, key)) for key in self.__struct_fields__]


class Living(msgspec.Struct, frozen=True, kw_only=True):
    """An actor that runs. Its spec is without params, which may hold secrets."""

    spec: ActorSpec
    pid: int


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one incarnation of an actor.

    ``code`` is its exit code, or ``signal`` the number of the signal that ended it; both None when the
    process is known to be gone and nobody could learn how.
    """

    name: str
    incarnation: int
    pid: int
    code: int | None = None
    signal: int | None = None

    @property
    def reason(self) -> str:
        """In words, for logs and the list of actors."""
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}"
        return f"exit code {self.code}" if self.code is not None else "ended, nobody knows how"


class Runtime(ABC):
    """Starts, signals and watches actors. Used from one event loop only."""

    def __init__(self) -> None:
        self.on_exit: Callable[[Exit], None] = _ignore_exit
        """Called once for each incarnation that :meth:`spawn` returned for, when it is gone, and never
        before."""
        self._exits: dict[str, asyncio.Future[Exit]] = {}

    @abstractmethod
    async def start(self) -> Sequence[Living]:
        """Make ready to spawn; what runs already, started by an earlier supervisor of this engine, and is watched from
        here on. Raises RuntimeFailure when this host cannot.
        """

    @abstractmethod
    async def spawn(self, spec: ActorSpec) -> int:
        """Start the actor and return its process id, without waiting for it to be ready.

        Raises RuntimeFailure when the name is living already or no process could be started, ConfigError for
        a name that no file could bear.
        """

    @abstractmethod
    def send_signal(self, name: str, number: int) -> bool:
        """Deliver a signal to the living actor of that name; False when there is none."""

    @abstractmethod
    async def close(self, grace_s: float = 5.0) -> None:
        """End what is living (SIGTERM, SIGKILL after ``grace_s``) and remove what the runtime made."""

    def host_of(self, name: str) -> str:
        """The name of the host that a living actor runs on."""
        return socket.gethostname()

    async def cannot_load(self, path: str, place: tuple[str, ...], cell: str) -> str:
        """Why the class ``module:Class`` cannot be had where an actor of that place and cell is started; empty if it
        can. On this host alone it is looked for where it is asked for, on a command line.
        """
        return ""

    def announce(self, name: str, unix: str, tcp: str) -> None:  # noqa: B027 - on one host a name is an address
        """Let all actors know where this living one listens."""

    def living(self) -> list[str]:
        """The names of the actors that run now."""
        return list(self._exits)

    async def wait(self, name: str) -> Exit | None:
        """The end of the actor that lives under that name; None when there is none."""
        ended = self._exits.get(name)
        return await asyncio.shield(ended) if ended is not None else None

    async def terminate(
        self, name: str, polite_s: float, term_s: float = TERM_GRACE_S, kill_s: float = KILL_GRACE_S
    ) -> Exit | None:
        """End an actor in stages, each with its bounded wait; returns its end, None when it was not living.

        ``polite_s`` is for what the caller has asked of the actor itself; then SIGTERM, then SIGKILL. Raises
        RuntimeFailure when even that does not end it (a process stuck in the kernel).
        """
        ended = self._exits.get(name)
        if ended is None:
            return None
        for wait_s, next_signal in ((polite_s, signal.SIGTERM), (term_s, signal.SIGKILL), (kill_s, None)):
            if wait_s > 0:
                await asyncio.wait({ended}, timeout=wait_s)
            if ended.done():
                return ended.result()
            if next_signal is not None:
                self.send_signal(name, next_signal)
        raise RuntimeFailure(f"{name} does not end: SIGKILL was {kill_s} s ago; it is stuck in the kernel")

    def _lives(self, name: str) -> None:
        self._exits[name] = asyncio.get_running_loop().create_future()

    def _ended(self, ended: Exit) -> None:
        future = self._exits.pop(ended.name)
        if not future.done():
            future.set_result(ended)
        self.on_exit(ended)


def check_name(name: str) -> None:
    """Raises ConfigError for an actor's name that cannot be part of a file's name."""
    if not NAME.match(name) or len(name) > 80:
        raise ConfigError(
            f"{name!r} cannot name an actor: use up to 80 letters, digits and '_.:-', a letter or digit first"
        )


def _ignore_exit(ended: Exit) -> None:
    """Until somebody listens."""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
