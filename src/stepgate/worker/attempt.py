"""One attempt of one step: resolve its input, ask if it must be asked, execute, record, apply."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from stepgate.domain import canonical
from stepgate.domain.commands import Interrupt, Pause, Review, StopForBudget
from stepgate.domain.decide.turn import error_data
from stepgate.domain.errors import (
    BudgetExhausted,
    DatabaseUnavailable,
    IllegalTransition,
    LeaseLost,
    SandboxUnavailable,
    StaleApproval,
    StepgateError,
    WorkspaceConflict,
)
from stepgate.domain.policy.action import Change, Reach, Ruling
from stepgate.domain.policy.decide import Verdict
from stepgate.domain.state import Effect, Gate, StepState
from stepgate.domain.states import ACTIVE, STARTABLE, StepStatus
from stepgate.domain.wake import MAY_START
from stepgate.executors.base import Executor, Failed, Launched
from stepgate.worker import ruling
from stepgate.worker.applying import apply_computed
from stepgate.worker.asking import ask, grant, is_as_approved, prepare
from stepgate.worker.executing import DRIFT_ATTEMPTS, DRIFTED, carry_out, execute, launching, reading
from stepgate.worker.outcome import fail_with, put_under_review, validated
from stepgate.worker.previewing import Preview, last_preview, with_preview
from stepgate.worker.proposal import Proposal
from stepgate.worker.quick import is_quick, perform, record, take
from stepgate.worker.waits import Held

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

FEW, SHORT_BYTES = 50, 200

log = structlog.get_logger(__name__)


async def attempt(driver: "Driver", step: StepState) -> None:
    """Takes one ready (or abandoned) step as far as it can go now; every end is recorded.

    Raises LeaseLost when the run is driven elsewhere, Held when its workspace is in use, DatabaseUnavailable when
    nothing could be recorded: then the step is where it was, and is taken up again.
    """
    tools = driver.tools
    executor = tools.registry.find(step.spec.type)
    try:
        if not driver.workplace.ready:
            await driver.workplace.prepare()
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
            performed = await perform(driver, step, executor)
            if performed is None:
                return
            await record(driver, step, *performed)
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
    except BudgetExhausted as error:
        log.info("the budget is used up", run_id=driver.handle.run_id, step=step.spec.key, reason=error.message)
        why = error_data(error.reason_code, _words(error), error.field)
        own = error.reason_code == BudgetExhausted.code and error.details.get("own", True)
        await driver.submit([StopForBudget(driver.tools.actor, step.id, why, own)])
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
    return Failed(error.reason_code, _words(error), error.field)


def _words(error: StepgateError) -> str:
    return error.message if error.fix is None else f"{error.message} ({error.fix})"


async def _set_aside(driver: "Driver", step: StepState, reason: str) -> None:
    """The run waits for a worker that can do the step; one that is ending does so without it."""
    tools = driver.tools
    stop = Interrupt(tools.actor, step.id)
    if driver.handle.state.phase in ACTIVE:
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
        return
    for _ in range(DRIFT_ATTEMPTS):
        try:
            async with driver.tools.lanes[executor.type]:
                if not await _advance(driver, step, executor):
                    return
        except StaleApproval:  # its effect would not be the approved one: back to the question
            await driver.submit([Interrupt(driver.tools.actor, step.id)])
        step = driver.handle.state.steps[step.id]
        if step.status not in STARTABLE:
            return
    raise WorkspaceConflict("the workspace keeps changing under the approved action", code=DRIFTED)


async def _advance(driver: "Driver", step: StepState, executor: Executor[Any]) -> bool:
    """As far as the step can go now; True where a rule allowed it, so that it may be taken up like an approved one."""
    resolved = await driver.resolved_input(step.id)
    params = validated(executor, resolved)
    little = not executor.sandboxed or _is_little(driver, resolved)
    foreseen = await _ruled(partial(ruling.foresee, driver, step, executor, params), here=little)
    if foreseen.denied:
        await fail_with(driver, step, ruling.denied(foreseen))
        return False
    if step.spec.gate is Gate.ALLOW and foreseen.gate is Ruling.ALLOW and not step.approvals:
        await execute(driver, step, executor, params)
        return False
    last = await _turn_and_preview(driver, step)
    async with AsyncExitStack() as exits:
        # A model may write for minutes: others apply changes meanwhile, and at its start the action is looked at anew.
        async with reading(driver, executor, locked=not executor.prepares_long(params)):
            launched = None if last else await exits.enter_async_context(launching(driver, step, executor, params))
            prepared = await prepare(driver, step, executor, params)
            rev = await driver.workspace_rev(step.id)
            proposal = Proposal(step, executor, params, resolved, prepared, rev)
            little = not executor.sandboxed or _is_little(driver, resolved, prepared.reach, prepared.change)
            verdict = await _ruled(partial(ruling.rule, driver, proposal), here=little)
            possible = executor.previews(params) and prepared.ahead and prepared.failure is None
            wanted = verdict.preview and possible
            if not verdict.denied and (last is not None or wanted):
                proposal = await with_preview(driver, proposal, last, wanted=wanted)
                verdict = await _ruled(partial(ruling.rule, driver, proposal), here=not executor.sandboxed)
        return await _decide(driver, proposal, verdict, launched)


async def _turn_and_preview(driver: "Driver", step: StepState) -> Preview | None:
    """Waits for the workspace where the step may change it, and finds what the step's last question showed."""
    if step.spec.effect is not Effect.WORKSPACE or not step.authorised:
        return await last_preview(driver, step)
    looking = asyncio.ensure_future(last_preview(driver, step))
    try:
        await driver.hold_workspace(step.id)
    except BaseException:
        looking.cancel()
        raise
    return await looking


async def _ruled(rule: Callable[[], Verdict], *, here: bool) -> Verdict:
    """A command can have so many words, and its change so many paths, that the event loop would stand still."""
    return rule() if here else await asyncio.to_thread(rule)


def _is_little(
    driver: "Driver", resolved: Mapping[str, Any], reach: Reach | None = None, change: Change | None = None
) -> bool:
    """Whether policy answers sooner than a thread could be asked."""
    paths = (len(reach.paths) + len(reach.words) if reach else 0) + (len(change.paths) if change else 0)
    short = len(canonical.dumps(resolved)) <= SHORT_BYTES
    return short and paths <= FEW and len(driver.tools.policy.rules) <= FEW


async def _decide(driver: "Driver", proposal: Proposal, verdict: Verdict, launched: Launched | None) -> bool:
    step = proposal.step
    approved = is_as_approved(driver, proposal)
    if verdict.denied:
        await fail_with(driver, step, ruling.denied(verdict))
    elif approved is not None and ruling.outlives(driver, step, verdict):
        await carry_out(driver, proposal, approved, launched)
    elif verdict.gate is Ruling.ALLOW:
        await grant(driver, proposal, verdict)
        return True
    else:
        await ask(driver, proposal, verdict)
    return False
