"""What tests of commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli import main
from tests.commands.stand_in import StandIn


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def engine(state: Path) -> Iterator[StandIn]:
    with StandIn(state) as stand_in:
        yield stand_in


@pytest.fixture
def call(state: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; returns exit code, standard output and standard error."""

    def call(*arguments: str, with_state: bool = True) -> tuple[int, str, str]:
        named = [*arguments, "--state", str(state)] if with_state else list(arguments)
        try:
            code = main(named)
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call
