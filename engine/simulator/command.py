"""``engine simulate``: the venue in a box as a program of its own."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import msgspec

from engine.errors import ConfigError
from engine.simulator.box import VenueBox
from engine.simulator.config import BoxConfig

DESCRIPTION = """A venue on 127.0.0.1 that speaks a real venue's REST and WebSocket protocol to any client, with its own
matching engine, other traders, accounts and a ledger on disk. Prints one JSON line when it listens; stops on SIGINT or
SIGTERM."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``engine simulate``."""
    parser.description = DESCRIPTION
    parser.add_argument("--venue", required=True, help="whose protocol to speak: binance")
    parser.add_argument("--port", type=_port, default=0, help="0 (default): any free one, or the last one of --state")
    parser.add_argument("--capture", metavar="FILE", help="serve recorded traffic (.jsonl, .gz or .zst) instead")
    parser.add_argument("--speed", type=_speed, default=1.0, help="of the recording; 0: as fast as clients read")
    parser.add_argument("--seed", type=int, default=1, help="of the other traders (default 1)")
    parser.add_argument("--state", metavar="DIR", help="keep the ledger here; without it, in a temporary folder")
    parser.add_argument("--tls", action="store_true", help="serve TLS with a self-signed certificate")
    parser.add_argument("--activity", type=float, default=20.0, help="events a second and pair (default 20)")
    parser.add_argument("--no-limits", action="store_true", help="count request weights and orders, but refuse none")
    parser.add_argument("--print-json", action="store_true", help="print the JSON line (always done)")


def main(args: argparse.Namespace) -> int:
    """Run until a signal. 0 after a clean stop, 1 when serving failed, 2 when it cannot start as asked."""
    try:
        config = BoxConfig(
            venue=args.venue,
            port=args.port,
            seed=args.seed,
            state_dir=args.state,
            capture=args.capture,
            speed=args.speed,
            tls=args.tls,
            activity=args.activity,
            enforce_limits=not args.no_limits,
        )
        return _run(config)
    except ConfigError as error:
        print(f"engine simulate: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"engine simulate: {error}", file=sys.stderr)
        return 1


def _run(config: BoxConfig) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: BoxConfig) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    box = VenueBox(config)
    info = await box.start()
    failed = asyncio.create_task(box.failed())
    try:
        print(msgspec.json.encode(info).decode(), flush=True)
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if failed.done():
            print(f"engine simulate: stopped serving: {failed.result()!r}", file=sys.stderr)
            return 1
        return 0
    finally:
        failed.cancel()
        await box.stop()


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return port


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no speed: 0 or more")
    return speed
