"""Applying a recorded change set to its end: exactly once, or not at all and a person is asked."""

import asyncio
from typing import TYPE_CHECKING

import structlog

from stepgate.domain.commands import Complete
from stepgate.domain.errors import DatabaseUnavailable, IntegrityError, LeaseLost, StepgateError, WorkspaceUnavailable
from stepgate.domain.ids import ChangeSetId, StepId
from stepgate.domain.state import StepResult, StepState
from stepgate.domain.states import StepStatus
from stepgate.worker.outcome import put_under_review
from stepgate.worker.waits import Held
from stepgate.workspace.apply import apply
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.locks import WorkspaceLock

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

log = structlog.get_logger(__name__)

LOCK_WAIT_S = 60.0
UNSETTLED = (StepStatus.COMPUTED, StepStatus.NEEDS_REVIEW)


async def apply_computed(driver: "Driver", step: StepState, change_set: ChangeSet | None = None) -> None:
    """Applies the step's set and completes the step; also after a crash, when it may be half there already.

    Once begun it is not interrupted: cancelling the run waits for it. A path that somebody else wrote meanwhile
    puts the step under review, with the paths.
    """
    await driver.hold_workspace(step.id)
    standing = driver.tools.marks.standing(driver.workspace_id)
    own = None if step.result is None else step.result.change_set_id
    if standing not in (None, own) and await half_applied(driver):
        raise Held("another change set is half-applied there")
    await asyncio.shield(driver.background(_apply(driver, step.id, change_set)))


async def _apply(driver: "Driver", step_id: StepId, change_set: ChangeSet | None) -> None:
    try:
        await _apply_locked(driver, step_id, change_set)
    except (LeaseLost, DatabaseUnavailable, Held):
        raise
    except StepgateError as error:
        await put_under_review(driver, step_id, error)
    except Exception as error:
        log.exception("applying failed unexpectedly", run_id=driver.handle.run_id, step_id=step_id)
        fault = StepgateError(f"{type(error).__name__}: {error}", code="internal")
        await put_under_review(driver, step_id, fault)


async def _apply_locked(driver: "Driver", step_id: StepId, change_set: ChangeSet | None) -> None:
    """The lock is kept until the mark is gone, so that no reader and no other set comes between."""
    tools, lock = driver.tools, WorkspaceLock(driver.root).exclusive_async(LOCK_WAIT_S)
    try:
        await lock.__aenter__()
    except WorkspaceUnavailable as error:  # a reader takes its time, or a stopped process holds it
        raise Held(error.message) from error
    try:
        step = driver.handle.state.steps[step_id]
        if step.status is not StepStatus.COMPUTED or step.result is None:
            return
        if not await tools.claims.stands(driver.handle):
            raise LeaseLost("another worker drives the run now")
        change_set = change_set or await _recorded(driver, step, step.result)
        await asyncio.to_thread(_write, driver, change_set)
        await driver.submit([Complete(tools.actor, step_id, step.result)])
        tools.marks.clear(driver.workspace_id)
    finally:
        await lock.__aexit__(None, None, None)


async def _recorded(driver: "Driver", step: StepState, result: StepResult) -> ChangeSet:
    """The set as it was stored, which must be the one the journal tells of."""
    if result.change_set_id is None:
        raise IntegrityError(f"step {step.spec.key} is computed without a change set")
    change_set = ChangeSet.from_json(await driver.tools.change_sets.body(ChangeSetId(result.change_set_id)))
    if change_set.digest != result.change_set_digest:
        raise IntegrityError(f"the stored change set {change_set.id} is not the one that was recorded")
    return change_set


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
    try:
        async with WorkspaceLock(driver.root).exclusive_async(LOCK_WAIT_S):
            if tools.marks.standing(driver.workspace_id) == standing:
                tools.marks.clear(driver.workspace_id)
    except WorkspaceUnavailable:
        return True
    return False
