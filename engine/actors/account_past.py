"""What an account traded before its exchange actor began, found out on a thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal

from engine.actors.takings import Takings
from engine.messages import Side
from engine.orders.journal_past import JournalPast
from engine.orders.rules import EXACT


def check(past: JournalPast) -> None:
    """JournalError for a damaged journal."""
    with _closed_by_failure(past):
        past.check()


def read_exposure(past: JournalPast, since_ns: int) -> tuple[Mapping[str, Decimal], Takings]:
    """Base gained by pair, of all time, and the takings since a venue time."""
    with _closed_by_failure(past):
        positions: dict[str, Decimal] = {}
        for pair, side, size in past.each_size():
            amount = Decimal(size) if side == Side.BUY else Decimal(size).copy_negate()
            positions[pair] = EXACT.add(positions.get(pair, Decimal(0)), amount)
        return positions, Takings(past.each_fill_since(since_ns))


def read_run(past: JournalPast, run_id: str) -> tuple[Mapping[str, int], Takings]:
    """A run's orders by how they stand, and its takings: the last thing that is asked of a past, which is closed."""
    with past:
        return past.counts(run_id), Takings(past.each_run_fill(run_id))


@contextmanager
def _closed_by_failure(past: JournalPast) -> Iterator[None]:
    """Nothing more is asked of a past that failed."""
    try:
        yield
    except BaseException:
        past.close()
        raise
