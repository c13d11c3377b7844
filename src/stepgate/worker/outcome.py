"""What every kind of step has in common around its execution: checked input, bounded output, recorded failure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.commands import Fail, Review
from stepgate.domain.decide.turn import error_data
from stepgate.domain.errors import InvalidPlan, StepgateError
from stepgate.domain.plan_faults import model_problems
from stepgate.domain.state import StepState
from stepgate.domain.states import StepStatus
from stepgate.executors.base import Executor, Failed
from stepgate.storage.attachments import NOTHING, Attachments

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

MAX_MESSAGE_CHARS = 4000
OUTPUT_ROOM = 4
"""Two streams of `max_output_bytes`, each of which JSON may write at twice its length."""


def validated(executor: Executor[Any], value: Mapping[str, Any]) -> Any:
    """The input as the executor's Params; raises InvalidPlan `invalid_input` naming the field."""
    try:
        return executor.params.model_validate(value)
    except ValidationError as error:
        problems = tuple(model_problems(error, executor.params, "input"))
        first = problems[0]
        raise InvalidPlan(first.message, code="invalid_input", field=first.field, problems=problems) from error


def output_text(driver: "Driver", output: Mapping[str, Any]) -> bytes:
    """The output as canonical JSON; raises StepgateError `output_too_large`."""
    text = canonical.dumps(output)
    if len(text) > driver.tools.bounds.max_output_bytes * OUTPUT_ROOM:
        raise StepgateError(f"its output has {len(text)} bytes", code="output_too_large", field="output")
    return text


async def fail_with(driver: "Driver", step: StepState, failed: Failed) -> None:
    """Records the failure; what the step printed is kept for people, no reference reaches it.

    A step whose change set is recorded cannot fail any more, because its effect may be there: a person must look.
    """
    why = error_data(failed.code, failed.message[:MAX_MESSAGE_CHARS], failed.field)
    if driver.handle.state.steps[step.id].status is StepStatus.COMPUTED:
        await driver.submit([Review(driver.tools.actor, step.id, why)])
        return
    command = Fail(driver.tools.actor, step.id, why, failed.retryable, failed.retry_after_ms)
    kept = Attachments(outputs={step.id: canonical.dumps(failed.output).decode()}) if failed.output else NOTHING
    await driver.submit([command], kept)
