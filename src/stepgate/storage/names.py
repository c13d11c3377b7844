"""Names that people gave to workspaces: how a folder gets one, is found by it, and loses it."""

from typing import Any

import asyncpg

from stepgate.domain.errors import Conflict, NotFound
from stepgate.domain.ids import WorkspaceId
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.database import Database
from stepgate.storage.workspaces import COLUMNS, Workspace

_NAMED = f"SELECT {COLUMNS} FROM stepgate.workspaces WHERE tenant_id = $1 AND name = $2"
_PAGE = f"""
SELECT {COLUMNS} FROM stepgate.workspaces
WHERE tenant_id = $1 AND name > $2 ORDER BY name LIMIT $3
"""
# Only where the folder has no name yet, or this very one: two requests at once cannot both name it.
_NAME = f"""
UPDATE stepgate.workspaces SET name = $2, mode = $3
WHERE id = $1::uuid AND (name IS NULL OR (name = $2 AND mode = $3)) RETURNING {COLUMNS}
"""
_FORGET = f"""
UPDATE stepgate.workspaces SET name = NULL, mode = 'in_place' WHERE tenant_id = $1 AND name = $2 RETURNING {COLUMNS}
"""
_REMEMBER = """
INSERT INTO stepgate.idempotency_keys (scope, key, request_sha256, status, response, tenant_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp())
"""


class Names:
    """Named workspaces, each tenant's by themselves."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant: str, name: str) -> Workspace | None:
        """The workspace of this name."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_NAMED, tenant, name)
        return None if row is None else Workspace.of(row)

    async def page(self, tenant: str, after: str, limit: int) -> list[Workspace]:
        """Named workspaces in order of their names, those after one."""
        async with self._database.session() as connection:
            rows: list[Any] = await connection.fetch(_PAGE, tenant, after, limit)
        return [Workspace.of(row) for row in rows]

    async def give(
        self, workspace_id: WorkspaceId, name: str, mode: str, idempotency: IdempotencyRow | None = None
    ) -> Workspace:
        """Names a workspace; naming it so again changes nothing.

        Raises Conflict `name_taken` where another folder has the name, `already_named` where this one has another
        name or mode, `idempotency_in_use` while the same request is carried out.
        """
        try:
            async with self._database.session() as connection, connection.transaction():
                row = await connection.fetchrow(_NAME, workspace_id, name, mode)
                if row is not None and idempotency is not None:
                    await connection.execute(_REMEMBER, *idempotency[:4], name, idempotency.tenant)
        except asyncpg.UniqueViolationError as error:
            raise _taken(error, name) from error
        if row is None:
            raise Conflict(
                "the folder has another name or mode already",
                code="already_named",
                field="path",
                fix="use it under that name, or forget that name first",
            )
        return Workspace.of(row)

    async def forget(self, tenant: str, name: str) -> Workspace:
        """The workspace, now without the name; its folder, runs and results stay as they are. Raises NotFound."""
        async with self._database.session() as connection:
            row = await connection.fetchrow(_FORGET, tenant, name)
        if row is None:
            raise NotFound(f"there is no workspace named {name!r}", field="name")
        return Workspace.of(row)


def _taken(error: asyncpg.UniqueViolationError, name: str) -> Conflict:
    if error.constraint_name == "pk_idempotency_keys":
        return Conflict(
            "a request with this idempotency key is being carried out",
            code="idempotency_in_use",
            field="Idempotency-Key",
            fix="send it again to get its answer",
        )
    return Conflict(
        f"another folder has the name {name!r}",
        code="name_taken",
        field="name",
        fix="choose another name, or forget that one first",
    )
