"""Plans written by a model: asked for here, written by a worker, checked like a person's."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import CallerDep, PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import Body, ServicesDep
from stepgate.api.steps import step_address
from stepgate.api.waiting import MAX_WAIT_S, settled
from stepgate.domain.errors import InvalidValue
from stepgate.domain.ids import RunId
from stepgate.domain.states import StepStatus
from stepgate.engine import views
from stepgate.engine.engine import NewRun
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/plan", tags=["plans"], route_class=StrictRoute)


class PlanGoal(Body):
    """A goal to plan for, or a run whose goal it is; the steps count like a person's: gated, and checked whole."""

    goal: str | None = Field(None, description="for a new run; with `run_id`: what to plan, instead of its goal")
    run_id: str | None = Field(None, description="a run without steps, or one that was started")
    workspace_path: str | None = Field(None, description="for a new run: as in `POST /v1/agent-runs`")
    workspace: str | None = Field(None, max_length=64, description="for a new run: a named workspace")
    workspace_files: list[str] | None = Field(
        None, description="names of files to show the planner; not given: those of the workspace, but ignored ones"
    )
    additional_context: str | None = Field(None, description="what else it should know; at most 20,000 characters")
    auto_add_steps: bool = Field(False, description="true: the steps are added to the run and run with it")
    approval: bool = Field(False, description="true: a person sees the steps before they are added")
    max_steps: int | None = Field(None, description="1 to 20")
    model: str | None = Field(None, description="the model, as the router names it")
    tier: str | None = Field(None, description="how able a model is needed")


class WrittenPlan(views.View):
    """What came of it: `steps` is null until the plan is written, and where it could not be (see `step.error`)."""

    run: views.RunDetail
    step: views.Step
    steps: list[dict[str, Any]] | None
    verdicts: list[dict[str, Any]] | None = Field(description="what policy will say of each step")
    added: bool


@router.post(
    "",
    response_model=WrittenPlan,
    summary="Plan a goal",
    responses={
        **documents.write(404),
        202: {"model": WrittenPlan, "description": "The plan is not written yet; look at `Location`"},
    },
)
async def plan(
    body: PlanGoal,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    principal: PrincipalDep,
    once: OnceDep,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="how long to wait for it, in seconds")] = 60,
) -> Response:
    """A worker has a model write steps, journaled with their cost in a run of their own, or in the one named.

    The model sees names of files, never their contents. Its plan is checked like any other, with at most two repairs;
    nothing of it runs unless it is added.
    """
    if body.goal is None and body.run_id is None:
        raise InvalidValue("there is nothing to plan for", field="goal", fix="give a goal, or the run_id of a run")

    async def act(key: IdempotencyRow | None) -> Done:
        if body.run_id is not None:
            run_id = await services.queries.resolve(principal.tenant, body.run_id)
            return Done(
                run_id, (await services.engine.plan(run_id, _input(body), caller, key, approval=body.approval),)
            )
        new = NewRun(
            goal=body.goal,
            workspace_path=body.workspace_path,
            workspace=body.workspace,
            steps=[services.engine.planning_step(_input(body), approval=body.approval)],
            start=True,
            tenant=principal.tenant,
        )
        state = await services.engine.create(new, caller, key)
        return Done(state.info.id, (state.keys["plan"],))

    async def tell(done: Done) -> Answer:
        run_id, (step_id, *_) = RunId(done.run_id), done.steps
        rests = await settled(services, request, run_id, step_id, wait_s)
        step = await services.queries.step(run_id, step_id)
        output = step.output if step.status is StepStatus.COMPLETED and isinstance(step.output, dict) else {}
        told = WrittenPlan(
            run=await services.queries.run(run_id),
            step=step,
            steps=output.get("steps"),
            verdicts=output.get("verdicts"),
            added=bool(output.get("added")),
        )
        return Answer(200 if rests else 202, told, {"Location": step_address(run_id, step_id)})

    return await once(act, tell)


def _input(body: PlanGoal) -> dict[str, Any]:
    given = {
        "instruction": body.goal if body.run_id is not None else None,
        "files": body.workspace_files,
        "background": body.additional_context,
        "max_steps": body.max_steps,
        "model": body.model,
        "tier": body.tier,
    }
    return {"add": body.auto_add_steps, **{name: value for name, value in given.items() if value is not None}}
