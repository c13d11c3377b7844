"""What model calls cost: of one run, and over runs."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from stepgate.api import documents
from stepgate.api.access import PrincipalDep
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import LabelFilters, Moment, RunPath, ServicesDep, Text, labels_of, lower
from stepgate.engine.cost_views import Cost, Costs
from stepgate.engine.costs import CostFilter, Group

router = APIRouter(prefix="/v1", tags=["costs"], route_class=StrictRoute)


class CostsQuery(BaseModel):
    """What to sum by, and over which calls."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group_by: Annotated[Group, BeforeValidator(lower)] = Field(Group.DAY, description="one of these, in any case")
    label: Text | None = Field(None, min_length=1, max_length=200, description="for `group_by=label`: the label's name")
    only: LabelFilters = Field(default_factory=list, description="`name=value`: only runs with all of these labels")
    since: Moment | None = Field(None, description="RFC 3339; calls made at or after it")
    until: Moment | None = Field(None, description="RFC 3339; calls made before it")


@router.get("/agent-runs/{run_id}/cost", summary="A run's cost", responses=documents.read(404))
async def get_cost(run_id: RunPath, services: ServicesDep) -> Cost:
    """By step, by model and by source. A call whose cost nobody told makes a total unknown (null), never 0."""
    return await services.costs.of_run(run_id)


@router.get("/costs", summary="Costs over runs", responses=documents.read())
async def get_costs(services: ServicesDep, principal: PrincipalDep, query: Annotated[CostsQuery, Query()]) -> Costs:
    """By day (the newest first), model, label or requester (the dearest first)."""
    wanted = CostFilter(principal.tenant, query.since, query.until, labels_of(query.only, "only"))
    return await services.costs.over_runs(query.group_by, query.label, wanted)
