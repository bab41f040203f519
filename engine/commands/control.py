"""Commands that change a running engine: stop, cancel-all, restart, attach, detach."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from engine.commands.common import CommandError, Subparsers, add_command, duration, print_json

_STOP_TIMEOUT = 60.0


def register(subparsers: Subparsers) -> None:
    """Add the commands to the parser."""
    stop = add_command(subparsers, "stop", _stop, "stop the engine cleanly, and wait until it has")
    stop.add_argument("--timeout", type=duration, default=_STOP_TIMEOUT, metavar="T", help="wait at most so long")
    add_command(subparsers, "cancel-all", _cancel_all, "cancel every open order of the engine", json_output=True)
    restart = add_command(subparsers, "restart", _restart, "stop one actor and start it again")
    restart.add_argument("actor", metavar="ACTOR", help="as engine status lists it, as in strategy.maker")
    attach = add_command(subparsers, "attach", _attach, "add a strategy to the running engine")
    attach.add_argument("file", metavar="FILE", type=Path, help="a strategy file, see configs/strategy.yml")
    detach = add_command(subparsers, "detach", _detach, "take a strategy out of the running engine")
    detach.add_argument("name", metavar="NAME", help="the strategy's name")


def _ask(args: argparse.Namespace, verb: str, timeout: float = 30.0, /, **arguments: Any) -> Any:
    from engine.commands.client import ask

    return ask(args.state, verb, timeout, **arguments)


def _stop(args: argparse.Namespace) -> int:
    from engine.commands.client import wait_until_gone

    _ask(args, "stop")
    if not wait_until_gone(args.state, args.timeout):
        raise CommandError(f"the engine still runs after {args.timeout:g} s; see engine logs supervisor")
    print("stopped")
    return 0


def _cancel_all(args: argparse.Namespace) -> int:
    data = _ask(args, "cancel_all")
    if args.json:
        print_json(data)
    else:
        print(f"{len(data['cancelled'])} orders cancelled")
    for order, why in data["failed"].items():
        print(f"engine: order {order} was not cancelled: {why}", file=sys.stderr)
    return 1 if data["failed"] else 0


def _restart(args: argparse.Namespace) -> int:
    _ask(args, "restart", actor=args.actor)
    print(f"{args.actor} restarts")
    return 0


def _attach(args: argparse.Namespace) -> int:
    from engine.config import load_attach

    strategy = load_attach(args.file)
    _ask(args, "attach", **strategy.model_dump(mode="json"))
    print(f"strategy {strategy.name} attached; engine detach {strategy.name} takes it out")
    return 0


def _detach(args: argparse.Namespace) -> int:
    _ask(args, "detach", name=args.name)
    print(f"strategy {args.name} detached")
    return 0
