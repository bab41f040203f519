"""A journal at an arbiter with a copy on each host: what counts is what the arbiter has."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.clock import VirtualClock, WallClock
from engine.errors import JournalError
from engine.messages import Order, OrderState, OrderType, Side
from engine.orders.journal import Journal
from engine.orders.memory_store import MemoryLine, MemoryStore
from engine.orders.postgres import PostgresStore
from engine.orders.records import WriteIntent
from engine.orders.replicated import ReplicatedJournal
from engine.orders.rotation import Rotation
from engine.orders.store import StoreLost, Superseded

Desk = Any
STORES = ("postgres",)
S = OrderState
DAY_NS = 86_400_000_000_000


class Site:
    """Hosts that share an arbiter, each with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arbiter = MemoryStore("id", lambda: 0)
        self.journals: list[ReplicatedJournal] = []
        self.loaded = 0

    async def take(self, host: str) -> ReplicatedJournal:
        """Become the holder on that host, with the copy that it has from before."""
        line = MemoryLine(self.arbiter)
        seen = await line.look()
        row = await line.take(seen, f"{host}-{seen.epoch}", host, 5)
        assert row is not None
        path = self.folder / host / "main.db"
        journal = ReplicatedJournal(path, "binance", "main", VirtualClock(1), line, "run")
        self.journals.append(journal)
        self.loaded = await journal.catch_up(row.epoch)
        return journal


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for journal in site.journals:
        journal.close()


def intent(name: str) -> WriteIntent:
    from decimal import Decimal

    return WriteIntent(
        order=Order(
            client_order_id=name,
            strategy="maker",
            pair="BTC-USDT",
            side=Side.BUY,
            order_type=OrderType.LIMIT,
            size=Decimal(1),
            price=Decimal(2),
            state=S.PENDING_CREATE,
            created_ns=3,
            updated_ns=3,
        ),
        send_by_ns=4,
    )


def ids(journal: Journal) -> list[str]:
    return [order.client_order_id for order in journal.run_orders("run")]


def on(work: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await work()

    asyncio.run(body())


def test_another_host_has_all_that_the_arbiter_has_and_the_first_fetches_only_what_is_new(site: Site) -> None:
    async def body() -> None:
        a = await site.take("a")
        for index in range(5):
            a.record([intent(f"e-{index}")])
        assert a.unsent == 5
        assert await a.push() == 5
        assert a.unsent == 0
        a.close()
        b = await site.take("b")
        assert site.loaded == 5
        assert ids(b) == [f"e-{index}" for index in range(5)]
        assert b.incarnation == a.incarnation
        b.record([intent("e-5")])
        await b.push()
        b.close()
        a = await site.take("a")
        assert site.loaded == 1
        assert ids(a) == [f"e-{index}" for index in range(6)]

    on(body)


def test_what_the_arbiter_never_took_never_was(site: Site) -> None:
    async def body() -> None:
        a = await site.take("a")
        a.record([intent("e-0")])
        await a.push()
        a.record([intent("e-lost")])
        b = await site.take("b")
        b.record([intent("e-1")])
        b.record([intent("e-2")])
        await b.push()
        with pytest.raises(Superseded):
            await a.push()
        a.close()
        b.close()
        a = await site.take("a")
        assert ids(a) == ["e-0", "e-1", "e-2"]
        assert a.fate("e-lost") is None

    on(body)


def test_a_copy_that_is_ahead_of_the_arbiter_by_its_own_last_commits_is_made_anew(site: Site) -> None:
    async def body() -> None:
        a = await site.take("a")
        a.record([intent("e-0")])
        await a.push()
        a.record([intent("e-lost")])
        a.close()
        a = await site.take("a")
        assert ids(a) == ["e-0"]

    on(body)


def test_commits_that_come_while_others_are_under_way_are_sent_after_them_and_a_lost_answer_doubles_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        a = await site.take("a")
        line = a._store
        assert isinstance(line, MemoryLine)
        a.record([intent("e-0")])
        carried_out = site.arbiter.commit

        def then_cut(*arguments: Any) -> None:
            carried_out(*arguments)
            line.cut = True

        monkeypatch.setattr("engine.orders.memory_store._TIMEOUT_S", 0.05)
        monkeypatch.setattr(site.arbiter, "commit", then_cut)
        with pytest.raises(StoreLost):
            await a.push()
        line.cut = False
        monkeypatch.setattr(site.arbiter, "commit", carried_out)
        a.record([intent("e-1")])
        assert await a.push() == 1
        assert await a.push() == 2
        assert site.arbiter.standing().commits == 3
        assert sorted(row[0] for row in site.arbiter.changed("orders", 0)) == ["e-0", "e-1"]

    on(body)


def test_a_journal_of_this_host_alone_is_handed_over_with_its_archive(site: Site) -> None:
    async def body() -> None:
        path = site.folder / "a" / "main.db"
        with Journal(path, "binance", "main", VirtualClock(7), "run") as plain:
            for index in range(3):
                plain.record([intent(f"e-{index}")])
            plain.flush()
            with sqlite3.connect(path) as connection:
                connection.execute("UPDATE orders SET is_open = 0 WHERE client_order_id <> 'e-2'")
            connection.close()
            rotation = Rotation(plain, 0)
            assert rotation.copy(DAY_NS, 0) == 2
            assert list(rotation.deletions())
            incarnation = plain.incarnation
        a = await site.take("a")
        assert sorted(ids(a)) == ["e-0", "e-1", "e-2"]
        a.close()
        b = await site.take("b")
        assert sorted(ids(b)) == ["e-0", "e-1", "e-2"]
        assert b.incarnation == incarnation

    on(body)


def test_a_copy_is_no_journal_of_its_own_and_a_journal_no_copy(site: Site) -> None:
    async def body() -> None:
        a = await site.take("a")
        a.record([intent("e-0")])
        await a.push()
        a.close()
        with pytest.raises(JournalError, match="a copy of a journal in PostgreSQL"):
            Journal(a.path, "binance", "main", WallClock())
        with Journal(site.folder / "b" / "main.db", "binance", "main", VirtualClock(9), "run") as plain:
            plain.record([intent("e-9")])
        with pytest.raises(JournalError, match="a journal of its own"):
            await site.take("b")

    on(body)


# ---------------------------------------------------------------------------------------------------- PostgreSQL


def test_every_table_and_value_is_the_same_on_another_host(desk: Desk, tmp_path: Path) -> None:
    desk.placed("e-1")
    desk.tell("e-1", S.FILLED, "1", desk.fill("t1", "1", "99999999.00000001"))
    desk.placed("e-2")
    desk.place("e-small", size="0.0001")
    desk.place("e-3", price=None)
    before = _told(desk)
    desk.journal.close()
    desk.path = tmp_path / "other" / "main.db"
    desk.crash()
    assert _told(desk) == before
    desk.restart()
    desk.tell("e-2", S.CANCELLED)
    assert desk.state("e-2") is S.CANCELLED


def _told(desk: Desk) -> Any:
    journal = desk.journal
    return (
        journal.since(0, 100),
        journal.orders(),
        journal.fills(),
        journal.counts("run"),
        [journal.fate(id_) for id_ in ("e-1", "e-2", "e-small", "e-none")],
        journal.recover(),
    )


def _trade_until_killed(make_desk: Callable[..., Desk], path: Path, address: str, pipe: int) -> None:
    desk = make_desk(path, address)
    desk.do(desk.account.recover(desk.now))
    first = len(desk.journal.orders(limit=1_000_000))
    for index in range(first, first + 1_000_000):
        name = f"e-{index}"
        desk.place(name)
        os.write(pipe, f"{name}\n".encode())
        desk.tell(name, S.PARTIALLY_FILLED, "0.4", desk.fill(f"t{index}", "0.4"))
        desk.tell(name, S.CANCELLED, "0.4")


@pytest.mark.processes
def test_W9_a_writer_killed_at_any_moment_loses_nothing_that_it_committed_on_any_host(
    tmp_path: Path, make_postgres_desk: Callable[..., Desk], database: str
) -> None:
    sent: list[str] = []
    luck = random.Random(4711)
    fork = multiprocessing.get_context("fork")
    for turn in range(4):
        reading, writing = os.pipe()
        host = tmp_path / f"host-{turn % 2}" / "main.db"
        child = fork.Process(target=_trade_until_killed, args=(make_postgres_desk, host, database, writing))
        child.start()
        os.close(writing)
        with os.fdopen(reading, "rb") as lines:
            heard = [lines.readline() for _ in range(luck.randrange(1, 40))]
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
            heard += [line for line in lines.read().splitlines(keepends=True) if line.endswith(b"\n")]
        sent += [line.decode().strip() for line in heard]
        desk = make_postgres_desk(tmp_path / f"look-{turn}" / "main.db", database)
        try:
            orders = {order.client_order_id: order for order in desk.journal.run_orders("run")}
            events = desk.journal.since(0, 1_000_000)
            fills = {fill.client_order_id: fill.fill.size for fill in desk.journal.fills(limit=1_000_000)}
        finally:
            desk.close()
        assert set(sent) <= orders.keys()
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert fills == {name: order.filled for name, order in orders.items() if order.filled}
    assert len(sent) == len(set(sent)) > 10


def test_losing_the_server_loses_no_commit(desk: Desk) -> None:
    desk.placed("e-1")
    other = PostgresStore(desk.address, "binance", "main", 1)
    desk.runner.run(
        other._journal.value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
    desk.runner.run(other.close())
    for name in ("e-2", "e-3"):
        try:
            desk.placed(name)
        except StoreLost:
            desk.runner.run(desk.journal.push())
    desk.crash()
    assert desk.journal.fate("e-1") is not None
    assert desk.journal.fate("e-2") is not None
