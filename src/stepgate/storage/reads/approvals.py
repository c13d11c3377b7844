"""Questions over all runs of a tenant, as the inbox shows them, and what is told of any question."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.storage.reads.snapshot import Row, rows

# Of question `r` and its standing decision `d`.
TOLD = """
       r.id AS request_id, r.revision, r.action_hash, r.risk, r.required, r.roles, r.exclude_requester, r.on_expiry,
       r.policy_version, r.matched_rules, r.requested_at, r.expires_at, r.status AS request_status,
       octet_length(r.rendering) AS rendering_size,
       (SELECT CAST(json_agg(json_build_object(
            'actor', v.actor, 'kind', v.actor_kind, 'channel', v.channel, 'on_behalf_of', v.on_behalf_of,
            'roles', v.roles, 'at', to_char(v.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'reason', v.reason, 'implied', v.implied) ORDER BY v.number) AS text)
        FROM stepgate.approval_decisions AS v
        WHERE v.run_id = r.run_id AND v.request_id = r.id AND v.verdict = 'approved') AS approvals,
       d.actor, d.actor_kind, d.channel, d.on_behalf_of, d.verdict, d.reason AS decision_reason, d."then", d.implied,
       d.at AS decided_at, d.action_hash AS decided_hash
"""
STANDING = """
LEFT JOIN stepgate.approval_decisions AS d ON d.run_id = r.run_id AND d.request_id = r.id AND d.settles
"""

_QUESTIONS = f"""
SELECT r.run_id, r.step_id, r.rendering, s.key, s.number, s.type, u.goal, {TOLD}
FROM stepgate.approval_requests AS r
JOIN stepgate.steps AS s ON s.run_id = r.run_id AND s.id = r.step_id
JOIN stepgate.runs AS u ON u.id = r.run_id
{STANDING}
"""
# The open ones have an index of their own, in the order of their ids, which is the order they were asked in.
_PAGE = text(f"""{_QUESTIONS}
WHERE r.tenant_id = :tenant AND r.status = :status AND (CAST(:after AS uuid) IS NULL OR r.id > CAST(:after AS uuid))
ORDER BY r.id
LIMIT :limit
""")
_ONE = text(f"{_QUESTIONS} WHERE r.tenant_id = :tenant AND r.id = CAST(:id AS uuid)")


async def page(connection: AsyncConnection, tenant: str, status: str, after: str | None, limit: int) -> list[Row]:
    """A tenant's, the oldest first, those asked after `after`."""
    return await rows(connection, _PAGE, {"tenant": tenant, "status": status, "after": after, "limit": limit})


async def get(connection: AsyncConnection, tenant: str, request_id: str) -> Row | None:
    """One question of a tenant, whatever became of it."""
    found = await rows(connection, _ONE, {"tenant": tenant, "id": request_id})
    return found[0] if found else None
