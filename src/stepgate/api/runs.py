"""Runs: make one, find one, look at one."""

from fastapi import APIRouter
from starlette.responses import Response

from stepgate.api import diffs, documents
from stepgate.api.access import CallerDep, PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import CreateRun, RunFilters, RunName, RunPath, ServicesDep
from stepgate.domain.ids import RunId
from stepgate.engine import views
from stepgate.engine.engine import NewRun
from stepgate.engine.queries import RunFilter
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/agent-runs", tags=["runs"], route_class=StrictRoute)


def address(run_id: RunId) -> str:
    return f"/v1/agent-runs/{run_id}"


@router.post("", status_code=201, response_model=views.RunDetail, summary="Create a run", responses=documents.write())
async def create_run(
    body: CreateRun, services: ServicesDep, caller: CallerDep, principal: PrincipalDep, once: OnceDep
) -> Response:
    """A run with its plan, if one came with it; it starts by itself only with `start`. 201 and its `Location`."""
    new = NewRun(
        goal=body.goal,
        workspace_path=body.workspace_path,
        workspace=body.workspace,
        workspace_mode=body.workspace_mode,
        plan=body.plan,
        steps=body.steps,
        params=body.params,
        limits=body.limits,
        labels=body.labels,
        metadata=body.metadata,
        start=body.start,
        tenant=principal.tenant,
    )

    async def act(key: IdempotencyRow | None) -> Done:
        state = await services.engine.create(new, caller, key)
        return Done(state.info.id)

    async def tell(done: Done) -> Answer:
        run = await services.queries.run(done.run_id)
        return Answer(201, run, {"Location": address(done.run_id)})

    return await once(act, tell)


@router.get("", summary="List runs", responses=documents.read())
async def list_runs(services: ServicesDep, principal: PrincipalDep, query: RunFilters) -> views.Page[views.Run]:
    """The newest first. Runs made while you turn pages come before the first page and move nothing."""
    filters = RunFilter(
        tenant=principal.tenant,
        statuses=tuple(query.status),
        labels=query.labels,
        text=query.q,
        created_after=query.created_after,
        created_before=query.created_before,
    )
    return await services.queries.runs(filters, cursor=query.cursor, limit=query.limit)


@router.get("/{run_id}", summary="One run", responses=documents.read(404))
async def get_run(run_id: RunName, services: ServicesDep) -> views.RunDetail:
    """With why it does not move (`waiting_for`) and its first 200 steps."""
    return await services.queries.run(run_id)


@router.get(
    "/{run_id}/diff",
    response_model=views.Diff,
    summary="What a run changed",
    responses={**documents.read(404), **diffs.RESPONSES},
)
async def get_run_diff(run_id: RunPath, services: ServicesDep, form: diffs.Form = "json") -> Response:
    """All change sets it applied, undone ones taken back, as one net unified diff."""
    return diffs.told(await services.queries.diff(run_id), form)
