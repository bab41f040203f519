"""``engine logs``: the lines of many files, by time, from their ends."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.commands.logs import LogFile, _end_of


def test_logs_of_all_actors_in_the_order_of_time(call: Any, state: Path) -> None:
    (state / "logs").mkdir(parents=True)

    def write(actor: str, *times: str) -> None:
        lines = [
            json.dumps({"time": f"2026-01-01T00:00:{t}Z", "level": "info", "actor": actor, "event": f"e{t}", "x": 1})
            for t in times
        ]
        (state / "logs" / f"{actor}.jsonl").write_text("\n".join(lines) + "\n")

    write("clock", "01", "03")
    write("venue", "02", "04")
    (state / "logs" / "venue.jsonl.1").write_text('{"time": "2026-01-01T00:00:00Z", "event": "e00"}\n')
    assert re.findall(r"e0\d", call("logs")[1]) == ["e00", "e01", "e02", "e03", "e04"]
    assert re.findall(r"e0\d", call("logs", "-n", "2")[1]) == ["e03", "e04"]
    assert re.findall(r"e0\d", call("logs", "clock")[1]) == ["e01", "e03"]
    assert json.loads(call("logs", "clock", "-n", "1", "--json")[1])["event"] == "e03"
    code, _, err = call("logs", "clok")
    assert code == 1
    assert "did you mean clock?" in err


def test_logs_are_followed_over_a_replaced_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def add(*numbers: int) -> None:
        with path.open("a") as file:
            file.writelines(f'{{"n": {number}}}\n' for number in numbers)

    def added() -> list[Any]:
        return [line["n"] for line in log.added()]

    log = LogFile(path)
    assert added() == []
    add(1, 2)
    assert added() == [1, 2]
    with path.open("a") as file:
        file.write('{"n": ')
    assert added() == []
    with path.open("a") as file:
        file.write("3}\n")
    assert added() == [3]
    add(4)
    path.rename(tmp_path / "a.jsonl.1")
    add(5)
    assert added() == [4, 5]
    assert added() == []


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 16])
@pytest.mark.parametrize("count", [1, 3, 8, 9, 50])
def test_the_end_of_a_log_is_read_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, count: int
) -> None:
    monkeypatch.setattr("engine.commands.logs._BLOCK", block)
    (tmp_path / "a.jsonl.1").write_text("".join(f'{{"n": {number}}}\n' for number in range(1, 6)))
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"n": {number}}}\n' for number in range(6, 9)) + '{"n": ')
    log = LogFile(path)
    assert [line["n"] for line in log.last(count)] == list(range(1, 9))[-count:]
    with path.open("a") as file:
        file.write('9}\n{"n": 10}\n')
    assert [line["n"] for line in log.added()] == [9, 10]


def test_a_log_of_megabytes_is_not_read_for_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\n' * 500_000)

    class Counted(io.FileIO):
        had = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            Counted.had += len(data)
            return data

    with Counted(path) as file:
        assert _end_of(file, 50).count(b"\n") > 50
        assert file.tell() == path.stat().st_size
    assert Counted.had == 1 << 16
