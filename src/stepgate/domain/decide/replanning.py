"""Decisions that replace what is left of a plan: the finished steps stay, the others make room for new ones."""

from stepgate.domain import events
from stepgate.domain.decide.runs import check_fresh
from stepgate.domain.decide.turn import Turn
from stepgate.domain.errors import Conflict
from stepgate.domain.forking import REPLAN, REPLANNED
from stepgate.domain.state import RunState, StepSpec
from stepgate.domain.states import ACTIVE, CLOSED, IN_FLIGHT
from stepgate.domain.states import EventType as E


def check(turn: Turn, planner: StepSpec, most: int) -> None:
    """Raises a Conflict where the run cannot be planned anew, IllegalTransition where it stands still or has ended."""
    if turn.state.phase not in ACTIVE:
        raise turn.refuse("plan anew", "resume it first")
    if replans(turn.state) >= most:
        raise Conflict(
            f"the run was planned anew {most} times, and no more is allowed (STEPGATE_MAX_REPLANS)",
            code="replans_used_up",
            field="then",
            fix="reject with abort or skip",
        )
    check_fresh(turn, (planner,))


def replans(state: RunState) -> int:
    """How often somebody wanted the run planned anew."""
    asked = (approval for step in state.steps.values() for approval in step.approvals)
    return sum(approval.then == REPLAN for approval in asked)


def replan(turn: Turn, planner: StepSpec) -> None:
    """Closes what has not begun; what is in flight finishes. The new steps come with the end of the planner."""
    for step in turn.in_order(turn.state.steps):
        if step.status not in CLOSED and step.status not in IN_FLIGHT:
            turn.say(E.STEP_CANCELLED, step.id, reason=REPLANNED)
    turn.emit(events.step_added(turn.actor, turn.now, planner))
    if turn.state.allowance == "execute":  # whoever let the rejected step run has let this one run, too
        turn.emit(events.run_queued(turn.actor, turn.now, "execute", planner.id))
