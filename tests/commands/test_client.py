"""Asking an engine: what is found out where none answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bus.tls import FILE, make_identity, write_identity
from engine.commands.client import NotRunning, ask, is_running, require_running
from engine.runtime.paths import EnginePaths


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[EnginePaths]:
    """Those of an engine on several hosts that has just said where it runs."""
    found = EnginePaths.for_state(tmp_path / "state")
    for folder in (found.state, found.run, found.shm):
        folder.mkdir(parents=True, exist_ok=True)
    found.write_run_json("e", "node")
    yield found
    for folder in (found.run, found.shm):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("identity", [True, False], ids=["with its identity", "whose end has removed it"])
def test_an_engine_on_several_hosts_that_is_ending_is_told_as_not_running(paths: EnginePaths, identity: bool) -> None:
    if identity:
        write_identity(paths.run, make_identity())
    assert not is_running(paths.state)
    with pytest.raises(NotRunning, match="no engine runs on"):
        require_running(paths.state)
    with pytest.raises(NotRunning, match="no engine runs on"):
        ask(paths.state, "status")


def test_an_identity_that_is_written_again_is_never_missing(tmp_path: Path) -> None:
    first, second = make_identity(), make_identity()
    path = write_identity(tmp_path, first)
    with path.open("rb") as held:
        assert write_identity(tmp_path, second) == path
        assert (held.read(), path.read_bytes()) == (first, second)
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE]
    assert path.stat().st_mode & 0o777 == 0o600
