"""Budgets: of runs together, and more of a run's own."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from stepgate.api import documents
from stepgate.api.access import CallerDep, PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.replays import Answer, Done, OnceDep
from stepgate.api.requests import Body, Paging, RunPath, ServicesDep, Text, canonical_id, cursor_id
from stepgate.domain.limits import Dollars, Tokens
from stepgate.engine import views
from stepgate.engine.budgets import Budget, Scope
from stepgate.storage.attachments import IdempotencyRow

router = APIRouter(prefix="/v1", tags=["budgets"], route_class=StrictRoute)

IdPath = Annotated[Text, Path(description="the budget's id")]


class SetBudget(Body):
    """Of which calls, and what they may cost together: money, tokens or both."""

    scope: Scope = Field(strict=False, description="label, day (all runs of a day), or label+day")
    label: str | None = Field(None, max_length=500, description="`name=value`, unless the scope is day")
    cost_usd: Dollars | None = Field(None, description="US dollars")
    tokens: Tokens | None = Field(None, description="in and out")


class ExtendBudget(Body):
    """How much is added to the limits that the run has."""

    add_usd: Dollars | None = Field(None, description="US dollars, added to `limits.cost_usd`")
    add_tokens: Tokens | None = Field(None, description="added to `limits.tokens`")


@router.get("/budgets", summary="List budgets", responses=documents.read())
async def list_budgets(services: ServicesDep, principal: PrincipalDep, query: Paging) -> views.Page[Budget]:
    """Those that runs share, the oldest first; a run's own stands with the run."""
    found = await services.budgets.page(principal.tenant, cursor_id(query.cursor), query.limit + 1)
    items = list(found[: query.limit])
    return views.Page[Budget](items=items, next_cursor=items[-1].id if len(found) > query.limit else None)


@router.post("/budgets", summary="Set a budget", responses=documents.write())
async def set_budget(body: SetBudget, services: ServicesDep, principal: PrincipalDep) -> Budget:
    """Makes it, or changes the limits of the one with this scope and label; what is spent of it stays spent."""
    return await services.budgets.set(body.scope, body.label, body.cost_usd, body.tokens, principal)


@router.delete("/budgets/{budget_id}", summary="Remove a budget", responses=documents.read(404))
async def remove_budget(budget_id: IdPath, services: ServicesDep, principal: PrincipalDep) -> Budget:
    """Nothing is held to it any more. Tells what it was; one that is made anew begins with nothing spent."""
    return await services.budgets.remove(principal.tenant, canonical_id(budget_id, "budget"))


@router.post(
    "/agent-runs/{run_id}/budget",
    response_model=views.RunDetail,
    summary="Extend a run's budget",
    responses=documents.write(404),
)
async def extend_budget(
    run_id: RunPath, body: ExtendBudget, services: ServicesDep, caller: CallerDep, once: OnceDep
) -> Response:
    """Adds to the run's limits, never resets what is spent; a run that its budget paused goes on when it is resumed."""

    async def act(key: IdempotencyRow | None) -> Done:
        await services.engine.extend_budget(
            run_id, caller, add_usd=body.add_usd, add_tokens=body.add_tokens, idempotency=key
        )
        return Done(run_id)

    async def tell(done: Done) -> Answer:
        return Answer(200, await services.queries.run(done.run_id))

    return await once(act, tell)
