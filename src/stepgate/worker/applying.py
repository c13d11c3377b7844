"""Applying a recorded change set to its end: exactly once, or not at all and a person is asked."""

import asyncio
from typing import TYPE_CHECKING

from stepgate.domain.commands import Complete, Review
from stepgate.domain.decide.turn import error_data
from stepgate.domain.errors import IntegrityError, LeaseLost, StepgateError, WorkspaceConflict
from stepgate.domain.ids import ChangeSetId
from stepgate.domain.state import StepResult, StepState
from stepgate.domain.states import StepStatus
from stepgate.workspace.apply import apply
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.locks import WorkspaceLock

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

LOCK_WAIT_S = 60.0
UNSETTLED = (StepStatus.COMPUTED, StepStatus.NEEDS_REVIEW)


async def apply_computed(driver: "Driver", step: StepState, change_set: ChangeSet | None = None) -> None:
    """Applies the step's set and completes the step; also after a crash, when it may be half there already.

    Once begun it is not interrupted: cancelling the run waits for it. A path that somebody else wrote meanwhile
    puts the step under review, with the paths.
    """
    result = step.result
    if result is None or result.change_set_id is None:
        raise IntegrityError(f"step {step.spec.key} is computed without a change set")
    if change_set is None:
        change_set = ChangeSet.from_json(await driver.tools.change_sets.body(ChangeSetId(result.change_set_id)))
    if change_set.digest != result.change_set_digest:
        raise IntegrityError(f"the stored change set {change_set.id} is not the one that was recorded")
    await driver.hold_workspace(step.id)
    await asyncio.shield(driver.background(_apply(driver, step, result, change_set)))


async def _apply(driver: "Driver", step: StepState, result: StepResult, change_set: ChangeSet) -> None:
    """The lock is kept until the mark is gone, so that no reader and no other set comes between."""
    tools = driver.tools
    try:
        async with WorkspaceLock(driver.root).exclusive_async(LOCK_WAIT_S):
            if not await tools.claims.stands(driver.handle):
                raise LeaseLost("another worker drives the run now")
            await asyncio.to_thread(_write, driver, change_set)
            await driver.submit([Complete(tools.actor, step.id, result)])
            tools.marks.clear(driver.workspace_id)
    except LeaseLost:
        raise
    except StepgateError as fault:
        error = dict(error_data(fault.reason_code, fault.message, fault.field or "workspace_path"))
        if isinstance(fault, WorkspaceConflict):
            error["paths"] = list(fault.details.get("paths", ()))
        await driver.submit([Review(tools.actor, step.id, error)])


def _write(driver: "Driver", change_set: ChangeSet) -> None:
    driver.tools.marks.begin(driver.workspace_id, change_set.id)
    apply(driver.root, change_set, driver.tools.blobs)


async def half_applied(driver: "Driver") -> bool:
    """Whether the workspace holds half of a change set that still needs its end.

    A mark can outlive its reason: its worker died after the last write, or a person closed the step.
    """
    tools = driver.tools
    standing = tools.marks.standing(driver.workspace_id)
    if standing is None:
        return False
    if await tools.change_sets.step_status(ChangeSetId(standing)) in UNSETTLED:
        return True
    async with WorkspaceLock(driver.root).exclusive_async(LOCK_WAIT_S):
        if tools.marks.standing(driver.workspace_id) == standing:
            tools.marks.clear(driver.workspace_id)
    return False
