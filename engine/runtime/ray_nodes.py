"""A Ray cluster to run on: one that exists, or one node of it that the engine starts and ends itself."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import ConfigError, NoHost, RuntimeFailure
from engine.runtime.paths import EnginePaths, remove_tree

HEALTH: Final = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""With these in the head's environment a node that does not answer is dead to Ray after 10 s at most."""
OBJECT_STORE_BYTES: Final = 80_000_000
TOKEN_FILE: Final = "cluster.token"


@dataclass(frozen=True)
class Node:
    """A living node: what it may be called by in ``place``."""

    id: str
    host: str
    address: str
    names: frozenset[str]


@contextlib.contextmanager
def joined(paths: EnginePaths, namespace: str, address: str | None) -> Iterator[None]:
    """Be part of the cluster at ``address``, or of a local one that lives as long as this.

    To be entered in the main thread and before any event loop catches signals: Ray's processes are bound to the
    thread that started them. Raises ConfigError without Ray or without a token, RuntimeFailure when no cluster is
    there or comes up.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address}
        if address is None:
            folder = paths.run.with_name(f"{paths.run.name}.ray")
            remove_tree(folder)
            stack.callback(remove_tree, folder)
            stack.enter_context(_environment({**HEALTH, "RAY_AUTH_TOKEN_PATH": str(_own_token(paths))}))
            options = {
                "address": "local",
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": str(folder),
            }
        ray = _ray()
        _check_token(address)
        try:
            ray.init(namespace=namespace, log_to_driver=False, configure_logging=False, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {address}" if address else "on this host"
            said = " ".join(str(error).split())[:300]
            raise RuntimeFailure(f"there is no Ray cluster {where} that takes this engine: {said}") from None
        stack.callback(ray.shutdown)
        yield


def nodes() -> list[Node]:
    """The living nodes of the cluster that this process is part of."""
    return sorted((_node(row) for row in _ray().nodes() if row["Alive"]), key=lambda node: (node.host, node.id))


def own_node() -> Node:
    """The node that this process runs on. RuntimeFailure when the cluster does not count it as living."""
    own = _ray().get_runtime_context().get_node_id()
    found = next((node for node in nodes() if node.id == own), None)
    if found is None:
        raise RuntimeFailure("this host's Ray node is not counted as living by its cluster")
    return found


def named_actors(namespace: str) -> list[str]:
    """The names of the Ray actors of a namespace that are not dead."""
    rows = _ray().util.list_named_actors(all_namespaces=True)
    return sorted(row["name"] for row in rows if row["namespace"] == namespace)


def choose(living: list[Node], place: tuple[str, ...], home: str) -> Node:
    """The node of the first place that a living one has; with no place the node ``home``.

    NoHost without one, and for as long as a node that was begun anew stands beside the one that it replaces.
    RuntimeFailure with several: what an actor wrote is on the host that it ran on.
    """
    if not place:
        found = next((node for node in living if node.id == home), None)
        if found is None:
            raise NoHost("the engine's own host is no living node of the cluster")
        return found
    for wanted in place:
        found_here = [node for node in living if wanted in node.names]
        if len(found_here) > 1:
            if len({node.address for node in found_here}) == 1:
                raise NoHost(f"{found_here[0].host} has a node from before that Ray does not know to be dead yet")
            hosts = ", ".join(node.host for node in found_here)
            raise RuntimeFailure(f"several nodes have the place {wanted}: name one of the hosts {hosts} instead")
        if found_here:
            return found_here[0]
    known = sorted({name for node in living for name in node.names})
    raise NoHost(f"no living node has the place {' or '.join(place)}; there are {', '.join(known) or 'none'}")


def _node(row: dict[str, Any]) -> Node:
    labels = {value for key, value in row.get("Labels", {}).items() if not key.startswith("ray.io/")}
    resources = {name for name in row["Resources"] if ":" not in name and name not in _COMMON}
    host = row["NodeManagerHostname"]
    return Node(row["NodeID"], host, row["NodeManagerAddress"], frozenset(labels | resources | {host}))


_COMMON: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory"})


def _own_token(paths: EnginePaths) -> Path:
    """This engine's own token for a cluster of its own, kept in its state folder."""
    paths.create_state()
    path = paths.state / TOKEN_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path


def _check_token(address: str | None) -> None:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if address is not None and not named and not Path("~/.ray/auth_token").expanduser().exists():
        raise ConfigError(
            "the cluster's token is not known here: name its file in RAY_AUTH_TOKEN_PATH (see docs/cluster.md)"
        )


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("the cluster runtime needs Ray: pip install 'engine[cluster]'") from None
    return ray
