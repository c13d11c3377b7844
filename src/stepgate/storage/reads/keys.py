"""What was done under an idempotency key, read back for a request that comes again."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.storage.reads.snapshot import Row, rows

# The record is written in the transaction of its events, so the number of that transaction joins the two: `xmin` is
# its lower half, `tx` the whole.
_FOUND = text("""
SELECT k.request_sha256, k.run_id, (
    SELECT array_agg(CAST(named.step_id AS text) ORDER BY named.first) FROM (
        SELECT e.step_id, min(e.seq) AS first FROM stepgate.events AS e
        WHERE e.run_id = k.run_id AND e.step_id IS NOT NULL AND e.type IN ('run.queued', 'step.added')
          AND CAST(CAST(e.tx AS text) AS numeric) % 4294967296 = CAST(CAST(k.xmin AS text) AS numeric)
        GROUP BY e.step_id
    ) AS named
) AS step_ids
FROM stepgate.idempotency_keys AS k
WHERE k.tenant_id = 'default' AND k.scope = :scope AND k.key = :key
""")


async def find(connection: AsyncConnection, scope: str, key: str) -> Row | None:
    """The digest of the first request, its run, and the steps it granted or added, in the order of the journal."""
    found = await rows(connection, _FOUND, {"scope": scope, "key": key})
    return found[0] if found else None
