"""A run's events as they are stored."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.domain.ids import RunId
from stepgate.storage.reads.snapshot import Row, rows

_EVENTS = text("""
SELECT seq, type, step_id, at, body, prev_hash, hash FROM stepgate.events
WHERE run_id = :run_id AND seq > :after ORDER BY seq LIMIT :limit
""")


async def events(connection: AsyncConnection, run_id: RunId, after: int, limit: int) -> list[Row]:
    """Events with a higher number than `after`; `body` is the hashed text."""
    return await rows(connection, _EVENTS, {"run_id": run_id, "after": after, "limit": limit})
