"""Commands that start something: run, check, simulate; and venues, which says what could be."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.common import (
    Subparsers,
    add_command,
    can_be_drawn_on,
    check_writable,
    duration,
    new_table,
    print_json,
    print_tables,
    say_nothing_more,
    write_json,
)

if TYPE_CHECKING:
    from engine.actors.plan import PlannedActor
    from engine.config import EngineConfig, RunOptions

_VIEW_LEAVES_S = 3.0


def register(subparsers: Subparsers, chosen: str = "") -> None:
    """Add the commands to the parser. ``chosen``: the command given, whose options are then added in full."""
    run = add_command(subparsers, "run", _run, "start an engine, until Ctrl-C or engine stop")
    add_run_arguments(run)
    check = add_command(
        subparsers, "check", _check, "validate a configuration and print what would run", json_output=True
    )
    _add_config_arguments(check)
    simulate = subparsers.add_parser("simulate", help="serve a venue in a box to any client")
    if chosen == "simulate":
        from engine.simulator.command import add_arguments, main

        add_arguments(simulate)
        simulate.set_defaults(handler=main)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``engine run``."""
    _add_config_arguments(parser)
    parser.add_argument("--for", dest="seconds", type=duration, metavar="SECONDS", help="stop after so long")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the run's report here, as JSON")
    parser.add_argument("--runtime", choices=("local", "cluster", "inline"), help="where the actors run")
    parser.add_argument("--address", metavar="HOST:PORT", help="the Ray cluster to run on (default: one of its own)")
    parser.add_argument("--no-view", action="store_true", help="show events instead of the live view")


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a configuration, see configs/")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value, as in clock.interval=0.1; may be given often",
    )


def _load(args: argparse.Namespace) -> EngineConfig:
    from engine.config import load_config

    runtime = getattr(args, "runtime", None)
    address = getattr(args, "address", None)
    named = [f"runtime={runtime}"] if runtime else []
    named += [f"cluster.address={address}"] if address else []
    return load_config(args.config, [*args.overrides, *named])


# -------------------------------------------------------------------------------------------------- run


def _run(args: argparse.Namespace) -> int:
    from engine.config import RunOptions
    from engine.report import summary

    config = _load(args)
    if args.report is not None:
        check_writable(args.report)
    with_view = can_be_drawn_on() and not args.no_view and config.runtime != "inline"
    options = RunOptions(state_dir=args.state, seconds=args.seconds, terminal_logs=not with_view)
    view = _start_view(args.state) if with_view else None
    try:
        report = _supervise(config, options, args.report)
    finally:
        if view is not None:
            _end_view(view)
    if args.report is not None:
        write_json(args.report, report)
    try:
        print(summary(report), flush=True)
    except OSError:
        # The terminal is gone, as after a SIGHUP: how the run was is told by the exit code and the report.
        say_nothing_more()
    return 0 if report["ok"] else 1


def _supervise(config: EngineConfig, options: RunOptions, report: Path | None) -> dict[str, Any]:
    import asyncio

    import uvloop

    from engine.actors.supervisor import supervise
    from engine.errors import ConfigError
    from engine.runtime.scheduling import cannot_keep_awake, lacking

    _search_here()
    terminal = sys.stderr if options.terminal_logs else None
    if config.runtime == "inline":
        from engine.actors.inline_run import run_inline

        return run_inline(config, options, terminal)
    if config.runtime == "cluster":
        from engine.commands.run_cluster import run_cluster

        return run_cluster(config, options, terminal, report)
    if config.scheduling == "realtime" and (lack := lacking()):
        raise ConfigError(f"scheduling: realtime: {lack}")
    if config.processors == "awake" and (lack := cannot_keep_awake()):
        raise ConfigError(f"processors: awake: {lack}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(supervise(config, options, terminal))


def _search_here() -> None:
    """Let actors find modules of the current folder, last: strategies that are attached later, too."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _start_view(state_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "engine", "view", "--beside-run", "--state", str(state_dir)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def _end_view(view: subprocess.Popen[bytes]) -> None:
    """Make it leave, so that it does not draw over what is printed next."""
    view.terminate()
    try:
        view.wait(_VIEW_LEAVES_S)
    except subprocess.TimeoutExpired:
        view.kill()
        view.wait()


# ------------------------------------------------------------------------------------------------ check


def _check(args: argparse.Namespace) -> int:
    from engine.actors.plan import plan

    config = _load(args)
    actors = [
        {
            "name": planned.name,
            "kind": planned.kind,
            "venue": planned.connector,
            "place": ", ".join(planned.place),
            "host": "" if planned.place else os.uname().nodename,
            "what": _describe(config, planned),
        }
        for planned in plan(config, 0, args.state.absolute())
    ]
    if args.json:
        print_json({"ok": True, "engine": config.name, "runtime": config.runtime, "actors": actors})
        return 0
    table = new_table(f"{args.config} is valid; would run", ["actor", "where", "what"])
    for actor in actors:
        where = f"at {actor['place'].replace(', ', ', or at ')}" if actor["place"] else actor["host"]
        table.add_row(actor["name"], where, actor["what"])
    print_tables(table)
    return 0


def _describe(config: EngineConfig, planned: PlannedActor) -> str:
    kind, connector, name = planned.kind, planned.connector, planned.name
    if kind == "clock":
        return f"a tick every {config.clock.interval:g} s"
    if kind == "recorder":
        return "orders, fills, positions and balances, to recorder.db"
    if kind == "risk":
        limits = ", ".join(f"{limit:f} {asset}" for asset, limit in config.risk.max_loss.items())
        return f"the kill switch; halts at a loss of {limits}" if limits else "the kill switch; no loss limit"
    if kind == "venue":
        box = config.boxes[name.partition(".")[2] or "venue"]
        source = box.capture or ", ".join(entry.pair for entry in box.pairs)
        return f"in a box, speaks {box.speaks}: {source}"
    if kind == "strategy":
        strategy = config.strategies[name.partition(".")[2]]
        return f"{strategy.strategy} on {', '.join(strategy.pairs)}"
    if kind == "mirror":
        mirror = planned.params["mirror"]
        return f"books of {mirror['connector']} for who reads them there: {', '.join(mirror['pairs'])}"
    settings = config.connectors[connector]
    where = f"{settings.venue} at the box {settings.at}" if settings.at else f"{settings.venue}, the real venue"
    return f"{where}: {', '.join(settings.pairs)}" if kind == "order_book" else f"{where}: {settings.account}"


# ----------------------------------------------------------------------------------------------- venues
