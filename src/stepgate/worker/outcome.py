"""What every kind of step has in common around its execution: checked input, bounded output, recorded failure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.commands import Fail, Review
from stepgate.domain.decide.turn import error_data
from stepgate.domain.errors import InvalidPlan, StepgateError
from stepgate.domain.ids import StepId
from stepgate.domain.plan_faults import model_problems
from stepgate.domain.state import Effect, StepResult, StepState
from stepgate.domain.states import StepStatus
from stepgate.executors.base import Done, Executor, Failed
from stepgate.storage.attachments import NOTHING, Attachments
from stepgate.workspace.changes import ChangeSet, next_rev

if TYPE_CHECKING:
    from stepgate.worker.driver import Driver

MAX_MESSAGE_CHARS = 4000
MAX_PATHS = 1000
UNTOLD = frozenset({"timeout", "internal"})
"""Ends that do not say whether what the step did outside has happened."""
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


async def result_of(
    driver: "Driver", step: StepState, done: Done, change_set: ChangeSet | None, latency_ms: int | None
) -> tuple[StepResult, str]:
    """What is recorded of a step that did what it should, and its output's text."""
    output, before, after = dict(done.output), None, None
    if step.spec.effect is Effect.WORKSPACE:
        before = await driver.workspace_rev(step.id)
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


async def fail_with(driver: "Driver", step: StepState, failed: Failed, paths: Sequence[str] | None = None) -> None:
    """Records the failure; what the step printed is kept for people, no reference reaches it.

    A person must look where its effect may be there all the same: its change set is recorded, or it may have happened
    outside and ended in a way that does not tell.
    """
    why = dict(error_data(failed.code, failed.message[:MAX_MESSAGE_CHARS], failed.field))
    if paths:
        why["paths"] = list(paths)[:MAX_PATHS]
    actor, status = driver.tools.actor, driver.handle.state.steps[step.id].status
    untold = step.spec.effect is Effect.ONCE and status is StepStatus.RUNNING and failed.code in UNTOLD
    if status is StepStatus.COMPUTED or untold:
        await driver.submit([Review(actor, step.id, why)])
        return
    text = _kept(driver, failed)
    kept = None if text is None else {"sha256": canonical.digest(text), "size": len(text)}
    attachments = NOTHING if text is None else Attachments(outputs={step.id: text.decode()})
    await driver.submit([Fail(actor, step.id, why, failed.retryable, failed.retry_after_ms, kept)], attachments)


async def put_under_review(driver: "Driver", step_id: StepId, error: StepgateError) -> None:
    """A person must look before the step goes on."""
    why = dict(error_data(error.reason_code, error.message[:MAX_MESSAGE_CHARS], error.field or "workspace_path"))
    why["paths"] = list(error.details.get("paths", ()))[:MAX_PATHS]
    await driver.submit([Review(driver.tools.actor, step_id, why)])


def _kept(driver: "Driver", failed: Failed) -> bytes | None:
    if not failed.output:
        return None
    try:
        return output_text(driver, failed.output)
    except StepgateError:  # its failure is worth more than what it said about it
        return None
