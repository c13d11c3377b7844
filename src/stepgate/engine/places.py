"""Workspaces as people speak of them: folders, the names they gave them, and whether runs work on a private copy."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidValue, NotFound
from stepgate.domain.ids import RunId, WorkspaceId
from stepgate.storage.attachments import IdempotencyRow
from stepgate.storage.database import Database
from stepgate.storage.names import Names
from stepgate.storage.workspaces import Workspace, Workspaces
from stepgate.workspace.access import Root, check_workspace
from stepgate.workspace.isolated import Copies
from stepgate.workspace.mounts import check_in_place

IN_PLACE: Final = "in_place"
ISOLATED: Final = "isolated"
MODES: Final = (IN_PLACE, ISOLATED)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Where a new run will work: `path` is the person's folder, `workspace_id` what its steps lock and change."""

    workspace_id: WorkspaceId
    path: str
    mode: str


class Places:
    """The folders below one workspace root."""

    def __init__(self, database: Database, copies: Copies, root: Path, pool: str) -> None:
        self._workspaces = Workspaces(database)
        self._names = Names(database)
        self._copies = copies
        self.root = root
        self._pool = pool

    async def choose(
        self, run_id: RunId, tenant: str, *, path: str | None, name: str | None, mode: str | None
    ) -> Chosen:
        """The place of a new run; not given: the workspace root, in the mode of the folder.

        Raises InvalidValue, PathRefused or NotFound naming the field.
        """
        if path is not None and name is not None:
            raise InvalidValue(
                "name a workspace or give a path, not both", field="workspace", fix="leave one of them out"
            )
        mode = None if mode is None else check_mode(mode, "workspace_mode")
        if name is not None:
            path = (await self.named(tenant, name)).root
        found = self.check(path or str(self.root))
        if mode is None:
            known = await self._workspaces.find(found, pool=self._pool, tenant=tenant)
            mode = IN_PLACE if known is None else known.mode
        # Before there is a workspace of that folder, which would keep others from lying in it.
        if mode == IN_PLACE:
            _check_in_place(found)
        workspace = await self.enter(tenant, found, isolated=mode == ISOLATED)
        if mode == IN_PLACE:
            return Chosen(workspace.id, workspace.root, IN_PLACE)
        self._copies.check_workspace(found, isolated=True)
        copy = await self._workspaces.add_copy(self._copies.folder_of(run_id), workspace.id, pool=self._pool)
        return Chosen(copy, workspace.root, ISOLATED)

    async def beside(self, path: Path, tenant: str) -> Chosen:
        """The place of a run that only looks at a folder, in throw-away copies of it; raises as `choose`."""
        workspace = await self.enter(tenant, path, isolated=True)
        return Chosen(workspace.id, workspace.root, IN_PLACE)

    def check(self, path: str) -> Path:
        """The resolved folder; raises PathRefused where it is not there or not below the workspace root."""
        return check_workspace(path, self.root)

    async def enter(self, tenant: str, path: Path, *, isolated: bool = False) -> Workspace:
        """The workspace of an existing folder. Raises PathRefused, and InvalidValue where it is nested with another."""
        self._copies.check_workspace(path, isolated=isolated)
        return await self._workspaces.get_or_create(path, pool=self._pool, mode=IN_PLACE, tenant=tenant)

    async def add(
        self, tenant: str, name: str, path: str, mode: str, idempotency: IdempotencyRow | None = None
    ) -> Workspace:
        """Names a folder; naming it so again changes nothing.

        Raises InvalidValue or PathRefused naming the field, Conflict where the name or the folder is taken.
        """
        if _NAME.match(name) is None:
            raise InvalidValue(
                "a name has 1 to 64 letters, digits, dots, underscores and hyphens, and begins with a letter or digit",
                field="name",
                fix="choose a name such as shop-backend",
            )
        mode = check_mode(mode, "mode")
        try:
            found = self.check(path)
            if mode == IN_PLACE:
                _check_in_place(found)
            workspace = await self.enter(tenant, found, isolated=mode == ISOLATED)
        except InvalidValue as error:  # named by its field in a run
            raise type(error)(error.message, code=error.reason_code, field="path", fix=error.fix) from error
        return await self._names.give(workspace.id, name, mode, idempotency)

    async def named(self, tenant: str, name: str) -> Workspace:
        """Raises NotFound."""
        canonical.check_text(name, "workspace")
        found = await self._names.find(tenant, name)
        if found is None:
            raise NotFound(f"there is no workspace named {name!r}", field="workspace", fix="list them, or add it first")
        return found

    async def page(self, tenant: str, after: str, limit: int) -> list[Workspace]:
        """Named workspaces in order of their names."""
        return await self._names.page(tenant, after, limit)

    async def forget(self, tenant: str, name: str) -> Workspace:
        """The name goes; the folder, its runs and their results stay. Raises NotFound."""
        canonical.check_text(name, "name")
        return await self._names.forget(tenant, name)


def check_mode(mode: str, field: str) -> str:
    """Raises InvalidValue for anything but the two modes."""
    if mode not in MODES:
        raise InvalidValue(f"{mode!r} is no mode", field=field, fix=f"one of: {', '.join(MODES)}")
    return mode


def _check_in_place(path: Path) -> None:
    with Root.open(path, exact=True) as root:
        check_in_place(root)
