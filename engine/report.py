"""What an engine did: from the actors' statistics to the run's report and to the answer of ``engine status``.

Pure: :class:`ActorRecord` takes :class:`~engine.messages.ActorStats` as they come, :func:`build_report` and
:func:`build_status` add them up, :func:`summary` says it in a few lines. Times in a report are milliseconds
(``_ms``), microseconds (``_us``) and seconds; amounts are exact decimal strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.messages import ActorStats, LogLine
from engine.metrics import Histogram

Report = dict[str, Any]

ORDER_COUNTS = (
    "placed",
    "acknowledged",
    "refused",
    "filled",
    "cancelled",
    "expired",
    "failed",
    "unknown",
    "open",
)
_BOOK_COUNTS = (
    "updates",
    "gaps",
    "resyncs",
    "rescales",
    "checksums_ok",
    "checksums_failed",
    "bbo_checked",
    "bbo_equal",
    "audits",
    "audit_mismatches",
)
_NO_STATS = ActorStats(actor="", incarnation=0)


@dataclass
class ActorRecord:
    """What the supervisor knows of one actor, over all its incarnations."""

    name: str
    kind: str
    connector: str = ""
    pid: int | None = None
    host: str = ""
    place: tuple[str, ...] = ()
    state: str = "starting"
    restarts: int = 0
    current: ActorStats = _NO_STATS
    _finished_counters: dict[str, int] = field(default_factory=dict)
    _finished_histograms: dict[str, Histogram] = field(default_factory=dict)

    def update(self, stats: ActorStats) -> None:
        """Take newer statistics; older ones, of this incarnation or another, are ignored."""
        if (stats.incarnation, stats.number) < (self.current.incarnation, self.current.number):
            return
        if stats.incarnation > self.current.incarnation:
            self._finish()
        self.current = stats

    def counters(self, prefix: str = "") -> dict[str, int]:
        """Counters of all incarnations; with a prefix ``name/``, those of that name by their label."""
        total = dict(self._finished_counters)
        for key, count in self.current.counters.items():
            total[key] = total.get(key, 0) + count
        return {key[len(prefix) :]: count for key, count in total.items() if key.startswith(prefix)}

    def counter(self, name: str) -> int:
        """One counter over all incarnations."""
        return self._finished_counters.get(name, 0) + self.current.counters.get(name, 0)

    def histogram(self, name: str) -> Histogram:
        """One histogram over all incarnations."""
        finished = self._finished_histograms.get(name)
        total = Histogram(finished.buckets if finished else None)
        total.add(self.current.histograms.get(name, {}))
        return total

    def gauge(self, name: str, default: Any = None) -> Any:
        """A present value, of the latest incarnation alone."""
        return self.current.gauges.get(name, default)

    def _finish(self) -> None:
        for key, count in self.current.counters.items():
            self._finished_counters[key] = self._finished_counters.get(key, 0) + count
        for key, buckets in self.current.histograms.items():
            self._finished_histograms.setdefault(key, Histogram()).add(buckets)


def build_report(
    records: Iterable[ActorRecord], *, seconds: float, runtime: str, problems: Sequence[str] = ()
) -> Report:
    """The report of a run. ``problems``: what kept it from being ``ok``, a line each."""
    actors = list(records)
    return {
        "ok": not problems,
        "problems": list(problems),
        "seconds": round(seconds, 3),
        "runtime": runtime,
        **_sections(actors),
        "order_latency_us": {
            "strategy_to_wire": _percentiles(_merged(actors, "strategy_to_wire_ns"), 1e3),
            "wire_to_ack": _percentiles(_merged(actors, "wire_to_ack_ns"), 1e3),
        },
    }


def build_status(
    records: Iterable[ActorRecord],
    *,
    engine: str,
    runtime: str,
    seconds: float,
    events: Iterable[LogLine] = (),
    halted: str | None = None,
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """The answer to ``status``: the report's sections, what is open and what is recent.

    ``halted``: why no orders go out, None while they do. ``problems``: what keeps the run from being ok, a line each.
    """
    actors = list(records)
    fills = [fill for actor in actors for fill in actor.gauge("recent_fills", [])]
    return {
        "engine": engine,
        "runtime": runtime,
        "seconds": round(seconds, 3),
        "halted": halted,
        "problems": list(problems),
        **_sections(actors),
        "open_orders": [order for actor in actors for order in actor.gauge("open_orders", [])],
        "recent_fills": fills,
        "events": [
            {"actor": e.actor, "level": e.level, "event": e.event, "time_ns": e.time_ns, "fields": e.fields}
            for e in events
        ],
        "pnl": {actor.name.partition(".")[2]: actor.gauge("pnl", {}) for actor in actors if actor.kind == "strategy"},
    }


def actor_row(record: ActorRecord) -> dict[str, Any]:
    """One actor as the report and ``engine status`` list it."""
    lateness = record.histogram("tick_lateness_ns")
    return {
        "name": record.name,
        "kind": record.kind,
        "venue": record.connector,
        "pid": record.pid,
        "host": record.host,
        "place": ", ".join(record.place),
        "state": record.state,
        "restarts": record.restarts,
        "ticks": record.counter("ticks"),
        "ticks_skipped": record.counter("ticks_skipped"),
        "last_tick": record.gauge("last_tick"),
        "tick_lateness_ms": {**_percentiles(lateness, 1e6), "max": _scaled(lateness.maximum, 1e6)},
        "network": record.current.network.value,
        **({"endpoint": record.gauge("endpoint")} if record.kind == "venue" else {}),
    }


def _sections(actors: Sequence[ActorRecord]) -> dict[str, Any]:
    exchanges = [actor for actor in actors if actor.kind == "exchange"]
    return {
        "actors": [actor_row(actor) for actor in actors],
        "books": _books(actors),
        "orders": _orders(exchanges),
        "fills": sum(int(actor.gauge("fills", 0) or 0) for actor in exchanges),
        "fills_missed": _sum_or_none(exchanges, "fills_missed"),
        "fills_duplicated": _sum_or_none(exchanges, "fills_duplicated"),
        "balances": {
            f"{actor.connector}/{actor.name.split('.')[-1]}": actor.gauge("balances", {}) for actor in exchanges
        },
    }


def _books(actors: Sequence[ActorRecord]) -> dict[str, dict[str, Any]]:
    books: dict[str, dict[str, Any]] = {}
    for actor in actors:
        if actor.kind != "order_book":
            continue
        for pair in _pairs(actor):
            books[f"{actor.connector}/{pair}"] = {
                **{name: actor.counter(f"{name}/{pair}") for name in _BOOK_COUNTS},
                "stale_seconds": round(actor.counter(f"stale_ns/{pair}") / 1e9, 3),
                "bids": actor.gauge(f"bids/{pair}", 0),
                "asks": actor.gauge(f"asks/{pair}", 0),
                "latency_us": _percentiles(actor.histogram(f"book_latency_ns/{pair}"), 1e3),
                "state": _book_state(actor, pair),
                "best": actor.gauge(f"best/{pair}"),
            }
    return books


def _book_state(actor: ActorRecord, pair: str) -> str:
    """As its actor last told; a book whose actor does not run is in step with nothing, whatever that was."""
    told = str(actor.gauge(f"book_state/{pair}", "unsynced"))
    return "stale" if told == "synced" and actor.state != "running" else told


def _pairs(actor: ActorRecord) -> list[str]:
    counted = actor.counters("updates/")
    shown = [key.partition("/")[2] for key in actor.current.gauges if key.startswith("book_state/")]
    return sorted({*counted, *shown})


def _orders(exchanges: Sequence[ActorRecord]) -> dict[str, int]:
    counts = [actor.gauge("orders", {}) for actor in exchanges]
    return {name: sum(int(each.get(name, 0)) for each in counts) for name in ORDER_COUNTS}


def _sum_or_none(exchanges: Sequence[ActorRecord], name: str) -> int | None:
    """The sum, or None where any account did not ask its venue."""
    values = [actor.gauge(name) for actor in exchanges]
    known = [int(value) for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _merged(actors: Sequence[ActorRecord], name: str) -> Histogram:
    total = Histogram()
    for actor in actors:
        total.add(actor.histogram(name).buckets)
    return total


def _percentiles(histogram: Histogram, scale: float) -> dict[str, float | None]:
    return {
        "p50": _scaled(histogram.percentile(0.50), scale),
        "p99": _scaled(histogram.percentile(0.99), scale),
    }


def _scaled(value: int | None, scale: float) -> float | None:
    return None if value is None else round(value / scale, 3)


# --------------------------------------------------------------------------------------------- in words


def summary(report: Mapping[str, Any]) -> str:
    """The report in a few lines for a person."""
    orders, actors = report["orders"], report["actors"]
    restarts = {actor["name"]: actor["restarts"] for actor in actors if actor["restarts"]}
    lines = [
        f"{'ok' if report['ok'] else 'NOT OK'} after {report['seconds']:.1f} s, {len(actors)} actors, "
        f"{sum(restarts.values())} restarts{_listed(restarts)}",
        "orders   " + (_listed_counts(orders) or "none"),
        f"fills    {report['fills']}, missed {_asked(report['fills_missed'])}, "
        f"duplicated {_asked(report['fills_duplicated'])}",
    ]
    latency = report["order_latency_us"]
    if latency["strategy_to_wire"]["p50"] is not None:
        lines.append(
            f"latency  strategy to wire {_spread(latency['strategy_to_wire'])}, "
            f"wire to acknowledgement {_spread(latency['wire_to_ack'])}"
        )
    lines += [f"book     {name}  {_book_line(book)}" for name, book in sorted(report["books"].items())]
    lateness = [actor["tick_lateness_ms"]["p99"] for actor in actors]
    worst = max((value for value in lateness if value is not None), default=None)
    if worst is not None:
        lines.append(f"ticks    lateness p99 at most {worst:.2f} ms")
    lines += [f"problem  {problem}" for problem in report.get("problems", ())]
    return "\n".join(lines)


def _listed(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""


def _listed_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _asked(count: int | None) -> str:
    return "not asked" if count is None else str(count)


def _spread(percentiles: Mapping[str, float | None]) -> str:
    return f"p50 {_micros(percentiles['p50'])} p99 {_micros(percentiles['p99'])}"


def _micros(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.1f} ms"


def _book_line(book: Mapping[str, Any]) -> str:
    parts = [f"{book['updates']} updates", f"{book['gaps']} gaps", f"{book['resyncs']} resyncs"]
    if book["bbo_checked"]:
        parts.append(f"best quote equal in {book['bbo_equal']} of {book['bbo_checked']}")
    checksums = book["checksums_ok"] + book["checksums_failed"]
    if checksums:
        parts.append(f"checksum right in {book['checksums_ok']} of {checksums}")
    if book["audits"]:
        parts.append(f"as the venue's in {book['audits'] - book['audit_mismatches']} of {book['audits']} audits")
    if book["stale_seconds"] >= 0.05:
        parts.append(f"stale {book['stale_seconds']:.1f} s")
    return f"{', '.join(parts)}, {_spread(book['latency_us'])}"
