"""Attached strategies on disk: saved whole, read back, forgotten, and left out when they no longer fit."""

import os
import stat
from decimal import Decimal

import pytest

from engine.attached import forget_attached, load_attached, save_attached
from engine.config import StrategyConfig, parse_config

MAKER = "engine.strategies.market_maker:MarketMaker"


@pytest.fixture
def config():
    return parse_config(
        {
            "venue": {"pairs": ["BTC-USDT"]},
            "connectors": {"binance": {"at": "venue", "pairs": ["BTC-USDT"]}},
        }
    )


def strategy(name="extra", **fields):
    return StrategyConfig(**{"name": name, "strategy": MAKER, "pairs": ["binance/BTC-USDT"], **fields})


class ErrorLog:
    """Keeps what is told as an error."""

    def __init__(self):
        self.errors = []

    def error(self, event, **fields):
        self.errors.append(fields["error"])


def loaded(state, config):
    log = ErrorLog()
    found = load_attached(state, config, log)
    return found, log.errors


def test_nothing_was_attached(tmp_path, config):
    assert loaded(tmp_path, config) == ([], [])


def test_what_was_saved_is_read_back(tmp_path, config):
    first = strategy(params={"size": "0.10", "levels": 2, "nested": {"a": [1, None, True]}}, on_crash="cancel")
    second = strategy("another")
    save_attached(tmp_path, first)
    save_attached(tmp_path, second)
    assert loaded(tmp_path, config) == ([second, first], [])


def test_an_amount_in_params_is_kept_as_text(tmp_path, config):
    save_attached(tmp_path, strategy(params={"size": Decimal("0.10")}))
    assert loaded(tmp_path, config)[0][0].params == {"size": "0.10"}


def test_saving_again_replaces(tmp_path, config):
    save_attached(tmp_path, strategy(params={"size": "1"}))
    save_attached(tmp_path, strategy(params={"size": "2"}))
    assert [found.params for found in loaded(tmp_path, config)[0]] == [{"size": "2"}]
    assert [path.name for path in (tmp_path / "attached").iterdir()] == ["extra.yml"]


def test_the_folder_is_its_owners_alone(tmp_path):
    save_attached(tmp_path, strategy())
    assert stat.S_IMODE((tmp_path / "attached").stat().st_mode) == 0o700


def test_a_crash_while_saving_leaves_the_old_file(tmp_path, config, monkeypatch):
    save_attached(tmp_path, strategy(params={"size": "1"}))

    def power_failure(descriptor):
        raise OSError("no power")

    monkeypatch.setattr(os, "fsync", power_failure)
    with pytest.raises(OSError, match="no power"):
        save_attached(tmp_path, strategy(params={"size": "2"}))
    assert [found.params for found in loaded(tmp_path, config)[0]] == [{"size": "1"}]


def test_forgetting_says_whether_it_was_attached(tmp_path, config):
    save_attached(tmp_path, strategy())
    assert forget_attached(tmp_path, "extra") is True
    assert forget_attached(tmp_path, "extra") is False
    assert forget_attached(tmp_path / "nowhere", "extra") is False
    assert loaded(tmp_path, config) == ([], [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "expected"),
        ("", "StrategyConfig"),
        ("- 1", "StrategyConfig"),
        ("name: x", "strategy"),
        (f"name: x\nstrategy: {MAKER}\npairs: [binance/ETH-USDT]", "ETH-USDT"),
        (f"name: x\nstrategy: {MAKER}\npairs: [kraken/BTC-USDT]", "kraken"),
    ],
)
def test_what_cannot_run_is_named_and_left_out(tmp_path, config, text, why):
    save_attached(tmp_path, strategy())
    (tmp_path / "attached" / "broken.yml").write_text(text)
    found, errors = loaded(tmp_path, config)
    assert [each.name for each in found] == ["extra"]
    assert len(errors) == 1
    assert why in errors[0]


def test_a_file_that_is_no_text_is_left_out(tmp_path, config):
    save_attached(tmp_path, strategy())
    (tmp_path / "attached" / "broken.yml").write_bytes(b"\xff\xfe\x00")
    found, errors = loaded(tmp_path, config)
    assert ([each.name for each in found], len(errors)) == (["extra"], 1)
