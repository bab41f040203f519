"""What an arbiter promises, in memory and in PostgreSQL alike."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.errors import JournalError
from engine.orders import postgres as postgres_module
from engine.orders import postgres_line
from engine.orders.lease import LeaseRow
from engine.orders.memory_store import MemoryLine, MemoryStore
from engine.orders.postgres import PostgresStore
from engine.orders.postgres_line import Line
from engine.orders.store import COLUMNS, JournalStore, Rows, StoreLost, Superseded

Check = Callable[[JournalStore, JournalStore], Awaitable[None]]
SECRET = "hunter2hunter2"


@pytest.fixture(params=["memory", "postgres"])
def check(request: pytest.FixtureRequest) -> Callable[[Check], None]:
    """Runs a test body with two hosts' lines to one arbiter."""

    async def body(work: Check) -> None:
        if request.param == "memory":
            arbiter = MemoryStore("id", lambda: 0)
            lines: list[Any] = [MemoryLine(arbiter), MemoryLine(arbiter)]
        else:
            address = request.getfixturevalue("database")
            lines = [PostgresStore(address, "binance:us", "main", 7) for _ in range(2)]
        try:
            await asyncio.gather(*(line.open() for line in lines))
            await work(lines[0], lines[1])
        finally:
            for line in lines:
                await line.close()

    if request.param == "postgres":
        request.getfixturevalue("database")
    return lambda work: asyncio.run(body(work))


def order(name: str, state: str = "open") -> tuple[Any, ...]:
    values: dict[str, Any] = dict.fromkeys(COLUMNS["orders"], "")
    values |= {"client_order_id": name, "pair": "BTC-USDT", "state": state, "price": None, "created_ns": 5}
    values |= {"updated_ns": 6, "send_by_ns": 7, "acknowledged": 1, "cancel_requested": 0, "is_open": 1}
    return tuple(values[column] for column in COLUMNS["orders"])


def fill(trade: str) -> tuple[Any, ...]:
    return ("BTC-USDT", trade, "e-1", "maker", "buy", "1", "2", "0", "USDT", 1, 8, 0)


async def everything(store: JournalStore, after: int = 0) -> dict[str, list[Any]]:
    return {table: [row async for rows in store.changed(table, after) for row in rows] for table in COLUMNS}


async def taken(store: JournalStore, holder: str = "a") -> int:
    row = await store.take(await store.look(), holder, f"seat-{holder}", 5)
    assert row is not None
    return row.epoch


def test_one_of_two_that_saw_the_same_row_gets_it(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        seen = await a.look()
        assert seen == await b.look() == LeaseRow()
        rows = await asyncio.gather(a.take(seen, "a", "seat-a", 5), b.take(seen, "b", "seat-b", 6))
        (won,) = [row for row in rows if row is not None]
        assert await a.look() == won
        assert (won.epoch, won.beat) == (1, 0)

    check(body)


def test_a_beat_is_seen_and_undoes_a_take_and_another_epochs_is_refused(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        epoch = await taken(a)
        seen = await b.look()
        assert await a.renew(epoch)
        assert (await b.look()).beat == 1
        assert await b.take(seen, "b", "seat-b", 5) is None
        assert await taken(b, "b") == epoch + 1
        assert not await a.renew(epoch)
        await a.release(epoch)
        assert (await b.look()).holder == "b"
        await b.release(epoch + 1)
        assert (await a.look()).holder == ""

    check(body)


def test_commits_are_taken_once_and_read_by_what_came_after_one(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        epoch = await taken(a)
        rows = Rows([order("e-1")], [fill("t1")], [(1, 9, b"\x81", "e-1")], [("r-1", "maker", "halted", "", 9, "run")])
        for _ in range(2):
            await a.commit(epoch, 0, 3, rows)
        await a.commit(epoch, 3, 4, Rows([order("e-1", "filled"), order("e-2")]))
        found = await everything(b)
        assert [row[0] for row in found["orders"]] == ["e-1", "e-2"]
        assert found["orders"][0] == order("e-1", "filled")
        assert (found["fills"], found["events"], found["refusals"]) == (rows.fills, rows.events, rows.refusals)
        later = await everything(b, 3)
        assert len(later["orders"]) == 2
        assert not later["fills"]
        assert (await b.standing()).commits == 4

    check(body)


def test_a_holder_whose_epoch_is_over_writes_nothing(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        epoch = await taken(a)
        await a.commit(epoch, 0, 1, Rows([order("e-1")]))
        await taken(b, "b")
        with pytest.raises(Superseded):
            await a.commit(epoch, 1, 2, Rows([order("e-2")]))
        assert [row[0] for row in (await everything(b))["orders"]] == ["e-1"]

    check(body)


def test_a_journal_that_does_not_stand_where_it_should_takes_nothing(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        epoch = await taken(a)
        await a.commit(epoch, 0, 5, Rows([order("e-1")]))
        with pytest.raises(JournalError, match="lost"):
            await a.commit(epoch, 7, 8, Rows([order("e-2")]))
        assert len((await everything(b))["orders"]) == 1

    check(body)


def test_what_is_there_already_is_not_written_twice(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        epoch = await taken(a)
        await a.commit(epoch, 0, 1, Rows(fills=[fill("t1")]))
        with pytest.raises(JournalError):
            await a.commit(epoch, 1, 2, Rows(fills=[fill("t1")]))

    check(body)


def test_a_copy_is_a_part_of_the_journal_up_to_its_epochs_last_commit(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        first = await taken(a)
        await a.commit(first, 0, 5, Rows())
        second = await taken(b, "b")
        await b.commit(second, 5, 9, Rows())
        assert await a.follows(first, 5)
        assert not await a.follows(first, 6)
        assert not await a.follows(second, 4)
        assert await a.follows(second, 9)
        assert not await a.follows(second, 10)
        assert not await a.follows(17, 5)

    check(body)


def test_a_journal_is_handed_over_whole_and_to_an_empty_arbiter_alone(check: Callable[[Check], None]) -> None:
    async def body(a: JournalStore, b: JournalStore) -> None:
        epoch = await taken(a)
        await a.hand_over(epoch, 42, [Rows([order("e-1")]), Rows(fills=[fill("t1")])])
        standing = await b.standing()
        assert (standing.incarnation, standing.commits) == (42, 1)
        found = await everything(b)
        assert (len(found["orders"]), len(found["fills"])) == (1, 1)

    check(body)


# ------------------------------------------------------------------------------------------------- PostgreSQL alone


async def again(work: Callable[[], Awaitable[Any]]) -> Any:
    """What a caller does about a lost connection, which it may or may not have noticed before."""
    try:
        return await work()
    except StoreLost:
        return await work()


def test_a_connection_that_is_cut_is_made_anew(database: str) -> None:
    async def body() -> None:
        store, other = (PostgresStore(database, "binance", "main", 7) for _ in range(2))
        try:
            await store.open()
            await other.open()
            epoch = await taken(store)
            await other._journal.value(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await again(lambda: store.commit(epoch, 0, 1, Rows([order("e-1")])))
            assert await again(lambda: store.renew(epoch))
            assert [row[0] for row in (await everything(other))["orders"]] == ["e-1"]
        finally:
            await store.close()
            await other.close()

    asyncio.run(body())


def test_a_server_that_does_not_answer_is_given_up_on(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line.call, "__defaults__", (0.2,))

    async def body() -> None:
        store, other = (PostgresStore(database, "binance", "main", 7) for _ in range(2))
        try:
            await store.open()
            epoch = await taken(store)
            held = (await other._journal.connection()).transaction()
            await held.start()
            await (await other._journal.connection()).execute("LOCK TABLE lease")
            with pytest.raises(StoreLost, match="no answer in time"):
                await store.renew(epoch)
            await held.rollback()
            assert await store.renew(epoch)
        finally:
            await store.close()
            await other.close()

    asyncio.run(body())


def test_a_row_that_another_has_locked_keeps_no_connection_for_each_time_that_it_is_asked_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server does not notice that nobody waits for a statement any more, until the statement is done."""
    monkeypatch.setattr(postgres_line, "LOCK_S", 0.05)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def body() -> None:
        store, other = (PostgresStore(database, "binance", "main", 7) for _ in range(2))
        try:
            await store.open()
            epoch = await taken(store)
            connection = await other._journal.connection()
            async with connection.transaction():
                await connection.execute("UPDATE lease SET commits = commits")
                for _ in range(3):
                    with pytest.raises(StoreLost):
                        await store.renew(epoch)
                    with pytest.raises(StoreLost):
                        await store.commit(epoch, 0, 1, Rows([order("e-1")]))
                assert await other._lease.value(waiting) == 0
            assert await store.renew(epoch)
            await store.commit(epoch, 0, 1, Rows([order("e-1")]))
        finally:
            await store.close()
            await other.close()

    asyncio.run(body())


@pytest.mark.parametrize("batches", [0, 1], ids=["before the first rows", "between two"])
def test_a_server_that_stands_still_while_a_journal_is_fetched_is_given_up_on(
    database: str, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(postgres_line, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(postgres_module, "LOAD_S", 0.2)
    monkeypatch.setattr(postgres_module, "AT_ONCE", 1)

    async def body() -> None:
        store = PostgresStore(database, "binance", "main", 7)
        try:
            await store.open()
            epoch = await taken(store)
            await store.commit(epoch, 0, 1, Rows([order("e-1"), order("e-2")]))
            fetching = store.changed("orders", 0)
            for _ in range(batches):
                await anext(fetching)
            stopped = (await store._journal.connection()).get_server_pid()
            os.kill(stopped, signal.SIGSTOP)
            try:
                async with asyncio.timeout(10):
                    with pytest.raises(StoreLost, match="no answer in time"):
                        await anext(fetching)
                    assert len((await everything(store))["orders"]) == 2
            finally:
                os.kill(stopped, signal.SIGCONT)
        finally:
            await store.close()

    asyncio.run(body())


def test_no_error_shows_the_password(tmp_path: Any) -> None:
    async def body(address: str) -> str:
        store = PostgresStore(address, "binance", "main", 7)
        with pytest.raises(JournalError) as raised:
            await store.open()
        await store.close()
        return f"{raised.value!r} {raised.value.__cause__!r}"

    for host in (f"host={tmp_path}", "host=127.0.0.1&port=1"):
        said = asyncio.run(body(f"postgresql://engine:{SECRET}@/nothing?{host}"))
        assert SECRET not in said


def test_the_servers_clock_can_be_read(database: str) -> None:
    async def body() -> None:
        store = PostgresStore(database, "binance", "main", 7)
        try:
            await store.open()
            assert abs(await store.time_ms() - time.time_ns() // 1_000_000) < 60_000
        finally:
            await store.close()

    asyncio.run(body())


def test_two_accounts_share_a_database_and_neither_sees_the_other(database: str) -> None:
    async def body() -> None:
        stores = [PostgresStore(database, "binance:us", account, 7) for account in ("main", "second")]
        try:
            for store in stores:
                await store.open()
            epoch = await taken(stores[0])
            await stores[0].commit(epoch, 0, 1, Rows([order("e-1")]))
            assert await stores[1].look() == LeaseRow()
            assert not (await everything(stores[1]))["orders"]
        finally:
            for store in stores:
                await store.close()

    asyncio.run(body())


def test_an_older_schema_is_brought_up_to_date_and_a_newer_one_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened() -> list[str]:
        store = PostgresStore(database, "binance", "main", 7)
        try:
            await store.open()
            rows = await (await store._journal.connection()).fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'refusals'"
            )
            return [row[0] for row in rows]
        finally:
            await store.close()

    assert "note" not in asyncio.run(opened())
    with monkeypatch.context() as newer:
        newer.setattr(postgres_module, "VERSION", 2)
        newer.setattr(postgres_module, "MIGRATIONS", {1: "ALTER TABLE refusals ADD COLUMN note text"})
        assert "note" in asyncio.run(opened())
        assert "note" in asyncio.run(opened())
    with pytest.raises(JournalError, match="written by a newer engine"):
        asyncio.run(opened())
