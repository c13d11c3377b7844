"""What plans may be made of."""

from fastapi import APIRouter

from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import ServicesDep
from stepgate.engine import views

router = APIRouter(prefix="/v1/step-types", tags=["plans"], route_class=StrictRoute)


@router.get("", summary="Step types", responses=documents.problems())
async def list_step_types(services: ServicesDep) -> views.Page[views.StepTypeView]:
    """Each with the JSON Schema of its input, its effect, and whether it asks a person by default."""
    return views.Page[views.StepTypeView](items=services.queries.step_types(), next_cursor=None)
