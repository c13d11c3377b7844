"""What each event makes of the question that a step asks, and of the answers to it."""

from collections.abc import Callable, Mapping
from typing import Any

from stepgate.domain.errors import IllegalTransition
from stepgate.domain.events import Event
from stepgate.domain.ids import RequestId
from stepgate.domain.quorum import Quorum
from stepgate.domain.state import Approval, ApprovalStatus, StepState, Voice
from stepgate.domain.states import StepStatus as S


def void(approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """A question still open when its step goes elsewhere is closed with it."""
    if not approvals or approvals[-1].status is not ApprovalStatus.OPEN:
        return approvals
    return (*approvals[:-1], approvals[-1]._replace(status=ApprovalStatus.VOID))


def supersede(approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """An earlier question or answer stops counting where a new one must be asked."""
    if not approvals or approvals[-1].status not in (ApprovalStatus.OPEN, ApprovalStatus.APPROVED):
        return approvals
    return (*approvals[:-1], approvals[-1]._replace(status=ApprovalStatus.SUPERSEDED))


def _quorum(data: Mapping[str, Any]) -> Quorum:
    """Journals from before roles and requesters counted name a count alone."""
    groups = tuple(tuple(group) for group in data.get("roles", ()))
    return Quorum(data["required"], groups, data.get("exclude_requester", False))


def asked(step: StepState, event: Event) -> StepState:
    """A new revision; whatever was said of an earlier one no longer counts."""
    data = event.data
    approval = Approval(
        request_id=RequestId(data["request_id"]),
        revision=data["revision"],
        action_hash=data["action_hash"],
        risk=data["risk"],
        rendering_sha256=data["rendering_sha256"],
        required=_quorum(data),
        expires_at=data["expires_at"],
        on_expiry=data["on_expiry"],
        policy_version=data["policy_version"],
        matched_rules=tuple(data["matched_rules"]),
        requested_at=event.at,
    )
    approvals = (*supersede(step.approvals), approval)
    return step._replace(status=S.AWAITING_APPROVAL, approvals=approvals, retry_at=None, reason=None)


def _open_question(step: StepState, event: Event) -> Approval:
    latest = step.approvals[-1]
    if latest.request_id != event.data["request_id"] or latest.status is not ApprovalStatus.OPEN:
        raise IllegalTransition(f"the question {event.data['request_id']} is not open")
    return latest


def _voice(event: Event, verdict: ApprovalStatus) -> Voice:
    data = event.data
    return Voice(
        event.actor,
        verdict,
        event.at,
        data.get("reason"),
        data.get("implied", False),
        tuple(data.get("roles", ())),
        data.get("on_behalf_of"),
    )


def counted(step: StepState, event: Event) -> StepState:
    """One of the approvals that it takes; the question stays open."""
    question = _open_question(step, event)
    heard = question._replace(voices=(*question.voices, _voice(event, ApprovalStatus.APPROVED)))
    return step._replace(approvals=(*step.approvals[:-1], heard))


def reminded(step: StepState, event: Event) -> StepState:
    """Somebody was told that the time is running out."""
    question = _open_question(step, event)._replace(reminded=event.data["percent"])
    return step._replace(approvals=(*step.approvals[:-1], question))


def decided(status: ApprovalStatus) -> Callable[[StepState, Event], StepState]:
    """What closes the question with this status; an expiry is nobody's answer."""

    def decide(step: StepState, event: Event) -> StepState:
        data, latest = event.data, _open_question(step, event)
        voice = () if status is ApprovalStatus.EXPIRED else (_voice(event, status),)
        closed = latest._replace(
            voices=(*latest.voices, *voice),
            status=status,
            decided_at=event.at,
            decided_by=event.actor,
            reason=data.get("reason"),
            then=data.get("then"),
            implied=data.get("implied", False),
        )
        after = S.APPROVED if status is ApprovalStatus.APPROVED else step.status
        return step._replace(status=after, approvals=(*step.approvals[:-1], closed))

    return decide


def edited(step: StepState, event: Event) -> StepState:
    """The question is closed with the input that it was about."""
    data = event.data
    spec = step.spec._replace(input_sha256=data["input_sha256"], input_size=data["input_size"])
    closed = decided(ApprovalStatus.EDITED)(step, event)
    return closed._replace(spec=spec, status=S.PENDING, reason="edited", error=None)
