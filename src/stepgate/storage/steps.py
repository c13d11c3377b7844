"""The bodies of steps, as a driver needs them: inputs to execute, outputs that later steps refer to."""

from collections.abc import Sequence

from stepgate.domain.errors import NotFound
from stepgate.domain.ids import RunId, StepId
from stepgate.storage.database import Database

_INPUT = "SELECT input FROM stepgate.steps WHERE run_id = $1::uuid AND id = $2::uuid"
_INPUTS = "SELECT id::text AS id, input FROM stepgate.steps WHERE run_id = $1::uuid AND id = ANY($2::uuid[])"
_OUTPUTS = """
SELECT step.id::text AS id, step.output
FROM unnest($2::uuid[]) AS wanted(id)
JOIN stepgate.steps AS step ON step.run_id = $1::uuid AND step.id = wanted.id
WHERE step.output IS NOT NULL
"""


class Steps:
    """Texts are the canonical JSON that was hashed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def input(self, run_id: RunId, step_id: StepId) -> str:
        """Raises NotFound."""
        async with self._database.session() as connection:
            text = await connection.fetchval(_INPUT, run_id, step_id)
        if text is None:
            raise NotFound(f"the run has no step {step_id}", field="step_id")
        return str(text)

    async def inputs(self, run_id: RunId, step_ids: Sequence[StepId]) -> dict[StepId, str]:
        """Steps that the run has not are absent."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_INPUTS, run_id, list(step_ids))
        return {StepId(row["id"]): row["input"] for row in rows}

    async def outputs(self, run_id: RunId, step_ids: Sequence[StepId]) -> dict[StepId, str]:
        """Steps without an output are absent."""
        if not step_ids:
            return {}
        async with self._database.session() as connection:
            rows = await connection.fetch(_OUTPUTS, run_id, list(step_ids))
        return {StepId(row["id"]): row["output"] for row in rows}
