"""What a planner is told when a person rejects a step and wants the rest planned anew."""

from collections.abc import Mapping
from typing import Any, Final

from stepgate.domain import canonical
from stepgate.domain.errors import Conflict
from stepgate.domain.state import RunState, StepState
from stepgate.domain.states import CLOSED, IN_FLIGHT, StepStatus
from stepgate.storage.steps import Steps

MOST_FINISHED: Final = 200
MOST_TOLD_CHARS: Final = 19_000


async def feedback(state: RunState, rejected: StepState, reason: str | None, steps: Steps) -> dict[str, Any]:
    """The input of the step that plans anew: what was said, what is finished, and what will not be done."""
    said = reason or "no reason was given"
    open_ = (one for one in state.steps.values() if one.status not in CLOSED and one.status not in IN_FLIGHT)
    left = sorted(open_, key=lambda one: one.spec.number)
    inputs = await steps.inputs(state.info.id, [one.id for one in left])
    replaced = [_told(one, inputs.get(one.id)) for one in left]
    told = {
        "rejected": rejected.spec.key,
        "will_not_be_done": replaced,
        "keys_in_use": sorted(dict(state.keys.items())),
    }
    return {
        "instruction": (
            f"A person rejected step {rejected.spec.key} of the plan so far and said: {said}\n\n"
            "What is finished stays as it is. Plan the steps that are left to reach the goal, with keys that are not "
            "in use, and do what the person said."
        ),
        "background": canonical.dumps(told).decode()[:MOST_TOLD_CHARS],
        "context": [one.spec.key for one in _finished(state)],
        "add": True,
    }


def _told(step: StepState, text: str | None) -> Mapping[str, Any]:
    given = None if text is None else canonical.loads(text)
    return {"key": step.spec.key, "type": step.spec.type, "input": given, "why": step.spec.why}


def _finished(state: RunState) -> list[StepState]:
    done = (one for one in state.steps.values() if one.status is StepStatus.COMPLETED)
    return sorted(done, key=lambda one: one.spec.number)[-MOST_FINISHED:]


def no_planner() -> Conflict:
    """Nobody is there who could plan."""
    return Conflict(
        "no model is configured that could plan anew",
        code="no_planner",
        field="then",
        fix="reject with abort or skip, or configure a model (STEPGATE_MODEL_URL)",
    )
