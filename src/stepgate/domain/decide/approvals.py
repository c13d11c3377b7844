"""Decisions about questions: the one place for every channel where a person's answer becomes a fact."""

from stepgate.domain import events
from stepgate.domain.commands import Approve, Ask, Edit, Expire, Grant, Reject, Skip
from stepgate.domain.decide import replanning, steps
from stepgate.domain.decide.answering import authority_data, check_delegated, check_no_agent, checked_approver
from stepgate.domain.decide.turn import Turn
from stepgate.domain.errors import (
    AlreadyDecided,
    Conflict,
    Expired,
    Forbidden,
    IllegalTransition,
    StaleApproval,
    StepgateError,
)
from stepgate.domain.expiry import due_reminder, is_over
from stepgate.domain.identity import LOCAL_ID
from stepgate.domain.ids import StepId
from stepgate.domain.state import FORK, POLICY, Approval, ApprovalStatus, StepState
from stepgate.domain.states import ACTIVE, CLOSED, IN_FLIGHT, STARTABLE
from stepgate.domain.states import EventType as E
from stepgate.domain.states import RunStatus as R
from stepgate.domain.states import StepStatus as S
from stepgate.domain.wake import startable


def ask(turn: Turn, command: Ask) -> None:
    """A new revision of the question; an approval of an earlier one no longer counts.

    Dropped where the step has ended or its run was stopped meanwhile: a run that goes on asks again.
    """
    step = turn.step(command.step_id)
    if step.status in CLOSED or steps.is_late(turn, step):
        return
    latest = step.approval
    if (
        latest is not None
        and latest.status is ApprovalStatus.OPEN
        and latest.action_hash == command.approval.action_hash
    ):
        return
    if step.status in (S.PREPARING, S.RUNNING):
        if not _still_wanted(turn, step, command.reason):
            return
    elif step.status in STARTABLE and not startable(turn.state, step, turn.now):
        raise steps.not_startable(turn, step)
    turn.begin_run()
    approval = command.approval._replace(revision=len(step.approvals) + 1, requested_at=turn.now)
    turn.emit(events.approval_requested(turn.actor, turn.now, command.step_id, approval))


def grant(turn: Turn, command: Grant) -> None:
    """The action is asked and answered in one decision, so that the record of both is the same as with a person's."""
    ask(turn, Ask(command.actor, command.step_id, command.approval))
    step = turn.step(command.step_id)
    question = step.approval
    if question is None or question.request_id != command.approval.request_id:
        return
    answer = {"request_id": question.request_id, "action_hash": question.action_hash, "reason": None, "implied": False}
    turn.emit(events.fact(E.APPROVAL_APPROVED, POLICY, turn.now, answer, step.id))


def _still_wanted(turn: Turn, step: StepState, reason: str) -> bool:
    """Brings work in flight to where it can be asked about; False where its run is ending or it may not run again."""
    if turn.state.phase in (R.CANCELLING, R.FAILING):
        steps.stop(turn, step)
        return False
    if step.status is S.PREPARING:
        turn.say(E.STEP_PREPARED, step.id)
        return True
    steps.stop(turn, step, reason)
    return turn.step(step.id).status in STARTABLE


def approve(turn: Turn, command: Approve) -> None:
    """The question is settled once as many distinct persons as it takes have approved its action.

    A person's second approval, also for or by somebody else, changes nothing.
    """
    check_no_agent(turn.actor)
    step, question = _question(turn, command.step_id, command.action_hash)
    approver = checked_approver(turn, step, question, command.authority)
    match question.status:
        case ApprovalStatus.OPEN:
            pass
        case ApprovalStatus.APPROVED:
            return
        case _:
            raise _standing(question)
    _still_open(turn, question)
    given = question.approvers
    if any(not approver.people.isdisjoint(earlier.people) for earlier in given):
        return
    turn.say(
        E.APPROVAL_COUNTED if len(given) + 1 < question.required.persons else E.APPROVAL_APPROVED,
        step.id,
        request_id=question.request_id,
        action_hash=question.action_hash,
        reason=command.reason,
        implied=command.action_hash is None,
        **authority_data(command.authority),
    )


def reject(turn: Turn, command: Reject) -> None:
    """`then`: `abort` ends the run once siblings have finished, `skip` goes on without the step, `replan` has the rest
    planned anew.

    One is enough, whoever else approved and however many it would have taken.
    """
    check_no_agent(turn.actor)
    step, question = _question(turn, command.step_id, command.action_hash)
    check_delegated(turn, command.authority)
    match question.status:
        case ApprovalStatus.OPEN:
            pass
        case ApprovalStatus.REJECTED if question.then == command.then:
            return
        case _:
            raise _standing(question)
    _still_open(turn, question)
    if command.then == "skip":
        _check_dispensable(step)
    if command.planner is not None:
        replanning.check(turn, command.planner, command.most_replans)
    turn.say(
        E.APPROVAL_REJECTED,
        step.id,
        request_id=question.request_id,
        action_hash=question.action_hash,
        reason=command.reason,
        then=command.then,
        implied=command.action_hash is None,
        **authority_data(command.authority),
    )
    turn.say(E.STEP_REJECTED, step.id, reason=command.reason or "rejected")
    if command.planner is not None:
        replanning.replan(turn, command.planner)
    elif command.then == "abort":
        abort(turn)


def skip(turn: Turn, command: Skip) -> None:
    check_no_agent(turn.actor)
    step = turn.step(command.step_id)
    if step.status is S.SKIPPED:
        return
    if step.status in CLOSED or step.status in IN_FLIGHT:
        raise IllegalTransition(f"cannot skip a step that is {step.status}")
    _check_dispensable(step)
    question = step.approval
    if step.status is S.APPROVED and question is not None and question.decided_by != POLICY:
        raise _standing(question)
    turn.say(E.STEP_SKIPPED, step.id, reason=command.reason or "skipped")


def _check_dispensable(step: StepState) -> None:
    if step.spec.type == FORK:
        what = "cannot skip what brings the copy to where the workspace was: what is kept would not be true of it"
        raise IllegalTransition(what, field="step_id", fix="cancel the fork, or skip other steps")


def edit(turn: Turn, command: Edit) -> None:
    """The step gets another input and goes back to be prepared; no earlier answer counts for it."""
    check_no_agent(turn.actor)
    step, question = _question(turn, command.step_id, command.action_hash)
    match question.status:
        case ApprovalStatus.OPEN:
            pass
        case ApprovalStatus.EDITED if step.spec.input_sha256 == command.input_sha256:
            return
        case _:
            raise _standing(question)
    _still_open(turn, question)
    if question.required.exclude_requester and turn.actor.id == LOCAL_ID:
        raise Forbidden(
            "whoever edits this may not approve it, and the local secret does not tell who that is",
            code="person_required",
            fix="edit it with a person's own key or token",
        )
    turn.say(
        E.APPROVAL_EDITED,
        step.id,
        request_id=question.request_id,
        action_hash=question.action_hash,
        reason=command.reason,
        input_sha256=command.input_sha256,
        input_size=command.input_size,
    )


def expire(turn: Turn, command: Expire) -> None:
    """Closes every question whose time is over: as a rejection, or by pausing the run (an undo has none to pause).

    Of those whose time is running out somebody is reminded.
    """
    for asking in turn.in_order(turn.state.asking):
        step = turn.step(asking.id)
        question = step.approvals[-1]
        if question.status is not ApprovalStatus.OPEN:
            continue
        if not is_over(question, turn.now):
            _remind(turn, step, question)
            continue
        turn.say(E.APPROVAL_EXPIRED, step.id, request_id=question.request_id, reason="expired", then="abort")
        if question.on_expiry == "pause" and not turn.state.finished:
            if turn.state.phase in ACTIVE:
                turn.drain(E.RUN_PAUSING, "approval_expired", "finish")
            continue
        turn.say(E.STEP_REJECTED, step.id, reason="expired")
        abort(turn)


def _remind(turn: Turn, step: StepState, question: Approval) -> None:
    percent = due_reminder(question, turn.now)
    if percent is not None:
        facts = {"request_id": question.request_id, "percent": percent, "expires_at": question.expires_at}
        turn.say(E.APPROVAL_REMINDED, step.id, **facts)


def abort(turn: Turn) -> None:
    """A rejection ends the run once what is in flight has finished."""
    if turn.state.phase in ACTIVE | {R.PAUSING, R.PAUSED, R.FAILING}:
        turn.drain(E.RUN_CANCELLING, "rejected", "finish")
        turn.cancel_open_steps()


def _question(turn: Turn, step_id: StepId, action_hash: str | None) -> tuple[StepState, Approval]:
    step = turn.step(step_id)
    question = step.approval
    if question is None:
        raise Conflict(
            f"step {step.spec.key} asks for no approval (it is {step.status})",
            code="not_awaiting_approval",
            field="step_id",
            fix="wait until the step is awaiting_approval",
        )
    if action_hash is None:
        if question.revision > 1:
            raise _stale(question, "the action has changed since it was first asked; send the action_hash shown")
    elif action_hash != question.action_hash:
        raise _stale(question, "this hash is not the action now asked for")
    return step, question


def _stale(question: Approval, message: str) -> StaleApproval:
    return StaleApproval(
        message,
        field="action_hash",
        fix="look at the action again and decide on its present hash",
        details={
            "request_id": question.request_id,
            "revision": question.revision,
            "action_hash": question.action_hash,
        },
    )


def _standing(question: Approval) -> StepgateError:
    if question.status is ApprovalStatus.EXPIRED:
        return _expired(question)
    by = question.decided_by.id if question.decided_by else None
    ended = question.status is ApprovalStatus.VOID
    return AlreadyDecided(
        "the step has ended and its question with it" if ended else f"this question was already {question.status}",
        details={
            "request_id": question.request_id,
            "verdict": question.status.value,
            "decided_by": by,
            "decided_at": question.decided_at,
        },
    )


def _still_open(turn: Turn, question: Approval) -> None:
    if is_over(question, turn.now):
        raise _expired(question)


def _expired(question: Approval) -> Expired:
    return Expired("the approval request has expired", details={"request_id": question.request_id})
