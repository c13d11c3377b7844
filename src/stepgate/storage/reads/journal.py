"""A run's events as they are stored, and what its model calls cost by model."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.domain.ids import RunId
from stepgate.storage.reads.snapshot import Row, rows

_EVENTS = text("""
SELECT seq, type, step_id, at, body, prev_hash, hash FROM stepgate.events
WHERE run_id = :run_id AND seq > :after ORDER BY seq LIMIT :limit
""")

_BY_MODEL = text("""
SELECT coalesce(model_used, model_asked) AS model, count(*) AS model_calls,
       count(*) FILTER (WHERE cost_usd IS NULL) AS unknown_cost_calls, coalesce(sum(cost_usd), 0) AS known_cost_usd,
       CAST(sum(tokens_input) AS bigint) AS tokens_input, CAST(sum(tokens_output) AS bigint) AS tokens_output,
       CAST(sum(tokens_cached) AS bigint) AS tokens_cached, CAST(sum(tokens_reasoning) AS bigint) AS tokens_reasoning
FROM stepgate.model_calls WHERE run_id = :run_id GROUP BY 1 ORDER BY 1 NULLS LAST
""")

_BY_STEP = text("""
SELECT id, key, number, model_calls, unknown_cost_calls, known_cost_usd, cost_source, model,
       tokens_input, tokens_output, tokens_cached, tokens_reasoning
FROM stepgate.steps WHERE run_id = :run_id AND model_calls > 0 ORDER BY number
""")


async def events(connection: AsyncConnection, run_id: RunId, after: int, limit: int) -> list[Row]:
    """Events with a higher number than `after`; `body` is the hashed text."""
    return await rows(connection, _EVENTS, {"run_id": run_id, "after": after, "limit": limit})


async def cost_by_model(connection: AsyncConnection, run_id: RunId) -> list[Row]:
    return await rows(connection, _BY_MODEL, {"run_id": run_id})


async def cost_by_step(connection: AsyncConnection, run_id: RunId) -> list[Row]:
    """Steps that called a model, in order of number."""
    return await rows(connection, _BY_STEP, {"run_id": run_id})
