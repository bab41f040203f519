"""The supervisor when the engine runs on several hosts: what it is made with, and its ground."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from engine.actors.base import SUPERVISOR
from engine.actors.ground import DEAD_MAN_SPARE_S, PRELOAD, LocalGround
from engine.actors.succession import FILE
from engine.actors.supervisor import engine_id, supervise_run
from engine.bus import Bus, SocketBus, TcpEndpoint
from engine.bus.directory import FileDirectory, Listens
from engine.bus.tls import client_context, make_identity, server_context, write_identity
from engine.config import EngineConfig, RunOptions
from engine.connectors.credentials import variable_name
from engine.connectors.registry import connector_class, split_venue
from engine.errors import RuntimeFailure
from engine.runtime.base import Runtime
from engine.runtime.cluster import ClusterRuntime
from engine.runtime.paths import EnginePaths
from engine.runtime.ray_nodes import Node, own_node
from engine.runtime.ray_supervisor import Driver

ENTRY: Final = "engine.actors.cluster:supervise_kept"

log = structlog.get_logger("engine.actors")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What every supervisor of one run is made with: the same for the first and for those that follow it.

    ``variables``: what the configuration takes from the environment of the process that started the engine, keys of
    venues among it. ``report``: the file that the report is written to as well, "" for none.
    """

    config: bytes
    state_dir: str
    seconds: float | None
    run_id: int
    identity: bytes
    variables: dict[str, str]
    report: str = ""

    def __repr__(self) -> str:
        return f"Kept(run_id={self.run_id}, state_dir={self.state_dir!r})"


def kept(config: EngineConfig, options: RunOptions, run_id: int, report: Path | None) -> bytes:
    """What :func:`supervise_kept` is called with."""
    return msgspec.msgpack.encode(
        Kept(
            config=config.model_dump_json().encode(),
            state_dir=str(EnginePaths.for_state(options.state_dir).state),
            seconds=options.seconds,
            run_id=run_id,
            identity=make_identity(),
            variables=variables_of(config, os.environ),
            report="" if report is None else str(report.absolute()),
        )
    )


def variables_of(config: EngineConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a configuration reads, as far as they are set."""
    names = []
    for connector in config.connectors.values():
        keys = connector_class(split_venue(connector.venue)[0]).key_names
        names += [variable_name(connector.venue, key, connector.account) for key in keys]
        names.append(variable_name(connector.name, "journal"))
    return {name: environ[name] for name in names if name in environ}


async def supervise_kept(body: bytes, driver: Driver) -> dict[str, Any]:
    """Supervise the run until its end, in a process that Ray keeps; returns the report."""
    kept = msgspec.msgpack.decode(body, type=Kept)
    os.environ.update(kept.variables)
    config = EngineConfig.model_validate_json(kept.config)
    options = RunOptions(state_dir=Path(kept.state_dir), seconds=kept.seconds)
    paths = EnginePaths.for_state(options.state_dir)
    ground = ClusterGround(paths, config, engine_id(config, kept.run_id), kept.identity, own_node(), driver)
    report = await supervise_run(config, options, paths, driver, kept.run_id, ground, paths.state / FILE)
    if kept.report:
        _write(Path(kept.report), report)
    return report


def _write(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all, for an engine whose starter may be gone; that one says so if it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(msgspec.json.encode(report))
        draft.replace(path)
    except OSError as error:
        log.error("the report cannot be written", path=str(path), error=str(error))


class ClusterGround(LocalGround):
    """Cells on the hosts of a Ray cluster; ``node``, this process's own, is the engine's home. ``engine_id`` is its
    namespace in Ray as well.
    """

    def __init__(
        self, paths: EnginePaths, config: EngineConfig, engine_id: str, identity: bytes, node: Node, driver: Driver
    ) -> None:
        super().__init__(paths, config.dead_man.grace)
        self._dead_man_s = config.dead_man.grace + DEAD_MAN_SPARE_S
        self._cluster_grace_s = config.cluster.grace
        self._node = node
        self._identity = identity
        self._engine_id = engine_id
        self._driver = driver
        self._bus: Bus | None = None

    def bus(self, name: str, incarnation: int, engine_id: str) -> Bus:
        """Also listens for other hosts."""
        identity = write_identity(self._paths.run, self._identity)
        self._bus = SocketBus(
            name,
            incarnation,
            FileDirectory(self._paths.run, self._node.id, client_context(identity)),
            clock=self.clock,
            engine_id=engine_id,
            tcp=TcpEndpoint(self._node.address, 0, server_context(identity)),
        )
        return self._bus

    def runtime(self, replaced: Callable[[int, int], None]) -> Runtime:
        return ClusterRuntime(
            namespace=self._engine_id,
            state_dir=str(self._paths.state),
            run_dir=self._paths.run,
            home=self._node.id,
            identity=self._identity,
            grace_s=self._cluster_grace_s,
            dead_man_s=self._dead_man_s,
            own=self._own_addresses,
            preload=PRELOAD,
        )

    def catch_signals(self, stop: Callable[[str], None]) -> Callable[[], None]:
        """Signals reach the process that started the engine, which passes them on."""
        self._driver.on_stop(stop)
        return lambda: None

    def _own_addresses(self) -> tuple[str, dict[str, Listens]]:
        if self._bus is None:
            raise RuntimeFailure("the supervisor's bus is to be made before its actors are started")
        unix, tcp = self._bus.addresses
        host, _, port = tcp.rpartition(":")
        return self._engine_id, {SUPERVISOR: Listens(node=self._node.id, unix=unix, host=host, port=int(port))}
