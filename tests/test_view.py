"""The live view: what it draws of an engine's status, at any width, and that it leaves a clean screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from engine.view import render


def status() -> dict[str, Any]:
    def actor(name: str, state: str = "running", restarts: int = 0) -> dict[str, Any]:
        late = {"p50": 0.2, "p99": 0.41, "max": 1.2}
        return {
            "name": name,
            "kind": name.partition(".")[0],
            "venue": "binance",
            "pid": 4242,
            "host": "h",
            "state": state,
            "restarts": restarts,
            "ticks": 20,
            "ticks_skipped": 0,
            "tick_lateness_ms": late,
        }

    book = {"updates": 1234, "gaps": 0, "state": "synced", "latency_us": {"p50": 20.0, "p99": 64.0}}
    order = {"connector": "binance", "pair": "BTC-USDT", "side": "buy", "price": "59990.1", "size": "0.01"}
    return {
        "engine": "demo",
        "seconds": 3725.4,
        "halted": None,
        "actors": [
            actor("clock"),
            actor("order_book.binance.0"),
            actor("user_stream.binance.main", "backing_off", 3),
            actor("exchange.binance.main"),
            actor("strategy.maker", "failed"),
        ],
        "books": {
            "binance/BTC-USDT": {**book, "best": ["60000.10", "1.5", "60000.11", "0.25"]},
            "binance/ETH-USDT": {**book, "best": None, "state": "buffering", "gaps": 2},
        },
        "orders": {"placed": 42, "open": 2, "filled": 20, "unknown": 1},
        "fills": 21,
        "pnl": {"maker": {"USDT": "12.3456"}, "other": {"USDT": "-2"}},
        "open_orders": [{**order, "filled": "0", "state": "partially_filled", "strategy": "maker"}] * 12,
        "recent_fills": [
            {
                **order,
                "strategy": "maker",
                "fill": {"price": "59990.1", "size": "0.004", "time_ns": 1_700_000_000 * 10**9},
            }
        ],
        "balances": {"binance/main": {"USDT": {"total": "100000.50", "available": "90000"}, "BTC": {"total": "2.00"}}},
        "events": [
            {"actor": "exchange.binance.main", "level": "warning", "event": "order refused", "time_ns": 0}
            | {"fields": {"pair": "BTC-USDT", "why": "a\x1b[2Jb\nc"}}
        ],
    }


def drawn(value: dict[str, Any], width: int = 120, colour: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None).print(
        render(value, width)
    )
    return out.getvalue()


def test_all_that_matters_is_there() -> None:
    text = drawn(status())
    for wanted in (
        "demo",
        "1:02:05",
        "3/5 actors running",
        "3 restarts",
        "user_stream.binance.main",
        "backing off",
        "60000.10",
        "60000.11",
        "42 placed",
        "1 unknown",
        "+10.35 USDT",
        "partially filled",
        "and 4 more",
        "100,000.5 USDT",
        "2 BTC",
        "order refused",
    ):
        assert wanted in text, wanted


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = drawn(status(), width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert len(lines) < 50


def test_a_narrow_terminal_shows_names_states_and_prices_whole() -> None:
    text = drawn(status(), 64)
    for wanted in ("user_stream.binance.main", "backing off", "binance/BTC-USDT", "60000.10", "60000.11"):
        assert wanted in text, wanted


def test_an_event_is_shown_with_whom_it_is_about() -> None:
    event = {"actor": "supervisor", "level": "info", "event": "actor running", "time_ns": 0}
    told = {**status(), "events": [event | {"fields": {"about": "strategy.maker", "incarnation": 5}}]}
    for width in (120, 64):
        line = next(line for line in drawn(told, width).splitlines() if "actor running" in line)
        assert "strategy.maker" in line
        assert "supervisor" not in line
        assert "incarnation" not in line


def test_states_have_their_colours() -> None:
    text = drawn(status(), colour=True)
    assert "\x1b[32mrunning" in text
    assert "\x1b[33mbacking off" in text
    assert "\x1b[1;31mfailed" in text
    assert "\x1b[33morder refused" in text


def test_what_an_actor_says_is_no_command_to_the_terminal() -> None:
    assert "\x1b[2J" not in drawn(status())
    assert "\x1b[2J" not in drawn(status(), colour=True)


def test_a_halted_engine_says_so_first() -> None:
    assert "HALTED losing money" in drawn({**status(), "halted": "losing money"}).splitlines()[0]


def test_an_engine_that_has_only_begun_is_drawn_too() -> None:
    assert "0/0 actors running" in drawn({"engine": "demo", "seconds": 0, "actors": []})
