"""An actor beside all others in one process, on virtual time; and the supervisor's ground there."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import structlog

from engine.actors.base import SUPERVISOR, ActorHost
from engine.actors.ground import LogFile, stopping_signals
from engine.actors.process import live
from engine.bus import Bus, MemoryBus
from engine.clock import Clock
from engine.logs import ActorLog, configure_shared_logging, open_actor_log
from engine.messages import LogLine
from engine.runtime.base import ActorSpec, Runtime
from engine.runtime.inline import InlineRuntime, Place, Seat
from engine.runtime.paths import EnginePaths
from engine.runtime.virtual_loop import CURRENT, VirtualProcess

_logs: dict[VirtualProcess, ActorLog] = {}


async def run_actor(spec: ActorSpec, seat: Seat) -> int:
    """Run the actor of ``spec`` until it is told to stop, fails, or the supervisor is gone; the exit code."""
    place = seat.place
    bus = MemoryBus(place.buses, spec.name, spec.incarnation, place.clock, engine_id=spec.engine_id)

    def send_line(line: LogLine) -> None:
        bus.tell(SUPERVISOR, line)

    def listen(host: ActorHost) -> None:
        seat.actor = host.actor
        seat.on_term = host.terminate
        seat.on_supervisor_death = host.supervisor_died
        seat.process.on_death.append(host.actor.abandon)

    open_log(seat.process, Path(spec.state_dir), spec.name, spec.incarnation, send_line, place.clock)
    return await live(spec, bus, place.clock, listen)


def open_log(
    process: VirtualProcess,
    state_dir: Path,
    actor: str,
    incarnation: int,
    send_line: Callable[[LogLine], None],
    clock: Clock,
    send_level: str = "warning",
) -> ActorLog:
    """The log of a virtual process, until it ends."""
    log = _logs[process] = open_actor_log(
        state_dir, actor, incarnation, send_line, clock.time_ns, send_level=send_level
    )

    def close() -> None:
        log.close()
        _logs.pop(process, None)

    process.on_death.append(close)
    return log


def share_logging(level: str = "info") -> None:
    """From here on, events go to the log of the virtual process that writes them."""
    configure_shared_logging(
        lambda: _logs.get(current) if (current := CURRENT.get()) is not None else None, level=level
    )


@contextlib.contextmanager
def shared_logging(level: str = "info") -> Iterator[None]:
    """The same for a while; afterwards structlog is configured as it was."""
    before = structlog.get_config()
    share_logging(level)
    try:
        yield
    finally:
        structlog.configure(**before)


class InlineGround:
    """A place in this process. The supervisor is a virtual process of it, too."""

    entry = "engine.actors.inline:run_actor"

    def __init__(self, place: Place, paths: EnginePaths) -> None:
        self.clock: Clock = place.clock
        self.place = place
        self._paths = paths

    def bus(self, name: str, incarnation: int, engine_id: str) -> Bus:
        return MemoryBus(self.place.buses, name, incarnation, self.clock, engine_id=engine_id)

    def runtime(self, replaced: Callable[[int, int], None]) -> Runtime:
        return InlineRuntime(self.place)

    def open_log(self, actor: str, incarnation: int, on_line: Callable[[LogLine], None]) -> LogFile:
        process = CURRENT.get()
        assert process is not None, "a supervisor on virtual time is a virtual process"
        return open_log(process, self._paths.state, actor, incarnation, on_line, self.clock, "info")

    def catch_signals(self, stop: Callable[[str], None]) -> Callable[[], None]:
        """Between two bytecodes of whatever runs: the loop never sleeps."""

        def caught(number: int, frame: FrameType | None) -> None:
            stop(signal.Signals(number).name)

        before = {number: signal.signal(number, caught) for number in stopping_signals()}

        def release() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        return release
