"""A pooled connection is used again only while it is sound, and nobody waits for one for ever."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage import pool
from stepgate.storage.database import Database

PID = "SELECT pg_backend_pid()"


async def pid(database: Database) -> int:
    async with database.raw() as connection:
        return int(await connection.fetchval(PID))


async def test_a_connection_is_used_again(database: Database) -> None:
    assert await pid(database) == await pid(database)


async def test_one_that_rested_and_died_meanwhile_is_replaced(
    database: Database, superuser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried first, so that its user never hears of it."""
    monkeypatch.setattr(pool, "TRUSTED_S", -1.0)
    first = await pid(database)
    await superuser.execute("SELECT pg_terminate_backend($1, 5000)", first)
    assert await pid(database) != first


async def test_one_left_in_a_transaction_is_not_given_to_the_next(database: Database) -> None:
    async with database.raw() as connection:
        first = await connection.fetchval(PID)
        await connection.execute("BEGIN")
    assert await pid(database) != first


async def test_one_whose_user_was_cancelled_is_not_given_to_the_next(database: Database) -> None:
    """Its answer may still be on the way."""
    asked = asyncio.Event()

    async def ask() -> None:
        async with database.raw() as connection:
            asked.set()
            await connection.execute("SELECT pg_sleep(60)")

    first = await pid(database)
    task = asyncio.create_task(ask())
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pid(database) != first


async def test_whoever_gets_none_in_time_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LONGEST_WAIT_S", 0.05)
    async with AsyncExitStack() as held:
        for _ in range(database.pool_size):
            await held.enter_async_context(database.raw())
        with pytest.raises(DatabaseUnavailable, match="busy"):
            await pid(database)
    assert await pid(database)
