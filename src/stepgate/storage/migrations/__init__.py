"""The history of the schema, inside the package so that an installed Stepgate can migrate its database."""

import asyncio
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from stepgate.domain.errors import DatabaseUnavailable, SchemaMismatch

SCHEMA = "stepgate"
VERSION_TABLE = "alembic_version"
FOLDER = Path(__file__).parent
# alembic keeps the command that runs in globals of a module.
_ONE_AT_A_TIME = threading.Lock()


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the database at `url` (postgresql+asyncpg://...) to a revision; blocks, and may run twice at once.

    Raises DatabaseUnavailable where the database cannot be reached, SchemaMismatch where it is newer than the code.
    """
    _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Takes the database back to a revision (`-1` is one step, `base` is empty)."""
    _run(url, lambda config: command.downgrade(config, revision))


def _run(url: str, work: Callable[[Config], None]) -> None:
    with _ONE_AT_A_TIME:
        asyncio.run(_connect_and_run(url, work))


async def _connect_and_run(url: str, work: Callable[[Config], None]) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await _refuse_newer(connection)
            await connection.run_sync(lambda sync: work(_configuration(sync)))
    except OSError as error:
        raise DatabaseUnavailable(
            f"the database cannot be reached: {error}", field="DATABASE_URL", fix="check that it runs and the URL"
        ) from error
    finally:
        await engine.dispose()


def _configuration(connection: object = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@cache
def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_configuration())


def head() -> str | None:
    """The newest revision this code knows; None while there is none."""
    return _script().get_current_head()


async def current(connection: AsyncConnection) -> str | None:
    """The revision the database is at; None where Stepgate has never been migrated into it."""
    table = f"{SCHEMA}.{VERSION_TABLE}"
    present = await connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table})
    if not present:
        return None
    revision = await connection.scalar(text(f"SELECT version_num FROM {table}"))
    return None if revision is None else str(revision)


async def require_current(connection: AsyncConnection) -> None:
    """Raises SchemaMismatch where the database is not exactly at the revision this code was written for."""
    found = await _refuse_newer(connection)
    if found != head():
        state = "has not been migrated" if found is None else f"is at {found}, the code needs {head()}"
        raise SchemaMismatch(f"the database {state}", fix="run: stepgate migrate")


async def _refuse_newer(connection: AsyncConnection) -> str | None:
    found = await current(connection)
    await connection.rollback()
    known = {script.revision for script in _script().walk_revisions()}
    if found is not None and found not in known:
        raise SchemaMismatch(
            f"the database is at revision {found}, which this version of Stepgate does not know",
            fix="it was migrated by a newer version: upgrade Stepgate, or use another database",
        )
    return found
