"""From what people write to what the journal records: plans become step definitions and input texts."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPlan, InvalidValue
from stepgate.domain.ids import StepId, new_id
from stepgate.domain.limits import MAX_GOAL_CHARS, MAX_TIMEOUT_MS, RunLimits
from stepgate.domain.plan import KnownStep, PlannedStep, ValidPlan
from stepgate.domain.plan_check import validate_plan, validate_steps
from stepgate.domain.plan_faults import model_problems
from stepgate.domain.state import FORK, UNDO, Gate, RunState, StepSpec, is_gone
from stepgate.domain.states import CLOSED, RunStatus
from stepgate.executors.deliver import DELIVER
from stepgate.executors.registry import Registry
from stepgate.executors.replay import REPLAY


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
    # Where the run is ending no step is wanted at all, which the decision says.
    ending = state.finished or state.phase in (RunStatus.CANCELLING, RunStatus.FAILING)
    return tuple(
        KnownStep(step.spec.key, tuple(keys[need] for need in step.spec.needs), is_gone(step) and not ending)
        for step in steps
    )


def define(planned: Sequence[PlannedStep], registry: Registry, state: RunState | None = None) -> Definitions:
    """Gives validated steps their ids, numbers, effects and gates; a plan can only tighten a gate.

    A step is recorded, and numbered, behind those it needs, wherever the plan has them. In a fork whose copy is not yet
    what the workspace was, it waits for that, too.
    """
    ids: dict[str, StepId] = {} if state is None else dict(state.keys.items())
    number = 0 if state is None else len(state.steps)
    first = () if state is None or state.info.origin is None else _prologue(state)
    specs, inputs = [], {}
    for step in _behind_needs(planned):
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
                needs=tuple(dict.fromkeys((*first, *(ids[need] for need in step.needs)))),
                max_attempts=step.max_attempts,
                backoff_ms=step.backoff_ms,
                timeout_ms=step.timeout_ms,
                on_error=step.on_error,
                input_sha256=canonical.digest(text),
                input_size=len(text),
                created_at=0,
                why=step.why,
                insists=step.gate == "ask",
            )
        )
        inputs[step_id] = text.decode()
    return Definitions(tuple(specs), inputs)


def _prologue(state: RunState) -> tuple[StepId, ...]:
    return tuple(one.id for one in state.steps.values() if one.spec.type == FORK and one.status not in CLOSED)


def _behind_needs(planned: Sequence[PlannedStep]) -> Sequence[PlannedStep]:
    """In the order of the plan, but for steps that others before them need (Kahn 1962)."""
    place = {step.key: index for index, step in enumerate(planned)}
    waiting = {step.key: {need for need in step.needs if need in place} for step in planned}
    if all(place[need] < place[key] for key, needs in waiting.items() for need in needs):
        return planned
    dependents: dict[str, list[str]] = {}
    for key, needs in waiting.items():
        for need in needs:
            dependents.setdefault(need, []).append(key)
    ready = [place[key] for key, needs in waiting.items() if not needs]
    ordered = []
    while ready:
        step = planned[heapq.heappop(ready)]
        ordered.append(step)
        for key in dependents.get(step.key, ()):
            waiting[key].discard(step.key)
            if not waiting[key]:
                heapq.heappush(ready, place[key])
    return ordered


def define_undo(state: RunState, registry: Registry, to: str | None) -> Definitions:
    """The undo step of a finished run: back to the state after step `to` (key or number), or before all of them."""
    if (
        to is not None
        and to not in state.keys
        and not any(str(step.spec.number) == to for _, step in state.steps.items())
    ):
        raise InvalidValue(f"the run has no step {to!r}", field="to_step", fix="name a step by its key or number")
    number = len(state.steps) + 1
    return _internal(registry, UNDO, f"undo-{number}", number, {"to": to}, "continue")


def define_delivery(state: RunState, registry: Registry) -> Definitions:
    """The one step of a run that applies what an isolated run changed to the folder its copy was made of.

    Whoever asked for a change asked for its delivery, whoever sends that.
    """
    definitions = _internal(registry, DELIVER, "deliver", 1, {"run_id": state.info.id})
    changed = (step for step in state.steps.values() if step.result is not None and step.result.change_set_id)
    by = dict.fromkeys(one for step in changed for one in state.authors(step))
    return Definitions((definitions.specs[0]._replace(asked_by=tuple(by)),), definitions.inputs)


def define_fork(
    state: RunState, registry: Registry, from_step: str, run_ids: Sequence[str], kept: Sequence[str]
) -> Definitions:
    """The first step of a fork, which brings its private copy to where the workspace was."""
    taken = {step.spec.key for step in state.steps.values() if step.spec.type not in (UNDO, FORK)}
    keys = (FORK, *(f"{FORK}-{number}" for number in range(2, len(taken) + 3)))
    key = next(key for key in keys if key not in taken)
    value = {"run_ids": list(run_ids), "from_step": from_step, "kept": list(kept)}
    return _internal(registry, FORK, key, 1, value)


def define_replay(run_id: str, registry: Registry, *, printed: bool) -> Definitions:
    """The one step of a run that replays another."""
    definitions = _internal(registry, REPLAY, REPLAY, 1, {"run_id": run_id, "printed": printed})
    spec = definitions.specs[0]._replace(timeout_ms=MAX_TIMEOUT_MS)
    return Definitions((spec,), definitions.inputs)


def _internal(
    registry: Registry, type_: str, key: str, number: int, value: Mapping[str, Any], on_error: str = "fail"
) -> Definitions:
    """A step that only the engine may add."""
    executor = registry.get(type_)
    text = canonical.dumps(value)
    spec = StepSpec(
        id=StepId(new_id()),
        key=key,
        number=number,
        type=type_,
        effect=executor.effect,
        gate=executor.gate,
        needs=(),
        max_attempts=1,
        backoff_ms=0,
        timeout_ms=None,
        on_error=on_error,
        input_sha256=canonical.digest(text),
        input_size=len(text),
        created_at=0,
    )
    return Definitions((spec,), {spec.id: text.decode()})
