"""What the supervisor remembers of its actors, and what strategies gained."""

import pytest

from engine.actors.observed import Observations, profits
from engine.actors.plan import PlannedActor
from engine.messages import ActorStats, StreamPosition, TickDone


@pytest.fixture
def observed():
    found = Observations()
    found.add(PlannedActor("order_book.box.0", "order_book", "box"))
    found.add(PlannedActor("exchange.box.main", "exchange", "box"))
    return found


def stats(actor, incarnation=1, **fields):
    return ActorStats(actor=actor, incarnation=incarnation, **fields)


def takings(**fields):
    return {"strategy": "maker", "pair": "BTC-USDT", "base": "0", "quote": "0", "fees": {}, **fields}


def test_a_record_for_each_actor(observed):
    assert [(record.name, record.kind, record.connector) for record in observed] == [
        ("order_book.box.0", "order_book", "box"),
        ("exchange.box.main", "exchange", "box"),
    ]


def test_the_supervisor_has_a_record_too(observed):
    record = observed.add_supervisor("supervisor", 42)
    assert (record.pid, record.state) == (42, "running")
    assert observed.of("supervisor") is record


def test_an_actor_that_is_not_known(observed):
    observed.stats(stats("nobody"))
    with pytest.raises(KeyError):
        observed.of("nobody")


def test_a_detached_actor_is_forgotten(observed):
    observed.remove("exchange.box.main")
    observed.remove("exchange.box.main")
    observed.stats(stats("exchange.box.main"))
    assert [record.name for record in observed] == ["order_book.box.0"]


def test_the_pid_is_of_the_newest_incarnation(observed):
    observed.spawned("exchange.box.main", 1, "here")
    observed.spawned("exchange.box.main", 2, "there")
    assert observed.of("exchange.box.main").pid == 2


def test_counters_go_on_over_incarnations_and_gauges_do_not(observed):
    observed.stats(stats("exchange.box.main", 1, counters={"a": 2}, gauges={"g": 1}))
    observed.stats(stats("exchange.box.main", 1, counters={"a": 5}, gauges={"g": 2}))
    observed.stats(stats("exchange.box.main", 2, counters={"a": 1}))
    observed.stats(stats("exchange.box.main", 1, counters={"a": 9}))
    record = observed.of("exchange.box.main")
    assert (record.counter("a"), record.gauge("g")) == (6, None)


def test_numbers_that_were_overtaken_are_not_taken(observed):
    name = "exchange.box.main"
    for incarnation, number, value in ((1, 1, "a"), (1, 3, "b"), (1, 2, "late"), (2, 1, "c"), (1, 9, "dead")):
        observed.stats(stats(name, incarnation, number=number, gauges={"g": value}))
    assert observed.of(name).gauge("g") == "c"
    observed.stats(stats(name, 2, number=0, gauges={"g": "late"}))
    assert observed.of(name).gauge("g") == "c"


def test_an_answer_to_a_tick_is_taken(observed):
    observed.answered(
        TickDone(
            actor="exchange.box.main",
            incarnation=1,
            n=1,
            lateness_ns=1,
            duration_ns=1,
            streams={"orders": StreamPosition(incarnation=1, number=5)},
        )
    )


def test_a_gain_is_cash_and_holdings_at_the_mid_less_fees(observed):
    observed.stats(stats("order_book.box.0", gauges={"best/BTC-USDT": ["99", "1", "101", "1"]}))
    rows = [takings(base="2", quote="-190", fees={"USDT": "1", "BTC": "0.01", "BNB": "7"})]
    observed.stats(stats("exchange.box.main", gauges={"takings": rows}))
    assert profits(observed) == {"maker": {"USDT": "8.0000"}}


def test_a_fee_in_an_asset_of_its_own_counts_where_the_connector_follows_a_book_of_it(observed):
    bests = {"best/BTC-USDT": ["100", "1", "100", "1"], "best/BNB-USDT": ["5", "1", "5", "1"]}
    observed.stats(stats("order_book.box.0", gauges=bests))
    observed.stats(stats("exchange.box.main", gauges={"takings": [takings(quote="10", fees={"BNB": "0.5"})]}))
    assert profits(observed) == {"maker": {"USDT": "7.5000"}}


def test_gains_of_several_pairs_are_summed_by_quote(observed):
    bests = {"best/BTC-USDT": ["99", "1", "101", "1"], "best/ETH-USDT": ["10", "1", "10", "1"]}
    bests["best/ETH-BTC"] = ["0.1", "1", "0.1", "1"]
    observed.stats(stats("order_book.box.0", gauges=bests))
    rows = [
        takings(quote="1.5"),
        takings(pair="ETH-USDT", base="-1", quote="12"),
        takings(pair="ETH-BTC", quote="0.25"),
        takings(strategy="other", quote="3"),
    ]
    observed.stats(stats("exchange.box.main", gauges={"takings": rows}))
    assert profits(observed) == {"maker": {"USDT": "3.5000", "BTC": "0.2500"}, "other": {"USDT": "3.0000"}}


@pytest.mark.parametrize("best", [None, "of another connector"])
def test_a_pair_without_a_mid_is_left_out(observed, best):
    observed.add(PlannedActor("order_book.other.0", "order_book", "other"))
    observed.stats(stats("order_book.other.0", gauges={"best/BTC-USDT": ["1", "1", "1", "1"]}))
    observed.stats(stats("order_book.box.0", gauges={"best/BTC-USDT": None} if best is None else {}))
    observed.stats(stats("exchange.box.main", gauges={"takings": [takings(quote="1")]}))
    assert profits(observed) == {}
