"""Whole hosts die: the one where an account is traded, and the one of the supervisor and of Ray's head. Needs root."""

from __future__ import annotations

import time

import pytest

from engine.simulation.venue import read_ledger
from scripts.two_hosts import ROOT, TwoHosts, lacking
from tests.cluster.scenario import Run, engine_processes, fetched, leftovers, show, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "can be made here"),
]
UP_S = 120.0
GRACE_S = 5.0


def config(address: str) -> str:
    """An account on beta that may move, its venue on alpha, and a strategy beside it."""
    return f"""
name: moves
runtime: cluster
journal: {{lease: {{ttl: 6.0, renew: 0.5, clock_error: 0.3}}}}
venues:
  venue_a:
    speaks: binance
    pairs: [{{pair: BTC-USDT, price: "60000"}}]
    balances: {{USDT: "1000000", BTC: "20"}}
    place: alpha
connectors:
  binance:
    at: venue_a
    pairs: [BTC-USDT]
    place: [beta, alpha]
    journal: {address}
    options: {{recv_window_ms: 1000}}
strategies:
  mover:
    strategy: engine.simulation.strategies:Busy
    pairs: [binance/BTC-USDT]
    params:
      {{seed: 1, until_ns: 9000000000000000000, takes: 0.3, acts: 1.0, checkpoint_every: 1,
        size: {{binance/BTC-USDT: "0.001"}}}}
    place: [beta, alpha]
    own_cell: true
"""


def test_an_account_and_its_strategy_go_on_elsewhere_when_their_host_is_killed(
    hosts: TwoHosts, far_database: tuple[str, str]
) -> None:
    with Run(hosts, config(far_database[0])) as run:
        until("the engine to trade", lambda: run.status()["fills"] >= 2, UP_S)
        names = ("exchange.binance.main", "strategy.mover")
        assert {run.rows()[name]["host"] for name in names} == {"beta"}

        rows, began = run.rows(), time.monotonic()
        hosts.beta.kill()
        run.back(names, rows, began, "a host that was killed, until its actors run elsewhere")
        assert {run.rows()[name]["host"] for name in names} == {"alpha"}
        run.trades("mover", "binance")
        run.times["the same, until its strategy trades"] = round(time.monotonic() - began, 1)

        report = run.stop(hosts.alpha)
        assert report["ok"], report["problems"]
        assert run.driver.wait(60) == 0, run.problem()
        assert run.differences("binance", "venue_a", hosts.alpha, report) == []
        until("no file of it to be left", lambda: not leftovers(hosts.alpha))
        show(run.times)
        hosts.revive_beta()
        hosts.join_beta()


def test_without_the_host_of_the_supervisor_and_of_the_head_all_ends_by_the_dead_man(hosts: TwoHosts) -> None:
    """The last: what these hosts were is gone afterwards."""
    since_ns = time.time_ns()
    settings = ("--set", f"cluster.grace={GRACE_S:g}", "--set", "dead_man.grace=3")
    with Run(hosts, (ROOT / "configs" / "two_hosts.yml").read_text(), *settings) as run:
        until(
            "the engine to trade on the other host", lambda: run.placed(since_ns, "both", "binance", "binance:us"), UP_S
        )
        began = time.monotonic()
        hosts.alpha.kill()
        until("the other host's processes to end", lambda: not engine_processes(hosts.beta))
        run.times["the head's host, until nothing is left elsewhere"] = round(time.monotonic() - began, 1)
        until("its files to be gone", lambda: not leftovers(hosts.beta))
        saved, _ = read_ledger(fetched(hosts.beta, "venues/venue_b"))
        assert saved.orders
        assert [order.client_order_id for order in saved.orders if order.status.is_open] == []
        show(run.times)
