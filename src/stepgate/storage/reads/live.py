"""What running commands have printed, for people who watch."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.domain.ids import RunId, StepId
from stepgate.storage.reads.snapshot import Row, rows

_CHUNKS = text("""
SELECT seq, attempt, stream, at, text FROM stepgate.output_chunks
WHERE run_id = :run_id AND step_id = :step_id AND seq > :after
ORDER BY seq
LIMIT :limit
""")
_STATUS = text("SELECT status FROM stepgate.steps WHERE run_id = :run_id AND id = :step_id")


async def status(connection: AsyncConnection, run_id: RunId, step_id: StepId) -> str | None:
    """The step's status, None where there is no such step."""
    found = await rows(connection, _STATUS, {"run_id": run_id, "step_id": step_id})
    return found[0]["status"] if found else None


async def chunks(connection: AsyncConnection, run_id: RunId, step_id: StepId, after: int, limit: int) -> list[Row]:
    """In the order they were printed, those after the number `after`."""
    return await rows(connection, _CHUNKS, {"run_id": run_id, "step_id": step_id, "after": after, "limit": limit})
