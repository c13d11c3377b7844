"""What a model may plan for a run: the step types it can choose from, and the rules its plan is held to."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from stepgate.domain import references
from stepgate.domain.errors import InvalidPlan, Problem
from stepgate.domain.identity import in_rules
from stepgate.domain.plan import PlannedStep
from stepgate.domain.state import RunState
from stepgate.engine.explaining import Imagined, explain_steps
from stepgate.engine.planning import steps_of
from stepgate.executors.base import Planning
from stepgate.llm.flatten import flattened

if TYPE_CHECKING:
    from stepgate.worker.tools import Tools

PLAN: Final = "plan"
WRITTEN: Final = frozenset({"content", "edits", "patch"})
"""What a planner has not seen the file for: such an edit would be a guess."""


class RunPlanning(Planning):
    """For one run, as it stands when it is asked."""

    def __init__(self, state: RunState, tools: "Tools") -> None:
        self._state = state
        self._tools = tools

    def step_types(self) -> Sequence[Mapping[str, Any]]:
        return [
            {"type": one["type"], "summary": one["summary"], "input": flattened(one["input_schema"])}
            for one in self._tools.registry.describe()
            if one["type"] != PLAN
        ]

    def check(self, steps: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        state, tools = self._state, self._tools
        planned = steps_of(steps, tools.registry, state, max_steps=state.info.limits.get("max_steps"))
        problems = [one for index, step in enumerate(planned) for one in _beyond(step, f"steps[{index}]")]
        if problems:
            raise InvalidPlan(problems[0].message, field=problems[0].field, problems=tuple(problems))
        level = None if tools.sandbox is None else str(tools.sandbox.level)
        imagined = Imagined(
            requester=in_rules(state.info.tenant, state.info.requester.id),
            sandbox_level=level,
            now=tools.clock.now(),
        )
        explained = explain_steps(tools.policy, tools.registry, planned, state.info.labels, imagined)
        return [
            {"key": one.key, "type": one.step_type, "verdict": one.verdict.value, "rules": one.rules}
            for one in explained
        ]


def _beyond(step: PlannedStep, field: str) -> list[Problem]:
    """What a person's plan may hold and a model's may not."""
    if step.type == PLAN:
        return [Problem(f"{field}.type", "a plan does not plan", "use another step type")]
    if step.type == "edit_file" and (given := sorted(WRITTEN & set(step.input))):
        fix = "give path and instruction; the file is read and the change written when it is its turn"
        return [Problem(f"{field}.input.{given[0]}", "a planner has not seen the file", fix)]
    if references.find(step.input.get("instruction")):
        what = "a reference would put what a file or a command says among the instructions"
        return [
            Problem(f"{field}.input.instruction", what, "name the step in `context`, and say here what to look for")
        ]
    return []
