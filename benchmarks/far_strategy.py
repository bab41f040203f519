"""From a venue's frame, read on its host, to a strategy's ``on_book`` on another host, beside a Ray call.

Two hosts made of namespaces (:mod:`scripts.two_hosts`; needs root), a Ray node on each, and one engine across them: the
venue in a box, its connector and the strategy ``near`` on one, the strategy ``far`` on the other, which reads the books
of its host's mirror. Namespaces of one machine share one monotonic clock, so that a time read on one side and a time
read on the other can be subtracted; between two machines they could not.

Every frame counts: ``near`` notes when each was received, and both when they first read a book with it, or with a later
one. Once the engine is down, the one message between the hosts is measured alone, by the bus and by a Ray call, from
the same host to the same host (:mod:`benchmarks.far_link`): at the rate that the engine had, and at a higher one.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks.common import Line, Options, line, median, say
from benchmarks.far_link import BUS, CALL_AND_BACK, CALL_THERE, measure
from benchmarks.live import all_running, config
from scripts.two_hosts import Host, TwoHosts, lacking

SECONDS = 20.0
UP_S = 120.0
PAIRS = {"BTC-USDT": "60000", "ETH-USDT": "3000"}
HIGHER_RATE = 500.0
PERCENTILES = (50, 99)
NEAR, FAR = "near", "far"
ENGINE_RATE = "engine_rate"

Stamps = dict[str, list[list[int]]]
Found = dict[str, dict[str, list[int]]]
"""By case, by what was measured: nanoseconds."""


class Times(NamedTuple):
    """Of one run, in nanoseconds."""

    near: list[int]
    far: list[int]
    updates_per_s: float


def run(options: Options) -> Iterator[Line]:
    if lack := lacking():
        say(f"far_strategy is left out: it {lack}")
        return
    runs: list[Found] = []
    rates = []
    for number in range(options.times(3)):
        say(f"far_strategy: run {number + 1}")
        with TwoHosts() as hosts:
            hosts.start_ray()
            seconds = options.seconds(SECONDS)
            times = _engine(hosts, seconds)
            rates.append(times.updates_per_s)
            runs.append(
                {
                    "engine": {NEAR: times.near, FAR: times.far},
                    ENGINE_RATE: measure(hosts, times.updates_per_s, seconds),
                    f"{HIGHER_RATE:g}_per_s": measure(hosts, HIGHER_RATE, seconds / 2),
                }
            )
    for percent in PERCENTILES:
        yield _whole(runs, percent, median(rates))
    for case in runs[0]:
        if case != "engine":
            for percent in PERCENTILES:
                yield _message(runs, case, percent)


def _whole(runs: list[Found], percent: int, rate: float) -> Line:
    """The whole way, beside that of one message alone by Ray."""
    return line(
        "far_strategy",
        _median(runs, "engine", FAR, percent),
        "us",
        {name: _median(runs, ENGINE_RATE, name, percent) for name in (CALL_THERE, CALL_AND_BACK)},
        case=f"frame_to_strategy_p{percent}",
        same_host=round(_median(runs, "engine", NEAR, percent), 1),
        per_second=round(rate, 1),
        samples=sum(len(found["engine"][FAR]) for found in runs),
        runs=len(runs),
    )


def _message(runs: list[Found], case: str, percent: int) -> Line:
    return line(
        "far_strategy",
        _median(runs, case, BUS, percent),
        "us",
        {name: _median(runs, case, name, percent) for name in (CALL_THERE, CALL_AND_BACK)},
        case=f"message_{case}_p{percent}",
        samples=sum(len(found[case][BUS]) for found in runs),
        runs=len(runs),
    )


def _median(runs: list[Found], case: str, name: str, percent: int) -> float:
    return median(percentile(found[case][name], percent) for found in runs)


def latencies(received: Stamps, seen: Stamps) -> list[int]:
    """By frame: from its receipt to the first reading of a book that has it. Rows are (update id, received, read).

    ``received`` says when frames were received; those that nobody read later are left out.
    """
    found = []
    for pair, frames in received.items():
        rows = seen.get(pair, [])
        updates = [row[0] for row in rows]
        for update, received_ns, _ in frames:
            at = bisect_left(updates, update)
            if at < len(rows) and updates[0] <= update:
                found.append(rows[at][2] - received_ns)
    return found


def percentile(values: list[int], percent: int) -> float:
    """In microseconds. RuntimeError when there are none."""
    if not values:
        raise RuntimeError("nothing was measured")
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)] / 1e3


# ------------------------------------------------------------------------------------------------------------ ours


def _engine(hosts: TwoHosts, seconds: float) -> Times:
    settings = config(pairs=PAIRS, runtime="cluster")
    settings["connectors"]["binance"]["place"] = "beta"
    for name, place in (("near", "beta"), ("far", None)):
        settings["strategies"][name] = {
            "strategy": "benchmarks.strategies:Stamper",
            "pairs": [f"binance/{pair}" for pair in PAIRS],
            "params": {"file": f"/tmp/stamps.{name}"},
            **({"place": place} if place else {}),
        }
    hosts.alpha.path("/tmp/far.yml").write_text(json.dumps(settings))
    engine = hosts.engine("/tmp/far.yml")
    try:
        _wait(lambda: engine.poll() is not None or _runs(hosts))
        if engine.poll() is None:
            time.sleep(seconds)
            hosts.tell(hosts.alpha, "stop")
        code = engine.wait(90)
    except (RuntimeError, TimeoutError) as error:
        raise RuntimeError(f"{error}\n{_said(hosts)}") from None
    if code or not hosts.report()["ok"]:
        raise RuntimeError(f"the engine's run was not ok:\n{_said(hosts)}")
    near, far = _stamps(hosts.beta, "near"), _stamps(hosts.alpha, "far")
    updates = [row for rows in near.values() for row in rows]
    span_s = (max(row[1] for row in updates) - min(row[1] for row in updates)) / 1e9
    return Times(latencies(near, near), latencies(near, far), len(updates) / span_s)


def _runs(hosts: TwoHosts) -> bool:
    try:
        return all_running(hosts.ask(hosts.alpha, "status"))
    except RuntimeError:
        return False


def _stamps(host: Host, name: str) -> Stamps:
    found: Stamps = json.loads(host.path(f"/tmp/stamps.{name}").read_text())
    return found


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + UP_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the engine is not up after {UP_S:g} s")
        time.sleep(0.2)


def _said(hosts: TwoHosts) -> str:
    return hosts.alpha.path("/tmp/engine.out").read_text()[-4000:]
