"""What a running step prints or is answered, for people who watch it from anywhere."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request

from stepgate.api import documents
from stepgate.api.bodies import StrictRoute
from stepgate.api.requests import RunPath, ServicesDep, StepPath
from stepgate.api.waiting import MAX_WAIT_S
from stepgate.engine import views

router = APIRouter(prefix="/v1/agent-runs/{run_id}", tags=["steps"], route_class=StrictRoute)

LOOK_S = 0.15
LAST_SEQ = 2**53


@router.get("/steps/{step_id}/output/live", summary="What a step prints", responses=documents.read(404))
async def get_live_output(
    run_id: RunPath,
    step_id: StepPath,
    request: Request,
    services: ServicesDep,
    after: Annotated[int, Query(ge=0, le=LAST_SEQ, description="`next` of the answer before")] = 0,
    wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="how long to wait for more, in seconds")] = 0,
) -> views.LiveOutput:
    """While it runs: the latest of what its command printed or its model answered, with secrets and control characters
    written out.

    Answers at once where there is something after `after`, or once the step is over; then everything that was kept of
    it is in the step's output.
    """
    deadline = time.monotonic() + wait_s
    with services.listeners.listening(run_id) as rung:
        while True:
            rung.clear()
            found = await services.queries.live_output(run_id, step_id, after)
            left_s = deadline - time.monotonic()
            if found.items or found.ended or left_s <= 0 or await request.is_disconnected():
                return found
            try:
                await asyncio.wait_for(rung.wait(), min(LOOK_S, left_s))
            except TimeoutError:
                continue
