"""Whose approvals others may give, and when: kept for good, ended by a mark."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from stepgate.domain.ids import new_id
from stepgate.storage.database import Database

_COLUMNS = """id::text AS id, delegator, delegate, roles, reason, starts_at, ends_at, created_at, revoked_at,
       revoked_by, revoked_at IS NULL AND starts_at <= clock_timestamp() AND clock_timestamp() < ends_at AS stands"""
# One that is still to come or stands already says the same: the request that made it came twice, or was forgotten.
_ADD = f"""
INSERT INTO stepgate.delegations (id, tenant_id, delegator, delegate, roles, reason, starts_at, ends_at, created_at)
SELECT $1::uuid, $2, $3, $4, $5::text[], $6, $7, $8, clock_timestamp()
WHERE NOT EXISTS (
    SELECT FROM stepgate.delegations
    WHERE tenant_id = $2 AND delegator = $3 AND delegate = $4 AND revoked_at IS NULL
      AND starts_at < $8 AND $7 < ends_at
)
RETURNING {_COLUMNS}
"""
_PAGE = f"""
SELECT {_COLUMNS} FROM stepgate.delegations
WHERE tenant_id = $1 AND ($2::uuid IS NULL OR id < $2::uuid) ORDER BY id DESC LIMIT $3
"""
_GET = f"SELECT {_COLUMNS} FROM stepgate.delegations WHERE tenant_id = $1 AND id = $2::uuid"
_STANDING = f"""
SELECT {_COLUMNS} FROM stepgate.delegations
WHERE tenant_id = $1 AND delegate = $2 AND delegator = $3 AND revoked_at IS NULL
  AND starts_at <= clock_timestamp() AND clock_timestamp() < ends_at
ORDER BY ends_at DESC LIMIT 1
"""
_REVOKE = f"""
UPDATE stepgate.delegations
SET revoked_by = CASE WHEN revoked_at IS NULL THEN $3 ELSE revoked_by END,
    revoked_at = coalesce(revoked_at, clock_timestamp())
WHERE tenant_id = $1 AND id = $2::uuid RETURNING {_COLUMNS}
"""


class DelegationRow(NamedTuple):
    """One delegation; `stands` by the database's clock, `roles` those that the delegator had when it was made."""

    id: str
    delegator: str
    delegate: str
    roles: Collection[str]
    reason: str | None
    starts_at: datetime
    ends_at: datetime
    created_at: datetime
    revoked_at: datetime | None
    revoked_by: str | None
    stands: bool


class DelegationRows:
    """The delegations of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self,
        *,
        tenant: str,
        delegator: str,
        delegate: str,
        roles: Collection[str],
        reason: str | None,
        starts_at: datetime,
        ends_at: datetime,
    ) -> DelegationRow | None:
        """None where the two have one already at some time in between."""
        values = (new_id(), tenant, delegator, delegate, list(roles), reason, starts_at, ends_at)
        return await self._one(_ADD, *values)

    async def page(self, tenant: str, before: str | None, limit: int) -> list[DelegationRow]:
        """The newest first, also those that are over."""
        async with self._database.session() as connection:
            return [_row(row) for row in await connection.fetch(_PAGE, tenant, before, limit)]

    async def get(self, tenant: str, delegation_id: str) -> DelegationRow | None:
        return await self._one(_GET, tenant, delegation_id)

    async def standing(self, tenant: str, delegate: str, delegator: str) -> DelegationRow | None:
        """The one that counts at this moment and lasts longest."""
        return await self._one(_STANDING, tenant, delegate, delegator)

    async def revoke(self, tenant: str, delegation_id: str, by: str) -> DelegationRow | None:
        """At once and for good; None where there is none."""
        return await self._one(_REVOKE, tenant, delegation_id, by)

    async def _one(self, query: str, *values: Any) -> DelegationRow | None:
        async with self._database.session() as connection:
            row = await connection.fetchrow(query, *values)
        return None if row is None else _row(row)


def _row(row: Any) -> DelegationRow:
    return DelegationRow(**dict(row))
