"""Which questions models were asked, and the answers that were kept, by digest."""

from decimal import Decimal
from typing import NamedTuple

from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import Actor
from stepgate.domain.states import StepStatus
from stepgate.storage.database import Database

_OF_RUN = """
SELECT step_id::text AS step_id, request_hash, status, answer_sha256 FROM stepgate.model_calls
WHERE run_id = $1::uuid ORDER BY called_at, id
"""


# Only of steps that came to a good end: what an answer led to nowhere is no reason to give it again.
_EARLIER = """
SELECT call.answer_sha256, coalesce(call.avoided_cost_usd, call.cost_usd)
FROM stepgate.model_calls AS call
JOIN stepgate.runs AS run ON run.id = call.run_id
JOIN stepgate.steps AS step ON step.run_id = call.run_id AND step.id = call.step_id
WHERE call.request_hash = $1 AND call.answer_sha256 IS NOT NULL AND call.status = 'ok'
  AND call.router = $2 AND call.model_asked IS NOT DISTINCT FROM $3
  AND run.tenant_id = $4 AND step.status = $5
  AND ($6::text IS NULL OR (run.requester = $6 AND run.requester_kind = $7))
  AND ($8::text IS NULL OR run.labels ->> $8 = $9)
ORDER BY call.called_at DESC LIMIT 1
"""


class Shared(NamedTuple):
    """Whose answers count: of runs of a tenant, by one requester or with one label."""

    tenant: str
    requester: Actor | None = None
    label: tuple[str, str] | None = None


class Earlier(NamedTuple):
    """An answer by digest, and what it cost when it was paid (None where that is unknown)."""

    sha256: str
    cost_usd: Decimal | None


class RecordedCall(NamedTuple):
    """A model call; `answer_sha256` is None where it gave nothing, or nothing was kept."""

    step_id: StepId
    request_hash: str
    status: str
    answer_sha256: str | None


class Answers:
    """Reads calls that other writes recorded."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_run(self, run_id: RunId) -> list[RecordedCall]:
        """In the order they were made."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_OF_RUN, run_id)
        return [RecordedCall(*row.values()) for row in rows]

    async def earlier(self, request_hash: str, router: str, model: str | None, wanted: Shared) -> Earlier | None:
        """The newest answer to this very question by this router and model, None where there is none."""
        if wanted.requester is None and wanted.label is None:
            raise ValueError("answers are shared by a requester or a label")
        by = (None, None) if wanted.requester is None else (wanted.requester.id, wanted.requester.kind)
        label = wanted.label or (None, None)
        given = (request_hash, router, model, wanted.tenant, StepStatus.COMPLETED.value, *by, *label)
        async with self._database.session() as connection:
            row = await connection.fetchrow(_EARLIER, *given)
        return None if row is None else Earlier(*row.values())
