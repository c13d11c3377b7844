"""One moment of the database for several queries, so that a run and its steps never contradict each other."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.storage.database import Database

Row = Mapping[str, Any]
"""A row by column name; times are aware datetimes, ids and JSON text."""
Snapshot = AsyncConnection
"""An open read-only transaction."""


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """A read-only transaction in which every query sees the same state."""
    async with database.begin() as connection:
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


async def rows(connection: AsyncConnection, query: Executable, values: Mapping[str, Any] | None = None) -> list[Row]:
    """Every row of a query."""
    found = await connection.execute(query, dict(values or {}))
    return [{name: _plain(value) for name, value in row.items()} for row in found.mappings()]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
