"""The history of the schema, inside the package so that an installed Stepgate can migrate its database."""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from stepgate.domain.errors import DatabaseUnavailable, SchemaMismatch

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "stepgate"
VERSION_TABLE = "alembic_version"
FOLDER = Path(__file__).parent
_REVISION = re.compile(r"""^(down_)?revision(?:: [^=]+)? = (?:None|["'](\w+)["'])$""", re.MULTILINE)
# alembic keeps the command that runs in globals of a module.
_ONE_AT_A_TIME = threading.Lock()


def upgrade(url: str, revision: str = "head") -> None:
    """Brings the database at `url` (postgresql+asyncpg://...) to a revision; blocks, and may run twice at once.

    Raises DatabaseUnavailable where the database cannot be reached, SchemaMismatch where it is newer than the code.
    """
    from alembic import command  # noqa: PLC0415 - a third of the time of a process that only looks

    _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Takes the database back to a revision (`-1` is one step, `base` is empty)."""
    from alembic import command  # noqa: PLC0415 - as above

    _run(url, lambda config: command.downgrade(config, revision))


def _run(url: str, work: Callable[["Config"], None]) -> None:
    with _ONE_AT_A_TIME:
        asyncio.run(_connect_and_run(url, work))


async def _connect_and_run(url: str, work: Callable[["Config"], None]) -> None:
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


def _configuration(connection: object = None) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@cache
def revisions() -> Mapping[str, str | None]:
    """Every revision this code knows and the one before it, read from the files without importing them."""
    found: dict[str, str | None] = {}
    for path in sorted((FOLDER / "versions").glob("*.py")):
        names = {before or "": name or None for before, name in _REVISION.findall(path.read_text("utf-8"))}
        if names.get("") is not None:
            found[str(names[""])] = names.get("down_")
    return found


def head() -> str | None:
    """The newest revision this code knows; None while there is none."""
    return next(iter(set(revisions()) - set(revisions().values())), None)


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
    if found is not None and found not in revisions():
        raise SchemaMismatch(
            f"the database is at revision {found}, which this version of Stepgate does not know",
            fix="it was migrated by a newer version: upgrade Stepgate, or use another database",
        )
    return found
