"""The steps that keep runs from moving: they ask, failed and wait to try again, need a look, or wait for `execute`."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.domain.ids import RunId
from stepgate.storage.reads.snapshot import Row, rows

MOST = 100
"""Per run; a wide plan may ask thousands of questions at once."""

_QUESTIONS = text("""
SELECT r.run_id, s.id, s.number, s.status, s.retry_at, r.expires_at
FROM unnest(CAST(:run_ids AS uuid[])) AS run(id)
CROSS JOIN LATERAL (
    SELECT q.run_id, q.step_id, q.expires_at FROM stepgate.approval_requests AS q
    WHERE q.run_id = run.id AND q.status = 'open' ORDER BY q.id LIMIT :most
) AS r
JOIN stepgate.steps AS s ON s.run_id = r.run_id AND s.id = r.step_id
WHERE s.status = 'awaiting_approval'
ORDER BY r.run_id, s.number
""")

_TROUBLE = text("""
SELECT s.run_id, s.id, s.number, s.status, s.retry_at, CAST(NULL AS timestamptz) AS expires_at
FROM unnest(CAST(:run_ids AS uuid[])) AS run(id)
CROSS JOIN LATERAL (
    SELECT * FROM stepgate.steps AS t
    WHERE t.run_id = run.id
      AND (t.status = 'needs_review' OR (t.status IN ('pending', 'approved') AND t.retry_at IS NOT NULL))
    ORDER BY t.number LIMIT :most
) AS s
ORDER BY s.run_id, s.number
""")

# The step that `execute` would grant: the lowest-numbered one whose needs are all satisfied. What satisfies a need
# is the rule of `domain.state.satisfies`.
_NEXT = text("""
SELECT run.id AS run_id, s.id
FROM unnest(CAST(:run_ids AS uuid[])) AS run(id)
CROSS JOIN LATERAL (
    SELECT t.id FROM stepgate.steps AS t
    WHERE t.run_id = run.id AND t.status IN ('pending', 'approved') AND NOT t.granted AND t.retry_at IS NULL
      AND NOT EXISTS (
          SELECT FROM stepgate.step_needs AS n
          JOIN stepgate.steps AS u ON u.run_id = n.run_id AND u.id = n.need_id
          WHERE n.run_id = t.run_id AND n.step_id = t.id
            AND NOT (
                u.status IN ('completed', 'skipped')
                OR (u.status = 'failed' AND u.on_error = 'continue')
                OR (u.status = 'rejected' AND EXISTS (
                    SELECT FROM stepgate.approval_requests AS q
                    JOIN stepgate.approval_decisions AS d ON d.run_id = q.run_id AND d.request_id = q.id AND d.settles
                    WHERE q.run_id = u.run_id AND q.step_id = u.id AND d."then" = 'skip'
                ))
            )
      )
    ORDER BY t.number LIMIT 1
) AS s
""")


async def questions(connection: AsyncConnection, run_ids: Sequence[RunId]) -> list[Row]:
    """Steps of these runs with an open question, in order of number."""
    return await rows(connection, _QUESTIONS, {"run_ids": list(run_ids), "most": MOST})


async def trouble(connection: AsyncConnection, run_ids: Sequence[RunId]) -> list[Row]:
    """Steps of these runs that wait for another attempt or for a look, in order of number."""
    return await rows(connection, _TROUBLE, {"run_ids": list(run_ids), "most": MOST})


async def next_steps(connection: AsyncConnection, run_ids: Sequence[RunId]) -> dict[RunId, str]:
    """For each of these runs the step that the next `execute` would let run, where there is one."""
    return {row["run_id"]: row["id"] for row in await rows(connection, _NEXT, {"run_ids": list(run_ids)})}
