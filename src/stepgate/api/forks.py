"""Runs made out of runs: a fork goes on from a step of one, a replay does the whole of one again."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import CallerDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import ForkRun, ReplayRun, RunPath, ServicesDep
from stepgate.api.runs import address
from stepgate.api.steps import step_address
from stepgate.api.waiting import MAX_WAIT_S, settled
from stepgate.domain.states import StepStatus
from stepgate.engine import views
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/agent-runs/{run_id}", tags=["verbs"], route_class=StrictRoute)


@router.post(
    "/fork", status_code=201, response_model=views.RunDetail, summary="Fork a run", responses=documents.write(404)
)
async def fork(run_id: RunPath, body: ForkRun, services: ServicesDep, caller: CallerDep, once: OnceDep) -> Response:
    """A new run on a private copy: steps that ended before `from_step` count as done, with their outputs and without
    being executed or paid again; all others begin anew, and ask anew.

    The copy is of the folder as it is today, with what the other steps changed taken back. 409 `workspace_conflict`
    where somebody else changed one of the run's paths since, `cannot_fork` where a former content is not stored, both
    with the paths in `details`; then nothing is made.
    """

    async def act(key: IdempotencyRow | None) -> Done:
        engine = services.engine
        state = await engine.fork(run_id, str(body.from_step), caller, start=body.start, idempotency=key)
        return Done(state.info.id)

    async def tell(done: Done) -> Answer:
        return Answer(201, await services.queries.run(done.run_id), {"Location": address(done.run_id)})

    return await once(act, tell)


@router.post(
    "/replay",
    response_model=views.Replayed,
    summary="Replay a run",
    responses={
        **documents.write(404),
        202: {"model": views.Replayed, "description": "It is not over yet; look at `Location`"},
    },
)
async def replay(
    run_id: RunPath,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    once: OnceDep,
    body: ReplayRun | None = None,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="how long to wait for it, in seconds")] = 60,
) -> Response:
    """Does the run again in a throw-away copy of its workspace as it was, and compares every step's output and changes.

    Models' answers come out of the record, no model is called; commands run again in the sandbox, each only as the very
    action that was approved, or allowed, then. Nobody is asked and the workspace is not touched. The answer names the
    first step that came out otherwise. The replay is a run of its own, labelled `replays=<run id>`.
    """
    printed = (body or ReplayRun()).printed

    async def act(key: IdempotencyRow | None) -> Done:
        state, step_id = await services.engine.replay(run_id, caller, printed=printed, idempotency=key)
        return Done(state.info.id, (step_id,))

    async def tell(done: Done) -> Answer:
        step_id = done.steps[0]
        rests = await settled(services, request, done.run_id, step_id, wait_s)
        step = await services.queries.step(done.run_id, step_id)
        report = views.Report(**step.output) if step.status is StepStatus.COMPLETED else None
        run = await services.queries.run(done.run_id)
        headers = {"Location": step_address(done.run_id, step_id)}
        return Answer(200 if rests else 202, views.Replayed(run=run, step=step, replay=report), headers)

    return await once(act, tell)
