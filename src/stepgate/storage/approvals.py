"""What an approver was shown, read back to be compared with what is about to happen."""

from typing import Any

from stepgate.domain import canonical
from stepgate.domain.ids import RequestId, RunId
from stepgate.storage.database import Database

_RENDERING = "SELECT rendering FROM stepgate.approval_requests WHERE run_id = $1::uuid AND id = $2::uuid"


class Approvals:
    """Questions as they were stored with `approval.requested`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rendering(self, run_id: RunId, request_id: RequestId) -> Any:
        """The JSON that was shown; None where there is no such question."""
        async with self._database.session() as connection:
            text = await connection.fetchval(_RENDERING, run_id, request_id)
        return None if text is None else canonical.loads(text)
