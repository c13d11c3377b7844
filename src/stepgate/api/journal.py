"""What can be proved about a run: its events, and that they are as they were recorded."""

from fastapi import APIRouter

from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import Paging, RunPath, ServicesDep
from stepgate.engine import views

router = APIRouter(prefix="/v1/agent-runs/{run_id}", tags=["journal"], route_class=StrictRoute)


@router.get("/events", summary="A run's events", responses=documents.read(404))
async def list_events(run_id: RunPath, services: ServicesDep, page: Paging) -> views.Page[views.Event]:
    """The journal, from its first event; `hash` is sha256(`prev_hash` || `body`)."""
    return await services.queries.events(run_id, cursor=page.cursor, limit=page.limit)


@router.get("/verify", summary="Verify a run", responses=documents.read(404))
async def verify(run_id: RunPath, services: ServicesDep) -> views.Verification:
    """Hashes the journal again, folds it, and compares the tables, inputs and outputs with what it says."""
    return await services.queries.verify(run_id)
