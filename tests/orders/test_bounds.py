"""An account does not grow with the orders that it has ended: what it keeps of them, for late news, is bounded."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.order_memory import OPEN, Desk
from engine.orders import tally
from engine.orders.held import KEPT_ENDED, KEPT_ORPHANS
from engine.orders.journal import Journal
from engine.orders.records import Write, WriteEvent
from tests.containers import largest, total

ORDERS = 20_000
ORDERS_ROTATED = 2_000
KEPT_MS = 300
"""At an order each millisecond, so many stay in the journal."""
MOST_IN_ONE = max(KEPT_ENDED, KEPT_ORPHANS) + OPEN + 1
"""The newest ended orders by client order id, or by the venue's, are the largest thing that an account has."""


class Forgetful(Journal):
    """Counts what it is given, and does not write it: twenty thousand orders would take long on a busy disk."""

    def record(self, writes: Sequence[Write]) -> None:
        self.commits += 1
        self._last = max([self._last, *(each.event.number for each in writes if isinstance(each, WriteEvent))])


def test_twenty_thousand_ended_orders_leave_no_more_than_ten_thousand_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "KEPT_FAILED", 50)

    async def body() -> None:
        desk = Desk(tmp_path / "a.db", Forgetful)
        await desk.open()
        held = []
        for number in range(1, ORDERS + 1):
            desk.order(number)
            if number % OPEN == 0:
                await asyncio.sleep(0)
            if number % (ORDERS // 2) == 0:
                held.append(total(desk))
                assert largest(desk) <= MOST_IN_ONE
        assert desk.core.gauges()["orders_ended_in_memory"] == KEPT_ENDED
        assert desk.core.gauges()["orders_watched"] == 0
        assert held[1] <= held[0] + 300, "but for the spare of the watch's agenda, all was as large before"
        await desk.close()

    asyncio.run(body())


def test_what_is_kept_in_a_journal_with_rotation_is_bounded_as_well(tmp_path: Path) -> None:
    async def body() -> None:
        desk = Desk(tmp_path / "a.db", keep_ns=KEPT_MS * 1_000_000)
        await desk.open()
        for number in range(1, ORDERS_ROTATED + 1):
            desk.order(number)
            if number % 10 == 0:
                await asyncio.sleep(0)
            if number % 500 == 0:
                desk.rotate()
        orders = desk.journal.counts("1")
        assert (orders["placed"], orders["open"]) == (ORDERS_ROTATED, OPEN), "what was moved away still counts"
        with closing(sqlite3.connect(desk.journal.path)) as file:
            (left,) = file.execute("SELECT count(*) FROM orders").fetchone()
            (events,) = file.execute("SELECT count(*) FROM events").fetchone()
        assert left <= KEPT_MS + 2 * OPEN
        assert events <= 2 * left + 1
        assert largest(desk) <= MOST_IN_ONE
        await desk.close()

    asyncio.run(body())
