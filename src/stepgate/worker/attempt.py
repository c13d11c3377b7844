"""One attempt of one step: resolve its input, ask if it must be asked, execute, record, apply."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog

from stepgate.domain import canonical
from stepgate.domain.commands import Ask, Begin, Complete, Compute, Interrupt, Pause, Review
from stepgate.domain.decide.turn import error_data
from stepgate.domain.errors import (
    LeaseLost,
    SandboxUnavailable,
    StaleApproval,
    StepgateError,
    WorkspaceConflict,
    WorkspaceUnavailable,
)
from stepgate.domain.state import Effect, Gate, StepResult, StepState
from stepgate.domain.states import CLOSED, STARTABLE, StepStatus
from stepgate.engine import actions
from stepgate.executors.base import Done, Executor, Failed, Outcome, Prepared
from stepgate.storage.attachments import Attachments
from stepgate.worker.applying import apply_computed, half_applied
from stepgate.worker.outcome import fail_with, output_text, validated
from stepgate.worker.quick import is_quick, take
from stepgate.workspace.changes import ChangeSet, next_rev
from stepgate.workspace.locks import WorkspaceLock

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

log = structlog.get_logger(__name__)

DRIFT_ATTEMPTS = 3
LOCK_WAIT_S = 10.0


class Held(Exception):
    """The step cannot go on now because its workspace is in use; the run is given back and waits."""


async def attempt(driver: "Driver", step: StepState) -> None:
    """Takes one ready (or abandoned) step as far as it can go now; every end is recorded.

    Raises LeaseLost when the run is driven elsewhere, Held when its workspace is in use.
    """
    tools = driver.tools
    executor = tools.registry.find(step.spec.type)
    if executor is None:
        await driver.submit([Pause(tools.actor, "executor_missing")])
        return
    try:
        if not (is_quick(step, executor) and await take(driver, step, executor)):
            await _proceed(driver, step, executor)
    except SandboxUnavailable as error:
        log.warning("sandbox unavailable", run_id=driver.handle.run_id, step=step.spec.key, error=str(error))
        await driver.submit([Pause(tools.actor, "sandbox_unavailable"), Interrupt(tools.actor, step.id)])
    except (LeaseLost, Held):
        raise
    except StepgateError as error:
        await _fail(driver, step, error.reason_code, error.message, error.field)
    except Exception as error:
        log.exception("step failed unexpectedly", run_id=driver.handle.run_id, step=step.spec.key)
        await _fail(driver, step, "internal", f"{type(error).__name__}: {error}", None)


async def _proceed(driver: "Driver", step: StepState, executor: Executor[Any]) -> None:
    if step.status is StepStatus.COMPUTED:
        await apply_computed(driver, step)
        return None
    if step.spec.effect is Effect.ONCE and step.status is StepStatus.RUNNING:
        error = error_data("lost_end", "its worker was lost after it began; it may have happened")
        await driver.submit([Review(driver.tools.actor, step.id, error)])
        return None
    for _ in range(DRIFT_ATTEMPTS):
        try:
            return await _advance(driver, step, executor)
        except StaleApproval:  # its effect would not be the approved one: back to the question
            await driver.submit([Interrupt(driver.tools.actor, step.id)])
            step = driver.handle.state.steps[step.id]
            if step.status not in STARTABLE:
                return None
    raise WorkspaceConflict("the workspace keeps changing under the approved action", code="drifted")


async def _fail(driver: "Driver", step: StepState, code: str, message: str, field: str | None) -> None:
    await fail_with(driver, step, Failed(code, message, field))


async def _advance(driver: "Driver", step: StepState, executor: Executor[Any]) -> None:
    resolved = await driver.resolved_input(step.id)
    params = validated(executor, resolved)
    if step.spec.gate is Gate.ALLOW and not step.approvals:
        await _execute(driver, step, executor, params)
        return
    if step.spec.effect is Effect.WORKSPACE and step.authorised:
        await driver.hold_workspace(step.id)
    async with _reading(driver, executor):
        prepared = await _prepare(driver, step, executor, params)
    rev = await driver.workspace_rev()
    revision = len(step.approvals) + (0 if step.authorised else 1)
    hash_ = actions.action_hash(driver.handle.state, step, max(revision, 1), executor, prepared, resolved, rev)
    approval = step.approval
    if step.authorised and approval is not None and approval.action_hash == hash_:
        await _execute(driver, step, executor, params, hash_, prepared)
        return
    if step.authorised:  # the action moved after it was approved: a new revision, a new question
        hash_ = actions.action_hash(
            driver.handle.state, step, len(step.approvals) + 1, executor, prepared, resolved, rev
        )
    await _ask(driver, step, prepared, hash_, rev)


async def _prepare(driver: "Driver", step: StepState, executor: Executor[Any], params: Any) -> Prepared:
    async with driver.tools.lanes[executor.type], asyncio.timeout(_timeout_s(driver, step)):
        prepared: Prepared = await executor.prepare(driver.context(step), params)
    return prepared


async def _ask(driver: "Driver", step: StepState, prepared: Prepared, hash_: str, rev: str) -> None:
    state = driver.handle.state
    shown = canonical.dumps(actions.rendering(state, step, prepared, rev)).decode()
    expires_ms = state.info.limits.get("approval_timeout_ms")
    approval = actions.question(state, step, prepared, hash_, shown, driver.tools.clock.now(), expires_ms)
    await driver.submit(
        [Ask(driver.tools.actor, step.id, approval)], Attachments(renderings={approval.request_id: shown})
    )


def _timeout_s(driver: "Driver", step: StepState) -> float:
    return (step.spec.timeout_ms or driver.tools.step_timeout_ms) / 1000


@asynccontextmanager
async def _reading(driver: "Driver", executor: Executor[Any]) -> AsyncIterator[None]:
    """Keeps change sets from being applied meanwhile, and refuses a workspace that holds half of one."""
    if not executor.reads_workspace:
        yield
        return
    if await half_applied(driver):
        raise Held("a change set is half-applied there")
    async with WorkspaceLock(driver.root).shared_async(LOCK_WAIT_S):
        if driver.tools.marks.standing(driver.workspace_id) is not None:
            raise Held("a change set is being applied there")
        yield


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
    if executor.lasts or step.spec.effect is Effect.ONCE:
        await driver.submit([Begin(driver.tools.actor, step.id, hash_)])
    began = time.monotonic()
    try:
        outcome = await _run(driver, step, executor, params, prepared)
    except TimeoutError:
        message = f"took longer than its {_timeout_s(driver, step):g} s"
        outcome = Failed("timeout", message, field="timeout", retryable=True)
    except (WorkspaceUnavailable, Held) as error:
        if executor.lasts:
            await driver.submit([Interrupt(driver.tools.actor, step.id)])
        raise Held(str(error)) from error
    latency_ms = round((time.monotonic() - began) * 1000)
    match outcome:
        case Done():
            await _record(driver, step, outcome, hash_, latency_ms)
        case Failed():
            await fail_with(driver, step, outcome)
    if step.spec.effect is Effect.WORKSPACE and driver.handle.state.steps[step.id].status in CLOSED:
        await driver.free_workspace(step.id)


async def _run(
    driver: "Driver", step: StepState, executor: Executor[Any], params: Any, prepared: Prepared | None
) -> Outcome:
    """Executes, again where somebody changed a file under the layer meanwhile, a bounded number of times."""
    context = driver.context(step, prepared)
    for left in reversed(range(DRIFT_ATTEMPTS)):
        try:
            async with _reading(driver, executor), driver.tools.lanes[executor.type]:
                if not executor.lasts and step.spec.timeout_ms is None:
                    return await executor.execute(context, params)
                async with asyncio.timeout(_timeout_s(driver, step)):
                    return await executor.execute(context, params)
        except WorkspaceConflict as error:
            if error.reason_code != "drifted" or left == 0:
                raise
    raise AssertionError("unreachable")


async def _record(driver: "Driver", step: StepState, done: Done, hash_: str | None, latency_ms: int) -> None:
    change_set = done.change_set
    if change_set is None or not change_set.changes:
        result, text = await _result(driver, step, done, None, latency_ms)
        await driver.submit(
            [Complete(driver.tools.actor, step.id, result, hash_)], Attachments(outputs={step.id: text})
        )
        return
    await asyncio.to_thread(driver.tools.blobs.sync)
    result, text = await _result(driver, step, done, change_set, latency_ms)
    attachments = Attachments(outputs={step.id: text}, change_sets=[driver.change_set_row(step, change_set)])
    await driver.submit([Compute(driver.tools.actor, step.id, result, hash_)], attachments)
    current = driver.handle.state.steps[step.id]
    if current.status is StepStatus.COMPUTED:
        await apply_computed(driver, current, change_set)


async def _result(
    driver: "Driver", step: StepState, done: Done, change_set: ChangeSet | None, latency_ms: int
) -> tuple[StepResult, str]:
    output, before, after = dict(done.output), None, None
    if step.spec.effect is Effect.WORKSPACE:
        before = await driver.workspace_rev()
        after = before if change_set is None else next_rev(before, change_set.digest)
        output["workspace_rev"] = after
    text = output_text(driver, output)
    return (
        StepResult(
            output_sha256=canonical.digest(text),
            output_size=len(text),
            change_set_id=None if change_set is None else change_set.id,
            change_set_digest=None if change_set is None else change_set.digest,
            workspace_before=before,
            workspace_after=after,
            latency_ms=latency_ms,
        ),
        text.decode(),
    )
