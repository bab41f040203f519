"""The supervisor's ground when the engine runs on several hosts."""

from __future__ import annotations

from collections.abc import Callable

from engine.actors.base import SUPERVISOR
from engine.actors.ground import DEAD_MAN_SPARE_S, PRELOAD, LocalGround
from engine.bus import Bus, SocketBus, TcpEndpoint
from engine.bus.directory import FileDirectory, Listens
from engine.bus.tls import client_context, make_identity, server_context, write_identity
from engine.errors import RuntimeFailure
from engine.runtime.base import Runtime
from engine.runtime.cluster import ClusterRuntime
from engine.runtime.paths import EnginePaths
from engine.runtime.ray_nodes import Node


class ClusterGround(LocalGround):
    """Cells on the hosts of the Ray cluster that this process has joined; ``node``, its own, is the engine's home."""

    def __init__(self, paths: EnginePaths, dead_man_grace_s: float, cluster_grace_s: float, node: Node) -> None:
        super().__init__(paths, dead_man_grace_s)
        self._dead_man_s = dead_man_grace_s + DEAD_MAN_SPARE_S
        self._cluster_grace_s = cluster_grace_s
        self._node = node
        self._identity = make_identity()
        self._engine_id = ""
        self._bus: Bus | None = None

    def bus(self, name: str, incarnation: int, engine_id: str) -> Bus:
        """Also listens for other hosts."""
        identity = write_identity(self._paths.run, self._identity)
        self._engine_id = engine_id
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
            state_dir=str(self._paths.state),
            run_dir=self._paths.run,
            home=self._node.id,
            identity=self._identity,
            grace_s=self._cluster_grace_s,
            dead_man_s=self._dead_man_s,
            own=self._own_addresses,
            preload=PRELOAD,
        )

    def _own_addresses(self) -> tuple[str, dict[str, Listens]]:
        if self._bus is None:
            raise RuntimeFailure("the supervisor's bus is to be made before its actors are started")
        unix, tcp = self._bus.addresses
        host, _, port = tcp.rpartition(":")
        return self._engine_id, {SUPERVISOR: Listens(node=self._node.id, unix=unix, host=host, port=int(port))}
