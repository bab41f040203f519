"""Two hosts made of namespaces, a Ray node on each, and one engine across them. Needs root."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest

from engine.bus.sockets import host_id
from engine.messages import OrderEvent
from engine.orders.journal import Journal
from engine.orders.strategy_postgres import SharedStrategyStore
from engine.simulation.strategies import empty_state, folded, same
from engine.simulation.venue import read_ledger
from scripts.two_hosts import STATE, Host, TwoHosts, lacking
from tests.cluster.scenario import Row, Run, engine_processes, fetched, leftovers, show, until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "can be made here"),
]
UP_S = 120.0
SHORT_CUT_S, LONG_CUT_S = 5.0, 30.0
TTL_S = 6.0
SECOND = 1_000_000_000
WATCH = """
import sys, time
from pathlib import Path
from engine.book import BookReader
folder = next(Path("/dev/shm").glob("engine-*"))
reader = BookReader(folder / f"{sys.argv[1]}.book")
last = ""
while not Path(f"/tmp/enough.{sys.argv[1]}").exists():
    status = reader.read_best(time.monotonic_ns()).status.name.lower()
    if status != last:
        print(status, flush=True)
    last = status
    time.sleep(0.01)
"""
BUSY = """
strategy: engine.simulation.strategies:Busy
pairs: [binance/BTC-USDT, binance:us/BTC-USDT]
params:
  {seed: 1, until_ns: 9000000000000000000, takes: 0.3, acts: 1.0, checkpoint_every: 3,
   size: {binance/BTC-USDT: "0.001", binance:us/BTC-USDT: "0.001"}}
place: [beta, alpha]
"""
MISSING = """
name: missing
strategy: only.on.alpha:Nothing
pairs: [binance/BTC-USDT]
place: beta
"""


def config(address: str) -> str:
    """One venue and its connector on each host; the account on beta, and who trades it there, may move."""
    box = 'speaks: binance, pairs: [{pair: BTC-USDT, price: "60000"}], balances: {USDT: "1000000", BTC: "20"}'
    return f"""
name: hosts
runtime: cluster
journal: {{lease: {{ttl: {TTL_S}, renew: 0.5, clock_error: 0.3}}}}
venues:
  venue_a: {{{box}, seed: 1}}
  venue_b: {{{box}, seed: 2, place: beta}}
connectors:
  binance: {{at: venue_a, pairs: [BTC-USDT]}}
  binance:us:
    at: venue_b
    pairs: [BTC-USDT]
    place: [beta, alpha]
    journal: {address}
    options: {{recv_window_ms: 1000}}
strategies:
  both:
    strategy: engine.strategies.market_maker:MarketMaker
    pairs: [binance/BTC-USDT, binance:us/BTC-USDT]
    params: {{size: "0.01", spread_bps: 2}}
    on_crash: cancel
"""


def test_neither_a_book_nor_a_socket_of_the_other_host_can_be_opened(hosts: TwoHosts) -> None:
    python = "import os,socket; print(socket.gethostname(), os.listdir('/dev/shm'), os.listdir('/tmp'))"
    for owner, other in ((hosts.alpha, hosts.beta), (hosts.beta, hosts.alpha)):
        for file in ("/dev/shm/x.BTC-USDT.book", "/tmp/x.sock"):
            owner.path(file).write_bytes(b"x")
            assert not other.path(file).exists()
            owner.path(file).unlink()
        seen = owner.run(["python", "-c", python], hosts.environment)
        assert seen.stdout.split()[0] == owner.name, seen.stderr


def test_a_host_has_a_boot_and_a_monotonic_clock_of_its_own(hosts: TwoHosts) -> None:
    python = "import time; from engine.bus.sockets import host_id; print(host_id(), time.monotonic_ns())"
    seen = [host.run(["python", "-c", python], hosts.environment).stdout.split() for host in (hosts.alpha, hosts.beta)]
    (alpha, alpha_ns), (beta, beta_ns) = seen
    assert len({alpha, beta, host_id()}) == 3
    assert int(beta_ns) - int(alpha_ns) > 10_000 * 10**9


def test_one_engine_on_two_hosts_whatever_dies_and_whatever_is_cut(
    hosts: TwoHosts, far_database: tuple[str, str]
) -> None:
    remote, database = far_database
    with Run(hosts, config(remote)) as run:
        alpha, beta = hosts.alpha, hosts.beta
        both_venues = ("binance", "binance:us")

        until("the engine to trade", lambda: run.status()["fills"] >= 2, UP_S)
        rows = run.rows()
        assert rows["order_book.binance:us.0"]["host"] == rows["venue.venue_b"]["host"] == "beta"
        assert rows["order_book.binance.0"]["host"] == rows["mirror.binance:us.home"]["host"] == "alpha"
        assert rows["exchange.binance:us.main"]["place"] == "beta, alpha"
        attach_from_the_other_host(hosts)
        run.trades("far", *both_venues)
        assert run.rows(beta)["mirror.binance.beta_alpha"]["host"] == "beta"

        # Five seconds without the cable: no book of the far side is read as fresh, and nothing is started anew.
        before = run.pids()
        short_cut(hosts)
        for strategy in ("both", "far"):
            run.trades(strategy, *both_venues)
        assert run.pids() == before

        # Every actor of each host dies, then a cell, then the supervisor, which takes over who lives.
        run.kill_all_on(beta)
        run.kill_all_on(alpha)
        run.trades("both", *both_venues)
        for host, cell, place in ((beta, "beta_alpha", "beta, alpha"), (alpha, "home", "")):
            rows, began = run.rows(), time.monotonic()
            run.kill_cell(host, cell)
            of_it = [name for name, row in rows.items() if row["place"] == place and name != "supervisor"]
            run.back(of_it, rows, began, f"a cell of {host.name}")
        assert run.rows()["exchange.binance:us.main"]["host"] == "beta"
        before, began = run.pids(), time.monotonic()
        run.kill(alpha, before.pop("supervisor"))
        until("another supervisor", lambda: all(row["state"] == "running" for row in run.rows().values()))
        run.times["the supervisor"] = round(time.monotonic() - began, 1)
        assert {name: pid for name, pid in run.pids().items() if name != "supervisor"} == before
        for strategy in ("both", "far"):
            run.trades(strategy, *both_venues)

        # Thirty seconds without it, and in them the death of who started the engine: what may move does.
        cut_ns = time.time_ns()
        long_cut(run)
        until(
            "the cut-off node to end itself", lambda: hosts.beta.ray is not None and hosts.beta.ray.poll() is not None
        )
        until("what it ran to end", lambda: not engine_processes(beta) and not leftovers(beta))
        hosts.join_beta()
        until("its place to be used again", lambda: run.rows()["venue.venue_b"]["state"] == "running")
        for strategy in ("both", "far"):
            run.trades(strategy, *both_venues)
        assert run.rows(beta)["strategy.far"]["host"] == "alpha"

        # One machine has one wall clock: what is told of the other host's is nothing, give or take the error.
        def clocks() -> dict[str, Row]:
            return {row["host"]: row for row in run.status()["hosts"]}

        until("the other host's clock to be measured", lambda: clocks()["beta"]["clock_offset_ms"] is not None)
        assert clocks()["alpha"]["clock_offset_ms"] == 0
        assert abs(clocks()["beta"]["clock_offset_ms"]) <= clocks()["beta"]["clock_error_ms"]

        report = run.stop(beta)
        assert report["ok"], report["problems"]
        assert (report["fills_missed"], report["fills_duplicated"]) == (0, 0)
        assert report["orders"]["open"] == 0
        for host in (alpha, beta):
            until(f"nothing of it to be left on {host.name}", lambda host=host: not engine_processes(host))
            until(f"no file of it to be left on {host.name}", lambda host=host: not leftovers(host))
        assert run.differences("binance", "venue_a", alpha, report) == []
        assert run.differences("binance:us", "venue_b", beta, report) == []
        nothing_without_a_lease(beta, cut_ns)
        assert asyncio.run(far_saved_each_event_once(alpha, database))
        show(run.times)


def attach_from_the_other_host(hosts: TwoHosts) -> None:
    """A strategy for the other host; one whose code is not there is refused, and its host named."""
    beta = hosts.beta
    beta.path("/tmp/far.yml").write_text(f"name: far{BUSY}")
    hosts.tell(beta, "attach", "/tmp/far.yml")
    only = hosts.alpha.path("/tmp/only")
    (only / "on").mkdir(parents=True)
    code = "from engine.strategies.base import Strategy\n\n\nclass Nothing(Strategy):\n    pass\n"
    (only / "on" / "alpha.py").write_text(code)
    hosts.alpha.path("/tmp/missing.yml").write_text(MISSING)
    environment = {**hosts.environment, "PYTHONPATH": f"{hosts.environment['PYTHONPATH']}:/tmp"}
    done = hosts.alpha.run(["engine", "attach", "/tmp/missing.yml", "--state", STATE], environment)
    assert done.returncode != 0
    assert "on beta: there is no module only" in done.stderr


def short_cut(hosts: TwoHosts) -> None:
    watches = [
        Watch(hosts, hosts.alpha, "binance:us.BTC-USDT.at-home"),
        Watch(hosts, hosts.beta, "binance.BTC-USDT.at-beta_alpha"),
    ]

    def all_are(state: str) -> bool:
        return all(found.last() == state for found in watches)

    until("both mirrors to be fresh", lambda: all_are("fresh"))
    cut_at = time.monotonic()
    hosts.cut()
    try:
        until("both mirrors to be stale", lambda: all_are("stale"), SHORT_CUT_S)
        time.sleep(max(0.0, SHORT_CUT_S - (time.monotonic() - cut_at)))
    finally:
        hosts.heal()
    until("both mirrors to be fresh again", lambda: all_are("fresh"))
    for watch in watches:
        watch.end()


def long_cut(run: Run) -> None:
    began = time.monotonic()
    run.hosts.cut()
    try:
        run.kill_driver()
        moved = ("exchange.binance:us.main", "user_stream.binance:us.main", "order_book.binance:us.0", "strategy.far")

        def all_moved() -> bool:
            rows = run.rows()
            return all((rows[name]["host"], rows[name]["state"]) == ("alpha", "running") for name in moved)

        until("what may move to have moved", all_moved)
        run.times["a host that is cut off, until its actors run elsewhere"] = round(time.monotonic() - began, 1)
        time.sleep(max(0.0, LONG_CUT_S - (time.monotonic() - began)))
    finally:
        run.hosts.heal()


def nothing_without_a_lease(host: Host, cut_ns: int) -> None:
    """The venue beside the cut-off holder, which could still be reached by it, took no order after the lease had run
    out, until the cable was back; and the holder knew why.
    """
    saved, _ = read_ledger(fetched(host, "venues/venue_b"))
    after = sorted((order.created_ns - cut_ns) / SECOND for order in saved.orders if order.created_ns > cut_ns)
    assert [each for each in after if TTL_S < each < LONG_CUT_S] == []
    assert after[-1] > LONG_CUT_S
    log = host.path(f"{STATE}/logs/exchange.binance:us.main.jsonl").read_text()
    assert "the journal's database is out of reach: nothing is placed" in log


async def far_saved_each_event_once(host: Host, database: str) -> bool:
    """The checkpoint of the strategy that moved is what its events amount to, each folded in once."""
    store = SharedStrategyStore(database, "strategy.hosts.far", time.time_ns())
    saved = await store.begin()
    await store.close()
    assert saved is not None
    events: list[OrderEvent] = []
    journals = fetched(host, "accounts")
    for connector in ("binance", "binance:us"):
        position = saved.positions[f"exchange.{connector}.main"]
        with Journal.open_readonly(journals / f"{connector}.main.db") as journal:
            assert position.incarnation == journal.incarnation
            found = [msgspec.msgpack.decode(body, type=OrderEvent) for _, body in journal.since(0, 10**9)]
        events += [each for each in found if each.order.strategy == "far" and each.number <= position.number]
    expected: dict[str, Any] = {**empty_state(), **folded(events)}
    assert expected["events"] > 0
    return same(saved.state, expected)


class Watch:
    """A reader of a mirrored book on a host: what it finds, change by change."""

    def __init__(self, hosts: TwoHosts, host: Host, book: str) -> None:
        file = f"/tmp/watch.{book}"
        self._process = host.start(["python", "-c", WATCH, book], hosts.environment, file)
        self._file = host.path(file)
        self._enough = host.path(f"/tmp/enough.{book}")

    def last(self) -> str:
        """What it found last; AssertionError with all that it said if it is no reader any more."""
        said = self._file.read_text()
        assert self._process.poll() is None, said
        return said.split()[-1] if said else ""

    def end(self) -> None:
        self._enough.touch()
        assert self._process.wait(10) == 0
