"""Decisions about one step, as its worker reports them."""

from stepgate.domain import events
from stepgate.domain.commands import (
    Begin,
    CallModel,
    Complete,
    Compute,
    Fail,
    Interrupt,
    Prepare,
    Review,
    SettleModel,
)
from stepgate.domain.decide.runs import pause_for_review
from stepgate.domain.decide.turn import Turn
from stepgate.domain.errors import IllegalTransition, StaleApproval
from stepgate.domain.state import UNDO, Gate, RunState, StepState
from stepgate.domain.states import CLOSED, DRAINING, STARTABLE
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import StepStatus as S
from stepgate.domain.wake import MAY_START

MAX_BACKOFF_MS = 3_600_000


def startable(state: RunState, step: StepState, now: int) -> bool:
    """Whether a worker may take the step up at this moment."""
    if state.phase not in MAY_START or step.status not in STARTABLE:
        return False
    return step.spec.id in state.ready or (step.retry_at is not None and step.retry_at <= now and not step.blocked)


def prepare(turn: Turn, command: Prepare) -> None:
    step = turn.step(command.step_id)
    if step.status is not S.PREPARING and not startable(turn.state, step, turn.now):
        raise _not_startable(turn, step)
    turn.begin_run()
    turn.say(E.STEP_PREPARING, step.id)


def begin(turn: Turn, command: Begin) -> None:
    """A new attempt, or the same one again where a worker was lost in it."""
    step = turn.step(command.step_id)
    again = step.status is S.RUNNING
    if not again and step.status is not S.PREPARING and not startable(turn.state, step, turn.now):
        raise _not_startable(turn, step)
    _check_gate(step, command.action_hash)
    turn.begin_run()
    attempt = step.attempt if again else step.attempt + 1
    turn.emit(events.step_started(turn.actor, turn.now, step.id, attempt, command.action_hash, again=again))


def compute(turn: Turn, command: Compute) -> None:
    """From here on the set is applied to its end, unless the run no longer wants it."""
    step = turn.step(command.step_id)
    if step.status in CLOSED:
        return _discard(turn, step, command)
    if step.status is S.RUNNING and turn.state.phase in DRAINING and turn.state.drain == "kill":
        _discard(turn, step, command)
        return _stop(turn, step)
    if step.status is not S.RUNNING and not startable(turn.state, step, turn.now):
        raise _not_startable(turn, step)
    _check_gate(step, command.action_hash)
    turn.begin_run()
    attempt = step.attempt if step.status is S.RUNNING else step.attempt + 1
    turn.emit(events.step_result(E.STEP_COMPUTED, turn.actor, turn.now, step.id, attempt, command.result))


def complete(turn: Turn, command: Complete) -> None:
    step = turn.step(command.step_id)
    if step.status in CLOSED:
        return _discard(turn, step, command)
    recorded = step.status in (S.RUNNING, S.COMPUTED)
    if not recorded:
        if step.status in STARTABLE and turn.state.phase not in MAY_START:
            if turn.state.phase is not R.FAILING:
                return _discard(turn, step, command)
        elif not startable(turn.state, step, turn.now):
            raise _not_startable(turn, step)
    _check_gate(step, command.action_hash)
    turn.begin_run()
    attempt = step.attempt if recorded else step.attempt + 1
    turn.emit(events.step_result(E.STEP_COMPLETED, turn.actor, turn.now, step.id, attempt, command.result))
    if step.spec.type == UNDO and command.result.change_set_id is not None:
        turn.say(E.RUN_UNDONE, change_set_id=command.result.change_set_id)


def fail(turn: Turn, command: Fail) -> None:
    """Another attempt where the plan allows one, otherwise the end of the step and, mostly, of the run."""
    step = turn.step(command.step_id)
    if step.status in CLOSED:
        return turn.say(E.STEP_DISCARDED, step.id, what="failed", error=dict(command.error))
    attempt = step.attempt if step.status in (S.RUNNING, S.COMPUTED) else step.attempt + 1
    if turn.state.phase in (R.CANCELLING, R.PAUSING) and turn.state.drain == "kill" and step.status is not S.COMPUTED:
        return _stop(turn, step)
    turn.begin_run()
    retry = command.retryable and attempt < step.spec.max_attempts and turn.state.phase is not R.FAILING
    if retry:
        wait_ms = command.retry_after_ms or min(step.spec.backoff_ms * 2 ** (attempt - 1), MAX_BACKOFF_MS)
        turn.say(
            E.STEP_RETRIED,
            step.id,
            attempt=attempt,
            retry_at=turn.now + wait_ms * 1000,
            reason=command.error["code"],
            error=dict(command.error),
        )
        return None
    turn.say(E.STEP_FAILED, step.id, attempt=attempt, error=dict(command.error))
    if step.spec.on_error != "continue" and step.spec.type != UNDO and turn.state.phase in _CAN_FAIL:
        turn.say(E.RUN_FAILING, reason="step_failed", drain="finish")
        turn.cancel_open_steps("run_failed")
    return None


_CAN_FAIL = (R.QUEUED, R.RUNNING, R.PAUSING, R.PAUSED)


def interrupt(turn: Turn, command: Interrupt) -> None:
    step = turn.step(command.step_id)
    if step.status in (S.RUNNING, S.PREPARING):
        _stop(turn, step)


def review(turn: Turn, command: Review) -> None:
    step = turn.step(command.step_id)
    if step.status in CLOSED:
        return
    turn.begin_run()
    turn.say(E.STEP_NEEDS_REVIEW, step.id, reason=command.error["code"], error=dict(command.error))
    pause_for_review(turn)


def call_model(turn: Turn, command: CallModel) -> None:
    turn.say(
        E.MODEL_CALLED,
        command.step_id,
        call_id=command.call_id,
        request_hash=command.request_hash,
        router=command.router,
        model=command.model,
    )


def settle_model(turn: Turn, command: SettleModel) -> None:
    turn.emit(
        events.model_settled(
            turn.actor,
            turn.now,
            command.step_id,
            call_id=command.call_id,
            status=command.status,
            model=command.model,
            cost_usd=command.cost_usd,
            cost_source=command.cost_source,
            tokens=command.tokens,
            latency_ms=command.latency_ms,
        )
    )


def _stop(turn: Turn, step: StepState) -> None:
    """A step stopped before its end: cancelled with the run, otherwise as if it had not begun."""
    if turn.state.phase is R.CANCELLING:
        turn.say(E.STEP_CANCELLED, step.id, reason="run_cancelled")
    else:
        attempt = max(0, step.attempt - 1) if step.status is S.RUNNING else step.attempt
        turn.say(E.STEP_RETRIED, step.id, attempt=attempt, retry_at=None, reason="interrupted", error=None)


def _discard(turn: Turn, step: StepState, command: Compute | Complete) -> None:
    turn.say(E.STEP_DISCARDED, step.id, what="result", output_sha256=command.result.output_sha256)


def _not_startable(turn: Turn, step: StepState) -> IllegalTransition:
    return IllegalTransition(
        f"step {step.spec.key} is {step.status} in a run that is {turn.state.phase}: it may not start now"
    )


def _check_gate(step: StepState, action_hash: str | None) -> None:
    """No effect without an approval of this very action, whoever asks."""
    if step.spec.gate is Gate.ALLOW and not step.approvals:
        return
    approval = step.approval
    if approval is None or not step.authorised:
        raise IllegalTransition(f"step {step.spec.key} has no standing approval")
    if step.status is not S.COMPUTED and action_hash != approval.action_hash:
        raise StaleApproval(f"step {step.spec.key} was approved for another action")
