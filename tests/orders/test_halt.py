"""HALT on disk: whole, there after a power cut, and never guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import JournalError
from engine.orders.halt import FILE_NAME, Trading, read_trading, write_trading
from engine.orders.risk import TradingState

HALT = Trading(state=TradingState.HALTED, reason="a “test”", since_ns=7)


def test_what_was_written_is_read_and_nothing_is_active(tmp_path: Path) -> None:
    assert read_trading(tmp_path) == Trading(state=TradingState.ACTIVE)
    write_trading(tmp_path, HALT)
    assert read_trading(tmp_path) == HALT
    write_trading(tmp_path, Trading())
    assert read_trading(tmp_path) == Trading()


def test_it_is_on_disk_before_it_takes_its_name_and_so_is_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_trading(tmp_path, HALT)
    assert done == ["sync trading.new", "rename trading.new", f"sync {tmp_path.name}"]


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'{"state": "nonsense"}', b'{"since_ns": "x"}', b"\xff"])
def test_a_state_that_cannot_be_read_is_no_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(JournalError, match="put it right, or remove it to trade again"):
        read_trading(tmp_path)


def test_a_state_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    write_trading(tmp_path, HALT)
    (tmp_path / "trading.new").mkdir()
    with pytest.raises(JournalError, match="cannot be written"):
        write_trading(tmp_path, Trading())
    assert read_trading(tmp_path) == HALT
