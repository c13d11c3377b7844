"""A person's answers to a step's question. Each needs proof of who decides; see `access`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import CallerDep, PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, Once, OnceDep
from stepgate.api.requests import Approve, EditStep, Reject, RunPath, ServicesDep, Skip, StepPath
from stepgate.api.services import Services
from stepgate.domain.errors import AlreadyDecided, StaleApproval
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.state import RunState
from stepgate.engine import views
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(
    prefix="/v1/agent-runs/{run_id}/steps/{step_id}",
    tags=["approvals"],
    route_class=StrictRoute,
    responses=documents.write(401, 404, 410),
)

Decide = Callable[[IdempotencyRow | None], Awaitable[RunState]]


@asynccontextmanager
async def telling_what_stands(services: Services, run_id: RunId, step_id: StepId) -> AsyncIterator[None]:
    """Who comes too late is shown the question as it is now, in the `details` of the refusal."""
    try:
        yield
    except (StaleApproval, AlreadyDecided) as error:
        step = await services.queries.step(run_id, step_id)
        if step.approval is not None:
            error.details = step.approval.model_dump(mode="json")
        raise


async def _decided(services: Services, once: Once, run_id: RunId, step_id: StepId, decide: Decide) -> Response:
    async def act(key: IdempotencyRow | None) -> Done:
        async with telling_what_stands(services, run_id, step_id):
            await decide(key)
        return Done(run_id, (step_id,))

    async def tell(done: Done) -> Answer:
        return Answer(200, await services.queries.step(done.run_id, step_id))

    return await once(act, tell)


@router.post("/approve", response_model=views.Step, summary="Approve exactly this action")
async def approve(
    run_id: RunPath,
    step_id: StepPath,
    services: ServicesDep,
    caller: CallerDep,
    principal: PrincipalDep,
    once: OnceDep,
    body: Approve | None = None,
) -> Response:
    """Approves the action whose hash is sent, and no other.

    Where it takes several persons the step waits until as many have approved; `approvals` shows who has. A caller
    whose approval does not count (`required`): 403.

    The same decision again: 200 and the same receipt. Another one before: 409 with the standing one. A hash that is
    not the present one: 409 with the present action in `details`. Expired: 410. Without a hash: only with local
    trust, only on the first revision, journaled as implied.
    """
    sent = body or Approve()

    async def decide(key: IdempotencyRow | None) -> RunState:
        return await services.engine.approve(
            run_id,
            step_id,
            caller,
            action_hash=sent.action_hash,
            reason=sent.reason,
            authority=await services.delegations.authority(principal, sent.on_behalf_of),
            idempotency=key,
        )

    return await _decided(services, once, run_id, step_id, decide)


@router.post("/reject", response_model=views.Step, summary="Reject the action")
async def reject(
    run_id: RunPath,
    step_id: StepPath,
    services: ServicesDep,
    caller: CallerDep,
    principal: PrincipalDep,
    once: OnceDep,
    body: Reject | None = None,
) -> Response:
    """The step is not executed. `then` says whether the run ends (`abort`), goes on without it (`skip`), or has what is
    left planned anew (`replan`): finished steps stay, the others are replaced; 409 `no_planner` or `replans_used_up`.
    """
    sent = body or Reject()

    async def decide(key: IdempotencyRow | None) -> RunState:
        return await services.engine.reject(
            run_id,
            step_id,
            caller,
            action_hash=sent.action_hash,
            reason=sent.reason,
            then=sent.then,
            authority=await services.delegations.authority(principal, sent.on_behalf_of),
            idempotency=key,
        )

    return await _decided(services, once, run_id, step_id, decide)


@router.post("/skip", response_model=views.Step, summary="Leave the step out")
async def skip(
    run_id: RunPath,
    step_id: StepPath,
    services: ServicesDep,
    caller: CallerDep,
    once: OnceDep,
    body: Skip | None = None,
) -> Response:
    """A step that has not begun is left out; its dependents go on. 409 once it runs or has ended."""
    reason = None if body is None else body.reason

    async def decide(key: IdempotencyRow | None) -> RunState:
        return await services.engine.skip(run_id, step_id, caller, reason, key)

    return await _decided(services, once, run_id, step_id, decide)


@router.post("/edit", response_model=views.Step, summary="Edit the action")
async def edit(
    run_id: RunPath, step_id: StepPath, services: ServicesDep, caller: CallerDep, once: OnceDep, body: EditStep
) -> Response:
    """Another input in the place of the one that is asked about, which is void then, with every answer to it.

    The step is prepared anew, policy is asked anew, and where it asks there is a new revision with a new hash. Where
    somebody else was first: 409 with what stands. The same edit again, before it is asked about: 200.
    """

    async def decide(key: IdempotencyRow | None) -> RunState:
        return await services.engine.edit(
            run_id,
            step_id,
            caller,
            action_hash=body.action_hash,
            new_input=body.input,
            reason=body.reason,
            idempotency=key,
        )

    return await _decided(services, once, run_id, step_id, decide)
