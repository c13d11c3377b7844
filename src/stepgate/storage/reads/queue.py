"""How much work waits, for how long, and for how many workers."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stepgate.storage.database import Database
from stepgate.storage.reads.snapshot import Row, rows

_QUEUE = text("""
SELECT (SELECT count(*) FROM stepgate.workers WHERE lease_until > clock_timestamp()) AS workers,
       count(*) AS due,
       CAST(extract(epoch FROM clock_timestamp() - min(wake_at)) AS double precision) AS oldest_due_s
FROM stepgate.runs
WHERE worker_id IS NULL AND wake_at IS NOT NULL AND wake_at <= clock_timestamp()
  AND (held_until IS NULL OR held_until <= clock_timestamp())
""")


async def server_version(database: Database) -> str:
    """Asks the server for its version; raises DatabaseUnavailable."""
    async with database.begin() as connection:
        return str(await connection.scalar(text("SELECT current_setting('server_version')")))


async def queue(connection: AsyncConnection) -> Row:
    """`workers` with a lease, runs `due`, and how long the first of these has waited (None: there is none)."""
    return (await rows(connection, _QUEUE))[0]
