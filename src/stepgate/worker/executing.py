"""Executing a step: the recorded start, the attempts under it, the record of what came of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never

import structlog

from stepgate.domain.commands import Begin, Complete, Compute, Interrupt
from stepgate.domain.errors import StaleSteps, WorkspaceConflict, WorkspaceUnavailable
from stepgate.domain.ids import StepId
from stepgate.domain.policy.action import Ruling
from stepgate.domain.policy.decide import Verdict
from stepgate.domain.state import Effect, StepState
from stepgate.domain.states import RunStatus, StepStatus
from stepgate.engine import planning
from stepgate.executors.base import Context, Done, Executor, Failed, Launched, Outcome, Prepared
from stepgate.executors.outcomes import change_set_of
from stepgate.executors.preview import touched
from stepgate.storage.attachments import Attachments
from stepgate.worker import ruling
from stepgate.worker.applying import apply_computed, half_applied
from stepgate.worker.asking import ask, prepare
from stepgate.worker.outcome import fail_with, result_of
from stepgate.worker.previewing import keep
from stepgate.worker.proposal import Proposal
from stepgate.worker.waits import Held, time_limit
from stepgate.workspace.locks import WorkspaceLock

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

log = structlog.get_logger(__name__)

DRIFT_ATTEMPTS = 3
LOCK_WAIT_S = 10.0
ADD_ATTEMPTS = 5
DRIFTED = "drifted"


async def carry_out(driver: "Driver", proposal: Proposal, hash_: str, launched: Launched | None = None) -> None:
    """What was run ahead of the question is not run again: its outcome is what was approved."""
    step, prepared = proposal.step, proposal.prepared
    match prepared.outcome:
        case None:
            await execute(driver, step, proposal.executor, proposal.params, hash_, proposal, launched)
        case Done() as done:
            await _record(driver, step, done, hash_, done.output.get("wall_ms"))
        case Failed() as failed:
            await fail_with(driver, step, failed)
        case _:
            assert_never(prepared.outcome)


@asynccontextmanager
async def reading(driver: "Driver", executor: Executor[Any], *, locked: bool = True) -> AsyncIterator[None]:
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


@asynccontextmanager
async def launching(
    driver: "Driver", step: StepState, executor: Executor[Any], params: Any
) -> AsyncIterator[Launched | None]:
    """What an approved step executes, set up while it is found out whether the approval still stands.

    It is gone after the block, whatever became of it.
    """
    launched = None
    if executor.readies and step.authorised and step.approvals and not driver.careful:
        with suppress(TimeoutError):
            async with asyncio.timeout(time_limit(driver, step)):
                launched = await executor.launch(driver.context(step), params)
    try:
        yield launched
    finally:
        if launched is not None:
            try:
                await launched.discard()
            except Exception:  # it must not pass for what became of the step
                log.exception("a sandbox could not be taken down", run_id=driver.handle.run_id)


async def execute(
    driver: "Driver",
    step: StepState,
    executor: Executor[Any],
    params: Any,
    hash_: str | None = None,
    proposal: Proposal | None = None,
    launched: Launched | None = None,
) -> None:
    """One attempt under the approved hash; where nobody was asked there is no hash and no proposal."""
    if step.spec.effect is Effect.WORKSPACE:
        await driver.hold_workspace(step.id)
    run = _Execution(driver, step, executor, hash_)
    began = time.monotonic()
    try:
        outcome = await run.outcome(params, None if proposal is None else proposal.prepared, launched)
    except Held:
        if run.begun:
            await driver.submit([Interrupt(driver.tools.actor, step.id)])
        raise
    latency_ms = round((time.monotonic() - began) * 1000)
    match outcome:
        case Failed():
            await fail_with(driver, step, outcome)
        case Done():
            change = touched(change_set_of(outcome))
            unseen = change.paths and (proposal is None or proposal.prepared.change is None)
            verdict = None
            if unseen:  # its paths may be many: not on the event loop
                verdict = await asyncio.to_thread(ruling.review, driver, step, executor, params, proposal, change)
            if verdict is None or verdict.gate is Ruling.ALLOW:
                await _record(driver, step, outcome, hash_, latency_ms)
            elif verdict.denied:
                await fail_with(driver, step, ruling.denied(verdict))
            else:
                await _park(driver, step, executor, params, outcome, proposal, verdict)
        case _:
            assert_never(outcome)


async def _park(
    driver: "Driver",
    step: StepState,
    executor: Executor[Any],
    params: Any,
    done: Done,
    proposal: Proposal | None,
    verdict: Verdict,
) -> None:
    """What was computed is kept and put before a person; nothing of it is applied until somebody approves it."""
    current = driver.handle.state.steps[step.id]
    if proposal is None:
        prepared = await prepare(driver, current, executor, params)
        rev = await driver.workspace_rev(step.id)
        proposal = Proposal(current, executor, params, await driver.resolved_input(step.id), prepared, rev)
    kept = await keep(driver, proposal, done)
    await ask(driver, replace(proposal, step=current, prepared=kept), verdict, "parked")


class _Execution:
    """One recorded start and the executions under it."""

    def __init__(self, driver: "Driver", step: StepState, executor: Executor[Any], hash_: str | None) -> None:
        self._driver = driver
        self._step = step
        self._executor = executor
        self._hash = hash_
        self.begun = False

    async def outcome(self, params: Any, prepared: Prepared | None, launched: Launched | None) -> Outcome:
        """Executes, again where somebody changed a file under the layer meanwhile, a bounded number of times."""
        if launched is not None and (prepared is None or not launched.fits(self._driver.context(self._step), prepared)):
            await launched.discard()
            launched = None
        for left in reversed(range(DRIFT_ATTEMPTS)):
            try:
                async with reading(self._driver, self._executor):
                    if self._executor.readies and not self._driver.careful:
                        return await self._ready_meanwhile(params, prepared, launched)
                    await self._begin()
                    return await self._within_limit(self._driver.context(self._step, prepared), params)
            except WorkspaceConflict as error:
                if error.reason_code != DRIFTED or left == 0:
                    raise
                launched = None
        raise AssertionError("unreachable")

    async def _begin(self) -> None:
        """What lasts, must not start twice, or may be what kills workers, is known to have started before it does."""
        driver, step = self._driver, self._step
        if not self.begun and (self._executor.lasts or step.spec.effect is Effect.ONCE or driver.careful):
            await driver.submit([Begin(driver.tools.actor, step.id, self._hash)])
            self.begun = True

    async def _ready_meanwhile(self, params: Any, prepared: Prepared | None, launched: Launched | None) -> Outcome:
        """Whatever ends the execution, its start is recorded before its end is; unless the attempt is given up."""
        start = self._driver.background(self._begin())
        try:
            context = self._driver.context(self._step, prepared, start)
            outcome = await self._within_limit(context, params, launched)
        except Exception:
            await start
            raise
        await start
        return outcome

    async def _within_limit(self, context: Context, params: Any, launched: Launched | None = None) -> Outcome:
        outcome: Outcome
        work = self._executor.execute(context, params) if launched is None else launched.finish(context)
        if not self._executor.lasts and self._step.spec.timeout_ms is None:
            outcome = await work
            return outcome
        limit = time_limit(self._driver, self._step)
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                outcome = await work
        except TimeoutError:
            if not clock.expired():
                raise
            outcome = Failed("timeout", f"took longer than its {limit:g} s", field="timeout", retryable=True)
        return outcome


async def _record(driver: "Driver", step: StepState, done: Done, hash_: str | None, latency_ms: int | None) -> None:
    change_set = change_set_of(done)
    if change_set is not None:
        await asyncio.to_thread(driver.tools.blobs.sync)
    result, text = await result_of(driver, step, done, change_set, latency_ms)
    outputs = {step.id: text}
    if change_set is None:
        await _complete(driver, Complete(driver.tools.actor, step.id, result, hash_), done, outputs)
        return
    attachments = Attachments(outputs=outputs, change_sets=[driver.change_set_row(step, change_set)])
    await driver.submit([Compute(driver.tools.actor, step.id, result, hash_)], attachments)
    current = driver.handle.state.steps[step.id]
    if current.status is StepStatus.COMPUTED:
        await apply_computed(driver, current, change_set)


async def _complete(driver: "Driver", complete: Complete, done: Done, outputs: Mapping[StepId, str]) -> None:
    """The steps it adds come with its end: there is no moment at which the run could be over between the two."""
    state = driver.handle.state
    if not done.steps or state.finished or state.phase in (RunStatus.CANCELLING, RunStatus.FAILING):
        await driver.submit([complete], Attachments(outputs=outputs))
        return
    for left in reversed(range(ADD_ATTEMPTS)):
        state, tools = driver.handle.state, driver.tools
        planned = planning.steps_of(done.steps, tools.registry, state, max_steps=state.info.limits.get("max_steps"))
        definitions = planning.define(planned, tools.registry, state)
        attachments = Attachments(outputs=outputs, inputs=definitions.inputs)
        try:
            await driver.submit([replace(complete, steps=definitions.specs)], attachments)
        except StaleSteps:
            if left == 0:
                raise
        else:
            return
