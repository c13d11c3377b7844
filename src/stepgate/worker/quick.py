"""Steps without effect, gate or duration: the common small ones, taken in one go at the cost of one commit each."""

import time
from typing import TYPE_CHECKING, Any

from stepgate.domain import canonical
from stepgate.domain.commands import Complete
from stepgate.domain.state import Effect, Gate, StepResult, StepState
from stepgate.domain.states import StepStatus
from stepgate.executors.base import Done, Executor, Failed
from stepgate.storage.attachments import Attachments
from stepgate.worker.outcome import fail_with, output_text, validated

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver


def is_quick(step: StepState, executor: Executor[Any] | None) -> bool:
    """Whether nothing about the step needs a start event, a question, a lock for writing or a time limit."""
    spec = step.spec
    return (
        executor is not None
        and not executor.lasts
        and step.status is StepStatus.PENDING
        and spec.gate is Gate.ALLOW
        and spec.effect is Effect.NONE
        and spec.timeout_ms is None
        and not step.approvals
    )


async def take(driver: "Driver", step: StepState, executor: Executor[Any]) -> bool:
    """Executes and records the step; what it raises is the caller's to record.

    False, and nothing done, where there is no room or its workspace is in use: then it waits like any other.
    """
    given = driver.plain_input(step.spec.id)
    if given is None:
        given = await driver.resolved_input(step.spec.id)
    params = validated(executor, given)
    began = time.monotonic()
    lane = driver.tools.lanes[executor.type]
    if not lane.try_enter():
        return False
    reading = False
    try:
        if executor.reads_workspace:
            reading = driver.begin_reading()
            if not reading:
                return False
        outcome = await executor.execute(driver.context(step), params)
    finally:
        lane.leave()
        if reading:
            driver.end_reading()
    match outcome:
        case Done():
            text = output_text(driver, outcome.output)
            latency_ms = round((time.monotonic() - began) * 1000)
            result = StepResult(canonical.digest(text), len(text), latency_ms=latency_ms)
            outputs = {step.spec.id: text.decode()}
            await driver.submit((Complete(driver.tools.actor, step.spec.id, result),), Attachments(outputs=outputs))
        case Failed():
            await fail_with(driver, step, outcome)
    return True
