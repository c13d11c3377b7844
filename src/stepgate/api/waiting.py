"""Waits until a step has come to an end or to a gate; only a worker moves it, the request just looks."""

import asyncio
import time

from fastapi import Request

from stepgate.api.services import Services
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.states import CLOSED, FINISHED, StepStatus
from stepgate.domain.states import RunStatus as R

MAX_WAIT_S = 120.0
FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 1.0

RESTING = CLOSED | {StepStatus.AWAITING_APPROVAL, StepStatus.NEEDS_REVIEW}
"""Step statuses that only a person changes, or nobody."""
STOPPED = FINISHED | {R.PAUSED}


async def settled(services: Services, request: Request, run_id: RunId, step_id: StepId, wait_s: float) -> bool:
    """Whether the step rests within `wait_s` seconds, or its run stands still.

    It looks when the run is rung and, in case no ring comes, in growing intervals. Ends early when the caller is gone.
    """
    deadline = time.monotonic() + wait_s
    pause_s = FIRST_LOOK_S
    with services.listeners.listening(run_id) as rung:
        while True:
            rung.clear()
            run, step = await services.queries.statuses(run_id, step_id)
            if step in RESTING or run in STOPPED:
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0 or await request.is_disconnected():
                return False
            try:
                await asyncio.wait_for(rung.wait(), min(pause_s, left_s))
            except TimeoutError:
                pause_s = min(pause_s * 2, LONGEST_LOOK_S)
