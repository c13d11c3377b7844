"""The way to the database: an engine for views, bare connections for hot statements and for whoever must not wait."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from stepgate.domain.errors import DatabaseUnavailable
from stepgate.storage import migrations
from stepgate.storage.clock import DatabaseClock
from stepgate.storage.errors import translated
from stepgate.storage.pool import Pool
from stepgate.storage.url import normalise, place

APP_ROLE = "stepgate_app"
OLDEST_VERSION = 140000
PARTITIONS_AHEAD = 12
CONNECT_TIMEOUT_S = 10.0
HOT_SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
"""Statements that look a few rows up in tables of any size are planned once: planning costs as much as they do."""
REPLAN_S = 30
"""A plan made while a table was small is not kept for long."""
NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

# $1 is the restricted role, $2 our schema: it counts only where this database grants it something.
_PROBE = """
SELECT current_setting('server_version_num')::int AS version,
       EXISTS (
           SELECT FROM pg_roles
           WHERE rolname = $1 AND pg_has_role(current_user, oid, 'MEMBER')
             AND has_schema_privilege(oid, to_regnamespace($2), 'USAGE')
       ) AS has_role
"""


class Database:
    """One database and this process's connections to it.

    `pooler`: the URL leads to a pooler that may give each transaction another server connection, so nothing may be
    kept in a session: no named statement is used twice and the restricted role cannot be taken.
    `place` is host and port, for messages; `pool_size` bounds the bare connections, and those of the engine.
    """

    def __init__(self, url: str, *, pool_size: int = 4, pooler: bool = False) -> None:
        self._url = make_url(normalise(url))
        self.place = place(url)
        self.pool_size = pool_size
        self._pooler = pooler
        self._settings: dict[str, str] = {}
        self._engine: AsyncEngine | None = None
        self._pool: Pool | None = None
        self.clock = DatabaseClock()

    @property
    def engine(self) -> AsyncEngine:
        if self._engine is None:
            raise RuntimeError("the database is not open")
        return self._engine

    async def open(self) -> None:
        """Connects, checks version and schema, learns the time.

        Raises DatabaseUnavailable (down, refused, older than PostgreSQL 14) or SchemaMismatch.
        """
        with translated(self.place):
            await self._probe()
            self._engine = self._make_engine()
            self._pool = Pool(self._connect_raw, self.pool_size)
            try:
                async with self._engine.connect() as connection:
                    await migrations.require_current(connection)
                await self.learn_time()
                await self._ensure_partitions()
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Gives back every pooled connection; dedicated ones are their owners' to close."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def connect(self, purpose: str, settings: Mapping[str, str] | None = None) -> Any:
        """A driver connection of the caller's own, in whatever event loop it runs; not from the pool."""
        with translated(self.place):
            return await asyncpg.connect(**self._connection_arguments(purpose, settings))

    async def _connect_raw(self) -> Any:
        return await asyncpg.connect(**self._connection_arguments("queries", HOT_SETTINGS))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A pooled connection in a transaction that commits at the end of the block."""
        with translated(self.place):
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[Any]:
        """A pooled driver connection outside any transaction: each statement commits by itself.

        The driver's errors pass through untranslated, for callers that must tell them apart.
        """
        if self._pool is None:
            raise RuntimeError("the database is not open")
        async with self._pool.take() as connection:
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Like `raw`, with the driver's errors translated."""
        with translated(self.place):
            async with self.raw() as connection:
                yield connection

    async def learn_time(self) -> None:
        """Asks the database for its time."""
        async with self.raw() as connection:
            sent = time.monotonic_ns()
            server = await connection.fetchval(f"SELECT {NOW}")
            self.clock.learn(server, sent, time.monotonic_ns())

    async def _probe(self) -> None:
        connection = await asyncpg.connect(**self._connection_arguments("start"))
        try:
            found = await connection.fetchrow(_PROBE, APP_ROLE, migrations.SCHEMA)
        finally:
            await connection.close()
        if found["version"] < OLDEST_VERSION:
            raise DatabaseUnavailable(
                f"PostgreSQL at {self.place} is version {found['version'] // 10000}; 14 or newer is needed",
                field="DATABASE_URL",
                fix="upgrade the server, or use another one",
            )
        if found["has_role"] and not self._pooler:
            self._settings["role"] = APP_ROLE

    async def _ensure_partitions(self) -> None:
        async with self.begin() as connection:
            allowed = "has_function_privilege(current_user, 'stepgate.ensure_event_partitions(integer)', 'EXECUTE')"
            if await connection.scalar(text(f"SELECT {allowed}")):
                call = text("SELECT stepgate.ensure_event_partitions(:months)")
                await connection.execute(call, {"months": PARTITIONS_AHEAD})

    def _make_engine(self) -> AsyncEngine:
        arguments: dict[str, Any] = {
            "server_settings": self._server_settings("queries", None),
            "timeout": CONNECT_TIMEOUT_S,
            "max_cacheable_statement_size": 0,
        }
        if self._pooler:
            arguments |= {
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"stepgate_{uuid4().hex}",
            }
        return create_async_engine(
            self._url, connect_args=arguments, pool_size=self.pool_size, max_overflow=0, pool_pre_ping=True
        )

    def _arguments(self) -> dict[str, Any]:
        _, arguments = self._url.get_dialect()().create_connect_args(self._url)
        arguments.pop("prepared_statement_cache_size", None)
        return dict(arguments)

    def _connection_arguments(self, purpose: str, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
        return self._arguments() | {
            "server_settings": self._server_settings(purpose, settings),
            "timeout": CONNECT_TIMEOUT_S,
            "statement_cache_size": 0 if self._pooler else 100,
            "max_cacheable_statement_size": 0,
            "max_cached_statement_lifetime": REPLAN_S,
        }

    def _server_settings(self, purpose: str, settings: Mapping[str, str] | None) -> dict[str, str]:
        """A pooler refuses settings it does not know, so there only the name is sent."""
        name = {"application_name": f"stepgate {purpose}"}
        if self._pooler:
            return name
        # JIT costs more than any of our statements.
        return name | {"jit": "off", "timezone": "UTC"} | self._settings | dict(settings or {})
