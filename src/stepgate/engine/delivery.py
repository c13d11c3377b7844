"""Handing a finished run's result over: as a patch, as a branch, or applied to the folder its copy was made of."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepgate.domain.errors import Conflict
from stepgate.domain.ids import RunId
from stepgate.domain.limits import RunLimits
from stepgate.domain.state import Actor, RunInfo, RunState, StepState
from stepgate.engine.places import ISOLATED, Chosen
from stepgate.storage.approvals import Approvals
from stepgate.storage.change_sets import ChangeSets
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.origins import Origins
from stepgate.workspace.access import Root
from stepgate.workspace.blobs import BlobStore
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.deliverable import deliverable
from stepgate.workspace.git.patch import Patch, patch_of
from stepgate.workspace.isolated import Copies
from stepgate.workspace.netundo import combine

if TYPE_CHECKING:
    from stepgate.workspace.git.branch import Branch, StepCommit

DELIVERS, REPLAYS = "delivers", "replays"
"""The labels of runs that deliver another's result, and that replay it: each names that run."""


class Delivery:
    """What can be had of a run that has ended; the recorded change sets are enough for it, its copy is not needed."""

    def __init__(
        self, database: Database, committer: Committer, blobs: BlobStore, copies: Copies, git_author: str
    ) -> None:
        self._committer = committer
        self._change_sets = ChangeSets(database)
        self._origins = Origins(database)
        self._blobs = blobs
        self._copies = copies
        self._approvals = Approvals(database)
        self._git_author = git_author

    async def patch(self, run_id: RunId) -> Patch:
        """The run's net change for `git apply`, of an isolated run or any other.

        Raises Conflict `run_not_ended` or `nothing_to_deliver`.
        """
        await self._ended(run_id)
        net = combine(await self._applied(run_id))
        return await asyncio.to_thread(patch_of, net, self._blobs)

    async def branch(self, run_id: RunId, name: str, path: Path, allowed: Path) -> "Branch":
        """Makes a branch with one commit for each step that changed files, in the repository at `path`.

        Raises Conflict as `patch`, `no_base` where the folder was no repository when the run began, and what
        `deliver_branch` raises.
        """
        from stepgate.workspace.git.branch import deliver_branch  # noqa: PLC0415 - git's formats are slow to load

        state = await self._ended(run_id)
        origin = await self._origins.get(run_id)
        if origin is None or (origin.git_ref is None and origin.git_commit is None):
            raise Conflict(
                "the folder was no git repository that can be read when the run began",
                code="no_base",
                fix="deliver the result as a patch, or apply it",
            )
        steps = await self._step_commits(state)

        def make() -> "Branch":
            with Root.open(path, exact=True) as workspace:
                return deliver_branch(
                    workspace,
                    allowed,
                    name,
                    origin.git_commit,
                    steps,
                    self._blobs,
                    author=self._git_author,
                    began=_seconds(state.started_at or state.info.created_at),
                    note=f"Stepgate-Run: {run_id}\n",
                )

        return await asyncio.to_thread(make)

    async def _step_commits(self, state: RunState) -> list["StepCommit"]:
        from stepgate.workspace.git.branch import StepCommit  # noqa: PLC0415 - as above

        found = []
        for row in await self._change_sets.applied(state.info.id):
            step = state.steps[row.step_id]
            approval = step.approval
            shown = None if approval is None else await self._approvals.rendering(state.info.id, approval.request_id)
            title = str((shown or {}).get("title") or step.spec.type)
            message = commit_message(state.info.id, step, title)
            at = _seconds(step.completed_at or state.last_at)
            found.append(StepCommit(step.spec.key, message, at, ChangeSet.from_json(row.body)))
        return found

    async def check_apply(self, run_id: RunId, root: Path) -> RunState:
        """The run, if its result can be applied to its folder as that is now.

        Raises Conflict as `patch`, `nothing_to_apply` for a run that worked in the folder itself, and
        WorkspaceConflict with the paths that were changed in the folder since.
        """
        state = await self._ended(run_id)
        if state.info.workspace_mode != ISOLATED:
            raise Conflict(
                "the run worked in the folder itself", code="nothing_to_apply", fix="nothing needs to be done"
            )
        applied = await self._applied(run_id)

        def look() -> ChangeSet:
            with Root.open(root, exact=True) as opened:
                return deliverable(opened, applied)

        if not (await asyncio.to_thread(look)).changes:
            raise Conflict("the folder holds the result already", code="nothing_to_deliver")
        return state

    async def discard(self, run_id: RunId) -> bool:
        """Removes the private copy of a run that has ended; False where it was gone. Its result stays deliverable."""
        state = await self._ended(run_id)
        if state.info.workspace_mode != ISOLATED:
            raise Conflict("the run has no private copy", code="no_copy", fix="it worked in the folder itself")
        await self._origins.discard(run_id)
        return await asyncio.to_thread(self._copies.remove, run_id)

    async def check_copy(self, state: RunState) -> None:
        """Raises Conflict `copy_discarded` where an isolated run has no copy any more."""
        if state.info.workspace_mode != ISOLATED:
            return
        origin = await self._origins.get(state.info.id)
        if origin is not None and origin.discarded_at is not None:
            raise Conflict(
                "the run's private copy was discarded, so there is nothing to take back",
                code="copy_discarded",
                fix="undo the run that delivered the result, if one did",
            )

    async def _ended(self, run_id: RunId) -> RunState:
        state = await self._committer.load(run_id)
        if not state.finished or state.open:
            raise Conflict(
                f"the run has not ended (it is {state.status})",
                code="run_not_ended",
                fix="wait for its end, or cancel it; an undo under way must end too",
            )
        return state

    async def _applied(self, run_id: RunId) -> Sequence[ChangeSet]:
        rows = await self._change_sets.applied(run_id)
        sets = [ChangeSet.from_json(row.body) for row in rows]
        if not combine(sets).changes:
            raise Conflict("the run changed nothing, or all of it was undone", code="nothing_to_deliver")
        return sets


def commit_message(run_id: str, step: StepState, title: str) -> str:
    """What the step is, who approved it, and where its journal is."""
    decided = None if step.approval is None else step.approval.decided_by
    trailers = [f"Stepgate-Run: {run_id}", f"Stepgate-Step: {step.spec.key}"]
    if decided is not None:
        trailers.append(f"Approved-by: {decided.id} ({decided.channel})")
    return f"{step.spec.key}: {title}\n\n" + "\n".join(trailers) + "\n"


def _seconds(at: int) -> int:
    return at // 1_000_000


def info_about(run_id: RunId, other: RunInfo, place: Chosen, actor: Actor, label: str, goal: str) -> RunInfo:
    """A run about another one, which its label names."""
    return RunInfo(
        id=run_id,
        goal=goal,
        name=None,
        workspace_id=place.workspace_id,
        workspace_path=place.path,
        workspace_mode=place.mode,
        pool=other.pool,
        labels={label: other.id},
        metadata={},
        requester=actor,
        limits=RunLimits().model_dump(mode="json", exclude_none=True),
        created_at=0,
        tenant=other.tenant,
    )
