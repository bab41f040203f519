"""The configuration: what is taken, and that what is wrong is said on one line with its place."""

from __future__ import annotations

import contextlib
import copy
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.actors.plan import plan
from engine.config import (
    EngineConfig,
    StrategyConfig,
    check_strategy,
    journal_address,
    load_attach,
    load_config,
    parse_config,
)
from engine.errors import ConfigError
from engine.strategies.loading import load_strategy

ROOT = Path(__file__).resolve().parent.parent
MAKER = "engine.strategies.market_maker:MarketMaker"
BASIC = f"""\
name: demo
clock:
  interval: 0.5
venue:
  seed: 7
  pairs:
    - {{pair: BTC-USDT, price: "60000"}}
    - ETH-USDT
  balances: {{USDT: "100000"}}
connectors:
  binance:
    at: venue
    pairs: [BTC-USDT, ETH-USDT]
strategies:
  maker:
    strategy: {MAKER}
    pairs: [binance/BTC-USDT]
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "c.yml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def error_of(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    text = str(raised.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------ what is taken


def test_a_valid_file_gives_the_whole_configuration(write: Any) -> None:
    config = load_config(write(BASIC))
    assert config.name == "demo"
    assert config.clock.interval == 0.5
    assert config.stop.open_orders == "cancel"
    assert config.supervision.budget == 5
    assert config.boxes["venue"].balances == {"USDT": Decimal(100000)}
    assert config.connectors["binance"].venue == "binance"
    assert config.connectors["binance"].account == "main"
    assert config.strategies["maker"].name == "maker"
    assert config.strategies["maker"].books == [("binance", "BTC-USDT")]


def test_a_pair_of_a_box_may_be_plain(write: Any) -> None:
    btc, eth = load_config(write(BASIC)).boxes["venue"].pairs
    assert (btc.pair, btc.price) == ("BTC-USDT", Decimal(60000))
    assert (eth.pair, eth.price) == ("ETH-USDT", None)


def test_a_connector_may_be_named_apart_from_its_venue(write: Any) -> None:
    text = BASIC.replace("  binance:\n    at", "  mine:\n    venue: binance\n    at").replace("[binance/", "[mine/")
    assert load_config(write(text)).connectors["mine"].venue == "binance"


@pytest.mark.parametrize("name", ["demo", "two_venues"])
def test_the_shipped_configurations_are_valid(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yml")
    assert config.strategies


def test_the_shipped_strategy_is_valid() -> None:
    strategy = load_attach(ROOT / "configs" / "strategy.yml")
    assert strategy.name == "extra"
    check_strategy(load_config(ROOT / "configs" / "demo.yml"), strategy)


def test_the_replay_configuration_wants_a_capture_and_finds_it_beside_the_file(write: Any, tmp_path: Path) -> None:
    path = write((ROOT / "configs" / "replay.yml").read_text())
    assert "--set venue.capture=FILE" in error_of(path)
    capture = tmp_path / "some.jsonl.gz"
    capture.write_bytes(gzip.compress(b""))
    config = load_config(path, ["venue.capture=some.jsonl.gz"])
    assert config.boxes["venue"].capture == str(capture)
    assert config.boxes["venue"].speed == 20


def test_a_real_venue_needs_its_keys_unless_it_does_not_trade(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    path = write(BASIC.replace("    at: venue\n", ""))
    said = error_of(path)
    assert "BINANCE_API_KEY" in said
    assert f"{path}:11: connectors.binance" in said
    assert load_config(path, ["connectors.binance.trade=false"]).connectors["binance"].trade is False
    monkeypatch.setenv("BINANCE_API_KEY", "k" * 20)
    monkeypatch.setenv("BINANCE_API_SECRET", "s" * 20)
    assert "k" * 20 not in repr(load_config(path))


# --------------------------------------------------------------------------------------- overrides


def test_overrides_replace_values_and_items(write: Any) -> None:
    config = load_config(
        write(BASIC),
        [
            "clock.interval=0.1",
            "strategies.maker.params.size='0.5'",
            "venue.pairs.0.price=61000",
            "connectors.binance.pairs=[BTC-USDT]",
        ],
    )
    assert config.clock.interval == 0.1
    assert config.strategies["maker"].params == {"size": "0.5"}
    assert config.boxes["venue"].pairs[0].price == 61000
    assert config.connectors["binance"].pairs == ["BTC-USDT"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("clock.intervall=1", "clock.intervall: unknown key; did you mean interval?"),
        ("clok.interval=1", "clok: unknown key; did you mean clock?"),
        ("strategies.makr.params.size=1", "there is no makr under strategies; did you mean maker?"),
        ("name.x=1", "name is a plain value; it holds no x"),
        ("venue.pairs.7=BTC-USDT", "venue.pairs is a list of 2; it has no item 7"),
        ("clock.interval", "write KEY=VALUE"),
        ("clock..interval=1", "write KEY=VALUE"),
        ("clock.interval=[", "the value is not YAML"),
        ("runtime=cloud", "runtime"),
        ("cluster.address=here", "cluster.address"),
        ("connectors.binance.place=[]]", "the value is not YAML"),
    ],
)
def test_a_wrong_override_names_itself(write: Any, override: str, said: str) -> None:
    text = error_of(write(BASIC), override)
    assert text.startswith(f"--set {override}: ")
    assert said in text


# ------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("  seed: 7", "  sed: 7", 5, "venue.sed: unknown key; did you mean seed?"),
        ("name: demo", "nme: demo", 1, "nme: unknown key; did you mean name?"),
        ("interval: 0.5", "interval: 100", 3, "clock.interval: is 100; it should be less than or equal to 60"),
        (
            "interval: 0.5",
            "interval: 0.5\nbooks: {keep_warm: 0.0001}",
            4,
            "books.keep_warm: is 0.0001 s, in which an actor",
        ),
        ("interval: 0.5", "interval: fast", 3, "clock.interval: is 'fast'; it should be a valid number"),
        ("interval: 0.5", "interval: .nan", 3, "clock.interval: is nan"),
        ('price: "60000"', "price: 60000.5", 7, "write it in quotes"),
        ("- ETH-USDT", "- ETHUSDT", 8, "a pair is BASE-QUOTE in capitals"),
        ("- ETH-USDT", "- XYZ-USDT", 8, "venue.pairs.1: a box has no XYZ-USDT of its own; give its price"),
        ("- ETH-USDT", "- BTC-USDT", 8, "venue.pairs.1: BTC-USDT is listed twice"),
        ("    at: venue", "    at: venu", 12, "there is no venue in a box named venu; did you mean venue?"),
        ("    pairs: [BTC-USDT, ETH-USDT]", "    pairs: []", 13, "is empty; give at least one"),
        ("    pairs: [BTC-USDT, ETH-USDT]", "    pairs: BTC-USDT", 13, "it should be a valid list"),
        ("    pairs: [BTC-USDT, ETH-USDT]", "    pairs: [BTC-USDT, SOL-USDT]", 13, "venue has no SOL-USDT"),
        ("  binance:\n", "  binanc:\n", 11, "venue"),
        ("[binance/BTC-USDT]", "[binanc/BTC-USDT]", 17, "there is no connector binanc; did you mean binance?"),
        ("[binance/BTC-USDT]", "[binance/SOL-USDT]", 17, "connector binance has no SOL-USDT"),
        ("[binance/BTC-USDT]", "[BTC-USDT]", 17, "write CONNECTOR/PAIR"),
        (MAKER, "engine.strategies.market_maker:MarketMakr", 16, "did you mean MarketMaker?"),
        (MAKER, "engine.strategies.nothing:X", 16, "there is no module engine.strategies.nothing"),
        (MAKER, "engine.strategies.market_maker:BASIS_POINT", 16, "is no strategy; name a class"),
        (MAKER, "market_maker", 16, "write package.module:Class"),
        ("  seed: 7", "  seed: 7\n  capture: /nowhere/x.gz", 6, "there is no file /nowhere/x.gz"),
        ("strategies:\n", "strategies:\n  Maker: {}\n", 15, "a name is up to 24 small letters"),
        ("    at: venue", "    at: venue\n    name: other", 13, "the key above already names it binance"),
        ("  interval: 0.5", "  interval: 0.5\n  interval: 1", 4, "is given twice, first on line 3"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(write: Any, old: str, new: str, line: int, said: str) -> None:
    assert old in BASIC
    path = write(BASIC.replace(old, new, 1))
    text = error_of(path)
    assert text.startswith(f"{path}:{line}: "), text
    assert said in text


def test_a_recording_takes_no_orders(write: Any, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("")
    path = write(BASIC.replace("  seed: 7", "  capture: r.jsonl"))
    assert f"{path}:11: connectors.binance.trade: venue serves a recording" in error_of(path)


def test_two_connectors_do_not_share_a_real_account(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BINANCE_API_KEY", "BINANCE_API_SECRET", "MINE_API_KEY", "MINE_API_SECRET"):
        monkeypatch.setenv(name, "x" * 20)
    text = BASIC.replace("    at: venue\n", "") + ""
    text = text.replace("strategies:", "  mine: {venue: binance, pairs: [BTC-USDT]}\nstrategies:")
    assert "binance already trades account main" in error_of(write(text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file holds no keys"),
        ("- a\n", "the file holds no keys"),
        ("name: [\n", "not YAML"),
        ("name: a\n\tb: c\n", "not YAML"),
        ("name: demo\n", "connectors is missing; add it"),
        ("name: demo\nconnectors: {}\n", "connectors: is empty"),
        ("name: demo\nconnectors:\n", "it should be a mapping"),
        ("\x00", "not YAML"),
        ("name: 2024-99-99\n", "not YAML"),
        ("name: " + "[" * 5000, "not YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(write: Any, text: str, said: str) -> None:
    assert said in error_of(write(text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no such file" in error_of(tmp_path / "x.yml")
    assert "cannot be read" in error_of(tmp_path)


def test_a_strategy_module_that_fails_is_one_line(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write("def broken(:\n", "broken_strategy.py")
    write("import surely_not_installed\n", "needy_strategy.py")
    path = write(BASIC)
    assert "importing broken_strategy failed: SyntaxError" in error_of(
        path, "strategies.maker.strategy=broken_strategy:X"
    )
    assert "it needs surely_not_installed" in error_of(path, "strategies.maker.strategy=needy_strategy:X")


def test_a_strategy_in_the_current_folder_is_found(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    write("from engine.strategies import Strategy\nclass Mine(Strategy): ...\n", "my_own_strategy.py")
    assert load_strategy("my_own_strategy:Mine").__name__ == "Mine"


def test_an_attached_strategy_is_checked_against_the_engine() -> None:
    config = load_config(ROOT / "configs" / "demo.yml")
    strategy = StrategyConfig(name="x", strategy=MAKER, pairs=["binance/LTC-BTC"])
    with pytest.raises(ConfigError, match=r"strategy x: pairs\.0: connector binance has no LTC-BTC"):
        check_strategy(config, strategy)


def test_an_attach_file_names_what_is_wrong_in_it(write: Any) -> None:
    path = write(f"strategy: {MAKER}\npairs: [binance/BTC-USDT]\nparam: {{}}\n")
    with pytest.raises(ConfigError, match="param: unknown key; did you mean params") as raised:
        load_attach(path)
    assert "(and 1 more)" in str(raised.value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


WHERE = [
    ("name",),
    ("clock",),
    ("venue",),
    ("venue", "pairs"),
    ("connectors",),
    ("connectors", "binance"),
    ("connectors", "binance", "pairs"),
    ("strategies", "maker"),
    ("strategies", "maker", "pairs"),
]


@given(
    path=st.sampled_from(WHERE),
    value=PLAIN,
)
def test_whatever_stands_in_a_file_it_is_a_configuration_or_an_error_of_ours(path: tuple[str, ...], value: Any) -> None:
    data = copy.deepcopy(yaml.safe_load(BASIC))
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(data), EngineConfig)


# ------------------------------------------------------------------------------------------------- shared accounts


def test_scheduling_is_ordinary_unless_asked_for_and_nothing_where_all_is_one_process() -> None:
    data = yaml.safe_load(BASIC)
    assert parse_config(data).scheduling == "normal"
    assert parse_config({**data, "scheduling": "realtime"}).scheduling == "realtime"
    with pytest.raises(ConfigError, match=r"scheduling: .*runtime inline has none"):
        parse_config({**data, "scheduling": "realtime", "runtime": "inline"})
    with pytest.raises(ConfigError, match="scheduling: "):
        parse_config({**data, "scheduling": "fast"})


def test_processors_may_sleep_unless_asked_for_and_virtual_time_waits_for_none() -> None:
    data = yaml.safe_load(BASIC)
    assert parse_config(data).processors == "normal"
    assert parse_config({**data, "processors": "awake"}).processors == "awake"
    with pytest.raises(ConfigError, match=r"processors: .*runtime inline waits for nothing"):
        parse_config({**data, "processors": "awake", "runtime": "inline"})
    with pytest.raises(ConfigError, match="processors: "):
        parse_config({**data, "processors": "fast"})


def with_journal(address: str, **more: Any) -> EngineConfig:
    data = yaml.safe_load(BASIC)
    data["connectors"]["binance"]["journal"] = address
    return parse_config({**data, **more})


def test_a_journals_address_is_taken_from_the_file_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    here = with_journal("postgresql://engine@db/desk").connectors["binance"]
    assert journal_address(here, {}) == "postgresql://engine@db/desk"
    address = "postgresql://engine:correct-horse@db/desk"
    monkeypatch.setenv("BINANCE_JOURNAL", address)
    config = with_journal("postgresql")
    there = config.connectors["binance"]
    assert journal_address(there, {"BINANCE_JOURNAL": address}) == address
    assert "correct-horse" not in repr(config)
    (exchange,) = [actor for actor in plan(config, 1, Path("/nowhere")) if actor.kind == "exchange"]
    assert exchange.params["journal"]["address"] == address
    assert "correct-horse" not in repr(exchange)


@pytest.mark.parametrize(
    ("address", "more", "said"),
    [
        ("postgresql://engine:secret@db/desk", {}, "has a password"),
        ("postgresql://engine@db/desk?password=secret", {}, "has a password"),
        ("postgresql", {}, "BINANCE_JOURNAL"),
        ("mysql://db", {}, "postgresql://USER@HOST/DATABASE"),
        ("postgresql://db", {"runtime": "inline"}, "virtual time"),
        ("postgresql://db", {"journal": {"lease": {"ttl": 3}}}, "make it longer"),
    ],
)
def test_a_journal_that_cannot_be_is_refused_without_a_secret(
    address: str, more: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BINANCE_JOURNAL", raising=False)
    with pytest.raises(ConfigError, match=said) as raised:
        with_journal(address, **more)
    assert "secret" not in str(raised.value)
