"""Workspaces: which folders there are, and which one step may change each of them at a time."""

from pathlib import Path
from typing import Any, NamedTuple

from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.ids import RunId, StepId, WorkspaceId, new_id
from stepgate.domain.states import CLOSED, IN_FLIGHT, StepStatus
from stepgate.storage.database import Database

HELD_FOR = "workspace"
_BUSY = [*IN_FLIGHT, StepStatus.NEEDS_REVIEW]
# An arbitrary constant: whoever makes a workspace holds it, so that two nested ones cannot be made side by side.
_MAKING = 2_481_930_557_713_042_116

_FIND = "SELECT id::text AS id, root, mode, rev FROM stepgate.workspaces WHERE pool = $1 AND root = $2"
# What lies below a folder is the range from its path and a slash to its path and the character after the slash.
_NESTED = """
SELECT root FROM stepgate.workspaces
WHERE pool = $1 AND (root = ANY($2::text[]) OR (root > $3 AND root < $4)) ORDER BY root LIMIT 1
"""
_MAKE = """
INSERT INTO stepgate.workspaces (id, pool, root, mode, created_at) VALUES ($1::uuid, $2, $3, $4, clock_timestamp())
"""
# Free where nobody holds it, where the holding step has come to its end, or where its run was put down before the
# step began. Whoever is in flight, or under review with half a set applied, keeps it.
_FREE = """
    workspace.holder_step_id IS NULL
    OR EXISTS (
        SELECT FROM stepgate.steps AS step JOIN stepgate.runs AS run ON run.id = step.run_id
        WHERE step.run_id = workspace.holder_run_id AND step.id = workspace.holder_step_id
          AND (step.status = ANY($2::text[]) OR (run.worker_id IS NULL AND step.status <> ALL($3::text[])))
    )
"""
_ACQUIRE = f"""
UPDATE stepgate.workspaces AS workspace
SET holder_run_id = $4::uuid, holder_step_id = $5::uuid
WHERE workspace.id = $1::uuid AND (
    (workspace.holder_run_id = $4::uuid AND workspace.holder_step_id = $5::uuid) OR {_FREE}
)
RETURNING workspace.id
"""
# Asked after a run was put down to wait: the turn it waits for may have ended just before, and then nobody wakes it.
# The lock waits for a turn that is ending at this very moment.
_WAKE = f"""
WITH free AS (
    SELECT workspace.id FROM stepgate.workspaces AS workspace WHERE workspace.id = $1::uuid AND ({_FREE}) FOR UPDATE
)
UPDATE stepgate.runs AS run SET held_until = NULL, held_for = NULL
FROM free WHERE run.workspace_id = free.id AND run.held_for = $4
RETURNING run.id::text AS id
"""
# A worker that lost its lease may not end the turn of a step that its successor has begun again: it counts only under
# the run's present lease, or once the step has come to its end.
_RELEASE = """
WITH freed AS (
    UPDATE stepgate.workspaces AS workspace SET holder_run_id = NULL, holder_step_id = NULL
    WHERE workspace.id = $1::uuid AND holder_step_id = coalesce($2::uuid, holder_step_id) AND NOT EXISTS (
        SELECT FROM stepgate.steps AS step JOIN stepgate.runs AS run ON run.id = step.run_id
        WHERE step.run_id = workspace.holder_run_id AND step.id = workspace.holder_step_id
          AND run.lease_epoch IS DISTINCT FROM $4 AND step.status <> ALL($5::text[])
    )
    RETURNING workspace.id
)
UPDATE stepgate.runs AS run SET held_until = NULL, held_for = NULL
FROM freed WHERE run.workspace_id = freed.id AND run.held_for = $3
RETURNING run.id::text AS id
"""


class Workspace(NamedTuple):
    """`root` is a canonical path; `rev` is None until a change set was applied."""

    id: WorkspaceId
    root: str
    mode: str
    rev: str | None


class Workspaces:
    """One row for each folder of a pool."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_or_create(self, root: Path | str, *, pool: str = "default", mode: str = "in_place") -> Workspace:
        """The workspace of this canonical path; made with `mode` where there is none.

        Raises InvalidValue where another workspace lies above or below it.
        """
        path = str(root)
        async with self._database.session() as connection:
            row = await connection.fetchrow(_FIND, pool, path)
            if row is None:
                row = await self._make(connection, pool, path, mode)
        return Workspace(WorkspaceId(row["id"]), row["root"], row["mode"], row["rev"])

    async def _make(self, connection: Any, pool: str, path: str, mode: str) -> Any:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MAKING)
            row = await connection.fetchrow(_FIND, pool, path)
            if row is not None:
                return row
            above = [str(parent) for parent in Path(path).parents]
            below = path.rstrip("/")
            nested = await connection.fetchval(_NESTED, pool, above, below + "/", below + "0")
            if nested is not None:
                raise InvalidValue(
                    f"{path} and the workspace {nested} lie one in the other",
                    field="workspace_path",
                    fix="use that workspace, or a folder beside it",
                )
            await connection.execute(_MAKE, new_id(), pool, path, mode)
            return await connection.fetchrow(_FIND, pool, path)

    async def acquire(self, workspace_id: WorkspaceId, run_id: RunId, step_id: StepId) -> bool:
        """Whether the step may change the workspace now; asking again while it may is fine."""
        async with self._database.session() as connection:
            held = await connection.fetchval(_ACQUIRE, workspace_id, list(CLOSED), _BUSY, run_id, step_id)
        return held is not None

    async def wake(self, workspace_id: WorkspaceId) -> list[RunId]:
        """The runs that wait for a workspace which nobody holds; they are due again."""
        async with self._database.session() as connection:
            rows = await connection.fetch(_WAKE, workspace_id, list(CLOSED), _BUSY, HELD_FOR)
        return [RunId(row["id"]) for row in rows]

    async def release(self, workspace_id: WorkspaceId, step_id: StepId, epoch: int | None = None) -> list[RunId]:
        """Ends the step's turn, if it has it; returns the runs that waited for the workspace and are due again."""
        return await self._release(workspace_id, step_id, epoch)

    async def release_ended(self, workspace_id: WorkspaceId) -> list[RunId]:
        """Ends the turn of a step that has come to its end; returns the runs that waited for the workspace."""
        return await self._release(workspace_id, None, None)

    async def _release(self, workspace_id: WorkspaceId, step_id: StepId | None, epoch: int | None) -> list[RunId]:
        async with self._database.session() as connection:
            rows = await connection.fetch(_RELEASE, workspace_id, step_id, HELD_FOR, epoch, list(CLOSED))
        return [RunId(row["id"]) for row in rows]

    async def rev(self, workspace_id: WorkspaceId) -> str | None:
        """The revision after the last applied change set. Raises NotFound."""
        async with self._database.session() as connection:
            row = await connection.fetchrow("SELECT rev FROM stepgate.workspaces WHERE id = $1::uuid", workspace_id)
        if row is None:
            raise NotFound(f"there is no workspace {workspace_id}")
        rev: str | None = row["rev"]
        return rev
