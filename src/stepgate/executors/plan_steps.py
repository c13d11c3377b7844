"""Has a model write steps for the run's goal; what it wrote is checked like a person's plan before it counts."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from stepgate.domain import canonical
from stepgate.domain.errors import InvalidPlan, ModelFailure
from stepgate.executors.asking import Instruction, Name, failed
from stepgate.executors.base import Context, Done, Executor, Failed, Outcome, Params, Prepared
from stepgate.executors.fields import RelativePath, StepKey, Text
from stepgate.executors.screen import is_cut, one_line, visible_json
from stepgate.llm import prompts
from stepgate.llm.prompts import Material, material_of
from stepgate.llm.protocol import Message, ModelRequest, Purpose, request_hash
from stepgate.workspace.names import Names, file_names

MAX_STEPS: Final = 20
REPAIRS: Final = 2
MAX_NAMES: Final = 2000
MAX_NAME_CHARS: Final = 60_000
MAX_TOLD: Final = 20
"""Problems of one round that the model is told."""


class PlanStepsParams(Params):
    """What to plan for, and what the planner is shown."""

    instruction: Instruction | None = Field(default=None, description="what to plan; not given: the run's goal")
    files: Annotated[list[RelativePath], Field(max_length=MAX_NAMES)] | None = Field(
        default=None, description="names of files to show; not given: those of the workspace, but ignored ones"
    )
    background: Annotated[Text, Field(max_length=20_000)] | None = Field(
        default=None, description="what else the planner should know; shown as material"
    )
    context: Annotated[list[StepKey], Field(max_length=1000)] = Field(
        default_factory=list, description="keys of the steps whose outputs the planner is shown"
    )
    add: bool = Field(default=True, description="whether the steps are added to the run")
    max_steps: int = Field(default=MAX_STEPS, ge=1, le=MAX_STEPS, description="at most so many")
    model: Name | None = Field(default=None, description="the model, as the router names it")
    tier: Name | None = Field(default=None, description="how able a model is needed, where the router has tiers")


@dataclass(frozen=True, slots=True)
class _Written:
    """A plan that holds: the raw steps, what policy says of each, and what went wrong on the way, by round."""

    question: str
    steps: list[Any]
    verdicts: Sequence[Mapping[str, Any]]
    faults: list[list[str]]
    model: str | None
    names: Names

    def body(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "verdicts": [dict(one) for one in self.verdicts],
            "faults": self.faults,
            "model": self.model,
            "files_shown": len(self.names.paths),
            "files_cut": self.names.cut,
        }


class PlanSteps(Executor[PlanStepsParams]):
    """The model sees names of files, never their contents; what it proposes is gated like any other step."""

    type = "plan"
    lasts = True
    max_attempts = 2
    step_keys = ("context",)
    summary = "Has a model write the next steps for the goal, and adds them to the run."
    params = PlanStepsParams

    def prepares_long(self, params: PlanStepsParams) -> bool:
        """A model writes."""
        return True

    async def prepare(self, context: Context, params: PlanStepsParams) -> Prepared:
        """The steps themselves, where a person is to see them before they are added; written once for a question."""
        request, names = await _request(context, params)
        question = request_hash(request)
        kept = await _recall(context, question)
        if kept is None:
            written = await _write(context, params, request, names)
            if isinstance(written, Failed):
                raise InvalidPlan(written.message, code=written.code)
            kept = question, await asyncio.to_thread(_keep, context, written.body())
        body = canonical.loads(await asyncio.to_thread(context.blobs.get, kept[1]))
        written_by = {"question": kept[0], "plan": kept[1]}
        count = len(body["steps"])
        rendering = {
            "title": f"Add {count} steps" if params.add else f"Plan {count} steps",
            "steps": visible_json(body["steps"]),
            "verdicts": visible_json(body["verdicts"]),
            "written": written_by,
            "notes": ["a model wrote these steps"],
            "truncated": (cut := is_cut(body["steps"])),
        }
        action = {"written": written_by, "add": params.add}
        return Prepared(action, rendering, "high" if cut else "medium", outcome=_done(body, params))

    async def execute(self, context: Context, params: PlanStepsParams) -> Outcome:
        """Raises ModelUnavailable where no model can plan; a plan that does not hold after two repairs is a failure.

        Where somebody was asked, only what they were shown is added, and that is the outcome of `prepare`.
        """
        if params.add and context.prepared is not None:
            message = "the steps were never shown: the model took too long to write them; allow it more time"
            return Failed("not_prepared", message, "timeout", retryable=True)
        request, names = await _request(context, params)
        try:
            written = await _write(context, params, request, names)
        except ModelFailure as failure:
            return failed(failure)
        return written if isinstance(written, Failed) else _done(written.body(), params)


async def _request(context: Context, params: PlanStepsParams) -> tuple[ModelRequest, Names]:
    if params.files is None:
        names = await asyncio.to_thread(file_names, context.root, MAX_NAMES, MAX_NAME_CHARS)
    else:
        names = Names(tuple(params.files), cut=False)
    steps = await context.finished(params.context) if params.context else ()
    materials = [material_of(step.number, step.key, step.type, step.output) for step in steps]
    if params.background is not None:
        materials.insert(0, Material(0, "background", params.background))
    types = context.planning.step_types()
    messages = prompts.plan(
        context.goal, params.instruction, names.paths, types, materials, params.max_steps, cut=names.cut
    )
    schema = prompts.plan_schema([one["type"] for one in types], params.max_steps)
    return ModelRequest(messages, Purpose.PLAN, params.model, params.tier, schema), names


async def _recall(context: Context, question: str) -> tuple[str, str] | None:
    """What was written for this very question before, and shown: the question, and the plan by its sha256."""
    rendering = await context.shown()
    held = None if rendering is None else rendering.get("written")
    if not isinstance(held, Mapping) or held.get("question") != question:
        return None
    return question, str(held["plan"])


def _keep(context: Context, body: Mapping[str, Any]) -> str:
    """Durable before anybody is shown it, and as it was written: what people see has its control signs spelled."""
    sha256 = context.blobs.put(canonical.dumps(dict(body)))
    context.blobs.sync()
    return sha256


async def _write(context: Context, params: PlanStepsParams, request: ModelRequest, names: Names) -> _Written | Failed:
    """Asks, checks, and says exactly what is wrong, at most twice."""
    question, faults = request_hash(request), list[list[str]]()
    messages, steps = request.messages, list[Any]()
    for _ in range(1 + REPAIRS):
        asked = ModelRequest(messages, request.purpose, request.model, request.tier, request.schema)
        answer = await context.models.complete(asked)
        steps = list(answer.data["steps"]) if isinstance(answer.data, Mapping) else []
        try:
            verdicts = context.planning.check(steps)
        except InvalidPlan as error:
            faults.append(_told(error))
            messages = (*request.messages, *_repair(steps, faults[-1]))
            continue
        model = None if answer.model is None else one_line(answer.model)
        return _Written(question, steps, verdicts, faults, model, names)
    message = f"the plan did not hold after {REPAIRS} repairs: {'; '.join(faults[-1])}"
    return Failed("plan_invalid", message, "instruction", output={"faults": faults, "steps": steps})


def _told(error: InvalidPlan) -> list[str]:
    problems = [
        f"{one.field}: {one.message}" + (f" ({one.fix})" if one.fix else "") for one in error.problems[:MAX_TOLD]
    ]
    return problems or [error.message]


def _repair(steps: Any, problems: Sequence[str]) -> tuple[Message, ...]:
    return prompts.repair(canonical.dumps({"steps": steps}).decode(), problems)


def _done(body: Mapping[str, Any], params: PlanStepsParams) -> Done:
    output = {
        "steps": body["steps"],
        "verdicts": body["verdicts"],
        "added": params.add,
        "repairs": len(body["faults"]),
        "faults": body["faults"],
        "model": body["model"],
        "files_shown": body["files_shown"],
        "files_cut": body["files_cut"],
    }
    return Done(output, steps=body["steps"] if params.add else ())
