"""What a fork takes over from its run: finished steps as they ended, the others to begin anew, and what was paid."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from stepgate.domain import money
from stepgate.domain.errors import Conflict, InvalidValue
from stepgate.domain.ids import StepId, new_id
from stepgate.domain.state import FORK, NO_USAGE, UNDO, Inherited, RunState, StepSpec, StepState, Usage, satisfies
from stepgate.domain.states import StepStatus as S

_PROLOGUE = frozenset({UNDO, FORK})
"""Steps that bring a workspace to where it was; a fork has its own."""
MOST_BYTES: Final = 256 * 1024 * 1024
REPLAN, REPLANNED = "replan", "replanned"
"""What a rejection can ask for, and the reason of the steps that it closes: no plan of the run has them any more."""
_ENDS = {S.COMPLETED: S.COMPLETED, S.FAILED: S.FAILED}
"""How a kept step stands in the fork; whatever was left out stays so, without the decision that did it."""


@dataclass(frozen=True, slots=True)
class Split:
    """The steps of a run, in order of number: those a fork keeps and those it begins anew."""

    kept: tuple[StepState, ...]
    anew: tuple[StepState, ...]


def named(state: RunState, name: str) -> StepState:
    """The planned step of this key, else of this number; raises InvalidValue `from_step`."""
    step_id = state.keys.get(name)
    found = None if step_id is None else state.steps[step_id]
    if found is None and name.isdecimal():
        found = next((step for step in state.steps.values() if str(step.spec.number) == name), None)
    if found is None or not _is_planned(found):
        what = f"the run has no step {name!r}" if found is None else f"{name!r} is no step of the run's plan"
        raise InvalidValue(what, field="from_step", fix="name a step of the plan by its key or number")
    return found


def split(state: RunState, first: StepState, written: Mapping[StepId, Collection[str]]) -> Split:
    """What ended before the step `first`, by number, is kept if its dependents could go on; the rest begins anew.

    `written` has the keys of the steps that each finished planning step added: what is planned anew is not taken over.
    Raises Conflict `cannot_fork` where a person's step waits for one that will be planned anew.
    """
    steps = sorted((one for one in state.steps.values() if _is_planned(one)), key=_number)
    kept = tuple(one for one in steps if one.spec.number < first.spec.number and satisfies(one))
    kept_ids = {one.id for one in kept}
    again = {key for step_id, keys in written.items() if step_id not in kept_ids for key in keys}
    if first.spec.key in again:
        raise _cannot(first, "it is written by a planning step that has not ended before it")
    anew = tuple(one for one in steps if one.id not in kept_ids and one.spec.key not in again)
    there = kept_ids | {one.id for one in anew}
    for step in anew:
        gone = [state.steps[need] for need in step.spec.needs if need not in there]
        if any(one.spec.type not in _PROLOGUE for one in gone):
            raise _cannot(first, f"step {step.spec.key} waits for a step that will be planned anew")
    return Split(kept, anew)


def _is_planned(step: StepState) -> bool:
    """Whether the run's present plan has the step."""
    left = step.status is S.CANCELLED and step.reason == REPLANNED
    asked = step.status is S.REJECTED and step.approval is not None and step.approval.then == REPLAN
    return step.spec.type not in _PROLOGUE and not left and not asked


def _cannot(first: StepState, why: str) -> Conflict:
    return Conflict(
        f"the run cannot be forked from {first.spec.key}: {why}",
        code="cannot_fork",
        field="from_step",
        fix="fork from the planning step, or from a later step",
    )


def taken_over(parts: Split, prologue: StepSpec) -> tuple[tuple[StepSpec, ...], tuple[Inherited, ...]]:
    """The fork's steps, behind its prologue, and how the kept ones ended; every id is new.

    What begins anew waits for the prologue, which puts the workspace where it was.
    """
    ids = {one.id: StepId(new_id()) for one in (*parts.kept, *parts.anew)}
    fresh = {one.id for one in parts.anew}
    specs = []
    for number, step in enumerate(sorted((*parts.kept, *parts.anew), key=_number), prologue.number + 1):
        needs = tuple(ids[need] for need in step.spec.needs if need in ids)
        if step.id in fresh and not fresh & set(step.spec.needs):
            needs = (prologue.id, *needs)
        specs.append(step.spec._replace(id=ids[step.id], number=number, needs=needs, created_at=0))
    return (prologue, *specs), tuple(_inherited(ids[one.id], one) for one in parts.kept)


def _inherited(step_id: StepId, step: StepState) -> Inherited:
    result = step.result
    return Inherited(
        step_id=step_id,
        origin_step_id=step.id,
        status=_ENDS.get(step.status, S.SKIPPED),
        attempt=step.attempt,
        error=step.error if step.status is S.FAILED else None,
        output_sha256=None if result is None else result.output_sha256,
        output_size=None if result is None else result.output_size,
        started_at=step.started_at,
        completed_at=step.completed_at or step.spec.created_at,
        usage=added((step.usage, step.inherited or NO_USAGE)),
    )


def added(usages: Iterable[Usage]) -> Usage:
    """The sum; a count that nobody told adds nothing, and none is known while no one told any."""
    total = NO_USAGE
    for one in usages:
        if one.calls == 0:
            continue
        total = Usage(
            calls=total.calls + one.calls,
            priced=total.priced + one.priced,
            cost_usd=total.cost_usd + one.cost_usd,
            input=_sum(total.input, one.input),
            output=_sum(total.output, one.output),
            cached=_sum(total.cached, one.cached),
            reasoning=_sum(total.reasoning, one.reasoning),
            source=one.source if total.calls == 0 or total.source == one.source else "mixed",
            model=one.model or total.model,
        )
    return total


def _sum(total: int | None, more: int | None) -> int | None:
    return total if more is None else more if total is None else total + more


def paid_with(state: RunState) -> Usage:
    """What led to where the run stands: its own calls, and of a fork those of the steps it kept."""
    if state.info.origin is None:
        return state.usage
    return added((usage_from(state.info.origin["inherited"]), state.usage))


def usage_data(usage: Usage) -> dict[str, Any]:
    """As JSON, money as text."""
    return {**usage._asdict(), "cost_usd": money.text(usage.cost_usd)}


def usage_from(data: Mapping[str, Any]) -> Usage:
    """The inverse of `usage_data`."""
    return Usage(**{**data, "cost_usd": Decimal(data["cost_usd"])})


def check_size(steps: Iterable[StepState]) -> None:
    """Raises Conflict `run_too_large` where the steps' inputs and outputs together are more than is held at once."""
    sizes = (one.spec.input_size + (0 if one.result is None else one.result.output_size) for one in steps)
    if (size := sum(sizes)) > MOST_BYTES:
        raise Conflict(
            f"the run's inputs and outputs have {size} bytes; at most {MOST_BYTES} are taken over at once",
            code="run_too_large",
            field="run_id",
            fix="let commands print less, or write into files",
        )


def is_material(step: StepState, keys: Collection[str] | None) -> bool:
    """Whether a model is shown a step's output: those named, or all but what only prepared a fork's copy."""
    return step.spec.type != FORK if keys is None else step.spec.key in keys


def _number(step: StepState) -> int:
    return step.spec.number
