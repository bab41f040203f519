"""A strategy's checkpoint: whole or not at all."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from engine.errors import JournalError
from engine.messages import StreamPosition
from engine.orders.rotation import folded_by_all
from engine.orders.strategy_store import StrategyStore, read_positions

AT_7 = {"binance.main": StreamPosition(incarnation=5, number=7)}


def test_a_new_store_has_no_checkpoint(tmp_path: Path) -> None:
    with StrategyStore(tmp_path / "strategies" / "maker.db") as store:
        assert store.load() is None


def test_state_and_positions_come_back_together(tmp_path: Path) -> None:
    with StrategyStore(tmp_path / "maker.db") as store:
        store.save({"n": 1}, {})
        store.save({"size": Decimal("0.10"), "ids": ("a", "b"), "raw": b"\x00"}, AT_7, ["e-1"], 9)
    with StrategyStore(tmp_path / "maker.db") as store:
        checkpoint = store.load()
    assert checkpoint is not None
    assert checkpoint.state == {"size": "0.10", "ids": ["a", "b"], "raw": b"\x00"}
    assert (checkpoint.positions, checkpoint.open_orders, checkpoint.saved_ns) == (AT_7, ["e-1"], 9)


def test_a_state_that_cannot_be_saved_leaves_the_last_one(tmp_path: Path) -> None:
    with StrategyStore(tmp_path / "maker.db") as store:
        store.save({"n": 1}, AT_7)
        with pytest.raises(JournalError, match="cannot be saved"):
            store.save({"n": object()}, {})
        checkpoint = store.load()
        assert checkpoint is not None
        assert (checkpoint.state, checkpoint.positions) == ({"n": 1}, AT_7)
        store.clear()
        assert store.load() is None


@pytest.mark.parametrize("column", ["state", "positions", "open_orders"])
@pytest.mark.parametrize("blob", ["x'c1'", "x''", "x'a2fffe'", "x'81a2fffe01'", "'text'", "7"])
def test_an_unreadable_checkpoint_is_named(tmp_path: Path, column: str, blob: str) -> None:
    path = tmp_path / "maker.db"
    with StrategyStore(path) as store:
        store.save({"n": 1}, AT_7)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE checkpoint SET {column} = {blob}")
    connection.close()
    with StrategyStore(path) as store, pytest.raises(JournalError, match="unreadable checkpoint"):
        store.load()
    if column == "positions":
        with pytest.raises(JournalError, match="unreadable checkpoint"):
            read_positions(path)
        # It may ask for all of the past: nothing of an account's journal may be moved away from it.
        assert folded_by_all(tmp_path, "binance.main", 5, 100) == 0
