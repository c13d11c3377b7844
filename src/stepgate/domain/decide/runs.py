"""Decisions about a whole run."""

from collections.abc import Sequence

from stepgate.domain import events
from stepgate.domain.commands import (
    AddSteps,
    Cancel,
    Execute,
    Pause,
    Plan,
    Poison,
    Resume,
    Settle,
    Start,
    Undo,
)
from stepgate.domain.decide.turn import Turn, error_data
from stepgate.domain.errors import Conflict, IllegalTransition, NoSteps, StaleSteps
from stepgate.domain.expiry import is_over
from stepgate.domain.state import ApprovalStatus, StepSpec, StepState, is_gone
from stepgate.domain.states import ACTIVE
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import StepStatus as S
from stepgate.domain.wake import MAY_START, startable

_STARTABLE_PHASES = ACTIVE | {R.PLANNED}


def add_steps(turn: Turn, command: AddSteps) -> None:
    """Steps join a run that has not finished; the first ones are its plan."""
    if turn.state.finished or turn.state.phase in (R.CANCELLING, R.FAILING):
        raise turn.refuse("add steps to", "create a new run")
    if not command.steps:
        return
    if turn.state.phase is R.PLANNING:
        raise turn.refuse("add steps to", "wait until it is planned")
    check_fresh(turn, command.steps)
    if turn.state.phase is R.CREATED:
        turn.emit(events.run_planned(turn.actor, turn.now, 1, command.steps))
        return
    for spec in command.steps:
        turn.emit(events.step_added(turn.actor, turn.now, spec))


def check_fresh(turn: Turn, steps: Sequence[StepSpec]) -> None:
    """Keys and numbers were given on a state that may have moved since."""
    taken = len(turn.state.steps)
    for offset, spec in enumerate(steps, start=1):
        if spec.number != taken + offset or spec.key in turn.state.keys:
            raise StaleSteps("other steps were added meanwhile", fix="send the request again")
        if any(is_gone(turn.state.steps[need]) for need in spec.needs if need in turn.state.steps):
            raise StaleSteps("a step that is needed was rejected or replaced meanwhile", fix="send the request again")


def plan(turn: Turn, command: Plan) -> None:
    """A run with only a goal gets the step that has its steps written; `start` or `execute` lets it run."""
    if turn.state.phase is not R.CREATED:
        raise turn.refuse("plan", "plan the next steps of a run that goes on by naming it")
    turn.say(E.RUN_PLANNING)
    turn.emit(events.step_added(turn.actor, turn.now, command.step))


def start(turn: Turn, command: Start) -> None:
    """Asking twice changes nothing."""
    state = turn.state
    if state.total == 0 and not state.finished:
        raise NoSteps("the run has no steps to start", fix="add steps first")
    if state.phase not in _STARTABLE_PHASES:
        raise turn.refuse("start", "resume it" if state.phase is R.PAUSED else None)
    if state.allowance != "start":
        turn.emit(events.run_queued(turn.actor, turn.now, "start", None))


def execute(turn: Turn, command: Execute) -> None:
    """Grants the lowest-numbered step that is unblocked and not yet granted."""
    state = turn.state
    if state.total == 0 and not state.finished:
        raise NoSteps("the run has no steps to execute", fix="add steps first")
    if state.phase not in _STARTABLE_PHASES:
        raise turn.refuse("execute a step of", "resume it" if state.phase is R.PAUSED else None)
    if state.allowance == "start":
        raise Conflict("the run was started; its steps run as they become ready", code="already_started")
    if not state.held:
        raise Conflict(
            "no step is ready to execute",
            code="nothing_ready",
            fix="see waiting_for: what runs or asks must end first",
        )
    step_id = min(state.held, key=lambda held: state.steps[held].spec.number)
    turn.emit(events.run_queued(turn.actor, turn.now, "execute", step_id))


def pause(turn: Turn, command: Pause) -> None:
    if turn.state.phase in (R.PAUSING, R.PAUSED):
        return
    if turn.state.phase not in _STARTABLE_PHASES:
        raise turn.refuse("pause")
    turn.drain(E.RUN_PAUSING, command.reason, "kill")


def resume(turn: Turn, command: Resume) -> None:
    """Steps under review are tried again: a computed set is applied again, anything else starts anew.

    A question whose time was over while the run stood still is asked anew. A finished run has only its undo.
    """
    state = turn.state
    if state.phase in ACTIVE:
        return
    if state.phase is not R.PAUSED and not (state.finished and state.review):
        raise turn.refuse("resume")
    for step in turn.in_order([*state.review, *state.asking]):
        if step.status is S.NEEDS_REVIEW or _is_to_be_asked_anew(turn, step):
            turn.say(E.STEP_RETRIED, step.id, attempt=step.attempt, retry_at=None, reason="resumed", error=None)
    if not state.finished:
        turn.say(E.RUN_RESUMED)


def _is_to_be_asked_anew(turn: Turn, step: StepState) -> bool:
    """Whether its time is over; where nobody said so while the run stood still, the run need not be paused for it."""
    question = step.approvals[-1]
    if question.status is ApprovalStatus.OPEN and question.on_expiry == "pause" and is_over(question, turn.now):
        turn.say(E.APPROVAL_EXPIRED, step.id, request_id=question.request_id, reason="expired", then="abort")
        return True
    return question.status is ApprovalStatus.EXPIRED


def cancel(turn: Turn, command: Cancel) -> None:
    """Also stops the siblings that a rejection lets finish; the run's reason stays the rejection."""
    state = turn.state
    ending = state.phase is R.CANCELLING
    if state.phase is R.CANCELLED or (ending and turn.killing):
        return
    if state.finished:
        raise turn.refuse("cancel")
    turn.drain(E.RUN_CANCELLING, state.reason if ending else command.reason, "kill")
    turn.cancel_open_steps()


def undo(turn: Turn, command: Undo) -> None:
    """Only a finished run: while steps may still run, cancelling comes first."""
    if not turn.state.finished:
        raise turn.refuse("undo", "wait for its end or cancel it first")
    if turn.state.open:
        raise Conflict(
            "an undo of this run is already under way", code="undo_pending", fix="bring it to its end or skip it"
        )
    turn.emit(events.step_added(turn.actor, turn.now, command.step))


def poison(turn: Turn, command: Poison) -> None:
    """What was in flight, or was about to be, is put before a person: applying a set can kill a worker too."""
    state = turn.state
    if state.phase not in MAY_START and not state.in_flight:
        return
    suspects = turn.in_order(state.in_flight)
    if not suspects:
        suspects = [step for step in turn.in_order([*state.ready, *state.retrying]) if startable(state, step, turn.now)]
    error = error_data("poison", "three workers were lost on this step without one new fact")
    for step in suspects:
        turn.say(E.STEP_NEEDS_REVIEW, step.id, reason="poison", error=error)
    pause_for_review(turn)


def pause_for_review(turn: Turn) -> None:
    if turn.state.phase in ACTIVE:
        turn.drain(E.RUN_PAUSING, "needs_review", "finish")


def settle(turn: Turn, command: Settle) -> None:
    """Nothing of its own: every decision ends in `Turn.settle`."""
    if turn.state.finished:
        raise IllegalTransition("the run has finished")
