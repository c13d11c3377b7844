"""When a run must next be looked at by a worker: a pure function of its state, written with every head."""

from stepgate.domain.state import RunState, StepState
from stepgate.domain.states import ACTIVE, DRAINING, FINISHED, STARTABLE

MAY_START = ACTIVE | FINISHED
"""Phases in which a ready step may be taken up; once finished, only an undo can be ready."""


def next_wake(state: RunState) -> int | None:
    """Microseconds since the epoch, or None while only a person can move the run.

    What is due now keeps the time it was queued at, so that the value stays the same from step to step (an
    unchanged indexed column keeps PostgreSQL's updates heap-only) and older runs come first.
    """
    since = state.queued_at or state.info.created_at
    if state.in_flight or state.phase in DRAINING:
        return since
    if state.phase not in MAY_START:
        return None
    if state.ready:
        return since
    return state.next_timer


def startable(state: RunState, step: StepState, now: int) -> bool:
    """Whether a worker may take the step up at this moment."""
    if state.phase not in MAY_START or step.status not in STARTABLE:
        return False
    return step.spec.id in state.ready or (step.retry_at is not None and step.retry_at <= now and not step.blocked)
