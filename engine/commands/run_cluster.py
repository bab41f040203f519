"""``engine run`` where the supervisor is a Ray actor: this process begins it, shows what it says, passes signals on.

It may die at any time. On a cluster that exists the engine goes on without it; a cluster of the engine's own dies with
it, and what runs there ends by its dead-man switches.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from engine.errors import ConfigError, RuntimeFailure
from engine.logs import TerminalLog, configure_terminal_logging
from engine.runtime.paths import EnginePaths
from engine.runtime.ray_nodes import joined, own_node

if TYPE_CHECKING:
    from engine.config import EngineConfig, RunOptions
    from engine.runtime.ray_supervisor import News, SupervisorProcess

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_cluster(config: EngineConfig, options: RunOptions, terminal: Any, report: Path | None) -> dict[str, Any]:
    """Run an engine on a Ray cluster until it ends; its report.

    Raises ConfigError when it does not even start, RuntimeFailure when its supervisor fails or is gone for good.
    """
    run_id = time.time_ns()
    paths = EnginePaths.for_state(options.state_dir)
    with joined(paths, f"{config.name}-{run_id}", config.cluster.address):
        from engine.actors.cluster import ENTRY, kept
        from engine.actors.supervisor import engine_id
        from engine.runtime.ray_supervisor import SupervisorProcess

        supervisor = SupervisorProcess(engine_id(config, run_id), own_node().id)
        supervisor.start(ENTRY, kept(config, options, run_id, report))
        shown = configure_terminal_logging(terminal) if terminal else None
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                last = runner.run(_follow(supervisor, shown))
        finally:
            if shown is not None:
                shown.close()
    if last.report is None:
        raise (ConfigError if last.refused else RuntimeFailure)(last.error)
    return last.report


async def _follow(supervisor: SupervisorProcess, shown: TerminalLog | None) -> News:
    """Show what it says; the last word."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, supervisor.stop, number.name)
    async for news in supervisor.news():
        if shown is not None:
            for line in news.lines:
                shown.show(line)
        if news.ended:
            return news
    raise RuntimeFailure("the supervisor said nothing of its end")
