"""The command line: what is typed, what is printed, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli import build_parser
from tests.commands.stand_in import StandIn, some_status

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "arguments",
    [[], ["staus"], ["run"], ["run", "x.yml", "--for", "soon"], ["book", "a/b", "--depth", "0"], ["status", "x"]],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(call: Any, arguments: list[str]) -> None:
    code, out, err = call(*arguments, with_state=False)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "--help" in err


def test_a_bad_configuration_is_one_line_and_exit_code_2(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yml"
    path.write_text("name: demo\nconectors: {}\n")
    for command in ("run", "check"):
        code, out, err = call(command, str(path))
        assert (code, out) == (2, "")
        assert err.startswith(f"engine: {path}:")
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["stop"],
        ["cancel-all"],
        ["restart", "clock"],
        ["attach", str(ROOT / "configs/strategy.yml")],
        ["detach", "x"],
        ["orders"],
        ["fills"],
        ["balances"],
        ["book", "binance/BTC-USDT"],
        ["view"],
    ],
)
def test_with_no_engine_a_command_says_so_on_one_line(call: Any, state: Path, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (1, "")
    assert err == f"engine: no engine runs on {state}; start one: engine run CONFIG --state {state}\n"


def test_an_engine_that_was_killed_is_no_engine(call: Any, engine: StandIn) -> None:
    engine.end()
    assert engine.paths.run_json.exists()
    code, _, err = call("status")
    assert code == 1
    assert "no engine runs" in err


def test_what_nobody_expected_is_one_line_and_a_file(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("engine.commands.journals.exist", lambda _: 1 / 0)
    code, out, err = call("orders")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    (written,) = tmp_path.glob("engine-error-*.txt")
    assert str(written) in err
    assert "ZeroDivisionError" in written.read_text()


@pytest.fixture
def nobody() -> Iterator[None]:
    """This process as a user whom the folders of the test do not belong to."""
    before = os.geteuid()
    if before != 0:
        pytest.skip("needs root, to become another user")
    os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.parametrize("arguments", [["logs"], ["positions"], ["orders"], ["status"], ["logs", "clock"]])
def test_a_state_folder_of_another_user_is_named_with_what_to_do(
    call: Any, state: Path, nobody: None, arguments: list[str]
) -> None:
    code, out, err = call(*arguments)
    assert (code in (1, 2), out) == (True, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"engine: {state}")
    assert "run as " in err
    assert "remove" not in err


def test_a_traceback_that_cannot_be_written_is_one_line_too(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr("engine.commands.journals.exist", lambda _: 1 / 0)
    code, _, err = call("orders")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "the traceback could not be written: No such file or directory" in err


HEAVY = {"aiohttp", "asyncpg", "numpy", "pydantic", "ray", "websockets", "yaml"}


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["--help"], ["status", "--state", "/nonexistent-state"]])
def test_commands_load_nothing_that_takes_long(arguments: list[str]) -> None:
    code = f"""
import atexit, sys
from engine.cli import main
atexit.register(lambda: print("loaded", *sorted({HEAVY!r} & sys.modules.keys())))
sys.argv[1:] = {arguments!r}
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines()[-1] == "loaded"


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'pydantic', 'structlog', 'rich', 'asyncio', 'numpy', 'aiohttp', 'yaml', 'msgspec'}"
    code = f"import sys, engine.cli as c; c.build_parser(); print(*sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == ""


def test_every_command_has_help_and_the_options_of_all() -> None:
    helped = build_parser().format_help()
    for command in (
        *("run", "status", "stop", "cancel-all", "restart", "attach", "detach", "orders"),
        *("fills", "balances", "book", "logs", "simulate", "check", "venues", "markets", "view"),
    ):
        assert re.search(rf"^    {command}\s+\w", helped, re.MULTILINE), command


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["view"]])
def test_a_terminal_without_unicode_and_a_pipe_end_no_command(
    engine: StandIn, state: Path, arguments: list[str]
) -> None:
    status = some_status()
    status["events"][0]["event"] = "größer"
    engine.answers["status"] = lambda _: status
    result = subprocess.run(
        [sys.executable, "-m", "engine", *arguments, "--state", str(state)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"order_book.binance.0" in result.stdout
    assert b"\x1b" not in result.stdout
    if "--json" in arguments:
        assert json.loads(result.stdout)["events"][0]["event"] == "größer"


@pytest.mark.parametrize(
    ("where", "code", "said"), [(">&-", 0, ""), ("> /dev/full", 1, "No space left on device; free some")]
)
def test_an_output_that_is_closed_or_full_is_no_surprise(where: str, code: int, said: str) -> None:
    command = f"{sys.executable} -m engine venues {where}"
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, said in result.stderr) == (code, True)
    assert "unexpected" not in result.stderr
    assert len(result.stderr.splitlines()) <= 1
