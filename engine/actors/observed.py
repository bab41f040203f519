"""What the supervisor knows of each actor, over all its incarnations."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from decimal import Decimal

from engine.actors.plan import PlannedActor
from engine.messages import ActorStats, StreamPosition, TickDone
from engine.orders.fees import convert
from engine.report import ActorRecord


class Observations:
    """A record for each actor, fed by what actors say."""

    def __init__(self) -> None:
        self._records: dict[str, ActorRecord] = {}
        self._positions: dict[str, dict[str, StreamPosition]] = {}
        self._host = socket.gethostname()

    def add(self, planned: PlannedActor) -> None:
        """Begin to keep a record."""
        self._records[planned.name] = ActorRecord(
            name=planned.name,
            kind=planned.kind,
            connector=planned.connector,
            host=self._host,
            place=planned.place,
        )

    def add_supervisor(self, name: str, pid: int) -> ActorRecord:
        """The supervisor's own record."""
        record = ActorRecord(name=name, kind="supervisor", host=self._host, pid=pid, state="running")
        self._records[name] = record
        return record

    def remove(self, name: str) -> None:
        """Forget an actor that was detached."""
        self._records.pop(name, None)

    def of(self, name: str) -> ActorRecord:
        """The record of an actor; KeyError for an unknown one."""
        return self._records[name]

    def __iter__(self) -> Iterator[ActorRecord]:
        return iter(self._records.values())

    def spawned(self, name: str, pid: int, host: str) -> None:
        """A new incarnation runs under this pid on this host."""
        record = self._records[name]
        record.pid, record.host = pid, host

    def stats(self, message: ActorStats) -> None:
        """Take an actor's statistics."""
        record = self._records.get(message.actor)
        if record is not None:
            record.update(message)

    def halted(self) -> str | None:
        """Why trading is not active, by the risk actor; None while it is."""
        for record in self._records.values():
            if record.kind == "risk" and record.gauge("trading", "active") != "active":
                return str(record.gauge("trading_reason") or record.gauge("trading"))
        return None

    def answered(self, message: TickDone) -> None:
        """Remember where an actor's streams stand."""
        self._positions[message.actor] = message.streams


def profits(records: Iterable[ActorRecord]) -> dict[str, dict[str, str]]:
    """What each strategy gained in this run, by quote asset: cash, plus what it holds at the books' mids, less fees.

    A pair whose book has no mid is left out of the sum, and so is a fee in an asset that none of the connector's pairs
    leads from to the quote asset.
    """
    records = list(records)
    mids = _mids(records)
    gains: dict[str, dict[str, Decimal]] = {}
    for record in records:
        for row in record.gauge("takings", []):
            here = mids.get(record.connector, {})
            mid = here.get(row["pair"])
            if mid is None:
                continue
            quote = row["pair"].partition("-")[2]
            gain = Decimal(row["quote"]) + Decimal(row["base"]) * mid
            for asset, fee in row["fees"].items():
                gain -= convert(Decimal(fee), asset, quote, here) or Decimal(0)
            sums = gains.setdefault(row["strategy"], {})
            sums[quote] = sums.get(quote, Decimal(0)) + gain
    return {strategy: {quote: f"{gain:.4f}" for quote, gain in sums.items()} for strategy, sums in gains.items()}


def _mids(records: Iterable[ActorRecord]) -> dict[str, dict[str, Decimal]]:
    """By connector and pair."""
    mids: dict[str, dict[str, Decimal]] = {}
    for record in records:
        for key, best in record.current.gauges.items():
            if key.startswith("best/") and best is not None:
                mids.setdefault(record.connector, {})[key.partition("/")[2]] = (Decimal(best[0]) + Decimal(best[2])) / 2
    return mids
