"""Steps as they are now, each with its latest question and the decision on it."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.domain.ids import RunId, StepId
from stepgate.storage.reads.approvals import STANDING, TOLD
from stepgate.storage.reads.snapshot import Row, rows

# The latest revision by the index on (run_id, step_id, revision); a step asks again only when its action changed.
_STEPS = f"""
SELECT s.id, s.run_id, s.key, s.number, s.parent_id, s.type, s.status, s.reason, s.effect, s.gate, s.why,
       s.input_sha256, s.input_size, CASE WHEN s.input_size <= :inline THEN s.input END AS input,
       s.output_sha256, s.output_size, s.output IS NOT NULL AS has_output,
       CASE WHEN octet_length(s.output) <= :inline THEN s.output END AS output,
       s.error, s.attempt, s.max_attempts, s.retry_at, s.model_calls, s.unknown_cost_calls, s.known_cost_usd,
       s.cost_source, s.model, s.tokens_input, s.tokens_output, s.tokens_cached, s.tokens_reasoning, s.latency_ms,
       s.change_set_id, s.workspace_before, s.workspace_after, s.created_at, s.started_at, s.completed_at,
       CASE WHEN octet_length(r.rendering) <= :inline THEN r.rendering END AS rendering, {TOLD}
FROM stepgate.steps AS s
LEFT JOIN LATERAL (
    SELECT * FROM stepgate.approval_requests AS q
    WHERE q.run_id = s.run_id AND q.step_id = s.id ORDER BY q.revision DESC LIMIT 1
) AS r ON true
{STANDING}
WHERE s.run_id = :run_id
"""
_PAGE = text(f"{_STEPS} AND s.number > :after ORDER BY s.number LIMIT :limit")
_ONE = text(f"{_STEPS} AND s.id = :step_id")

_NEEDS = text("""
SELECT n.step_id, s.key
FROM stepgate.step_needs AS n
JOIN stepgate.steps AS s ON s.run_id = n.run_id AND s.id = n.need_id
WHERE n.run_id = :run_id AND n.step_id = ANY(CAST(:step_ids AS uuid[]))
ORDER BY n.step_id, n.position
""")

_NUMBER = text("SELECT number FROM stepgate.steps WHERE run_id = :run_id AND id = :step_id")

_NAMED = text("""
SELECT id FROM stepgate.steps
WHERE run_id = :run_id AND (key = :name OR CAST(number AS text) = :name OR CAST(id AS text) = :name)
ORDER BY key = :name DESC
LIMIT 1
""")

_OUTPUT = text("""
SELECT id, status, output, output_sha256, output_size FROM stepgate.steps WHERE run_id = :run_id AND id = :step_id
""")

EVERYTHING = 1 << 40


async def page(connection: AsyncConnection, run_id: RunId, after: int, limit: int, inline: int) -> list[Row]:
    """Steps with a higher number than `after`; texts of more than `inline` bytes are None."""
    return await rows(connection, _PAGE, {"run_id": run_id, "after": after, "limit": limit, "inline": inline})


async def get(connection: AsyncConnection, run_id: RunId, step_id: StepId) -> Row | None:
    """One step with everything."""
    found = await rows(connection, _ONE, {"run_id": run_id, "step_id": step_id, "inline": EVERYTHING})
    return found[0] if found else None


async def needs(connection: AsyncConnection, run_id: RunId, step_ids: Sequence[str]) -> dict[str, list[str]]:
    """The keys each of these steps waits for, in the order of its definition."""
    found: dict[str, list[str]] = {}
    for row in await rows(connection, _NEEDS, {"run_id": run_id, "step_ids": list(step_ids)}):
        found.setdefault(row["step_id"], []).append(row["key"])
    return found


async def number(connection: AsyncConnection, run_id: RunId, step_id: StepId) -> int | None:
    found = await rows(connection, _NUMBER, {"run_id": run_id, "step_id": step_id})
    return None if not found else int(found[0]["number"])


async def named(connection: AsyncConnection, run_id: RunId, name: str) -> StepId | None:
    """The step of this key, number or id; a key goes first."""
    found = await rows(connection, _NAMED, {"run_id": run_id, "name": name})
    return StepId(found[0]["id"]) if found else None


async def output(connection: AsyncConnection, run_id: RunId, step_id: StepId) -> Row | None:
    """The recorded output, None where there is no such step."""
    found = await rows(connection, _OUTPUT, {"run_id": run_id, "step_id": step_id})
    return found[0] if found else None
