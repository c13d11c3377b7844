"""The texts whose digests are journaled, as a worker needs them: inputs, outputs, renderings."""

from collections.abc import Collection

from stepgate.domain.errors import NotFound
from stepgate.domain.ids import RequestId, RunId, StepId
from stepgate.storage.database import Database

_INPUT = "SELECT input FROM stepgate.steps WHERE run_id = $1::uuid AND id = $2::uuid"
_OUTPUTS = """
SELECT id::text AS id, output FROM stepgate.steps
WHERE run_id = $1::uuid AND id = ANY($2::uuid[]) AND output IS NOT NULL
"""
_RENDERING = "SELECT rendering FROM stepgate.approval_requests WHERE run_id = $1::uuid AND id = $2::uuid"


class Bodies:
    """Canonical JSON as it was hashed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def input(self, run_id: RunId, step_id: StepId) -> str:
        """A step's input, references still as written. Raises NotFound."""
        return await self._one(_INPUT, run_id, step_id)

    async def outputs(self, run_id: RunId, step_ids: Collection[StepId]) -> dict[StepId, str]:
        """The outputs that are recorded, by step."""
        if not step_ids:
            return {}
        async with self._database.session() as connection:
            rows = await connection.fetch(_OUTPUTS, run_id, list(step_ids))
        return {StepId(row["id"]): row["output"] for row in rows}

    async def rendering(self, run_id: RunId, request_id: RequestId) -> str:
        """What the approver was shown. Raises NotFound."""
        return await self._one(_RENDERING, run_id, request_id)

    async def _one(self, query: str, run_id: RunId, key: str) -> str:
        async with self._database.session() as connection:
            text: str | None = await connection.fetchval(query, run_id, key)
        if text is None:
            raise NotFound(f"nothing is recorded under {key}")
        return text
