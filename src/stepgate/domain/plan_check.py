"""Validation of whole plans before the first step: one that starts can fail at its work, not at its form."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from stepgate.domain import canonical, limits, references
from stepgate.domain.errors import InvalidReference, InvalidValue
from stepgate.domain.params import fill
from stepgate.domain.plan import KnownStep, PlanHead, PlannedStep, PlanStep, StepType, ValidPlan
from stepgate.domain.plan_faults import Faults, model_problems, nearest
from stepgate.domain.plan_graph import Node, check_graph
from stepgate.domain.references import Reference


def validate_plan(
    raw: Any,
    *,
    step_types: Mapping[str, StepType],
    params: Mapping[str, Any] | None = None,
    existing: Sequence[KnownStep] = (),
) -> ValidPlan:
    """The plan, its parameters filled in; raises InvalidPlan with every problem found (the first 100).

    `raw` is parsed JSON or YAML, normally a mapping; `params` are the values given for declared parameters.
    """
    faults = Faults()
    if not isinstance(raw, Mapping):
        faults.add("", "a plan is a mapping", "write version: 1, goal: ... and steps: [...]")
        faults.raise_if_any()
    head = _head({name: value for name, value in raw.items() if name != "steps"}, faults)
    values: dict[str, Any] = {}
    name = goal = None
    if head is not None:
        values, problems = fill(head.params, params or {})
        faults.extend(problems)
        name, goal = head.name, _goal(head.goal, values, faults)
    if "steps" not in raw:
        faults.add("steps", "is missing", "add a list of steps")
    max_steps = head.limits.max_steps if head is not None else None
    # With faulty parameters every reference to them would only repeat the fault.
    usable = values if head is not None and len(values) == len(head.params) else None
    planned = _steps(raw.get("steps", ()), step_types, usable, existing, faults, max_steps) if "steps" in raw else ()
    faults.raise_if_any()
    return ValidPlan(name, goal, values, head.limits if head else limits.RunLimits(), planned)


def validate_steps(
    raw: Sequence[Any],
    *,
    step_types: Mapping[str, StepType],
    existing: Sequence[KnownStep] = (),
    max_steps: int | None = None,
) -> tuple[PlannedStep, ...]:
    """Steps added to a run that has `existing` ones (in order); raises InvalidPlan with every problem found.

    A first step without `needs` waits for the last existing step. `max_steps` is the run's own limit.
    """
    faults = Faults()
    planned = _steps(raw, step_types, {}, existing, faults, max_steps)
    faults.raise_if_any()
    return planned


def _head(raw: dict[str, Any], faults: Faults) -> PlanHead | None:
    try:
        canonical.check(raw, "plan")
    except InvalidValue as error:
        faults.add((error.field or "plan").removeprefix("plan."), error.message, error.fix)
        return None
    try:
        return PlanHead.model_validate(raw)
    except ValidationError as error:
        faults.extend(model_problems(error, PlanHead, ""))
        return None


def _goal(goal: str | None, values: dict[str, Any], faults: Faults) -> str | None:
    """A goal's references are filled in here for good: no step's output exists yet."""
    if goal is None or not references.has_references(goal):
        return goal
    try:
        if any(found.scope == "steps" for found in references.find(goal, "goal")):
            faults.add("goal", "refers to a step's output", "only ${{ params.<name> }} can stand in a goal")
            return None
        text = references.fill_text(goal, values, "goal")
    except InvalidReference as error:
        faults.add_error(error, "goal")
        return None
    if not 1 <= len(text) <= limits.MAX_GOAL_CHARS:
        faults.add("goal", f"must have 1 to {limits.MAX_GOAL_CHARS} characters once its parameters are filled in")
    return text


@dataclass(slots=True)
class _Draft:
    """A step on its way through validation; `step` stays None where its form is wrong."""

    key: str
    step: PlanStep | None
    input: dict[str, Any]
    references: tuple[Reference, ...]
    raw_needs: list[str] | None
    needs_known: bool


def _steps(
    raw: Any,
    step_types: Mapping[str, StepType],
    values: Mapping[str, Any] | None,
    existing: Sequence[KnownStep],
    faults: Faults,
    max_steps: int | None,
) -> tuple[PlannedStep, ...]:
    if isinstance(raw, str | bytes) or not isinstance(raw, Sequence):
        faults.add("steps", "must be a list", "write one list entry per step")
        return ()
    if not raw:
        faults.add("steps", "a plan without steps", "add at least one step")
        return ()
    most = min(limits.MAX_STEPS, max_steps or limits.MAX_STEPS)
    if len(raw) + len(existing) > most:
        faults.add("steps", f"{len(raw) + len(existing)} steps, over the limit of {most}", "split the work in runs")
        return ()
    room = references.Room()
    drafts = [
        _draft(item, f"steps[{index}]", f"step-{len(existing) + index + 1}", step_types, values, faults, room)
        for index, item in enumerate(raw)
    ]
    last = existing[-1].key if existing else None
    nodes = []
    for index, draft in enumerate(drafts):
        needs = draft.raw_needs if draft.raw_needs is not None else [last] if last is not None else []
        nodes.append(
            Node(draft.key, tuple(dict.fromkeys(needs)), draft.needs_known, f"steps[{index}]", draft.references)
        )
        last = draft.key
    check_graph(nodes, existing, faults)
    return tuple(
        _planned(draft.step, draft, node.needs, step_types[draft.step.type])
        for draft, node in zip(drafts, nodes, strict=True)
        if draft.step is not None and draft.step.type in step_types
    )


def _planned(step: PlanStep, draft: _Draft, needs: tuple[str, ...], type_: StepType) -> PlannedStep:
    return PlannedStep(
        key=draft.key,
        type=step.type,
        input=draft.input,
        needs=needs,
        max_attempts=step.retry.max_attempts if step.retry else type_.max_attempts,
        backoff_ms=step.retry.backoff if step.retry else limits.DEFAULT_BACKOFF_MS,
        timeout_ms=step.timeout,
        on_error=step.on_error,
        gate=step.gate,
        why=step.why,
    )


def _draft(
    raw: Any,
    field: str,
    default_key: str,
    step_types: Mapping[str, StepType],
    values: Mapping[str, Any] | None,
    faults: Faults,
    room: references.Room,
) -> _Draft:
    step = _parse_step(raw, field, faults)
    if step is None:
        _check_type_of_broken(raw, field, step_types, faults)
        return _broken(raw, default_key)
    input_, found = _input(step, f"{field}.input", values, faults, room)
    type_ = step_types.get(step.type)
    if type_ is None:
        faults.add(f"{field}.type", f"there is no step type {step.type!r}", lambda: nearest(step.type, step_types))
    elif input_ is not None:
        found += tuple(_named_steps(input_, type_.step_keys, f"{field}.input"))
        for problem in type_.check_input(input_):
            inner = f"{field}.input.{problem.field}" if problem.field else f"{field}.input"
            faults.add(inner, problem.message, problem.fix)
    return _Draft(step.key or default_key, step, input_ or {}, found, step.needs, needs_known=True)


def _named_steps(value: Mapping[str, Any], names: tuple[str, ...], field: str) -> Iterator[Reference]:
    for name in names:
        keys = value.get(name)
        for index, key in enumerate(keys if isinstance(keys, list) else ()):
            if isinstance(key, str) and not references.has_references(key):
                yield Reference("steps", key, (), f"{field}.{name}[{index}]")


def _check_type_of_broken(raw: Any, field: str, step_types: Mapping[str, StepType], faults: Faults) -> None:
    name = raw.get("type", raw.get("step_type")) if isinstance(raw, Mapping) else None
    if isinstance(name, str) and name not in step_types:
        faults.add(f"{field}.type", f"there is no step type {name[:100]!r}", lambda: nearest(name, step_types))


def _parse_step(raw: Any, field: str, faults: Faults) -> PlanStep | None:
    try:
        canonical.check(raw, field)
        return PlanStep.model_validate(raw)
    except InvalidValue as error:
        faults.add_error(error, field)
    except ValidationError as error:
        faults.extend(model_problems(error, PlanStep, field))
    return None


def _broken(raw: Any, default_key: str) -> _Draft:
    """What can still be read of a faulty step, so that other steps are not blamed for it."""
    key, needs = default_key, None
    known = isinstance(raw, Mapping)
    if isinstance(raw, Mapping):
        if isinstance(raw.get("key"), str):
            key = raw["key"]
        needs = raw.get("needs")
        known = needs is None or (isinstance(needs, list) and all(isinstance(need, str) for need in needs))
    return _Draft(key, None, {}, (), needs if known else [], needs_known=known)


def _other_parameter(name: str, values: Mapping[str, Any]) -> str:
    return nearest(name, values) or "declare it under params"


def _input(
    step: PlanStep, field: str, values: Mapping[str, Any] | None, faults: Faults, room: references.Room
) -> tuple[dict[str, Any] | None, tuple[Reference, ...]]:
    if not references.has_references(step.input):
        return step.input, ()
    try:
        found = references.find(step.input, field)
        unknown = False
        for reference in found:
            if reference.scope == "params" and values is not None and reference.name not in values:
                unknown = True
                message = f"there is no parameter {reference.name!r}"
                faults.add(reference.field, message, partial(_other_parameter, reference.name, values))
        if unknown or values is None:
            return None, found
        if all(reference.scope == "steps" for reference in found):
            return step.input, found
        return references.substitute(step.input, values, field, room), found
    except InvalidReference as error:
        faults.add_error(error, field)
        return None, ()
