"""The checkpoint of a strategy that may move, on a real PostgreSQL: of the latest life alone, whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.errors import JournalError
from engine.messages import StreamPosition
from engine.orders.store import StoreLost, Superseded
from engine.orders.strategy_postgres import SharedStrategyStore
from engine.simulation.postgres_server import PostgresServer

SCHEMA = "strategy.test.maker"


def at(number: int) -> dict[str, StreamPosition]:
    return {"exchange.binance.main": StreamPosition(incarnation=5, number=number)}


@asynccontextmanager
async def life(address: str, incarnation: int) -> AsyncIterator[tuple[SharedStrategyStore, asyncio.Task[None]]]:
    """A life that has not begun yet, with its sender at work."""
    store = SharedStrategyStore(address, SCHEMA, incarnation)
    keeping = asyncio.create_task(store.keep())
    try:
        yield store, keeping
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await store.close()


def test_a_later_life_has_what_an_earlier_one_saved_last(database: str) -> None:
    async def body() -> None:
        async with life(database, 1) as (first, _):
            assert await first.begin() is None
            for number in range(20):
                first.save({"n": number}, at(number), ["e-1"], number)
            assert await first.close()
        async with life(database, 2) as (second, _):
            found = await second.begin()
            assert found is not None
            assert (found.state, found.positions, found.open_orders, found.saved_ns) == ({"n": 19}, at(19), ["e-1"], 19)

    asyncio.run(body())


def test_an_earlier_life_saves_nothing_once_a_later_one_has_begun_and_learns_of_it(database: str) -> None:
    async def body() -> None:
        async with life(database, 1) as (first, keeping), life(database, 2) as (second, _):
            await first.begin()
            await second.begin()
            second.save({"n": 2}, at(2))
            assert await second.close()
            first.save({"n": 1}, at(1))
            with pytest.raises(Superseded, match="a later life"):
                await keeping
            with pytest.raises(Superseded):
                await SharedStrategyStore(database, SCHEMA, 1).begin()
            found = await SharedStrategyStore(database, SCHEMA, 3).begin()
            assert found is not None
            assert found.state == {"n": 2}

    asyncio.run(body())


def test_a_life_that_begins_again_keeps_its_hold(database: str) -> None:
    async def body() -> None:
        async with life(database, 1) as (first, _):
            await first.begin()
            assert await first.begin() is None
            first.save({"n": 1}, at(1))
            assert await first.close()

    asyncio.run(body())


def test_what_was_saved_while_the_server_was_away_arrives_when_it_is_back(postgres: PostgresServer) -> None:
    async def body(address: str) -> None:
        async with life(address, 1) as (store, _):
            await store.begin()
            postgres.stop()
            try:
                store.save({"n": 1}, at(1))
                with pytest.raises(StoreLost):
                    await SharedStrategyStore(address, SCHEMA, 2).begin()
                assert not await store.close()
                store.save({"n": 2}, at(2))
            finally:
                postgres.start()
            while not await store.close():
                continue
        found = await SharedStrategyStore(address, SCHEMA, 2).begin()
        assert found is not None
        assert found.state == {"n": 2}

    address = postgres.database()
    asyncio.run(body(address))
    postgres.drop(address)


def test_a_state_that_cannot_be_saved_is_refused_at_once_and_leaves_the_last_one(database: str) -> None:
    async def body() -> None:
        async with life(database, 1) as (store, _):
            await store.begin()
            store.save({"n": 1}, at(1))
            with pytest.raises(JournalError, match="cannot be saved"):
                store.save({"n": object()}, at(2))
            assert await store.close()
        found = await SharedStrategyStore(database, SCHEMA, 2).begin()
        assert found is not None
        assert found.state == {"n": 1}

    asyncio.run(body())
