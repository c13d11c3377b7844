"""Whether this process can do its work, part by part."""

from fastapi import APIRouter
from starlette.responses import Response

from stepgate import __version__
from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import ServicesDep
from stepgate.api.services import Services
from stepgate.engine import views

router = APIRouter(tags=["health"], route_class=StrictRoute)


@router.get(
    "/health",
    response_model=views.Health,
    summary="Health",
    responses={403: documents.problems()[403], 503: {"model": views.Health, "description": "The database is down"}},
)
async def health(services: ServicesDep) -> Response:
    """200 while the database answers, also where commands cannot run here (`degraded`); 503 while it does not."""
    found = await _health(services)
    return Response(found.model_dump_json(), 503 if found.status == "down" else 200, media_type="application/json")


async def _health(services: Services) -> views.Health:
    database = await services.queries.database_health()
    router_health = await services.router.check()
    worker = services.worker
    running = worker is not None and worker.running
    # A process without a worker leaves commands to others and needs no sandbox.
    able = worker is None or (running and not services.sandbox.degraded)
    policy = services.policies.health()
    sound = able and router_health.status != "failing" and policy.error is None
    return views.Health(
        status="down" if not database.ok else "ok" if sound else "degraded",
        version=__version__,
        database=database,
        sandbox=services.sandbox,
        router=views.RouterHealth(
            name=services.router.name,
            model=services.router.default_model,
            status=router_health.status,
            detail=router_health.detail,
        ),
        worker=views.WorkerHealth(running=running, driving=0 if worker is None else worker.driving),
        policy=policy,
    )
