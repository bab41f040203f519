"""Commands that change a running engine: stop, halt, resume, cancel-all, restart, attach, detach."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from engine.commands.common import CommandError, Subparsers, add_command, duration, print_json

_STOP_TIMEOUT = 60.0
_START_TIMEOUT = 5.0
_CANCEL_TIMEOUT = 10.0
_SLACK = 20.0


def register(subparsers: Subparsers) -> None:
    """Add the commands to the parser."""
    stop = add_command(subparsers, "stop", _stop, "stop the engine cleanly, and wait until it has")
    stop.add_argument("--timeout", type=duration, default=_STOP_TIMEOUT, metavar="T", help="wait at most so long")
    halt = add_command(
        subparsers, "halt", _halt, "let no new order out, until resume; holds over restarts", json_output=True
    )
    halt.add_argument("--reason", default="", metavar="TEXT", help="what those are told whose orders are refused")
    add_command(subparsers, "resume", _resume, "let orders out again after halt", json_output=True)
    cancel = add_command(
        subparsers, "cancel-all", _cancel_all, "cancel every open order of the engine", json_output=True
    )
    cancel.add_argument(
        "--timeout", type=duration, default=_CANCEL_TIMEOUT, metavar="T", help="wait so long for orders to end"
    )
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


def _halt(args: argparse.Namespace) -> int:
    return _trading_set(args, "halt", "halted: no new order goes out until engine resume", reason=args.reason)


def _resume(args: argparse.Namespace) -> int:
    return _trading_set(args, "resume", "resumed: orders go out again")


def _trading_set(args: argparse.Namespace, verb: str, done: str, **arguments: Any) -> int:
    """Say what was done and who has not acknowledged it."""
    data = _ask(args, verb, **arguments)
    if args.json:
        print_json(data)
    elif not data["missing"]:
        print(done)
    if data["missing"]:
        names = ", ".join(data["missing"])
        print(f"engine: {names} did not acknowledge yet; told again until it does", file=sys.stderr)
    not_saved = data.get("not_saved", "")
    if not_saved:
        print(f"engine: it holds, but not over a restart yet: {not_saved}", file=sys.stderr)
    return 1 if data["missing"] or not_saved else 0


def _cancel_all(args: argparse.Namespace) -> int:
    data = _ask(args, "cancel_all", args.timeout + _SLACK, within_s=args.timeout)
    if args.json:
        print_json(data)
    else:
        print(f"{len(data['cancelled'])} orders cancelled")
        for order, state in data["ended"].items():
            print(f"order {order} was {state} before it could be cancelled")
    for order, why in data["failed"].items():
        print(f"engine: order {order} was not cancelled: {why}", file=sys.stderr)
    for why in data["unanswered"].values():
        print(f"engine: {why}; its orders may be open: see engine status, then try again", file=sys.stderr)
    return 1 if data["failed"] or data["unanswered"] else 0


def _restart(args: argparse.Namespace) -> int:
    _ask(args, "restart", actor=args.actor)
    print(f"{args.actor} restarts")
    return 0


def _attach(args: argparse.Namespace) -> int:
    from engine.config import load_attach

    strategy = load_attach(args.file)
    answer = _ask(args, "attach", **strategy.model_dump(mode="json"))
    print(f"strategy {strategy.name} attached; engine detach {strategy.name} takes it out")
    state = _state_after_start(args, str(answer["actor"]))
    if state in ("starting", "running"):
        return 0
    what_to_do = f"see engine logs {answer['actor']}, then engine restart {answer['actor']}"
    print(f"engine: it does not start ({state.replace('_', ' ')}): {what_to_do}", file=sys.stderr)
    return 1


def _state_after_start(args: argparse.Namespace, actor: str) -> str:
    """The state of an actor once it has started or failed to; "starting" if neither in time."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        rows = _ask(args, "status")["actors"]
        state = next((str(row["state"]) for row in rows if row["name"] == actor), "gone")
        if state != "starting" or time.monotonic() >= deadline:
            return state
        time.sleep(0.05)


def _detach(args: argparse.Namespace) -> int:
    answer = _ask(args, "detach", name=args.name)
    returns = "" if answer["was_attached"] else "; it is in the configuration, and returns with the next engine run"
    print(f"strategy {args.name} detached{returns}")
    return 0
