"""What a supervisor stands on: where its actors run, what carries its messages, its clock, its log and its signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Protocol

from engine.bus import Bus, RunDirectory, SocketBus
from engine.clock import Clock, WallClock
from engine.logs import configure_actor_logging
from engine.messages import LogLine
from engine.runtime.base import Runtime
from engine.runtime.local import LocalRuntime
from engine.runtime.paths import EnginePaths

DEAD_MAN_SPARE_S = 2.0


def stopping_signals() -> list[signal.Signals]:
    """What ends an engine politely: SIGHUP, as of a terminal that closes, too, unless it is ignored (``nohup``)."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


PRELOAD = (
    "engine.actors.process",
    "engine.actors.clock",
    "engine.actors.order_book",
    "engine.actors.user_stream",
    "engine.actors.exchange",
    "engine.actors.recorder",
    "engine.actors.mirror",
    "engine.actors.risk",
    "engine.actors.strategy",
    "engine.actors.venue",
    "engine.connectors.binance.connector",
)


class LogFile(Protocol):
    """Where the supervisor's own log goes."""

    def close(self) -> None: ...


class Ground(Protocol):
    """The supervisor's surroundings. ``entry`` is what its actors are started with."""

    clock: Clock
    entry: str

    def bus(self, name: str, incarnation: int, engine_id: str) -> Bus:
        """The supervisor's bus, not started yet."""

    def runtime(self, replaced: Callable[[int, int], None]) -> Runtime:
        """Where actors run; ``replaced(old_pid, new_pid)`` is told when what starts them had to be started anew."""

    def open_log(self, actor: str, incarnation: int, on_line: Callable[[LogLine], None]) -> LogFile:
        """Send structlog's events from here on to the actor's log and to ``on_line``."""

    def catch_signals(self, stop: Callable[[str], None]) -> Callable[[], None]:
        """Have SIGINT and SIGTERM call ``stop`` with their name; the returned function ends that."""


class LocalGround:
    """This host: a process for each actor, sockets between them."""

    entry = "engine.actors.process:main"

    def __init__(self, paths: EnginePaths, dead_man_grace_s: float) -> None:
        self.clock: Clock = WallClock()
        self._paths = paths
        self._grace_s = dead_man_grace_s + DEAD_MAN_SPARE_S

    def bus(self, name: str, incarnation: int, engine_id: str) -> Bus:
        return SocketBus(name, incarnation, RunDirectory(self._paths.run), clock=self.clock, engine_id=engine_id)

    def runtime(self, replaced: Callable[[int, int], None]) -> Runtime:
        return LocalRuntime(self._paths, preload=PRELOAD, grace_s=self._grace_s, on_fork_server_restart=replaced)

    def open_log(self, actor: str, incarnation: int, on_line: Callable[[LogLine], None]) -> LogFile:
        return configure_actor_logging(self._paths.state, actor, incarnation, on_line, send_level="info")

    def catch_signals(self, stop: Callable[[str], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        numbers = stopping_signals()
        for number in numbers:
            loop.add_signal_handler(number, stop, number.name)

        def release() -> None:
            for number in numbers:
                loop.remove_signal_handler(number)

        return release
