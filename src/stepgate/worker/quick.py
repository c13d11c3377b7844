"""Steps without effect, gate or duration: the common small ones, taken in one go at the cost of one commit each."""

import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, assert_never

from stepgate.domain import canonical
from stepgate.domain.commands import Complete
from stepgate.domain.policy.action import Ruling
from stepgate.domain.state import Effect, Gate, StepResult, StepState
from stepgate.domain.states import StepStatus
from stepgate.executors.base import Done, Executor, Failed, Outcome
from stepgate.storage.attachments import Attachments
from stepgate.worker import ruling
from stepgate.worker.outcome import fail_with, output_text, validated

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

PENDING, ALLOW, NONE = StepStatus.PENDING, Gate.ALLOW, Effect.NONE
"""Under short names: a member's look-up costs three times as much."""


def is_quick(step: StepState, executor: Executor[Any] | None) -> bool:
    """Whether nothing about the step needs a start event, a question, a lock for writing or a time limit."""
    spec = step.spec
    return (
        executor is not None
        and not executor.lasts
        and step.status is PENDING
        and spec.gate is ALLOW
        and spec.effect is NONE
        and spec.timeout_ms is None
        and not step.approvals
    )


async def take(driver: "Driver", step: StepState, executor: Executor[Any]) -> bool:
    """Performs and records the step; what it raises is the caller's to record. False where `perform` gives None."""
    performed = await perform(driver, step, executor)
    if performed is None:
        return False
    await record(driver, step, *performed)
    return True


async def perform(driver: "Driver", step: StepState, executor: Executor[Any]) -> tuple[Outcome, int] | None:
    """The outcome and its latency in milliseconds.

    None, and nothing done, where there is no room, its workspace is in use, or policy does not simply allow it: then
    it is taken up like any other.
    """
    given = driver.plain_input(step.spec.id)
    if given is None:
        given = await driver.resolved_input(step.spec.id)
    params = validated(executor, given)
    if driver.tools.policy.rules and ruling.foresee(driver, step, executor, params).gate is not Ruling.ALLOW:
        return None
    began = time.monotonic()
    lane = driver.tools.lanes[executor.type]
    if not lane.try_enter():
        return None
    reading = False
    try:
        if executor.reads_workspace:
            reading = driver.begin_reading()
            if not reading:
                return None
        outcome = await executor.execute(driver.context(step), params)
    finally:
        lane.leave()
        if reading:
            driver.end_reading()
    return outcome, round((time.monotonic() - began) * 1000)


def record(driver: "Driver", step: StepState, outcome: Outcome, latency_ms: int) -> Awaitable[Any]:
    """Over once it is durable. A plain function: the fewer coroutines wait, the cheaper each goes on."""
    match outcome:
        case Done():
            text = output_text(driver, outcome.output)
            result = StepResult(canonical.digest(text), len(text), latency_ms=latency_ms)
            outputs = {step.spec.id: text.decode()}
            command = Complete(driver.tools.actor, step.spec.id, result)
            return driver.submit((command,), Attachments(outputs=outputs))
        case Failed():
            return fail_with(driver, step, outcome)
        case _:
            assert_never(outcome)
