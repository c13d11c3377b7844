"""Questions over all runs, as the inbox shows them."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.storage.reads.snapshot import Row, rows

# The open ones have an index of their own, in the order of their ids, which is the order they were asked in.
_PAGE = text("""
SELECT r.id AS request_id, r.run_id, r.step_id, r.revision, r.action_hash, r.risk, r.rendering,
       octet_length(r.rendering) AS rendering_size, r.required, r.on_expiry, r.policy_version, r.matched_rules,
       r.requested_at, r.expires_at, r.status AS request_status, s.key, s.number, s.type, u.goal,
       d.actor, d.actor_kind, d.channel, d.verdict, d.reason AS decision_reason, d."then", d.implied,
       d.at AS decided_at, d.action_hash AS decided_hash
FROM stepgate.approval_requests AS r
JOIN stepgate.steps AS s ON s.run_id = r.run_id AND s.id = r.step_id
JOIN stepgate.runs AS u ON u.id = r.run_id
LEFT JOIN stepgate.approval_decisions AS d ON d.run_id = r.run_id AND d.request_id = r.id
WHERE r.status = :status AND (CAST(:after AS uuid) IS NULL OR r.id > CAST(:after AS uuid))
ORDER BY r.id
LIMIT :limit
""")


async def page(connection: AsyncConnection, status: str, after: str | None, limit: int) -> list[Row]:
    """The oldest first, those asked after `after`."""
    return await rows(connection, _PAGE, {"status": status, "after": after, "limit": limit})
