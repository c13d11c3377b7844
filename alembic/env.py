"""What the `alembic` command executes in a checkout: it finds the database as Stepgate itself does."""

import asyncio
from logging.config import fileConfig

from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from stepgate.settings import Settings, load
from stepgate.storage.embedded import acquire
from stepgate.storage.migrations.environment import run, run_offline


async def connect_and_run(url: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


def run_online(settings: Settings) -> None:
    if settings.database_url is not None:
        asyncio.run(connect_and_run(settings.database_url.get_secret_value()))
        return
    with acquire(settings.state_dir, binaries=settings.postgres_bin) as server:
        asyncio.run(connect_and_run(server.sqlalchemy_url()))


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    run_offline()
else:
    run_online(load())
