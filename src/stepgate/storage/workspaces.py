"""Workspaces: which folders there are, and which one step may change each of them at a time."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from stepgate.domain.errors import InvalidValue, NotFound, PathRefused
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import RunId, StepId, WorkspaceId, new_id
from stepgate.domain.states import CLOSED, IN_FLIGHT, StepStatus
from stepgate.storage.database import Database

HELD_FOR = "workspace"
_BUSY = [*IN_FLIGHT, StepStatus.NEEDS_REVIEW]
# An arbitrary constant: whoever makes a workspace holds it, so that two nested ones cannot be made side by side.
_MAKING = 2_481_930_557_713_042_116

COLUMNS = "id::text AS id, root, mode, rev, name, source_id::text AS source_id, created_at, tenant_id AS tenant"
_FIND = f"SELECT {COLUMNS} FROM stepgate.workspaces WHERE pool = $1 AND root = $2"
_GET = f"SELECT {COLUMNS} FROM stepgate.workspaces WHERE id = $1::uuid"
# A run's private copy lies in the state folder, where it is in nobody's way.
# What lies below a folder is the range from its path and a slash to its path and the character after the slash.
_NESTED = """
SELECT root, tenant_id FROM stepgate.workspaces
WHERE pool = $1 AND source_id IS NULL AND (root = ANY($2::text[]) OR (root > $3 AND root < $4)) ORDER BY root LIMIT 1
"""
_MAKE = """
INSERT INTO stepgate.workspaces (id, pool, root, mode, tenant_id, created_at)
VALUES ($1::uuid, $2, $3, $4, $5, clock_timestamp())
"""
_COPY = """
INSERT INTO stepgate.workspaces (id, tenant_id, pool, root, mode, created_at, source_id)
SELECT $1::uuid, source.tenant_id, $2, $3, 'isolated', clock_timestamp(), source.id
FROM stepgate.workspaces AS source WHERE source.id = $4::uuid
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
RETURNING workspace.rev
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
    """`root` is a canonical path; `rev` is None until a change set was applied; `source_id` is of private copies."""

    id: WorkspaceId
    root: str
    mode: str
    rev: str | None
    name: str | None
    source_id: WorkspaceId | None
    created_at: datetime
    tenant: str

    @classmethod
    def of(cls, row: Any) -> "Workspace":
        """From a row of `COLUMNS`."""
        return cls(**dict(row))


class Turn(NamedTuple):
    """The right to change a workspace; until it ends nobody else moves `rev` (None until a change set was applied)."""

    rev: str | None


class Workspaces:
    """One row for each folder of a pool; a folder is the tenant's who used it first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_or_create(
        self, root: Path | str, *, pool: str = "default", mode: str = "in_place", tenant: str = DEFAULT_TENANT
    ) -> Workspace:
        """The workspace of this canonical path; made with `mode` where there is none.

        Raises InvalidValue where another workspace lies above or below it, PathRefused where it is another tenant's.
        """
        path = str(root)
        async with self._database.session() as connection:
            row = await connection.fetchrow(_FIND, pool, path)
            if row is None:
                row = await self._make(connection, pool, path, mode, tenant)
        if row["tenant"] != tenant:
            raise _anothers(path)
        return Workspace.of(row)

    async def find(self, root: Path | str, *, pool: str = "default", tenant: str = DEFAULT_TENANT) -> Workspace | None:
        """The tenant's workspace of this canonical path, None where there is none yet."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_FIND, pool, str(root))
        return None if row is None or row["tenant"] != tenant else Workspace.of(row)

    async def get(self, workspace_id: WorkspaceId) -> Workspace:
        """Raises NotFound."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_GET, workspace_id)
        if row is None:
            raise NotFound(f"there is no workspace {workspace_id}")
        return Workspace.of(row)

    async def add_copy(self, root: Path | str, source_id: WorkspaceId, *, pool: str = "default") -> WorkspaceId:
        """A run's private copy of a workspace, at a path that nobody else has."""
        workspace_id = WorkspaceId(new_id())
        async with self._database.session() as connection:
            await connection.execute(_COPY, workspace_id, pool, str(root), source_id)
        return workspace_id

    async def _make(self, connection: Any, pool: str, path: str, mode: str, tenant: str) -> Any:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MAKING)
            row = await connection.fetchrow(_FIND, pool, path)
            if row is not None:
                return row
            above = [str(parent) for parent in Path(path).parents]
            below = path.rstrip("/")
            nested = await connection.fetchrow(_NESTED, pool, above, below + "/", below + "0")
            if nested is not None and nested["tenant_id"] != tenant:
                raise _anothers(path)
            if nested is not None:
                raise InvalidValue(
                    f"{path} and the workspace {nested['root']} lie one in the other",
                    field="workspace_path",
                    fix="use that workspace, or a folder beside it",
                )
            await connection.execute(_MAKE, new_id(), pool, path, mode, tenant)
            return await connection.fetchrow(_FIND, pool, path)

    async def acquire(self, workspace_id: WorkspaceId, run_id: RunId, step_id: StepId) -> Turn | None:
        """The step's turn to change the workspace, None while it is another's; asking again while it has it is fine."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_ACQUIRE, workspace_id, list(CLOSED), _BUSY, run_id, step_id)
        return None if row is None else Turn(row["rev"])

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


def _anothers(path: str) -> PathRefused:
    """Which folder it is, and whose, is none of the caller's business."""
    return PathRefused(
        f"{path} is not this tenant's to work in", field="workspace_path", fix="use a folder of your own, beside it"
    )
