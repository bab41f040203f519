"""Commands that change a running engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.stand_in import StandIn

ROOT = Path(__file__).resolve().parents[2]


def test_what_the_engine_refuses_is_said_as_it_says_it(call: Any, engine: StandIn) -> None:
    code, out, err = call("restart", "nobody")
    assert (code, out, err) == (1, "", "engine: no restart here; try another\n")


def test_stop_waits_until_the_engine_is_gone(call: Any, engine: StandIn) -> None:
    code, out, _ = call("stop")
    assert (code, out) == (0, "stopped\n")
    assert call("status")[0] == 1


def test_verbs_carry_their_arguments(call: Any, engine: StandIn) -> None:
    engine.answers["restart"] = lambda _: {}
    engine.answers["detach"] = lambda _: {"was_attached": True}
    engine.answers["cancel_all"] = lambda _: {"cancelled": ["a", "b"], "failed": {}, "ended": {}, "unanswered": {}}
    engine.answers["attach"] = lambda _: {"actor": "strategy.extra"}
    engine.answers["status"] = lambda _: {"actors": [{"name": "strategy.extra", "state": "running"}]}
    assert call("restart", "strategy.maker")[0] == 0
    assert call("cancel-all")[1] == "2 orders cancelled\n"
    assert call("detach", "extra")[0] == 0
    assert call("attach", str(ROOT / "configs/strategy.yml"))[0] == 0
    assert engine.asked[:3] == [
        ("restart", {"actor": "strategy.maker"}),
        ("cancel_all", {"within_s": 10.0}),
        ("detach", {"name": "extra"}),
    ]
    verb, strategy = engine.asked[3]
    assert verb == "attach"
    assert strategy["name"] == "extra"
    assert strategy["strategy"] == "engine.strategies.market_maker:MarketMaker"
    assert strategy["params"]["size"] == "0.002"


def test_a_strategy_of_the_configuration_is_detached_until_the_next_run(call: Any, engine: StandIn) -> None:
    engine.answers["detach"] = lambda args: {"was_attached": args["name"] == "extra"}
    assert call("detach", "extra")[1] == "strategy extra detached\n"
    assert "it is in the configuration, and returns with the next engine run" in call("detach", "maker")[1]


def test_orders_that_could_not_be_cancelled_fail_the_command(call: Any, engine: StandIn) -> None:
    answer: dict[str, Any] = {"cancelled": [], "failed": {"demo-1": "open"}, "ended": {"demo-2": "filled"}}
    engine.answers["cancel_all"] = lambda _: {**answer, "unanswered": {}}
    code, out, err = call("cancel-all", "--timeout", "2m")
    assert code == 1
    assert "demo-1 was not cancelled: open" in err
    assert "order demo-2 was filled before it could be cancelled" in out
    assert engine.asked == [("cancel_all", {"within_s": 120.0})]


def test_an_account_that_could_not_be_asked_to_cancel_fails_the_command(call: Any, engine: StandIn) -> None:
    lost = {"exchange.binance.main": "exchange.binance.main does not answer: closed"}
    engine.answers["cancel_all"] = lambda _: {"cancelled": ["a"], "failed": {}, "ended": {}, "unanswered": lost}
    code, out, err = call("cancel-all")
    assert (code, out) == (1, "1 orders cancelled\n")
    assert "exchange.binance.main does not answer: closed; its orders may be open" in err


@pytest.mark.parametrize(
    ("answer", "code", "out", "err"),
    [
        ({"missing": [], "not_saved": ""}, 0, "halted: no new order goes out until engine resume\n", ""),
        ({"missing": ["exchange.a.main"], "not_saved": ""}, 1, "", "exchange.a.main did not acknowledge yet"),
        ({"missing": [], "not_saved": "trading.json cannot be written"}, 1, "halted", "not over a restart yet"),
    ],
)
def test_a_halt_says_what_holds(
    call: Any, engine: StandIn, answer: dict[str, Any], code: int, out: str, err: str
) -> None:
    engine.answers["halt"] = lambda _: {"state": "halted", "acknowledged": [], **answer}
    found = call("halt", "--reason", "a test")
    assert (found[0], out in found[1], err in found[2]) == (code, True, True)
    assert engine.asked == [("halt", {"reason": "a test"})]
    assert json.loads(call("halt", "--json")[1])["missing"] == answer["missing"]


def test_a_strategy_that_does_not_start_is_told_at_its_attachment(call: Any, engine: StandIn) -> None:
    states = iter(("starting", "backing_off"))
    engine.answers["attach"] = lambda _: {"actor": "strategy.extra"}
    engine.answers["status"] = lambda _: {"actors": [{"name": "strategy.extra", "state": next(states)}]}
    code, out, err = call("attach", str(ROOT / "configs/strategy.yml"))
    assert code == 1
    assert "attached" in out
    assert "does not start (backing off): see engine logs strategy.extra" in err


def test_an_attach_file_that_is_wrong_never_reaches_the_engine(call: Any, engine: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "s.yml"
    path.write_text("name: x\nstrategy: no.such:Thing\npairs: [binance/BTC-USDT]\n")
    code, _, err = call("attach", str(path))
    assert code == 2
    assert err.startswith(f"engine: {path}:2: strategy: there is no module no")
    assert engine.asked == []
