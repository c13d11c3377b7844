"""What running commands print, kept in the database for as long as they run so that any process can show it."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepgate.domain.ids import RunId, StepId
from stepgate.storage.database import Database
from stepgate.storage.errors import is_lost, translated

ANSWER_S = 5.0

# A worker that lost the run writes nothing more: its successor may be showing the same step already.
_WRITE = """
INSERT INTO stepgate.output_chunks (run_id, step_id, attempt, seq, stream, at, text)
SELECT chunk.run_id, chunk.step_id, chunk.attempt, chunk.seq, chunk.stream,
       to_timestamp(chunk.seq / 1000000.0), chunk.text
FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[], $5::bigint[], $6::text[], $7::text[])
     AS chunk(run_id, step_id, epoch, attempt, seq, stream, text)
JOIN stepgate.runs AS run ON run.id = chunk.run_id AND run.lease_epoch = chunk.epoch
ON CONFLICT DO NOTHING
"""
_FORGET = """
DELETE FROM stepgate.output_chunks AS chunk
USING unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS old(run_id, step_id, seq)
WHERE chunk.run_id = old.run_id AND chunk.step_id = old.step_id AND chunk.seq <= old.seq
"""
FORGET_UNDRIVEN = """
DELETE FROM stepgate.output_chunks AS chunk
WHERE NOT EXISTS (SELECT FROM stepgate.runs WHERE runs.id = chunk.run_id AND runs.worker_id IS NOT NULL)
"""
"""What workers left that died; only those that drive a run write."""


class Place(NamedTuple):
    """Which attempt of which step prints, under which lease of its run."""

    run_id: RunId
    step_id: StepId
    epoch: int
    attempt: int


class Chunk(NamedTuple):
    """`seq` grows within a step over all attempts and workers: it is the time in microseconds. `text` has no NUL."""

    place: Place
    seq: int
    stream: str
    text: str


class Upto(NamedTuple):
    """The chunks of a step with this number and lower ones."""

    run_id: RunId
    step_id: StepId
    seq: int


class OutputChunks:
    """Writes over a connection of its own, so that nothing else waits for it. For one task at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Any = None

    async def write(self, chunks: Sequence[Chunk]) -> None:
        """Raises DatabaseUnavailable; the next call connects anew."""
        columns = zip(*((*chunk.place, *chunk[1:]) for chunk in chunks), strict=True)
        await self._execute(_WRITE, *(list(column) for column in columns))

    async def forget(self, upto: Sequence[Upto]) -> None:
        """Raises DatabaseUnavailable; the next call connects anew."""
        await self._execute(_FORGET, *(list(column) for column in zip(*upto, strict=True)))

    async def close(self) -> None:
        """The next call would connect anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _execute(self, statement: str, *values: Any) -> None:
        with translated(self._database.place):
            try:
                async with asyncio.timeout(ANSWER_S):
                    if self._connection is None:
                        self._connection = await self._database.connect("live output")
                    await self._connection.execute(statement, *values)
            except BaseException as error:
                if is_lost(error) or not isinstance(error, Exception):
                    await self.close()
                raise
