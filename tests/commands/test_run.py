"""``engine run`` before it runs and after it ran, and ``check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.report import build_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("connectors.binance.place=[tokyo, osaka]", "so its journal must be in PostgreSQL"),
        ("strategies.maker_eth.place=[tokyo, osaka]", "its checkpoint must be in PostgreSQL"),
        ("connectors.binance.place=to kyo", "a place is up to 40 letters"),
    ],
)
def test_a_place_that_could_lose_what_was_written_is_refused(call: Any, override: str, said: str) -> None:
    code, _, err = call("run", str(ROOT / "configs/demo.yml"), "--runtime", "cluster", "--set", override)
    assert code == 2
    assert said in err


def test_virtual_time_needs_an_end(call: Any) -> None:
    code, _, err = call("run", str(ROOT / "configs/demo.yml"), "--runtime", "inline")
    assert code == 2
    assert "--for SECONDS" in err


def test_a_report_that_could_not_be_written_is_refused_before_anything_starts(call: Any, tmp_path: Path) -> None:
    code, _, err = call("run", str(ROOT / "configs/demo.yml"), "--report", str(tmp_path / "no" / "r.json"))
    assert code == 2
    assert "there is no folder" in err


@pytest.mark.parametrize("ok", [True, False])
def test_run_prints_the_summary_and_writes_the_report(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ok: bool
) -> None:
    report = build_report([], seconds=2.0, runtime="local", problems=[] if ok else ["it broke"])
    seen: list[Any] = []

    async def supervise(config: Any, options: Any, terminal: Any = None) -> Any:
        seen.append((config.clock.interval, options.seconds, options.terminal_logs, terminal))
        return report

    monkeypatch.setattr("engine.actors.supervisor.supervise", supervise)
    path = tmp_path / "report.json"
    code, out, _ = call(
        *("run", str(ROOT / "configs/demo.yml"), "--for", "2", "--report", str(path), "--set", "clock.interval=0.1")
    )
    assert code == (0 if ok else 1)
    assert seen[0][:3] == (0.1, 2.0, True)
    assert json.loads(path.read_text()) == report
    assert out.startswith("ok after 2.0 s" if ok else "NOT OK")
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_check_says_what_would_run(call: Any) -> None:
    code, out, _ = call("check", str(ROOT / "configs/demo.yml"), "--json")
    assert code == 0
    names = [actor["name"] for actor in json.loads(out)["actors"]]
    assert {"clock", "order_book.binance.0", "exchange.binance.main", "strategy.maker_btc"} <= set(names)
    assert "a tick every 1 s" in call("check", str(ROOT / "configs/demo.yml"))[1]


@pytest.mark.parametrize("config", ["demo.yml", "two_hosts.yml", "two_venues.yml"])
def test_check_takes_the_configurations_that_need_nothing(call: Any, config: str) -> None:
    code, out, err = call("check", str(ROOT / "configs" / config))
    assert (code, err) == (0, "")
    assert "is valid; would run" in out


def test_check_says_where_what_has_a_place_would_run(call: Any) -> None:
    code, out, _ = call("check", str(ROOT / "configs/two_hosts.yml"), "--json")
    rows = {actor["name"]: actor for actor in json.loads(out)["actors"]}
    assert code == 0
    assert (rows["mirror.binance:us.home"]["place"], rows["order_book.binance:us.0"]["place"]) == ("", "beta")
    assert "books of binance:us" in rows["mirror.binance:us.home"]["what"]
