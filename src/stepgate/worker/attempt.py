"""One attempt of one step: resolve its input, ask if it must be asked, execute, record, apply."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog

from stepgate.domain.commands import Begin, Complete, Compute, Interrupt, Pause, Review
from stepgate.domain.decide.turn import error_data
from stepgate.domain.errors import (
    DatabaseUnavailable,
    IllegalTransition,
    LeaseLost,
    SandboxUnavailable,
    StaleApproval,
    StepgateError,
    WorkspaceConflict,
    WorkspaceUnavailable,
)
from stepgate.domain.state import Effect, Gate, StepState
from stepgate.domain.states import STARTABLE, RunStatus, StepStatus
from stepgate.domain.wake import MAY_START
from stepgate.executors.base import Done, Executor, Failed, Outcome, Prepared
from stepgate.storage.attachments import Attachments
from stepgate.worker.applying import apply_computed, half_applied
from stepgate.worker.asking import ask, is_as_approved, prepare
from stepgate.worker.outcome import fail_with, put_under_review, result_of, validated
from stepgate.worker.quick import is_quick, take
from stepgate.worker.waits import Held, time_limit
from stepgate.workspace.locks import WorkspaceLock

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

log = structlog.get_logger(__name__)

DRIFT_ATTEMPTS = 3
LOCK_WAIT_S = 10.0
DRIFTED = "drifted"


async def attempt(driver: "Driver", step: StepState) -> None:
    """Takes one ready (or abandoned) step as far as it can go now; every end is recorded.

    Raises LeaseLost when the run is driven elsewhere, Held when its workspace is in use, DatabaseUnavailable when
    nothing could be recorded: then the step is where it was, and is taken up again.
    """
    tools = driver.tools
    executor = tools.registry.find(step.spec.type)
    try:
        if step.status is StepStatus.COMPUTED:
            await apply_computed(driver, step)
        elif executor is None:
            await _set_aside(driver, step, "executor_missing")
        elif driver.careful or not (is_quick(step, executor) and await take(driver, step, executor)):
            await _proceed(driver, step, executor)
    except Exception as error:  # noqa: BLE001 - recorded as what it is
        await _record_fault(driver, step, error)


async def take_chain(driver: "Driver") -> None:
    """Takes steps for as long as the next one is quick and the only one there is: what most steps are.

    Returns as soon as anything else must be looked at. Raises what `attempt` raises.
    """
    handle, find = driver.handle, driver.tools.registry.find
    while driver.undisturbed:
        state = handle.state
        if len(state.ready) != 1 or state.in_flight or state.phase not in MAY_START:
            return
        (step_id,) = state.ready
        step = state.steps[step_id]
        executor = find(step.spec.type)
        if executor is None or not is_quick(step, executor):
            return
        try:
            if not await take(driver, step, executor):
                return
        except Exception as error:  # noqa: BLE001 - recorded as what it is
            await _record_fault(driver, step, error)


async def _record_fault(driver: "Driver", step: StepState, fault: Exception) -> None:
    """What stopped an attempt becomes the step's failure, or what else it means for the run."""
    try:
        raise fault
    except SandboxUnavailable as error:
        log.warning("sandbox unavailable", run_id=driver.handle.run_id, step=step.spec.key, error=str(error))
        await _set_aside(driver, step, "sandbox_unavailable")
    except (LeaseLost, DatabaseUnavailable, Held):
        raise
    except IllegalTransition as error:
        if driver.takeable(step.id):  # nobody moved it: not being able to go on is its own fault
            await fail_with(driver, step, _failed(error))
    except StepgateError as error:
        if error.reason_code == DRIFTED:
            await put_under_review(driver, step.id, error)
        else:
            await fail_with(driver, step, _failed(error), error.details.get("paths"))
    except Exception as error:
        log.exception("step failed unexpectedly", run_id=driver.handle.run_id, step=step.spec.key)
        await fail_with(driver, step, Failed("internal", f"{type(error).__name__}: {error}"))


def _failed(error: StepgateError) -> Failed:
    return Failed(error.reason_code, error.message, error.field)


async def _set_aside(driver: "Driver", step: StepState, reason: str) -> None:
    """The run waits for a worker that can do the step; one that is ending does so without it."""
    tools = driver.tools
    stop = Interrupt(tools.actor, step.id)
    if driver.handle.state.phase in (RunStatus.QUEUED, RunStatus.RUNNING):
        try:
            await driver.submit([Pause(tools.actor, reason), stop])
        except IllegalTransition:
            log.info("the run is ending", run_id=driver.handle.run_id, reason=reason)
        else:
            return
    await driver.submit([stop])


async def _proceed(driver: "Driver", step: StepState, executor: Executor[Any]) -> None:
    if step.spec.effect is Effect.ONCE and step.status is StepStatus.RUNNING:
        error = error_data("lost_end", "its worker was lost after it began; it may have happened")
        await driver.submit([Review(driver.tools.actor, step.id, error)])
        return None
    for _ in range(DRIFT_ATTEMPTS):
        try:
            async with driver.tools.lanes[executor.type]:
                return await _advance(driver, step, executor)
        except StaleApproval:  # its effect would not be the approved one: back to the question
            await driver.submit([Interrupt(driver.tools.actor, step.id)])
            step = driver.handle.state.steps[step.id]
            if step.status not in STARTABLE:
                return None
    raise WorkspaceConflict("the workspace keeps changing under the approved action", code=DRIFTED)


async def _advance(driver: "Driver", step: StepState, executor: Executor[Any]) -> None:
    resolved = await driver.resolved_input(step.id)
    params = validated(executor, resolved)
    if step.spec.gate is Gate.ALLOW and not step.approvals:
        await _execute(driver, step, executor, params)
        return
    if step.spec.effect is Effect.WORKSPACE and step.authorised:
        await driver.hold_workspace(step.id)
    # A model may write for minutes: others apply changes meanwhile, and at its start the action is looked at anew.
    async with _reading(driver, executor, locked=not executor.prepares_long(params)):
        prepared = await prepare(driver, step, executor, params)
    rev = await driver.workspace_rev()
    approved = is_as_approved(driver, step, executor, prepared, resolved, rev)
    if approved is None:
        await ask(driver, step, executor, prepared, resolved, rev)
    else:
        await _execute(driver, step, executor, params, approved, prepared)


@asynccontextmanager
async def _reading(driver: "Driver", executor: Executor[Any], *, locked: bool = True) -> AsyncIterator[None]:
    """Keeps change sets from being applied meanwhile, and refuses a workspace that holds half of one."""
    if not executor.reads_workspace:
        yield
        return
    if await half_applied(driver):
        raise Held("a change set is half-applied there")
    if not locked:
        yield
        return
    lock = WorkspaceLock(driver.root).shared_async(LOCK_WAIT_S)
    try:
        await lock.__aenter__()
    except WorkspaceUnavailable as error:
        raise Held(error.message) from error
    try:
        if driver.tools.marks.standing(driver.workspace_id) is not None:
            raise Held("a change set is being applied there")
        yield
    finally:
        await lock.__aexit__(None, None, None)


async def _execute(
    driver: "Driver",
    step: StepState,
    executor: Executor[Any],
    params: Any,
    hash_: str | None = None,
    prepared: Prepared | None = None,
) -> None:
    if step.spec.effect is Effect.WORKSPACE:
        await driver.hold_workspace(step.id)
    run = _Execution(driver, step, executor, hash_)
    began = time.monotonic()
    try:
        outcome = await run.outcome(params, prepared)
    except Held:
        if run.begun:
            await driver.submit([Interrupt(driver.tools.actor, step.id)])
        raise
    latency_ms = round((time.monotonic() - began) * 1000)
    match outcome:
        case Done():
            await _record(driver, step, outcome, hash_, latency_ms)
        case Failed():
            await fail_with(driver, step, outcome)


class _Execution:
    """One recorded start and the executions under it."""

    def __init__(self, driver: "Driver", step: StepState, executor: Executor[Any], hash_: str | None) -> None:
        self._driver = driver
        self._step = step
        self._executor = executor
        self._hash = hash_
        self.begun = False

    async def outcome(self, params: Any, prepared: Prepared | None) -> Outcome:
        """Executes, again where somebody changed a file under the layer meanwhile, a bounded number of times."""
        context = self._driver.context(self._step, prepared)
        for left in reversed(range(DRIFT_ATTEMPTS)):
            try:
                async with _reading(self._driver, self._executor):
                    await self._begin()
                    return await self._within_limit(context, params)
            except WorkspaceConflict as error:
                if error.reason_code != DRIFTED or left == 0:
                    raise
        raise AssertionError("unreachable")

    async def _begin(self) -> None:
        """What lasts, must not start twice, or may be what kills workers, is known to have started before it does."""
        driver, step = self._driver, self._step
        if not self.begun and (self._executor.lasts or step.spec.effect is Effect.ONCE or driver.careful):
            await driver.submit([Begin(driver.tools.actor, step.id, self._hash)])
            self.begun = True

    async def _within_limit(self, context: Any, params: Any) -> Outcome:
        outcome: Outcome
        if not self._executor.lasts and self._step.spec.timeout_ms is None:
            outcome = await self._executor.execute(context, params)
            return outcome
        limit = time_limit(self._driver, self._step)
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                outcome = await self._executor.execute(context, params)
        except TimeoutError:
            if not clock.expired():
                raise
            outcome = Failed("timeout", f"took longer than its {limit:g} s", field="timeout", retryable=True)
        return outcome


async def _record(driver: "Driver", step: StepState, done: Done, hash_: str | None, latency_ms: int) -> None:
    change_set = done.change_set if done.change_set is not None and done.change_set.changes else None
    if change_set is not None:
        await asyncio.to_thread(driver.tools.blobs.sync)
    result, text = await result_of(driver, step, done, change_set, latency_ms)
    outputs = {step.id: text}
    if change_set is None:
        await driver.submit([Complete(driver.tools.actor, step.id, result, hash_)], Attachments(outputs=outputs))
        return
    attachments = Attachments(outputs=outputs, change_sets=[driver.change_set_row(step, change_set)])
    await driver.submit([Compute(driver.tools.actor, step.id, result, hash_)], attachments)
    current = driver.handle.state.steps[step.id]
    if current.status is StepStatus.COMPUTED:
        await apply_computed(driver, current, change_set)
