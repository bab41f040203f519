"""The report: statistics of actors that die and come back add up, and its keys are those that others parse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import ActorStats, LogLine, NetworkStatus
from engine.metrics import Histogram
from engine.report import ActorRecord, build_report, build_status, summary


def histogram(*values: int) -> dict[int, int]:
    made = Histogram()
    for value in values:
        made.record(value)
    return made.buckets


def book_record() -> ActorRecord:
    record = ActorRecord("order_book.binance.0", "order_book", "binance", pid=10, host="h", state="running")
    record.update(
        ActorStats(
            actor=record.name,
            incarnation=1,
            network=NetworkStatus.CONNECTED,
            counters={"ticks": 5, "updates/BTC-USDT": 100, "gaps/BTC-USDT": 1, "stale_ns/BTC-USDT": 1_500_000_000}
            | {"bbo_checked/BTC-USDT": 7, "bbo_equal/BTC-USDT": 7},
            gauges={"bids/BTC-USDT": 50, "asks/BTC-USDT": 49, "book_state/BTC-USDT": "synced"}
            | {"best/BTC-USDT": ["1", "2", "3", "4"], "book_state/ETH-USDT": "buffering"},
            histograms={
                "book_latency_ns/BTC-USDT": histogram(10_000, 20_000),
                "tick_lateness_ns": histogram(1_000_000),
            },
        )
    )
    return record


def exchange_record(connector: str = "binance", **gauges: Any) -> ActorRecord:
    record = ActorRecord(f"exchange.{connector}.main", "exchange", connector, pid=11, state="running", restarts=2)
    defaults: dict[str, Any] = {
        "orders": {"placed": 4, "acknowledged": 4, "filled": 3, "open": 1},
        "fills": 3,
        "fills_missed": 0,
        "fills_duplicated": 0,
        "balances": {"USDT": {"total": "10", "available": "9"}},
        "open_orders": [{"client_order_id": "a", "pair": "BTC-USDT"}],
    }
    record.update(
        ActorStats(
            actor=record.name,
            incarnation=1,
            gauges={**defaults, **gauges},
            histograms={"strategy_to_wire_ns": histogram(150_000), "wire_to_ack_ns": histogram(2_000_000)},
        )
    )
    return record


def test_a_report_has_every_key_that_others_parse() -> None:
    report = build_report([book_record(), exchange_record()], seconds=20.0, runtime="local")
    assert report["ok"] is True
    assert report["problems"] == []
    assert (report["seconds"], report["runtime"]) == (20.0, "local")
    actor = report["actors"][0]
    assert actor | {"network": "", "tick_lateness_ms": {}, "last_tick": None} == {
        "last_tick": None,
        "name": "order_book.binance.0",
        "kind": "order_book",
        "venue": "binance",
        "pid": 10,
        "host": "h",
        "place": "",
        "state": "running",
        "restarts": 0,
        "ticks": 5,
        "ticks_skipped": 0,
        "tick_lateness_ms": {},
        "network": "",
    }
    assert actor["tick_lateness_ms"]["p50"] == pytest.approx(1.0, rel=0.07)
    book = report["books"]["binance/BTC-USDT"]
    assert {key: book[key] for key in ("updates", "gaps", "resyncs", "rescales", "bids", "asks")} == {
        "updates": 100,
        "gaps": 1,
        "resyncs": 0,
        "rescales": 0,
        "bids": 50,
        "asks": 49,
    }
    assert (book["checksums_ok"], book["checksums_failed"]) == (0, 0)
    assert (book["bbo_checked"], book["bbo_equal"]) == (7, 7)
    assert book["stale_seconds"] == 1.5
    assert book["latency_us"]["p99"] == pytest.approx(20, rel=0.07)
    assert report["books"]["binance/ETH-USDT"]["latency_us"] == {"p50": None, "p99": None}
    assert report["orders"] == {
        "placed": 4,
        "acknowledged": 4,
        "refused": 0,
        "filled": 3,
        "cancelled": 0,
        "expired": 0,
        "failed": 0,
        "unknown": 0,
        "open": 1,
    }
    assert (report["fills"], report["fills_missed"], report["fills_duplicated"]) == (3, 0, 0)
    assert report["balances"] == {"binance/main": {"USDT": {"total": "10", "available": "9"}}}
    assert report["order_latency_us"]["wire_to_ack"]["p50"] == pytest.approx(2000, rel=0.07)
    json.dumps(report)


@pytest.mark.parametrize("state", ["starting", "stalled", "backing_off", "failed", "stopped"])
def test_a_book_whose_actor_does_not_run_is_not_shown_as_synced(state: str) -> None:
    record = book_record()
    record.state = state
    books = build_status([record], engine="e", runtime="local", seconds=1)["books"]
    assert {name: book["state"] for name, book in books.items()} == {
        "binance/BTC-USDT": "stale",
        "binance/ETH-USDT": "buffering",
    }


def test_accounts_add_up() -> None:
    report = build_report([exchange_record(), exchange_record("binance:us")], seconds=1, runtime="local")
    assert report["orders"]["placed"] == 8
    assert report["fills"] == 6
    assert set(report["balances"]) == {"binance/main", "binance:us/main"}


@pytest.mark.parametrize("missing", [None, "gone"])
def test_missed_fills_are_null_where_any_account_was_not_asked(missing: Any) -> None:
    silent = (
        exchange_record("b", fills_missed=None)
        if missing is None
        else ActorRecord("exchange.b.main", "exchange", "b", state="failed")
    )
    report = build_report([exchange_record(), silent], seconds=1, runtime="local")
    assert report["fills_missed"] is None
    assert build_report([], seconds=1, runtime="local")["fills_missed"] is None


def test_counters_of_all_incarnations_add_up_and_gauges_are_the_latest() -> None:
    record = ActorRecord("clock", "clock")
    for incarnation, ticks in ((1, 3), (1, 5), (2, 1), (1, 99), (3, 4)):
        record.update(
            ActorStats(
                actor="clock",
                incarnation=incarnation,
                counters={"ticks": ticks},
                gauges={"endpoint": str(incarnation)},
                histograms={"tick_lateness_ns": {1: ticks}},
            )
        )
    assert record.counter("ticks") == 5 + 1 + 4
    assert record.histogram("tick_lateness_ns").count == 10
    assert record.gauge("endpoint") == "3"
    assert record.counters() == {"ticks": 10}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=30))
def test_a_total_never_falls(told: list[tuple[int, int]]) -> None:
    record, counts, before = ActorRecord("clock", "clock"), dict.fromkeys(range(5), 0), 0
    for incarnation, more in told:
        counts[incarnation] += more
        record.update(ActorStats(actor="clock", incarnation=incarnation, counters={"ticks": counts[incarnation]}))
        assert record.counter("ticks") >= before
        before = record.counter("ticks")


def test_a_problem_makes_a_report_not_ok_and_is_named() -> None:
    report = build_report([book_record()], seconds=1, runtime="local", problems=["connector binance is down"])
    assert report["ok"] is False
    text = summary(report)
    assert text.startswith("NOT OK")
    assert "connector binance is down" in text


def test_a_summary_says_what_matters_in_a_few_lines() -> None:
    text = summary(build_report([book_record(), exchange_record()], seconds=20, runtime="local"))
    assert text.startswith("ok after 20.0 s, 2 actors, 2 restarts (exchange.binance.main 2)")
    assert "orders   4 placed, 4 acknowledged, 3 filled, 1 open" in text
    assert "fills    3, missed 0, duplicated 0" in text
    assert "best quote equal in 7 of 7" in text
    assert "stale 1.5 s" in text
    assert "wire to acknowledgement p50 2.0 ms" in text


def test_a_summary_of_nothing_is_a_summary() -> None:
    assert "not asked" in summary(build_report([], seconds=0, runtime="local"))


def test_a_status_names_what_keeps_the_run_from_being_ok() -> None:
    assert build_status([], engine="e", runtime="local", seconds=1)["problems"] == []
    told = build_status([], engine="e", runtime="local", seconds=1, problems=["connector a is down"])
    assert told["problems"] == ["connector a is down"]


def test_the_status_adds_what_is_open_and_recent() -> None:
    strategy = ActorRecord("strategy.maker", "strategy")
    strategy.update(ActorStats(actor="strategy.maker", incarnation=1, gauges={"pnl": {"USDT": "1.5"}}))
    event = LogLine(actor="clock", level="warning", event="late", time_ns=5, fields={"a": 1})
    status = build_status(
        [book_record(), exchange_record(), strategy], engine="demo", runtime="local", seconds=1, events=[event]
    )
    assert status["engine"] == "demo"
    assert status["halted"] is None
    assert [order["client_order_id"] for order in status["open_orders"]] == ["a"]
    assert status["pnl"] == {"maker": {"USDT": "1.5"}}
    assert status["events"] == [
        {"actor": "clock", "level": "warning", "event": "late", "time_ns": 5, "fields": {"a": 1}}
    ]
    assert {"actors", "books", "orders", "balances", "recent_fills", "fills"} <= set(status)
    json.dumps(status)
