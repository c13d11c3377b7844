"""From what people write to what the journal records: plans become step definitions and input texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPlan, InvalidValue
from stepgate.domain.ids import StepId, new_id
from stepgate.domain.limits import MAX_GOAL_CHARS, RunLimits
from stepgate.domain.plan import KnownStep, PlannedStep, ValidPlan
from stepgate.domain.plan_check import validate_plan, validate_steps
from stepgate.domain.plan_faults import model_problems
from stepgate.domain.state import UNDO, Gate, RunState, StepSpec
from stepgate.executors.registry import Registry


@dataclass(frozen=True, slots=True)
class Definitions:
    """Steps ready to be recorded, and their inputs as canonical JSON by step."""

    specs: tuple[StepSpec, ...]
    inputs: Mapping[StepId, str]


def check_goal(goal: Any) -> str:
    """The goal, or InvalidValue naming what is wrong with it."""
    if not isinstance(goal, str) or not goal.strip():
        raise InvalidValue("a run needs a goal", field="goal", fix="say in a sentence what the run is for")
    if len(goal) > MAX_GOAL_CHARS:
        raise InvalidValue(
            f"{len(goal)} characters; at most {MAX_GOAL_CHARS} are allowed", field="goal", fix="shorten the goal"
        )
    canonical.check_text(goal, "goal")
    return goal


def check_labels(labels: Any) -> dict[str, str]:
    """Labels are short text to short text; at most 64 of them."""
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or len(labels) > 64:
        raise InvalidValue("labels are a mapping of at most 64 names", field="labels")
    for name, value in labels.items():
        if not isinstance(name, str) or not isinstance(value, str) or not 0 < len(name) <= 100 or len(value) > 200:
            raise InvalidValue(
                "names have 1 to 100 characters, values at most 200", field=f"labels.{name}", fix="send text"
            )
        canonical.check_text(name, "labels")
        canonical.check_text(value, f"labels.{name}")
    return dict(labels)


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Any JSON object of at most 64 KiB."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidValue("metadata is a JSON object", field="metadata")
    canonical.check(metadata, "metadata")
    if len(canonical.dumps(metadata)) > 65_536:
        raise InvalidValue("more than 64 KiB", field="metadata", fix="store large data elsewhere")
    return dict(metadata)


def plan_of(raw: Any, registry: Registry, params: Mapping[str, Any] | None) -> ValidPlan:
    """A whole plan, validated; raises InvalidPlan listing every problem."""
    return validate_plan(raw, step_types=registry.step_types(), params=params or {})


def limits_of(raw: Any) -> RunLimits:
    """A run's limits; raises InvalidPlan naming each field at fault."""
    try:
        return RunLimits.model_validate(raw)
    except ValidationError as error:
        raise InvalidPlan(
            "the limits are not valid", problems=tuple(model_problems(error, RunLimits, "limits"))
        ) from error


def steps_of(
    raw: Any, registry: Registry, state: RunState | None = None, *, max_steps: int | None = None
) -> tuple[PlannedStep, ...]:
    """Steps for a new run, or to be added to one; raises InvalidPlan listing every problem."""
    if not isinstance(raw, Sequence) or isinstance(raw, str | bytes):
        raise InvalidValue("steps are a list", field="steps")
    existing = () if state is None else known_steps(state)
    return validate_steps(raw, step_types=registry.step_types(), existing=existing, max_steps=max_steps)


def known_steps(state: RunState) -> tuple[KnownStep, ...]:
    """The run's planned steps, in order of number."""
    steps = sorted((step for _, step in state.steps.items() if step.spec.type != UNDO), key=lambda s: s.spec.number)
    keys = {step.id: step.spec.key for step in steps}
    return tuple(KnownStep(step.spec.key, tuple(keys[need] for need in step.spec.needs)) for step in steps)


def define(planned: Sequence[PlannedStep], registry: Registry, state: RunState | None = None) -> Definitions:
    """Gives validated steps their ids, numbers, effects and gates; a plan can only tighten a gate."""
    ids: dict[str, StepId] = {} if state is None else dict(state.keys.items())
    number = 0 if state is None else len(state.steps)
    specs, inputs = [], {}
    for step in planned:
        number += 1
        executor = registry.get(step.type)
        text = canonical.dumps(step.input)
        ids[step.key] = step_id = StepId(new_id())
        ask = executor.gate is Gate.ASK or step.gate == "ask"
        specs.append(
            StepSpec(
                id=step_id,
                key=step.key,
                number=number,
                type=step.type,
                effect=executor.effect,
                gate=Gate.ASK if ask else Gate.ALLOW,
                needs=tuple(ids[need] for need in step.needs),
                max_attempts=step.max_attempts,
                backoff_ms=step.backoff_ms,
                timeout_ms=step.timeout_ms,
                on_error=step.on_error,
                input_sha256=canonical.digest(text),
                input_size=len(text),
                created_at=0,
                why=step.why,
            )
        )
        inputs[step_id] = text.decode()
    return Definitions(tuple(specs), inputs)


def define_undo(state: RunState, registry: Registry, to: str | None) -> Definitions:
    """The undo step of a finished run: back to the state after step `to` (key or number), or before all of them."""
    if (
        to is not None
        and to not in state.keys
        and not any(str(step.spec.number) == to for _, step in state.steps.items())
    ):
        raise InvalidValue(f"the run has no step {to!r}", field="to", fix="name a step by its key or number")
    executor = registry.get(UNDO)
    text = canonical.dumps({"to": to})
    number = len(state.steps) + 1
    spec = StepSpec(
        id=StepId(new_id()),
        key=f"undo-{number}",
        number=number,
        type=UNDO,
        effect=executor.effect,
        gate=executor.gate,
        needs=(),
        max_attempts=1,
        backoff_ms=0,
        timeout_ms=None,
        on_error="continue",
        input_sha256=canonical.digest(text),
        input_size=len(text),
        created_at=0,
    )
    return Definitions((spec,), {spec.id: text.decode()})
