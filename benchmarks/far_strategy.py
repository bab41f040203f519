"""From a venue's frame, read on its host, to a strategy's ``on_book`` on another host, beside a Ray call.

Two hosts made of namespaces (:mod:`scripts.two_hosts`; needs root), a Ray node on each, and one engine across them: the
venue in a box and its connector on one, a strategy on the other, which reads the books of its host's mirror. Namespaces
of one machine share one monotonic clock, so that a time read on one side and a time read on the other can be
subtracted; between two machines they could not.

The engine runs four times: with a strategy on the venue's host, with one on the other, with that one and as it runs
where nothing else is asked for, and with none but a reader of the venue's books on its host that gives each change to
an actor on the other by a Ray call. Every frame counts. Once the engine is down, the one message between the hosts is
measured alone, by the bus and by a Ray call (:mod:`benchmarks.far_link`): at the instants at which the engine's frames
had come, and at a steady higher rate. A venue tells the pairs that changed all at once, so that frames come in bursts.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.common import Line, Options, line, median, say
from benchmarks.far_link import BUS, CALL_AND_BACK, CALL_THERE, Call, Following, measure, steady
from benchmarks.live import all_running, config
from scripts.two_hosts import Host, TwoHosts, lacking

SECONDS = 15.0
UP_S = 120.0
PAIRS = (2, 20)
HIGHER_RATE = 500.0
PERCENTILES = (50, 99)
TOGETHER_NS = 1_000_000
"""Frames that came so soon after another came with it."""
NEAR, FAR, WATCHMAN = "near", "far", "watchman"
BETA = "beta"
FRAME_THERE = "ray_from_the_frame"
TUNED = {"scheduling": "realtime", "processors": "awake"}
EVERY_S = 0.03
"""How often the watchman looks, so that no frame, of which a pair has one in 0.1 s, comes and goes unseen."""

Stamps = dict[str, list[list[int]]]
Found = dict[str, list[int]]
"""By what was measured: nanoseconds."""


class Round(NamedTuple):
    """Of the engine's runs, in nanoseconds: from a frame to the strategy of either host, and Ray's calls.

    ``plain``: to the far one without what :data:`TUNED` asks for. ``arrivals``: when each frame had come, from the
    first on. ``alone``: the message without the engine.
    """

    near: list[int]
    far: list[int]
    plain: list[int]
    ray: Found
    arrivals: list[int]
    alone: Found

    @property
    def per_second(self) -> float:
        return len(self.arrivals) / self.arrivals[-1] * 1e9


def run(options: Options) -> Iterator[Line]:
    if lack := lacking():
        say(f"far_strategy is left out: it {lack}")
        return
    seconds = options.seconds(SECONDS)
    for pairs in PAIRS:
        say(f"far_strategy: {pairs} pairs")
        rounds = [_measure(pairs, seconds) for _ in range(options.times(3))]
        for percent in PERCENTILES:
            yield _whole(rounds, pairs, percent)
        for percent in PERCENTILES:
            yield _message([found.alone for found in rounds], f"{pairs}_pairs", percent)
    say(f"far_strategy: {HIGHER_RATE:g} messages a second")
    with TwoHosts(for_measuring=True) as hosts:
        hosts.start_ray()
        steadily = [measure(hosts, steady(HIGHER_RATE, seconds / 2)) for _ in range(options.times(3))]
    for percent in PERCENTILES:
        yield _message(steadily, f"{HIGHER_RATE:g}_per_s", percent)


def _measure(pairs: int, seconds: float) -> Round:
    with TwoHosts(for_measuring=True) as hosts:
        hosts.start_ray()
        bench = _Engine(hosts, pairs)
        with bench.runs((NEAR, "Stamper", BETA)):
            time.sleep(seconds)
        near = _stamps(hosts.beta, NEAR)
        plain: list[int] = []
        far: list[int] = []
        for found, settings in ((plain, {}), (far, TUNED)):
            with bench.runs((WATCHMAN, "Watchman", BETA), (FAR, "Stamper", None), settings=settings):
                time.sleep(seconds)
            frames = _stamps(hosts.beta, WATCHMAN)
            found += latencies(frames, _stamps(hosts.alpha, FAR))
        with bench.runs():
            following = Following(hosts)
            time.sleep(seconds)
        came = arrivals(frames)
        return Round(latencies(near, near), far, plain, _by_ray(following.result()), came, measure(hosts, came))


def _by_ray(calls: Sequence[Call]) -> Found:
    return {
        FRAME_THERE: [there_ns - received_ns for received_ns, _, there_ns, _ in calls],
        CALL_THERE: [there_ns - given_ns for _, given_ns, there_ns, _ in calls],
        CALL_AND_BACK: [answered_ns - given_ns for _, given_ns, _, answered_ns in calls],
    }


def _whole(rounds: list[Round], pairs: int, percent: int) -> Line:
    """The whole way, beside a Ray call with the one message that crosses on it, and beside the whole way by that."""
    return line(
        "far_strategy",
        median(percentile(found.far, percent) for found in rounds),
        "us",
        _peers([found.ray for found in rounds], percent),
        case=f"frame_to_strategy_{pairs}_pairs_p{percent}",
        same_host=round(median(percentile(found.near, percent) for found in rounds), 1),
        untuned=round(median(percentile(found.plain, percent) for found in rounds), 1),
        per_second=round(median(found.per_second for found in rounds), 1),
        samples=sum(len(found.far) for found in rounds),
        runs=len(rounds),
    )


def _message(runs: list[Found], case: str, percent: int) -> Line:
    return line(
        "far_strategy",
        median(percentile(found[BUS], percent) for found in runs),
        "us",
        _peers([{name: found[name] for name in found if name != BUS} for found in runs], percent),
        case=f"message_{case}_p{percent}",
        samples=sum(len(found[BUS]) for found in runs),
        runs=len(runs),
    )


def _peers(found: list[Found], percent: int) -> dict[str, float]:
    return {name: median(percentile(each[name], percent) for each in found) for name in found[0]}


def arrivals(received: Stamps) -> list[int]:
    """When frames had come, in ns from the first on; those of one burst all at its first one's time."""
    found: list[int] = []
    for received_ns in sorted(row[1] for rows in received.values() for row in rows):
        new = not found or received_ns - found[-1] > TOGETHER_NS
        found.append(received_ns if new else found[-1])
    return [received_ns - found[0] for received_ns in found]


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


class _Engine:
    """One engine across the hosts, as often as it is wanted."""

    def __init__(self, hosts: TwoHosts, pairs: int) -> None:
        self._hosts = hosts
        self._pairs = {f"C{n:02}-USDT": str(1000 + 100 * n) for n in range(pairs)}

    @contextmanager
    def runs(self, *strategies: tuple[str, str, str | None], settings: Mapping[str, str] = TUNED) -> Iterator[None]:
        """It runs within the context, with these strategies: name, class, place. RuntimeError if all was not well."""
        hosts = self._hosts
        whole = {**config(pairs=self._pairs, runtime="cluster"), **settings}
        whole["connectors"]["binance"]["place"] = BETA
        for name, strategy, place in strategies:
            whole["strategies"][name] = {
                "strategy": f"benchmarks.strategies:{strategy}",
                "pairs": [f"binance/{pair}" for pair in self._pairs],
                "params": {"file": f"/tmp/stamps.{name}", "every_s": EVERY_S},
                **({"place": place} if place else {}),
            }
        hosts.alpha.path("/tmp/far.yml").write_text(json.dumps(whole))
        engine = hosts.engine("/tmp/far.yml")
        try:
            _wait(lambda: engine.poll() is not None or _runs(hosts))
            if engine.poll() is not None:
                raise RuntimeError("the engine did not come up")
            yield
            hosts.tell(hosts.alpha, "stop")
            code = engine.wait(90)
        except (RuntimeError, TimeoutError) as error:
            raise RuntimeError(f"{error}\n{_said(hosts)}") from None
        if code or not hosts.report()["ok"]:
            raise RuntimeError(f"the engine's run was not ok:\n{_said(hosts)}")


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
