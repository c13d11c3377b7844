"""What becomes of a run's result: handed over in one of its forms, and its private copy discarded."""

from typing import assert_never

from fastapi import APIRouter, Request
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import CallerDep, admit
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import DeliverRun, RunPath, ServicesDep
from stepgate.api.steps import step_address
from stepgate.domain.errors import InvalidValue
from stepgate.domain.identity import Role
from stepgate.engine import shapes, views
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1/agent-runs/{run_id}", tags=["deliveries"], route_class=StrictRoute)


@router.post(
    "/deliver", response_model=views.Delivered, summary="Hand over a run's result", responses=documents.write(401, 404)
)
async def deliver(
    run_id: RunPath, body: DeliverRun, request: Request, services: ServicesDep, caller: CallerDep, once: OnceDep
) -> Response:
    """Of a run that has ended: what its applied steps changed.

    `apply` (isolated runs only) makes a run of its own that asks for approval of the real diff and then changes the
    folder; undoing that run takes the delivery back. 409 with `details.paths` where the folder changed meanwhile.
    `branch` writes to the folder's repository, but not to its working tree or index, and needs what a decision needs
    (the local secret, or the role `approver`); the same again changes nothing, 409 `branch_exists` for any other.
    """
    engine = services.engine
    if body.as_ == "branch":
        await admit(request, Role.APPROVER)
    if (body.as_ == "branch") != (body.branch is not None):
        raise InvalidValue("a branch and its name go together", field="branch", fix="send both, or neither")

    async def act(key: IdempotencyRow | None) -> Done:
        if body.as_ != "apply":
            return Done(run_id)
        state, step_id = await engine.deliver(run_id, caller, key)
        return Done(state.info.id, (step_id,))

    async def tell(done: Done) -> Answer:
        match body.as_:
            case "apply":
                run = await services.queries.run(done.run_id)
                step = await services.queries.step(done.run_id, done.steps[0])
                address = {"Location": step_address(done.run_id, done.steps[0])}
                return Answer(200, views.Delivered(run=run, step=step), address)
            case "patch":
                return Answer(200, views.Delivered(patch=shapes.patch(await engine.delivery.patch(run_id))))
            case "branch":
                branch = await engine.deliver_branch(run_id, body.branch or "")
                return Answer(200, views.Delivered(branch=shapes.branch(branch)))
            case _:
                assert_never(body.as_)

    return await once(act, tell)


@router.post(
    "/discard", response_model=views.Discarded, summary="Discard a private copy", responses=documents.write(404)
)
async def discard(run_id: RunPath, services: ServicesDep, once: OnceDep) -> Response:
    """Removes the private copy of an isolated run that has ended; twice changes nothing.

    The recorded result can still be delivered; steps can no longer be undone in the copy.
    """
    removed = False

    async def act(_key: IdempotencyRow | None) -> Done:
        nonlocal removed
        removed = await services.engine.delivery.discard(run_id)
        return Done(run_id)

    async def tell(done: Done) -> Answer:
        return Answer(200, views.Discarded(removed=removed, run=await services.queries.run(done.run_id)))

    return await once(act, tell)
