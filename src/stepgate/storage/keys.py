"""API keys as they are kept: never the key itself, only what finds and proves it."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from stepgate.domain.errors import Conflict
from stepgate.domain.identity import NewKey
from stepgate.domain.ids import new_id
from stepgate.storage.database import Database

_COLUMNS = """id::text AS id, tenant_id, name, kind, roles, prefix, created_at, created_by, expires_at, revoked_at,
       last_used_at, coalesce(expires_at <= clock_timestamp(), false) AS expired"""
_ADD = f"""
INSERT INTO stepgate.api_keys (id, tenant_id, name, kind, roles, prefix, digest, created_at, created_by, expires_at)
VALUES ($1::uuid, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8, $9)
RETURNING {_COLUMNS}
"""
_FIND = f"SELECT {_COLUMNS}, digest FROM stepgate.api_keys WHERE prefix = $1"
_NAMED = f"SELECT {_COLUMNS} FROM stepgate.api_keys WHERE tenant_id = $1 AND name = $2"
_PAGE = f"SELECT {_COLUMNS} FROM stepgate.api_keys WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3"
_REVOKE = f"""
UPDATE stepgate.api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE tenant_id = $1 AND name = $2 RETURNING {_COLUMNS}
"""
_ANY = "SELECT EXISTS (SELECT FROM stepgate.api_keys)"
# Once a minute is enough to see which keys are in use, and costs a request nothing.
_USED = """
UPDATE stepgate.api_keys SET last_used_at = clock_timestamp()
WHERE id = $1::uuid AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 minute')
"""


class KeyRow(NamedTuple):
    """One key; `expired` by the database's clock, `digest` only where it was found by its prefix."""

    id: str
    tenant_id: str
    name: str
    kind: str
    roles: Collection[str]
    prefix: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    expired: bool
    digest: bytes = b""


class ApiKeys:
    """The keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        key: NewKey,
        *,
        tenant: str,
        name: str,
        kind: str,
        roles: Collection[str],
        created_by: str,
        expires_at: datetime | None,
    ) -> KeyRow:
        """Raises Conflict `name_taken`: a name stands in journals, so it is never given twice, revoked or not."""
        values = (new_id(), tenant, name, kind, list(roles), key.prefix, key.digest, created_by, expires_at)
        async with self._database.session() as connection:
            try:
                row = await connection.fetchrow(_ADD, *values)
            except asyncpg.UniqueViolationError as error:
                raise Conflict(
                    f"there is, or was, a key named {name}", code="name_taken", field="name", fix="choose another name"
                ) from error
        return _row(row)

    async def find(self, prefix: str) -> KeyRow | None:
        """With its digest; also a key that is expired or revoked."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_FIND, prefix)
        return None if row is None else _row(row)

    async def named(self, tenant: str, name: str) -> KeyRow | None:
        """Also a key that is expired or revoked."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_NAMED, tenant, name)
        return None if row is None else _row(row)

    async def page(self, tenant: str, after: str, limit: int) -> list[KeyRow]:
        """In order of their names."""
        async with self._database.session() as connection:
            return [_row(row) for row in await connection.fetch(_PAGE, tenant, after, limit)]

    async def revoke(self, tenant: str, name: str) -> KeyRow | None:
        """At once and for good; None where there is no such key."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_REVOKE, tenant, name)
        return None if row is None else _row(row)

    async def any(self) -> bool:
        """Whether there ever was one: revoking the last must not open what keys had closed."""
        async with self._database.session() as connection:
            return bool(await connection.fetchval(_ANY))

    async def used(self, key_id: str) -> None:
        """Notes that it is in use, to the minute."""
        async with self._database.session() as connection:
            await connection.execute(_USED, key_id)


def _row(row: Any) -> KeyRow:
    return KeyRow(**dict(row))
