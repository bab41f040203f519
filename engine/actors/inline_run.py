"""``engine run --runtime inline``: a whole engine in this process, on virtual time, as fast as it goes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.actors.base import SUPERVISOR
from engine.actors.inline import InlineGround, share_logging
from engine.actors.supervisor import supervise
from engine.config import EngineConfig, RunOptions
from engine.errors import ConfigError
from engine.runtime.inline import Place

START_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01 00:00 UTC: where the time of a fresh state folder begins."""
BUS_LATENCY_S: Final = 0.000_015
_CLOCK_FILE = "virtual_time"
_NOT_REPEATABLE = frozenset({"pid", "host", "endpoint"})


def run_inline(config: EngineConfig, options: RunOptions, terminal: Any = None) -> dict[str, Any]:
    """Run an engine with its venues in a box for ``options.seconds`` of virtual time; returns its report.

    The report has a ``digest``, the same for the same configuration, time and state folder at the start. Raises
    ConfigError without a time to stop at: virtual time never has to wait for anybody who would stop it.
    """
    if options.seconds is None:
        raise ConfigError("an engine on virtual time needs an end: give --for SECONDS")
    file = Path(options.state_dir) / _CLOCK_FILE
    start_ns = _read_time(file)
    seed = "/".join(f"{box.name}={box.seed}" for box in config.boxes.values())
    with repeatable(seed):
        place = Place(start_ns, bus_latency=lambda: BUS_LATENCY_S)
        share_logging()
        work = supervise(config, options, terminal, lambda paths: InlineGround(place, paths))
        with asyncio.Runner(loop_factory=lambda: place.loop) as runner:
            report = runner.run(work, context=place.process(SUPERVISOR).context)
        # A later run on these files must not see time go back.
        file.write_text(f"{place.clock.time_ns() // 1_000_000_000 + 1}\n", encoding="ascii")
    return {**report, "digest": digest(report)}


@contextlib.contextmanager
def repeatable(seed: str) -> Iterator[None]:
    """What this process draws at random comes from ``seed``, and nothing is collected at a time of its own choosing."""
    before, collects = random.getstate(), gc.isenabled()
    random.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        random.setstate(before)
        if collects:
            gc.enable()
        gc.collect()


def digest(value: Any) -> str:
    """A fingerprint of a report, without what differs from one process to the next."""
    return hashlib.sha256(msgspec.json.encode(_repeatable(value), order="sorted")).hexdigest()[:16]


def _repeatable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _repeatable(item) for key, item in value.items() if key not in _NOT_REPEATABLE}
    if isinstance(value, list):
        return [_repeatable(item) for item in value]
    return value


def _read_time(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii")) * 1_000_000_000
    except FileNotFoundError:
        return START_NS
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read ({error}): remove it, or take another --state") from error
