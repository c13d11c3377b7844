"""Steps of a run: add them, look at them, at what they gave and at what they changed."""

from fastapi import APIRouter
from starlette.responses import Response

from stepgate.api import diffs, documents
from stepgate.api.access import CallerDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import AddSteps, Paging, RunPath, ServicesDep, StepName, StepPath
from stepgate.api.runs import address
from stepgate.domain.ids import RunId, StepId
from stepgate.engine import views
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/agent-runs/{run_id}", tags=["steps"], route_class=StrictRoute)


def step_address(run_id: RunId, step_id: StepId) -> str:
    return f"{address(run_id)}/steps/{step_id}"


@router.post(
    "/steps",
    status_code=201,
    response_model=views.Page[views.Step],
    summary="Add steps",
    responses=documents.write(404),
)
async def add_steps(
    run_id: RunPath, body: AddSteps, services: ServicesDep, caller: CallerDep, once: OnceDep
) -> Response:
    """Before or while the run goes; a finished run takes none (409). The answer begins with the first added step."""

    async def act(key: IdempotencyRow | None) -> Done:
        _, added = await services.engine.add_steps(run_id, body.steps, caller, key)
        return Done(run_id, added)

    async def tell(done: Done) -> Answer:
        page = await services.queries.steps_from(done.run_id, done.steps[0], count=len(done.steps))
        return Answer(201, page, {"Location": step_address(done.run_id, done.steps[0])})

    return await once(act, tell)


@router.get("/steps", summary="List steps", responses=documents.read(404))
async def list_steps(run_id: RunPath, services: ServicesDep, page: Paging) -> views.Page[views.Step]:
    """In order of creation. Large inputs, outputs and renderings are left out; `omitted` names them."""
    return await services.queries.steps(run_id, cursor=page.cursor, limit=page.limit)


@router.get("/steps/{step_id}", summary="One step", responses=documents.read(404))
async def get_step(run_id: RunPath, step_id: StepName, services: ServicesDep) -> views.Step:
    """With its whole input, output and, where it asks or asked, the action to approve."""
    return await services.queries.step(run_id, step_id)


@router.get("/steps/{step_id}/output", summary="A step's output", responses=documents.read(404))
async def get_output(run_id: RunPath, step_id: StepPath, services: ServicesDep) -> views.Output:
    """What was recorded, with the digest that the journal holds of it. 404 while there is none."""
    return await services.queries.output(run_id, step_id)


@router.get(
    "/steps/{step_id}/diff",
    response_model=views.Diff,
    summary="What a step changed",
    responses={**documents.read(404), **diffs.RESPONSES},
)
async def get_step_diff(
    run_id: RunPath, step_id: StepPath, services: ServicesDep, form: diffs.Form = "json"
) -> Response:
    """The change set it recorded, as a unified diff; empty where it changed nothing."""
    return diffs.told(await services.queries.diff(run_id, step_id), form)
