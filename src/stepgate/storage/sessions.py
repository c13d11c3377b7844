"""Who is signed in at the console: a row for each session, found by the digest of what the browser holds."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from stepgate.storage.database import Database

_ADD = """
INSERT INTO stepgate.console_sessions
    (digest, tenant_id, name, kind, roles, key_prefix, proof, csrf, created_at, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp(),
       least(clock_timestamp() + make_interval(secs => $9), $10::timestamptz)
"""
# A session that stands on a key ends with it, and may what the key may.
_FIND = """
SELECT s.tenant_id, s.name, s.kind, coalesce(k.roles, s.roles) AS roles, s.proof, s.csrf
FROM stepgate.console_sessions AS s
LEFT JOIN stepgate.api_keys AS k ON k.prefix = s.key_prefix
WHERE s.digest = $1 AND s.expires_at > clock_timestamp()
  AND (s.key_prefix IS NULL
       OR (k.revoked_at IS NULL AND k.id IS NOT NULL
           AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())))
"""
_REMOVE = "DELETE FROM stepgate.console_sessions WHERE digest = $1 OR expires_at <= clock_timestamp()"


class SessionRow(NamedTuple):
    """`proof` is the digest of the secret that it was opened with, where that was no key."""

    tenant_id: str
    name: str
    kind: str
    roles: Collection[str]
    proof: bytes | None
    csrf: str


class SessionRows:
    """The sessions of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        digest: bytes,
        row: SessionRow,
        *,
        key_prefix: str | None,
        lasts_s: float,
        until: datetime | None,
    ) -> None:
        """It ends after `lasts_s` seconds, or at `until` where that comes first."""
        values = (digest, row.tenant_id, row.name, row.kind, list(row.roles), key_prefix, row.proof, row.csrf)
        async with self._database.session() as connection:
            await connection.execute(_ADD, *values, lasts_s, until)

    async def find(self, digest: bytes) -> SessionRow | None:
        """None where there is none, where its time is over, or where its key counts no more."""
        async with self._database.session() as connection:
            row: Any = await connection.fetchrow(_FIND, digest)
        return None if row is None else SessionRow(**dict(row))

    async def remove(self, digest: bytes) -> None:
        """With all whose time is over."""
        async with self._database.session() as connection:
            await connection.execute(_REMOVE, digest)
