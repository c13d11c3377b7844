"""What was done under an idempotency key, read back for a request that comes again."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.storage.reads.snapshot import Row, rows

# The record is written in the transaction of its events, so the number of that transaction joins the two: `xmin` is
# its lower half, `tx` the whole.
_FOUND = text("""
SELECT k.request_sha256, k.run_id, k.response, (
    SELECT array_agg(named.id ORDER BY e.seq, named.place)
    FROM stepgate.events AS e
    CROSS JOIN LATERAL (
        SELECT CAST(e.step_id AS text) AS id, 0 AS place WHERE e.type IN ('run.queued', 'step.added')
        UNION ALL
        SELECT planned.step ->> 'id', planned.place
        FROM jsonb_array_elements(
            CASE WHEN e.type = 'run.planned' THEN CAST(e.body AS jsonb) #> '{data,steps}' ELSE '[]' END
        ) WITH ORDINALITY AS planned(step, place)
    ) AS named
    WHERE e.run_id = k.run_id AND named.id IS NOT NULL
      AND CAST(CAST(e.tx AS text) AS numeric) % 4294967296 = CAST(CAST(k.xmin AS text) AS numeric)
) AS step_ids
FROM stepgate.idempotency_keys AS k
WHERE k.tenant_id = :tenant AND k.scope = :scope AND k.key = :key
""")


async def find(connection: AsyncConnection, tenant: str, scope: str, key: str) -> Row | None:
    """The digest of the first request, its run, and the steps it granted or added, in the order of the journal.

    `response` is the name of the workspace where the request was about one, and then there is no run.
    """
    found = await rows(connection, _FOUND, {"tenant": tenant, "scope": scope, "key": key})
    return found[0] if found else None
