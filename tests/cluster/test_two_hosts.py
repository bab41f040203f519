"""Two hosts made of namespaces, a Ray node on each, and one engine across them. Needs root."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scripts.two_hosts import STATE, Host, TwoHosts, lacking

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "can be made here"),
]
UP_S = 120.0
CUT_S = 5.0
WATCH = """
import sys, time
from pathlib import Path
from engine.book import BookReader
folder = next(Path("/dev/shm").glob("engine-*"))
reader = BookReader(folder / f"{sys.argv[1]}.book")
last = ""
while True:
    status = reader.read_best(time.monotonic_ns()).status.name.lower()
    if status != last:
        print(status, flush=True)
    last = status
    time.sleep(0.01)
"""
ATTACHED = """
name: far
strategy: engine.strategies.market_maker:MarketMaker
pairs: [binance/BTC-USDT, binance:us/BTC-USDT]
params: {size: "0.01", spread_bps: 3}
place: beta
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as made:
        yield made


def until(what: str, condition: Callable[[], Any], timeout: float = 40.0) -> Any:
    """What the condition answers once it is true; questions that fail are asked again."""
    deadline = time.monotonic() + timeout
    said: Any = None
    while time.monotonic() < deadline:
        try:
            said = condition()
            if said:
                return said
        except (RuntimeError, KeyError, OSError) as error:
            said = error
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout} s: {what}; last: {str(said)[-3000:]}")


def test_neither_a_book_nor_a_socket_of_the_other_host_can_be_opened(hosts: TwoHosts) -> None:
    python = "import os,socket; print(socket.gethostname(), os.listdir('/dev/shm'), os.listdir('/tmp'))"
    for owner, other in ((hosts.alpha, hosts.beta), (hosts.beta, hosts.alpha)):
        for file in ("/dev/shm/x.BTC-USDT.book", "/tmp/x.sock"):
            owner.path(file).write_bytes(b"x")
            assert not other.path(file).exists()
            owner.path(file).unlink()
        seen = owner.run(["python", "-c", python], hosts.environment)
        assert seen.stdout.split()[0] == owner.name, seen.stderr


def test_one_engine_trades_at_two_venues_from_two_hosts_and_survives_a_cut(hosts: TwoHosts) -> None:
    hosts.start_ray()
    engine = hosts.engine("configs/two_hosts.yml")
    ask = hosts.ask

    def status(host: Any = hosts.alpha) -> dict[str, Any]:
        assert engine.poll() is None, hosts.alpha.path("/tmp/engine.out").read_text()[-3000:]
        return dict(ask(host, "status"))

    def filled_by(strategy: str) -> set[str]:
        return {row["connector"] for row in ask(hosts.beta, "fills") if row["strategy"] == strategy}

    until("the engine to trade", lambda: status()["fills"] >= 2, UP_S)
    rows = {row["name"]: row for row in status()["actors"]}
    assert rows["order_book.binance:us.0"]["host"] == rows["venue.venue_b"]["host"] == "beta"
    assert rows["order_book.binance.0"]["host"] == rows["mirror.binance:us.home"]["host"] == "alpha"

    # A strategy for the other host, attached from there; its books are read there, through that host's mirror.
    hosts.beta.path("/tmp/far.yml").write_text(ATTACHED)
    hosts.tell(hosts.beta, "attach", "/tmp/far.yml")
    both = {"binance", "binance:us"}
    until("both strategies to be filled at both venues", lambda: filled_by("both") == filled_by("far") == both, 90)
    assert {row["name"]: row["host"] for row in status(hosts.beta)["actors"]}["mirror.binance.beta"] == "beta"

    # One machine has one wall clock: what is told of the other host's is nothing, give or take the error.
    def measured() -> Any:
        return {row["host"]: row for row in status()["hosts"]}["beta"]["clock_offset_ms"] is not None

    until("the other host's clock to be measured", measured)
    here, there = status()["hosts"]
    assert (here["host"], here["clock_offset_ms"]) == ("alpha", 0)
    assert abs(there["clock_offset_ms"]) <= there["clock_error_ms"]

    # Five seconds without the cable: no book of the far side is read as fresh, and nothing is started anew.
    before = {row["name"]: row["pid"] for row in status()["actors"]}
    watches = [
        Watch(hosts, hosts.alpha, "binance:us.BTC-USDT.at-home"),
        Watch(hosts, hosts.beta, "binance.BTC-USDT.at-beta"),
    ]

    def all_are(state: str) -> bool:
        return all(found.last() == state for found in watches)

    until("both mirrors to be fresh", lambda: all_are("fresh"))
    cut_at = time.monotonic()
    hosts.cut()
    try:
        until("both mirrors to be stale", lambda: all_are("stale"), CUT_S)
        time.sleep(max(0.0, CUT_S - (time.monotonic() - cut_at)))
    finally:
        hosts.heal()
    until("both mirrors to be fresh again", lambda: all_are("fresh"))
    fills = until("the engine to answer", lambda: status(hosts.beta))["fills"]
    until("trading to go on", lambda: status()["fills"] > fills, 60)
    assert {row["name"]: row["pid"] for row in status()["actors"]} == before

    # A process on the other host dies, is started anew there, and its account loses nothing.
    exchange = "exchange.binance:us.main"
    pid = {row["name"]: row["pid"] for row in status()["actors"]}[exchange]
    assert hosts.beta.run(["kill", "-9", str(pid)], hosts.environment).returncode == 0
    until(
        "another exchange actor",
        lambda: actor(status(), exchange)["state"] == "running" and actor(status(), exchange)["pid"] != pid,
    )

    hosts.tell(hosts.beta, "stop")
    assert engine.wait(60) == 0, hosts.alpha.path("/tmp/engine.out").read_text()[-3000:]
    report = hosts.report()
    assert report["ok"]
    assert (report["fills_missed"], report["fills_duplicated"]) == (0, 0)
    assert report["orders"]["open"] == 0
    for host in (hosts.alpha, hosts.beta):
        assert not list(host.path("/dev/shm").glob("engine-*"))
        assert not host.path(f"{STATE}/run.json").exists()


class Watch:
    """A reader of a mirrored book on a host: what it finds, change by change."""

    def __init__(self, hosts: TwoHosts, host: Host, book: str) -> None:
        file = f"/tmp/watch.{book}"
        self._process = host.start(["python", "-c", WATCH, book], hosts.environment, file)
        self._file = host.path(file)

    def last(self) -> str:
        """What it found last; AssertionError with all that it said if it is no reader any more."""
        said = self._file.read_text()
        assert self._process.poll() is None, said
        return said.split()[-1] if said else ""


def actor(status: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in status["actors"] if row["name"] == name)
