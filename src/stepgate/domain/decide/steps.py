"""Decisions about one step, as its worker reports them."""

from collections.abc import Mapping
from typing import Any

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
from stepgate.domain.decide.runs import check_fresh, pause_for_review
from stepgate.domain.decide.turn import Turn, error_data
from stepgate.domain.errors import BudgetExhausted, IllegalTransition, StaleApproval
from stepgate.domain.state import UNDO, Effect, Gate, StepState
from stepgate.domain.states import ACTIVE, CLOSED, DRAINING, IN_FLIGHT, RECORDED, STARTABLE
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import StepStatus as S
from stepgate.domain.wake import startable

MAX_BACKOFF_MS = 3_600_000

_STOPPED = frozenset({*DRAINING, R.PAUSED})
COMPLETED, ALLOW, ONCE = E.STEP_COMPLETED, Gate.ALLOW, Effect.ONCE
"""Under short names: a member's look-up costs three times as much, and every step comes along here."""
_CAN_FAIL = ACTIVE | {R.PAUSING}


def prepare(turn: Turn, command: Prepare) -> None:
    step = turn.step(command.step_id)
    _check_may_start(turn, step)
    turn.begin_run()
    turn.say(E.STEP_PREPARING, step.id)


def begin(turn: Turn, command: Begin) -> None:
    """A new attempt, or the same one again where a worker was lost in it."""
    step = turn.step(command.step_id)
    again = step.status is S.RUNNING
    if not again:
        _check_may_start(turn, step)
    elif turn.killing or step.spec.effect is Effect.ONCE:
        raise not_startable(turn, step)
    _check_gate(step, command.action_hash)
    turn.begin_run()
    attempt = step.attempt if again else step.attempt + 1
    turn.emit(events.step_started(turn.actor, turn.now, step.id, attempt, command.action_hash, again=again))


def compute(turn: Turn, command: Compute) -> None:
    """From here on the set is applied to its end, unless the run no longer wants it."""
    step = turn.step(command.step_id)
    if step.status in CLOSED or is_late(turn, step):
        return _discard(turn, step, command)
    if step.status is S.RUNNING:
        if turn.killing:
            _discard(turn, step, command)
            return stop(turn, step)
    elif not startable(turn.state, step, turn.now):
        raise not_startable(turn, step)
    _check_gate(step, command.action_hash)
    _check_recorded(step, command)
    turn.begin_run()
    attempt = step.attempt if step.status is S.RUNNING else step.attempt + 1
    turn.emit(events.step_result(E.STEP_COMPUTED, turn.actor, turn.now, step.id, attempt, command.result))


def complete(turn: Turn, command: Complete) -> None:
    step = turn.step(command.step_id)
    recorded = step.status in RECORDED
    if not recorded:
        if step.status in CLOSED or is_late(turn, step):
            return _discard(turn, step, command)
        if not startable(turn.state, step, turn.now):
            raise not_startable(turn, step)
    _check_gate(step, command.action_hash)
    _check_recorded(step, command)
    turn.begin_run()
    attempt = step.attempt if recorded else step.attempt + 1
    turn.emit(events.step_result(COMPLETED, turn.actor, turn.now, step.id, attempt, command.result))
    if step.spec.type == UNDO:
        turn.say(E.RUN_UNDONE, change_set_id=command.result.change_set_id)
    if command.steps and turn.state.phase not in (R.CANCELLING, R.FAILING) and not turn.state.finished:
        check_fresh(turn, command.steps)
        turn.emit(events.run_planned(turn.actor, turn.now, turn.state.revision + 1, command.steps, step.id))


def fail(turn: Turn, command: Fail) -> None:
    """Another attempt where the plan allows one, otherwise the end of the step and, mostly, of the run."""
    step = turn.step(command.step_id)
    error = dict(command.error)
    if step.status in CLOSED or is_late(turn, step):
        return turn.say(E.STEP_DISCARDED, step.id, what="failed", error=error)
    _check_in_hand(turn, step)
    used_up = step.spec.effect is Effect.ONCE and step.status is S.RUNNING
    if turn.killing and not used_up and step.status is not S.COMPUTED:
        return stop(turn, step)
    turn.begin_run()
    attempt = step.attempt if step.status in RECORDED else step.attempt + 1
    ending = turn.state.phase in (R.FAILING, R.CANCELLING)
    if command.retryable and attempt < step.spec.max_attempts and not used_up and not ending:
        retry_at = turn.now + _wait_ms(command, step, attempt) * 1000
        turn.say(E.STEP_RETRIED, step.id, attempt=attempt, retry_at=retry_at, reason=error["code"], error=error)
        return None
    # Left out where there is none, as in journals from before it was recorded.
    kept = {} if command.output is None else {"output": dict(command.output)}
    turn.say(E.STEP_FAILED, step.id, attempt=attempt, error=error, **kept)
    if step.spec.on_error != "continue" and step.spec.type != UNDO and turn.state.phase in _CAN_FAIL:
        turn.drain(E.RUN_FAILING, "step_failed", "finish")
        turn.cancel_open_steps()
    return None


def _wait_ms(command: Fail, step: StepState, attempt: int) -> int:
    """The hint from outside, else a backoff that doubles; neither may put a run to sleep for good."""
    wait = command.retry_after_ms
    if wait is None:
        wait = step.spec.backoff_ms * 2 ** (attempt - 1)
    return min(max(wait, 0), MAX_BACKOFF_MS)


def interrupt(turn: Turn, command: Interrupt) -> None:
    step = turn.step(command.step_id)
    if step.status in (S.RUNNING, S.PREPARING):
        stop(turn, step)


def review(turn: Turn, command: Review) -> None:
    step = turn.step(command.step_id)
    if step.status in CLOSED:
        return None
    if is_late(turn, step):
        return turn.say(E.STEP_DISCARDED, step.id, what="review", error=dict(command.error))
    _check_in_hand(turn, step)
    turn.begin_run()
    put_under_review(turn, step, command.error)


def put_under_review(turn: Turn, step: StepState, error: Mapping[str, Any]) -> None:
    turn.say(E.STEP_NEEDS_REVIEW, step.id, reason=error["code"], error=dict(error))
    pause_for_review(turn)


def stop(turn: Turn, step: StepState, reason: str = "interrupted", error: Mapping[str, Any] | None = None) -> None:
    """A step stopped before its end: closed with a run that is ending, otherwise as if it had not begun.

    One that may have happened and must not happen twice goes to a person.
    """
    if step.spec.effect is Effect.ONCE and step.status is S.RUNNING:
        message = "it was stopped after it began; it may have happened"
        return put_under_review(turn, step, error_data("lost_end", message))
    if turn.state.phase in (R.CANCELLING, R.FAILING):
        return turn.cancel_step(step.id)
    attempt = max(0, step.attempt - 1) if step.status is S.RUNNING else step.attempt
    turn.say(E.STEP_RETRIED, step.id, attempt=attempt, retry_at=None, reason=reason, error=error)


def is_late(turn: Turn, step: StepState) -> bool:
    """Whether the run was stopped after a worker had taken the step up and before it recorded anything of it."""
    return turn.state.phase in _STOPPED and step.status in STARTABLE and not step.blocked


def call_model(turn: Turn, command: CallModel) -> None:
    step = turn.step(command.step_id)
    if step.status in CLOSED:
        raise IllegalTransition(f"step {step.spec.key} is {step.status}: no model is called for it any more")
    shortage = turn.state.budget.shortage(command.worst)
    if shortage is not None:
        raise BudgetExhausted(shortage.message, field=f"limits.{shortage.limit}", code=shortage.code, fix=shortage.fix)
    turn.emit(
        events.model_called(
            turn.actor,
            turn.now,
            command.step_id,
            call_id=command.call_id,
            request_hash=command.request_hash,
            router=command.router,
            model=command.model,
            worst=command.worst,
        )
    )


def settle_model(turn: Turn, command: SettleModel) -> None:
    """Also of a step that has ended meanwhile: what was billed is billed. A call is settled once."""
    if command.call_id not in turn.step(command.step_id).open_calls:
        return
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
            answer_sha256=command.answer_sha256,
        )
    )
    turn.tell_spending(turn.state.budget.percent)


def _discard(turn: Turn, step: StepState, command: Compute | Complete) -> None:
    turn.say(E.STEP_DISCARDED, step.id, what="result", output_sha256=command.result.output_sha256)


def not_startable(turn: Turn, step: StepState) -> IllegalTransition:
    return IllegalTransition(
        f"step {step.spec.key} is {step.status} in a run that is {turn.state.phase}: it may not start now"
    )


def _check_may_start(turn: Turn, step: StepState) -> None:
    preparing = step.status is S.PREPARING and turn.state.phase not in DRAINING
    if not preparing and not startable(turn.state, step, turn.now):
        raise not_startable(turn, step)


def _check_in_hand(turn: Turn, step: StepState) -> None:
    """Only a step that a worker may have in its hands can fail or need a person."""
    if step.status not in IN_FLIGHT and not startable(turn.state, step, turn.now):
        raise not_startable(turn, step)


def _check_gate(step: StepState, action_hash: str | None) -> None:
    """No effect without an approval of this very action, whoever asks."""
    approval = step.approval
    if approval is None and step.spec.gate is ALLOW:
        return
    if approval is None or not step.authorised:
        raise IllegalTransition(f"step {step.spec.key} has no standing approval")
    if step.status is not S.COMPUTED and action_hash != approval.action_hash:
        raise StaleApproval(f"step {step.spec.key} was approved for another action")


def _check_recorded(step: StepState, command: Compute | Complete) -> None:
    """What recovery needs was recorded before: the start of what runs once, the change set before it is applied."""
    if step.spec.effect is ONCE and step.status not in RECORDED:
        raise IllegalTransition(f"step {step.spec.key} runs once: its start is recorded first")
    if isinstance(command, Complete):
        computed = None if step.result is None else step.result.change_set_digest
        if command.result.change_set_digest != computed:
            raise IllegalTransition(f"step {step.spec.key} completes with another change set than the one computed")
