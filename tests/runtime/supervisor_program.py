"""A small supervisor for tests: starts actors on a state folder and lives until SIGINT or SIGTERM.

Arguments: state folder, report socket, grace in seconds, then ``name=entry`` for each actor. Prints the process ids of
the fork server and the actors when they run, and "closed" when it has left politely.
"""

import asyncio
import json
import signal
import sys

import uvloop

from engine.runtime.base import ActorSpec
from engine.runtime.leftovers import clear_previous
from engine.runtime.local import LocalRuntime
from engine.runtime.paths import EnginePaths


async def main(state: str, report: str, grace: str, *actors: str) -> None:
    paths = EnginePaths.for_state(state)
    with paths.lock_state():
        await clear_previous(paths.run, paths.shm, float(grace))
        runtime = LocalRuntime(paths, preload=["runtime_entries"], grace_s=float(grace))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await runtime.start()
        paths.write_run_json("test")
        (paths.shm / "box.BTC-USDT.book").write_bytes(b"book")
        pids = [runtime.fork_server_pid]
        for actor in actors:
            name, _, entry = actor.partition("=")
            spec = ActorSpec(
                name=name,
                kind="test",
                connector="",
                incarnation=1,
                run_dir=str(paths.run),
                shm_dir=str(paths.shm),
                state_dir=str(paths.state),
                engine_id="test",
                entry=f"runtime_entries:{entry}",
                params={"report": report},
            )
            pids.append(await runtime.spawn(spec))
        print(json.dumps(pids), flush=True)
        await stop.wait()
        await runtime.close()
        print("closed", flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
