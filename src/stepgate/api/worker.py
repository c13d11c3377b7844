"""The worker of this process, and the queue that all workers share."""

from fastapi import APIRouter

from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import ServicesDep
from stepgate.domain.errors import Conflict
from stepgate.engine import views

router = APIRouter(prefix="/worker", tags=["worker"], route_class=StrictRoute)


@router.get("/status", summary="Worker and queue", responses=documents.problems())
async def get_status(services: ServicesDep) -> views.WorkerStatus:
    """Whether this process executes steps, how many workers there are, and what is due."""
    queue = await services.queries.queue()
    return views.WorkerStatus(
        running=services.worker is not None and services.worker.running,
        check_interval=services.check_interval_s,
        workers=queue.workers,
        due=queue.due,
        oldest_due_s=queue.oldest_due_s,
    )


@router.post("/process", summary="Take up due runs now", responses=documents.problems(409))
async def process(services: ServicesDep) -> views.Claimed:
    """This process's worker claims what is due without waiting for its next look; it drives them by itself."""
    if services.worker is None or not services.worker.running:
        raise Conflict(
            "this process executes no steps",
            code="no_worker",
            fix="start one with `stepgate worker`, or set STEPGATE_EMBEDDED_WORKER=true",
        )
    return views.Claimed(claimed=await services.worker.claim())
