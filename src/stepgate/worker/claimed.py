"""A claimed run as its steps see it: what they are given, the workspace they are about, and the way to record."""

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any

from stepgate.domain import canonical, references
from stepgate.domain.commands import Command
from stepgate.domain.errors import IntegrityError, LeaseLost
from stepgate.domain.events import Event
from stepgate.domain.ids import ChangeSetId, StepId, WorkspaceId
from stepgate.domain.state import StepState
from stepgate.domain.states import IN_FLIGHT, StepStatus
from stepgate.executors.base import Context, Prepared
from stepgate.storage.attachments import Attachments, ChangeSetRow
from stepgate.storage.claim import Claim
from stepgate.storage.workspaces import Turn
from stepgate.worker.context import StepContext
from stepgate.worker.tools import Tools
from stepgate.worker.waits import NotItsTurn
from stepgate.worker.workplace import Workplace
from stepgate.workspace.access import Root
from stepgate.workspace.changes import FIRST_REV, ChangeSet
from stepgate.workspace.locks import ReadingLock


class ClaimedRun:
    """What an attempt of one of the run's steps may ask for, and where it records what became of it."""

    def __init__(self, tools: Tools, claim: Claim) -> None:
        self.tools = tools
        self.handle = claim.handle
        self.workplace = Workplace(tools, claim.handle)
        self.lost = False
        """Whether the lease is gone: nothing more may be recorded."""
        self._inputs = dict(claim.inputs)
        self._root: Root | None = None
        self._reading: ReadingLock | None = None
        self._turns: dict[StepId, Turn] = {}

    @property
    def workspace_id(self) -> WorkspaceId:
        return WorkspaceId(self.handle.state.info.workspace_id)

    def close(self) -> None:
        """Lets go of the workspace's folder."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None
        if self._root is not None:
            self._root.close()
            self._root = None

    def submit(
        self, commands: Sequence[Command], attachments: Attachments | None = None
    ) -> Awaitable[tuple[Event, ...]]:
        """Decides and commits once awaited; raises LeaseLost when another worker drives the run."""
        if self.lost:
            raise LeaseLost("another worker may drive the run now")
        return self.tools.committer.submit(self.handle, commands, attachments)

    @property
    def root(self) -> Root:
        """The workspace's folder, opened once for the drive."""
        if self._root is None:
            self._root = self.workplace.open()
        return self._root

    def context(
        self, step: StepState, prepared: Prepared | None = None, ready: "asyncio.Future[None] | None" = None
    ) -> Context:
        """What the step's executor may use; `prepared` is the action that was approved, where one was."""
        return StepContext(self, step, prepared, ready)

    async def shown(self, step: StepState) -> Mapping[str, Any] | None:
        """The rendering of the step's latest question, None where it was never asked about."""
        approval = step.approval
        if approval is None:
            return None
        shown: Mapping[str, Any] | None = await self.tools.approvals.rendering(self.handle.run_id, approval.request_id)
        return shown

    def plain_input(self, step_id: StepId) -> Mapping[str, Any] | None:
        """The input where it is at hand and refers to nothing; None where it must be fetched or resolved."""
        text = self._inputs.get(step_id)
        if text is None or references.OPENING in text:
            return None
        value: Mapping[str, Any] = canonical.loads(text)
        return value

    async def resolved_input(self, step_id: StepId) -> Mapping[str, Any]:
        """The input with every reference replaced; raises InvalidReference where an output is missing."""
        text = self._inputs.get(step_id)
        if text is None or self._is_older(step_id, text):  # added or edited after the claim
            text = self._inputs[step_id] = await self.tools.steps.input(self.handle.run_id, step_id)
            if self._is_older(step_id, text):
                raise IntegrityError(f"the input of step {step_id} is not the one whose digest was recorded")
        value: Mapping[str, Any] = canonical.loads(text)
        if references.OPENING not in text:
            return value
        outputs = await self.outputs_of({reference.name for reference in references.find(value)})
        resolved: Mapping[str, Any] = references.resolve(value, outputs.__getitem__)
        return resolved

    def _is_older(self, step_id: StepId, text: str) -> bool:
        """Whether a person has edited the input since; only one that was asked about can be."""
        step = self.handle.state.steps[step_id]
        return bool(step.approvals) and canonical.digest(text.encode()) != step.spec.input_sha256

    async def outputs_of(self, keys: Collection[str]) -> Mapping[str, Any]:
        """Outputs of completed steps by key; a step without one (skipped, failed) is absent."""
        state = self.handle.state
        wanted = {key: state.steps[state.keys[key]] for key in keys if key in state.keys}
        done = {key: step.id for key, step in wanted.items() if step.status is StepStatus.COMPLETED}
        texts = await self.tools.steps.outputs(self.handle.run_id, list(done.values()))
        return {key: canonical.loads(texts[step_id]) for key, step_id in done.items()}

    def begin_reading(self) -> bool:
        """Keeps change sets from being applied until `end_reading`; False while one is, or must be first."""
        if self._reading is None:
            self._reading = ReadingLock(self.root)
        if not self._reading.try_enter():
            return False
        if self.tools.marks.standing(self.workspace_id) is not None:
            self._reading.leave()
            return False
        return True

    def end_reading(self) -> None:
        if self._reading is not None:
            self._reading.leave()

    def has_turn(self, step_id: StepId) -> bool:
        """Whether the step holds its workspace."""
        return step_id in self._turns

    async def hold_workspace(self, step_id: StepId) -> None:
        """One mutating step at a time in a workspace, over all runs; raises Held when it is another's turn."""
        if step_id in self._turns:
            return
        turn = await self.tools.workspaces.acquire(self.workspace_id, self.handle.run_id, step_id)
        if turn is None:
            raise NotItsTurn("another step changes this workspace")
        self._turns[step_id] = turn

    async def end_turn(self, step_id: StepId) -> None:
        """Lets other steps change the workspace, unless this one must go on or half of its set may be there."""
        del self._turns[step_id]
        status = self.handle.state.steps[step_id].status
        if status in IN_FLIGHT or status is StepStatus.NEEDS_REVIEW:
            return
        for run_id in await self.tools.workspaces.release(self.workspace_id, step_id, self.handle.epoch):
            self.tools.ring(run_id)

    async def workspace_rev(self, step_id: StepId) -> str:
        """The workspace's revision now: a chain over every change set applied to it. It rests while the step has it."""
        turn = self._turns.get(step_id)
        rev = await self.tools.workspaces.rev(self.workspace_id) if turn is None else turn.rev
        return rev or FIRST_REV

    def change_set_row(self, step: StepState, change_set: ChangeSet) -> ChangeSetRow:
        return ChangeSetRow(
            ChangeSetId(change_set.id), step.id, self.workspace_id, change_set.digest, change_set.to_json()
        )
