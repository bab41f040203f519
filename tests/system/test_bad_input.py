"""Bad input gets one clear line and exit code 2, and nothing is half started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.runtime.paths import EnginePaths
from tests.system.conftest import Launch
from tests.system.harness import PYTHON, ROOT

DEMO = (ROOT / "configs" / "demo.yml").read_text()


def run(
    tmp_path: Path, text: str, *arguments: str, state: Path | None = None, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The engine with this configuration, by a command that takes another (``within``)."""
    config = tmp_path / "engine.yml"
    config.write_text(text)
    folder = state or tmp_path / "state"
    script = str(ROOT / "scripts" / "run_engine.py")
    command = [*within, PYTHON, script, str(config), "--for", "5", "--state", str(folder)]
    environment = {key: value for key, value in os.environ.items() if "BINANCE" not in key}
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("clock:", "klock:"), ["engine.yml:", "klock", "clock"]),
        (("at: venue ", "at: venue\n    pears: 1 "), ["engine.yml:", "pears", "pairs"]),
        (("    at: venue ", "    venue: binanse\n    at: venue "), ["binanse", "binance"]),
        (("[binance/BTC-USDT]", "[binance/BTC-USDC]"), ["BTC-USDC"]),
        (("pairs: [BTC-USDT, ETH-USDT]", "pairs: [BTC-USDT, ETH-USDT, DOGE-USDT]"), ["DOGE-USDT"]),
        (("    at: venue ", "    # at: venue "), ["BINANCE_API_KEY"]),
        (("engine.strategies.market_maker:MarketMaker", "engine.strategies.nowhere:MarketMaker"), ["nowhere"]),
        (("engine.strategies.market_maker:MarketMaker", "engine.strategies.market_maker:Maker"), ["Maker"]),
        (("interval: 1.0", "interval: fast"), ["engine.yml:", "interval"]),
        (("name: demo", "name: [demo"), ["engine.yml"]),
    ],
)
def test_a_wrong_configuration_is_told_in_one_line(tmp_path: Path, change: tuple[str, str], told: list[str]) -> None:
    assert change[0] in DEMO
    result = run(tmp_path, DEMO.replace(*change))
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in told:
        assert word in lines[0]
    assert not EnginePaths.for_state(tmp_path / "state").run.exists()


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    command = [PYTHON, str(ROOT / "scripts" / "run_engine.py"), str(tmp_path / "nowhere.yml")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "nowhere.yml" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_state_folder_that_cannot_be_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    result = run(tmp_path, DEMO, state=blocked)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(blocked) in result.stderr


@pytest.mark.processes
def test_a_second_engine_on_the_same_state_folder(tmp_path: Path, launch: Launch) -> None:
    engine = launch("configs/demo.yml", "--set", "clock.interval=0.1")
    engine.wait_trading()
    result = run(tmp_path, DEMO, state=engine.state)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(engine.process.pid) in result.stderr
    engine.wait_trading()
    assert engine.interrupt()["ok"]


def test_a_runtime_that_nobody_knows(tmp_path: Path) -> None:
    result = run(tmp_path, DEMO, "--runtime", "moon")
    assert result.returncode == 2
    assert "moon" in result.stderr
    assert "cluster" in result.stderr


def test_real_time_scheduling_that_this_host_does_not_permit(tmp_path: Path) -> None:
    bare = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"] if os.geteuid() == 0 else []
    within = ["sh", "-c", 'ulimit -r 0; exec "$@"', "sh", *bare]
    result = run(tmp_path, f"scheduling: realtime\n{DEMO}", within=within)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert "scheduling: realtime" in line
    assert "LimitRTPRIO" in line


def test_a_file_that_cannot_tell_whether_trading_is_halted(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "trading.json").write_text("{")
    result = run(tmp_path, DEMO)
    assert result.returncode == 1, result.stderr
    assert "trading.json cannot be read" in result.stderr
    assert "put it right, or remove it to trade again" in result.stderr
    assert "Traceback" not in result.stderr


def test_processors_that_cannot_be_kept_awake(tmp_path: Path) -> None:
    hide = 'mount --make-rprivate / && mount -t tmpfs tmpfs /dev && exec "$@"'
    within = ["unshare", "--mount", "sh", "-c", hide, "sh"] if os.geteuid() == 0 else []
    result = run(tmp_path, f"processors: awake\n{DEMO}", within=within)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert "processors: awake" in line
    assert "/dev/cpu_dma_latency cannot be opened" in line


def test_commands_without_an_engine_say_so(tmp_path: Path) -> None:
    for verb in (["status"], ["stop"], ["restart", "clock"], ["detach", "x"], ["book", "binance/BTC-USDT"]):
        command = [PYTHON, "-m", "engine", *verb, "--state", str(tmp_path / "state")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1, (verb, result.stderr)
        assert len(result.stderr.strip().splitlines()) == 1
        assert "no engine runs" in result.stderr
