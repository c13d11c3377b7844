"""Where a run works: in the person's folder, or in a private copy that is made before the first step needs it."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from stepgate.domain.errors import WorkspaceUnavailable
from stepgate.domain.ids import ChangeSetId, WorkspaceId
from stepgate.domain.state import RunInfo
from stepgate.domain.states import StepStatus
from stepgate.storage.entry import RunHandle
from stepgate.storage.origins import Origin
from stepgate.worker.tools import Tools
from stepgate.worker.waits import Held
from stepgate.workspace.access import Root
from stepgate.workspace.git.repository import head_of
from stepgate.workspace.isolated import FILES, Busy, Copy
from stepgate.workspace.mounts import check_in_place

ISOLATED = "isolated"
_UNSETTLED = (StepStatus.COMPUTED, StepStatus.NEEDS_REVIEW)


class Workplace:
    """The folder of one run; `ready` once steps may be taken up in it."""

    def __init__(self, tools: Tools, handle: RunHandle) -> None:
        self._tools = tools
        self._handle = handle
        self._preparing = asyncio.Lock()
        self.ready = self._info.workspace_mode != ISOLATED and not self._begins_in_repository()

    @property
    def _info(self) -> RunInfo:
        return self._handle.state.info

    @property
    def path(self) -> Path:
        """A canonical path."""
        if self._info.workspace_mode == ISOLATED:
            return self._tools.copies.folder_of(self._info.id)
        return Path(self._info.workspace_path)

    def open(self) -> Root:
        """The folder, with what may have come since the run was created looked at anew.

        Raises PathRefused for mounts inside and for network file systems, and what `Root.open` raises.
        """
        root = Root.open(self.path, exact=True)
        if self._info.workspace_mode != ISOLATED:
            try:
                check_in_place(root)
            except BaseException:
                root.close()
                raise
        return root

    def _begins_in_repository(self) -> bool:
        return self._handle.state.started_at is None and os.path.lexists(f"{self._info.workspace_path}/.git")

    async def prepare(self) -> None:
        """Makes the run's copy where it is not there yet, and notes where the folder's repository stands.

        Raises Held while a change set is being applied to the person's folder, and what making a copy raises.
        """
        async with self._preparing:
            if self.ready:
                return
            if self._info.workspace_mode == ISOLATED:
                origin = _origin(await self._copy())
            else:
                origin = Origin(*await asyncio.to_thread(self._head))
            await self._tools.origins.record(self._info.id, origin)
            self.ready = True

    def _head(self) -> tuple[str | None, str | None]:
        with Root.open(self.path, exact=True) as root:
            return self._head_of(root)

    def _head_of(self, root: Root) -> tuple[str | None, str | None]:
        head = head_of(root, self._tools.workspace_root)
        return head.ref, head.commit

    async def _copy(self) -> Copy:
        tools, run_id = self._tools, self._info.id
        found = await asyncio.to_thread(tools.copies.find, run_id)
        if found is not None:
            return found
        if await tools.origins.get(run_id) is not None:
            raise WorkspaceUnavailable(
                "the run's private copy is gone",
                code="copy_gone",
                field="workspace_path",
                fix="what the run changed is still recorded and can be delivered; start another run to go on",
            )
        source_id = (await tools.workspaces.get(WorkspaceId(self._info.workspace_id))).source_id
        if source_id is None:
            raise WorkspaceUnavailable("nobody knows what to copy", field="workspace_path")
        standing = await self._settled(source_id)
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(
                tools.copies.make,
                run_id,
                Path(self._info.workspace_path),
                self._head_of,
                # A mark that outlived its set is no reason to wait; one that appeared since is.
                lambda: tools.marks.standing(source_id) not in (None, standing),
                lambda: not given_up.is_set(),
            )
        except Busy as busy:
            raise Held(str(busy)) from busy
        finally:
            given_up.set()

    async def _settled(self, workspace_id: WorkspaceId) -> str | None:
        """The mark that outlived its set, if there is one; raises Held where half of a set is there."""
        standing = self._tools.marks.standing(workspace_id)
        if standing is None or (await self._tools.change_sets.step_status(ChangeSetId(standing))) not in _UNSETTLED:
            return standing
        raise Held("a change set is half-applied to the workspace")

    @asynccontextmanager
    async def throwaway(self) -> AsyncIterator[Root]:
        """A copy of the person's folder for as long as the block lasts; raises as `prepare`."""
        tools, workspace_id = self._tools, WorkspaceId(self._info.workspace_id)
        standing = await self._settled(workspace_id)
        given_up = threading.Event()
        try:
            folder = await asyncio.to_thread(
                tools.copies.throwaway,
                Path(self._info.workspace_path),
                lambda: tools.marks.standing(workspace_id) not in (None, standing),
                lambda: not given_up.is_set(),
            )
        except Busy as busy:
            raise Held(str(busy)) from busy
        finally:
            given_up.set()
        try:
            with Root.open(folder.path / FILES, exact=True) as root:
                yield root
        finally:
            await asyncio.shield(asyncio.to_thread(folder.remove))


def _origin(copy: Copy) -> Origin:
    return Origin(copy.git_ref, copy.git_commit, copy.files, copy.bytes, copy.left_out)
