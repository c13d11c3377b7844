"""Another input for a step that is asked about: held to what a plan's would be, and to the rules of now."""

from dataclasses import replace
from typing import Any

from stepgate.domain import canonical
from stepgate.domain.commands import Edit
from stepgate.domain.errors import Conflict, InvalidPlan, NotFound
from stepgate.domain.identity import in_rules
from stepgate.domain.ids import StepId
from stepgate.domain.plan import PlannedStep
from stepgate.domain.plan_check import validate_steps
from stepgate.domain.policy.action import Ruling
from stepgate.domain.policy.decide import Policy
from stepgate.domain.state import Actor, RunState, StepState
from stepgate.engine.explaining import Imagined, explain_steps
from stepgate.engine.planning import known_steps
from stepgate.executors.registry import Registry


def edit_of(
    state: RunState,
    step_id: StepId,
    actor: Actor,
    action_hash: str,
    new_input: Any,
    reason: str | None,
    registry: Registry,
    policy: Policy,
    now: int,
) -> tuple[Edit, str]:
    """The command, and the input as canonical JSON.

    Raises InvalidPlan whose problems name the fields of `input`, NotFound, Conflict `cannot_edit` for a step that only
    the engine may add and `denied` where the rules leave no doubt that the new action may not happen.
    """
    step = state.steps.get(step_id)
    if step is None:
        raise NotFound(f"the run has no step {step_id}", field="step_id")
    planned = _planned(state, step, new_input, registry)
    _refuse_denied(state, planned, registry, policy, now)
    text = canonical.dumps(planned.input)
    return Edit(actor, step_id, action_hash, canonical.digest(text), len(text), reason), text.decode()


def _planned(state: RunState, step: StepState, raw: Any, registry: Registry) -> PlannedStep:
    if registry.get(step.spec.type).internal:
        raise Conflict(
            f"nobody gives a step of type {step.spec.type} another input",
            code="cannot_edit",
            field="input",
            fix="approve or reject it as it is",
        )
    earlier = [one for one in known_steps(state) if state.steps[state.keys[one.key]].spec.number < step.spec.number]
    asked = {
        "key": step.spec.key,
        "type": step.spec.type,
        "input": raw,
        "needs": [state.steps[need].spec.key for need in step.spec.needs],
    }
    try:
        (planned,) = validate_steps([asked], step_types=registry.step_types(), existing=earlier)
    except InvalidPlan as error:
        problems = tuple(replace(one, field=one.field.removeprefix("steps[0].")) for one in error.problems)
        raise InvalidPlan(error.message.removeprefix("steps[0]."), problems=problems, fix=error.fix) from error
    return planned


def _refuse_denied(state: RunState, planned: PlannedStep, registry: Registry, policy: Policy, now: int) -> None:
    """A worker would end the step, and mostly the run, where whoever edits can still think again."""
    info = state.info
    imagined = Imagined(requester=in_rules(info.tenant, info.requester.id), now=now)
    (told,) = explain_steps(policy, registry, [planned], info.labels, imagined)
    if told.verdict is Ruling.DENY:
        named = ", ".join(told.rules)
        raise Conflict(
            f"denied by policy: {named} (version {policy.version[:12]})",
            code="denied",
            field="input",
            fix="edit it into something else, or reject it",
            details={"rules": told.rules},
        )
