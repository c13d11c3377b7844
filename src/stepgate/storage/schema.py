"""Where a database's schema stands and how it is brought to where the code needs it, from inside an event loop."""

import asyncio
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from stepgate.storage import migrations
from stepgate.storage.errors import translated
from stepgate.storage.url import normalise, place


class SchemaState(NamedTuple):
    """Revisions: `current` is None where the database was never migrated, `head` is what the code was written for."""

    current: str | None
    head: str | None

    @property
    def fits(self) -> bool:
        return self.current == self.head


async def upgrade(url: str) -> SchemaState:
    """Migrates to the newest revision and says where the schema was before.

    Raises DatabaseUnavailable, or SchemaMismatch where the database is newer than the code.
    """
    before = await state(url)
    if before.fits:
        return before
    with translated(place(url)):
        await asyncio.to_thread(migrations.upgrade, normalise(url))
    return before


async def state(url: str) -> SchemaState:
    """Reads the revision; changes nothing. Raises DatabaseUnavailable."""
    return (await look(url))[1]


async def look(url: str) -> tuple[str, SchemaState]:
    """The server's version, as in "18.4", and the revision; changes nothing. Raises DatabaseUnavailable."""
    engine = create_async_engine(normalise(url), poolclass=NullPool)
    try:
        with translated(place(url)):
            async with engine.connect() as connection:
                version = await connection.scalar(text("SELECT current_setting('server_version')"))
                return str(version), SchemaState(await migrations.current(connection), migrations.head())
    finally:
        await engine.dispose()
