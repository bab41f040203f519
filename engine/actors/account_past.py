"""What an account traded before its exchange actor began, found out on a thread."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from decimal import Decimal

from engine.actors.takings import Takings
from engine.messages import Side
from engine.orders.journal_past import JournalPast
from engine.orders.rules import EXACT


def check(past: JournalPast) -> None:
    """JournalError for a damaged journal. What fails closes the past."""
    try:
        past.check()
    except BaseException:
        past.close()
        raise


def read_exposure(past: JournalPast, since_ns: int) -> tuple[Mapping[str, Decimal], Takings]:
    """Base gained by pair, of all time, and the takings since a venue time. What fails closes the past."""
    try:
        positions: dict[str, Decimal] = {}
        for pair, side, size in past.each_size():
            amount = Decimal(size) if side == Side.BUY else Decimal(size).copy_negate()
            positions[pair] = EXACT.add(positions.get(pair, Decimal(0)), amount)
        return positions, Takings(past.each_fill_since(since_ns))
    except BaseException:
        past.close()
        raise


def read_run(past: JournalPast, run_id: str) -> tuple[Mapping[str, int], Takings]:
    """A run's orders by how they stand, and its takings. The past is closed after it."""
    with closing(past):
        return past.counts(run_id), Takings(past.each_run_fill(run_id))
