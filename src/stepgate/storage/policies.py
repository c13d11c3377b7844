"""Policy versions as they are kept: added, never changed; the number says in which order."""

from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from stepgate.domain.errors import Conflict
from stepgate.domain.policy.decide import BUILTIN_VERSION
from stepgate.storage.database import Database

FILE = "file"
API = "api"
ATTEMPTS = 20

_COLUMNS = "number, version, content, source, created_by, created_at"
# The number is the next one; where another process takes it first, its key refuses this row.
_ADD = f"""
INSERT INTO stepgate.policy_versions (number, version, content, source, created_by, created_at)
SELECT coalesce(max(number), 0) + 1, $1, $2, $3, $4, clock_timestamp() FROM stepgate.policy_versions
WHERE tenant_id = 'default'
RETURNING {_COLUMNS}
"""
_LATEST = f"""
SELECT {_COLUMNS} FROM stepgate.policy_versions WHERE tenant_id = 'default' AND source = $1
ORDER BY number DESC LIMIT 1
"""
_FIND = f"""
SELECT {_COLUMNS} FROM stepgate.policy_versions WHERE tenant_id = 'default' AND starts_with(version, $1)
ORDER BY number DESC LIMIT 1
"""
_OF_FILE = f"""
SELECT {_COLUMNS} FROM stepgate.policy_versions WHERE tenant_id = 'default' AND version = $1 AND source = 'file'
"""
_PAGE = f"""
SELECT {_COLUMNS} FROM stepgate.policy_versions WHERE tenant_id = 'default' AND number < $1
ORDER BY number DESC LIMIT $2
"""


class PolicyRow(NamedTuple):
    """One version; `content` is the canonical JSON whose sha256 it is named by."""

    number: int
    version: str
    content: str
    source: str
    created_by: str
    created_at: datetime


class PolicyVersions:
    """The versions of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, version: str, content: str, by: str) -> PolicyRow:
        """Records what a file holds, once for every version; returns what is recorded."""
        async with self._database.session() as connection:
            for _ in range(ATTEMPTS):
                known = await connection.fetchrow(_OF_FILE, version)
                if known is not None:
                    return _row(known)
                try:
                    return _row(await connection.fetchrow(_ADD, version, content, FILE, by))
                except asyncpg.UniqueViolationError:
                    continue
        raise _crowded()

    async def add(self, version: str, content: str, by: str, replaces: str | None) -> PolicyRow:
        """The current version of the API from now on; again, while it is that: nothing new.

        `replaces` is the version that it was made from, None for any. Raises Conflict `policy_changed` where another
        one is current.
        """
        async with self._database.session() as connection:
            for _ in range(ATTEMPTS):
                try:
                    # Serializable would do as well; the next number as the key is cheaper and says the same.
                    async with connection.transaction(isolation="repeatable_read"):
                        current = await connection.fetchrow(_LATEST, API)
                        standing = BUILTIN_VERSION if current is None else str(current["version"])
                        if current is not None and standing == version:
                            return _row(current)
                        if replaces is not None and replaces != standing:
                            raise _changed(standing)
                        return _row(await connection.fetchrow(_ADD, version, content, API, by))
                except asyncpg.UniqueViolationError:
                    continue
        raise _crowded()

    async def latest(self, source: str) -> PolicyRow | None:
        """The newest of this source."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_LATEST, source)
        return None if row is None else _row(row)

    async def find(self, version: str) -> PolicyRow | None:
        """The version, or the newest one that begins so, as it was recorded last."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_FIND, version)
        return None if row is None else _row(row)

    async def page(self, before: int, limit: int) -> list[PolicyRow]:
        """The newest first, those with a lower number than `before`."""
        async with self._database.session() as connection:
            return [_row(row) for row in await connection.fetch(_PAGE, before, limit)]


def _row(row: Any) -> PolicyRow:
    return PolicyRow(**dict(row))


def _changed(standing: str) -> Conflict:
    return Conflict(
        "other rules became current meanwhile",
        code="policy_changed",
        field="replaces",
        fix="look at the current policy, make the change to that one, and send its version",
        details={"version": standing},
    )


def _crowded() -> Conflict:
    return Conflict("other rules keep being added", code="try_again", fix="send the request again")
