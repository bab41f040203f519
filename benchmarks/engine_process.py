"""``engine run`` with what a benchmark needs on top: a livelier venue in a box, and the actors' own figures at the end.

Run as ``python -m benchmarks.engine_process FOLDER``: reads ``config.yml``, ``box.json`` and ``actors.json`` (by actor,
what :mod:`benchmarks.actor_process` sets up) there, keeps its state in ``state``, and writes ``result.json``
(:class:`benchmarks.live.Result`).
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import uvloop

from benchmarks.live import ActorResult, Result
from engine.actors.ground import LocalGround
from engine.actors.plan import plan
from engine.actors.supervisor import Supervisor
from engine.config import RunOptions, load_config
from engine.runtime.paths import EnginePaths


class BenchmarkGround(LocalGround):
    """Actors that may be measured or changed for a benchmark."""

    entry = "benchmarks.actor_process:main"


async def run(folder: Path) -> Result:
    config = load_config(folder / "config.yml")
    options = RunOptions(state_dir=folder / "state", terminal_logs=False)
    paths = EnginePaths.for_state(options.state_dir)
    ground = BenchmarkGround(paths, config.dead_man.grace)
    run_id = ground.clock.time_ns()
    planned = plan(config, run_id, paths.state)
    wanted = json.loads((folder / "actors.json").read_text())
    for actor in planned:
        if actor.name in wanted:
            actor.params["benchmark"] = wanted[actor.name]
        if actor.kind == "venue":
            actor.params["box"].update(json.loads((folder / "box.json").read_text()))
    with paths.lock_state():
        paths.create()
        supervisor = Supervisor(config, options, paths, None, run_id, planned, ground)
        report = await supervisor.run()
    actors = {
        record.name: ActorResult(counters=record.counters(), histograms=record.current.histograms)
        for record in supervisor.observed
    }
    return Result(report=report, actors=actors)


def main() -> None:
    folder = Path(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(folder))
    (folder / "result.json").write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
