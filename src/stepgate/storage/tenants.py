"""Whose run one is: asked before anything else of every request that names a run."""

from collections import OrderedDict
from typing import Final

from stepgate.domain.errors import NotFound
from stepgate.domain.ids import RunId
from stepgate.storage.database import Database

KNOWN_RUNS: Final = 20_000

_TENANT = "SELECT tenant_id FROM stepgate.runs WHERE id = $1::uuid"


class Tenants:
    """Runs by tenant. A run never changes hands, so what was found once is kept."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[RunId, str] = OrderedDict()

    async def check(self, tenant: str, run_id: RunId) -> None:
        """Raises NotFound for a run that is not this tenant's, as for one that there never was."""
        owner = self._known.get(run_id)
        if owner is None:
            async with self._database.session() as connection:
                owner = await connection.fetchval(_TENANT, run_id)
            if owner is not None:
                self._keep(run_id, owner)
        if owner != tenant:
            raise NotFound(f"there is no run {run_id}", field="run_id", fix="list the runs to see their ids")

    def _keep(self, run_id: RunId, owner: str) -> None:
        self._known[run_id] = owner
        if len(self._known) > KNOWN_RUNS:
            self._known.popitem(last=False)
