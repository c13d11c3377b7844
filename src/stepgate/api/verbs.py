"""What may be asked of a whole run: execute, start, pause, resume, cancel, undo."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import CallerDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, Once, OnceDep
from stepgate.api.requests import RunPath, ServicesDep, UndoRun
from stepgate.api.services import Services
from stepgate.api.steps import step_address
from stepgate.api.waiting import MAX_WAIT_S, settled
from stepgate.domain.ids import RunId
from stepgate.domain.state import Actor, RunState
from stepgate.engine import views
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/agent-runs/{run_id}", tags=["verbs"], route_class=StrictRoute)

Verb = Callable[[RunId, Actor, IdempotencyRow | None], Awaitable[RunState]]


async def _told(services: Services, caller: Actor, once: Once, run_id: RunId, verb: Verb) -> Response:
    async def act(key: IdempotencyRow | None) -> Done:
        await verb(run_id, caller, key)
        return Done(run_id)

    async def tell(done: Done) -> Answer:
        return Answer(200, await services.queries.run(done.run_id))

    return await once(act, tell)


@router.post(
    "/execute",
    response_model=views.Executed,
    summary="Execute the next step",
    responses={
        **documents.write(404),
        202: {
            "model": views.Executed,
            "description": "The step has not come to an end or a gate yet; look at `Location`",
            "headers": {"Location": {"description": "the step", "schema": {"type": "string"}}},
        },
    },
)
async def execute(
    run_id: RunPath,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    once: OnceDep,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="how long to wait for it, in seconds")] = 30,
) -> Response:
    """Lets the lowest-numbered ready step run; a worker executes it, never this request.

    200 once it ended or asks for a decision, 202 after `wait_s`. Where it asks, its approval starts it without a
    second `execute`. 409 where the run was started as a whole, or nothing is ready.
    """

    async def act(key: IdempotencyRow | None) -> Done:
        _, step_id = await services.engine.execute(run_id, caller, key)
        return Done(run_id, (step_id,))

    async def tell(done: Done) -> Answer:
        step_id = done.steps[0]
        rests = await settled(services, request, done.run_id, step_id, wait_s)
        run = await services.queries.run(done.run_id)
        step = await services.queries.step(done.run_id, step_id)
        headers = {"Location": step_address(done.run_id, step_id)}
        return Answer(200 if rests else 202, views.Executed(run=run, step=step), headers)

    return await once(act, tell)


@router.post("/start", response_model=views.RunDetail, summary="Start a run", responses=documents.write(404))
async def start(run_id: RunPath, services: ServicesDep, caller: CallerDep, once: OnceDep) -> Response:
    """Its steps run as they become ready. Starting twice changes nothing.

    A run with only a goal is planned first; 409 `no_steps` where no model is configured that could.
    """
    return await _told(services, caller, once, run_id, services.engine.start)


@router.post("/pause", response_model=views.RunDetail, summary="Pause a run", responses=documents.write(404))
async def pause(run_id: RunPath, services: ServicesDep, caller: CallerDep, once: OnceDep) -> Response:
    """No new step starts; what runs is stopped and begins again later, what is computed is applied first."""
    return await _told(services, caller, once, run_id, services.engine.pause)


@router.post("/resume", response_model=views.RunDetail, summary="Resume a run", responses=documents.write(404))
async def resume(run_id: RunPath, services: ServicesDep, caller: CallerDep, once: OnceDep) -> Response:
    """A paused run goes on; steps under review are tried again."""
    return await _told(services, caller, once, run_id, services.engine.resume)


@router.post("/cancel", response_model=views.RunDetail, summary="Cancel a run", responses=documents.write(404))
async def cancel(run_id: RunPath, services: ServicesDep, caller: CallerDep, once: OnceDep) -> Response:
    """Ends it: what runs is stopped, what is computed is applied to its end, so that no half of a change stays."""
    return await _told(services, caller, once, run_id, services.engine.cancel)


@router.post("/undo", response_model=views.Undone, summary="Undo a run's changes", responses=documents.write(404))
async def undo(
    run_id: RunPath, services: ServicesDep, caller: CallerDep, once: OnceDep, body: UndoRun | None = None
) -> Response:
    """Adds one step to a finished run that takes its changes back; it asks for approval first, like any other.

    409 `workspace_conflict` where somebody changed the paths since, `cannot_undo` where their former content was too
    large to be kept, both with the paths in `details`; then nothing is added.
    """
    to = None if body is None else body.last_kept

    async def act(key: IdempotencyRow | None) -> Done:
        _, step_id = await services.engine.undo(run_id, caller, to, key)
        return Done(run_id, (step_id,))

    async def tell(done: Done) -> Answer:
        run = await services.queries.run(done.run_id)
        step = await services.queries.step(done.run_id, done.steps[0])
        return Answer(200, views.Undone(run=run, step=step), {"Location": step_address(done.run_id, done.steps[0])})

    return await once(act, tell)
