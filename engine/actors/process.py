"""An actor in a process of its own: what the fork server's child runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import structlog
import uvloop

from engine.actors.base import SUPERVISOR, ActorContext, ActorHost, say_goodbye
from engine.actors.registry import actor_class
from engine.bus import Bus, RunDirectory, SocketBus, TcpEndpoint
from engine.bus.directory import FileDirectory
from engine.bus.tls import client_context, server_context
from engine.clock import Clock, WallClock
from engine.logs import configure_actor_logging, redact_text
from engine.messages import LogLine
from engine.runtime.base import ActorSpec, HostLink
from engine.runtime.scheduling import keep_awake, run_first
from engine.runtime.watch import watch_supervisor


def main(spec: ActorSpec) -> int:
    """Run the actor of ``spec`` until it is told to stop, fails, or the supervisor is gone; the exit code."""
    return uvloop.run(_live(spec))


async def _live(spec: ActorSpec) -> int:
    loop = asyncio.get_running_loop()
    directory, tcp = reachable(spec.run_dir, spec.link)
    bus = SocketBus(spec.name, spec.incarnation, directory, clock=WallClock(), engine_id=spec.engine_id, tcp=tcp)

    def send_line(line: LogLine) -> None:
        loop.call_soon_threadsafe(bus.tell, SUPERVISOR, line)

    def listen(host: ActorHost) -> None:
        watch_supervisor(loop, host.supervisor_died)
        loop.add_signal_handler(signal.SIGTERM, host.terminate)

    configure_actor_logging(Path(spec.state_dir), spec.name, spec.incarnation, send_line)
    if spec.rank and (lack := run_first(spec.rank)):
        structlog.get_logger().warning("not scheduled in real time", reason=lack)
    if spec.awake and (lack := keep_awake()):
        structlog.get_logger().warning("the processors of this host are not kept awake", reason=lack)
    return await live(spec, bus, WallClock(), listen)


def reachable(run_dir: str, link: HostLink | None) -> tuple[RunDirectory, TcpEndpoint | None]:
    """The directory for a bus of this host, and where it is to listen for others if there are any."""
    if link is None:
        return RunDirectory(Path(run_dir)), None
    directory = FileDirectory(run_dir, link.node, client_context(link.identity))
    return directory, TcpEndpoint(link.address, 0, server_context(link.identity))


async def live(spec: ActorSpec, bus: Bus, clock: Clock, listen: Callable[[ActorHost], None]) -> int:
    """An actor's life under any runtime, from its bus on; the exit code.

    ``listen`` connects the host to the signals of its process and to the news of the supervisor's death.
    """
    log = structlog.get_logger()
    await bus.start()
    try:
        host = ActorHost(actor_class(spec.kind, spec.params)(ActorContext(spec, bus, clock, log)))
        listen(host)
        log.info("started")
        code = await host.run(os.getpid(), float(spec.params.get("dead_man_grace_s", 5.0)))
    except Exception as error:
        log.error("the actor could not go on", error=repr(error), exc_info=error)
        await say_goodbye(bus, spec, redact_text(repr(error)), log)
        code = 1
    finally:
        await bus.close()
    log.info("ended", code=code)
    return code
