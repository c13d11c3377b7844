"""What runs began from: the private copy that was made for them, and the commit their repository stood at."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from stepgate.domain.ids import RunId
from stepgate.storage.database import Database

_RECORD = """
INSERT INTO stepgate.run_origins
    (run_id, tenant_id, git_ref, git_commit, copied_files, copied_bytes, left_out, recorded_at)
SELECT run.id, run.tenant_id, $2, $3, $4, $5, $6, clock_timestamp() FROM stepgate.runs AS run WHERE run.id = $1::uuid
ON CONFLICT (run_id) DO NOTHING
"""
_GET = """
SELECT git_ref, git_commit, copied_files, copied_bytes, left_out, recorded_at, discarded_at
FROM stepgate.run_origins WHERE run_id = $1::uuid
"""
_DISCARD = """
INSERT INTO stepgate.run_origins (run_id, tenant_id, recorded_at, discarded_at)
SELECT run.id, run.tenant_id, clock_timestamp(), clock_timestamp() FROM stepgate.runs AS run WHERE run.id = $1::uuid
ON CONFLICT (run_id) DO UPDATE SET discarded_at = coalesce(run_origins.discarded_at, excluded.discarded_at)
"""


class Origin(NamedTuple):
    """`git_ref` is the branch's full name, None where HEAD was detached or there is no repository; `git_commit` is
    None where there is none (yet). `left_out` are `(path, reason)` of what is not in the copy."""

    git_ref: str | None = None
    git_commit: str | None = None
    copied_files: int | None = None
    copied_bytes: int | None = None
    left_out: Sequence[tuple[str, str]] = ()
    recorded_at: datetime | None = None
    discarded_at: datetime | None = None


class Origins:
    """One row for each run that works on a copy or in a repository."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, run_id: RunId, origin: Origin) -> None:
        """What was recorded first stays."""
        left_out = None if origin.copied_files is None else orjson.dumps(origin.left_out).decode()
        async with self._database.session() as connection:
            await connection.execute(
                _RECORD,
                run_id,
                origin.git_ref,
                origin.git_commit,
                origin.copied_files,
                origin.copied_bytes,
                left_out,
            )

    async def get(self, run_id: RunId) -> Origin | None:
        """None while nothing was recorded."""
        async with self._database.session() as connection:
            row: Any = await connection.fetchrow(_GET, run_id)
        if row is None:
            return None
        left_out = [tuple(pair) for pair in orjson.loads(row["left_out"] or "[]")]
        return Origin(**{**row, "left_out": left_out})

    async def discard(self, run_id: RunId) -> None:
        """From now on no copy is made for the run, and what there is may be removed; twice changes nothing."""
        async with self._database.session() as connection:
            await connection.execute(_DISCARD, run_id)
