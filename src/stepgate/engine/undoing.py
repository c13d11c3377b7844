"""A look ahead at an undo: whoever asks for one hears at once, with the paths, that it cannot be made."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from stepgate.domain.errors import Conflict, StepgateError
from stepgate.domain.ids import StepId, WorkspaceId, new_id
from stepgate.domain.state import RunState
from stepgate.domain.states import StepStatus
from stepgate.engine.places import ISOLATED
from stepgate.executors.base import AppliedSet
from stepgate.executors.undo import sets_after
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.database import Database
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.isolated import Copies
from stepgate.workspace.locks import ApplyMarks, WorkspaceLock
from stepgate.workspace.netundo import net_undo


class Undoing:
    """What a worker will find out again, and bindingly, when it prepares the undo."""

    def __init__(self, database: Database, blobs: BlobStore, copies: Copies) -> None:
        self._change_sets = ChangeSets(database)
        self._blobs = blobs
        self._copies = copies
        self._marks = ApplyMarks(copies.state_dir)

    async def check(self, state: RunState, to: str | None) -> None:
        """Raises WorkspaceConflict where the paths to bring back were changed since, Conflict `cannot_undo` where their
        former content was too large to be kept; both with `details["paths"]`.

        Says nothing where it cannot tell now: the folder is not here, or a change is being applied to it.
        """
        applied = []
        for row in await self._change_sets.applied(state.info.id):
            spec = state.steps[StepId(row.step_id)].spec
            applied.append(AppliedSet(row.step_id, spec.key, spec.number, ChangeSet.from_json(row.body)))
        completed = (step.spec for _, step in state.steps.items() if step.status is StepStatus.COMPLETED)
        done = {spec.key: spec.number for spec in completed}
        await asyncio.to_thread(self._look, state, sets_after(applied, to, done))

    def _look(self, state: RunState, sets: Sequence[ChangeSet]) -> None:
        info = state.info
        isolated = info.workspace_mode == ISOLATED
        path = self._copies.folder_of(info.id) if isolated else Path(info.workspace_path)
        try:
            with Root.open(path, exact=True) as root, WorkspaceLock(root).shared():
                if self._marks.standing(WorkspaceId(info.workspace_id)) is None:
                    net_undo(root, sets, self._blobs, new_id())
        except Conflict:
            raise
        except StepgateError:  # the worker says what is wrong where it is
            return
