"""What each event makes of the step it is about; what follows for the run is in `filing` and `evolve`."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from stepgate.domain.errors import IllegalTransition
from stepgate.domain.events import Event
from stepgate.domain.ids import RequestId, StepId
from stepgate.domain.state import (
    Approval,
    ApprovalStatus,
    Effect,
    Gate,
    StepResult,
    StepSpec,
    StepState,
    Usage,
)
from stepgate.domain.states import EventType as E
from stepgate.domain.states import StepStatus as S

# A look-up costs a tenth of an enum's constructor, and every claim folds every step's definition.
_EFFECTS = {effect.value: effect for effect in Effect}
_GATES = {gate.value: gate for gate in Gate}


def spec_from(data: Mapping[str, Any], at: int) -> StepSpec:
    """A step's definition out of event data."""
    return StepSpec(
        id=StepId(data["id"]),
        key=data["key"],
        number=data["number"],
        type=data["type"],
        effect=_EFFECTS[data["effect"]],
        gate=_GATES[data["gate"]],
        needs=tuple(StepId(need) for need in data["needs"]),
        max_attempts=data["max_attempts"],
        backoff_ms=data["backoff_ms"],
        timeout_ms=data["timeout_ms"],
        on_error=data["on_error"],
        input_sha256=data["input_sha256"],
        input_size=data["input_size"],
        created_at=at,
        why=data["why"],
    )


def _preparing(step: StepState, event: Event) -> StepState:
    return step._replace(status=S.PREPARING, retry_at=None, started_at=step.started_at or event.at)


def _begun(step: StepState, event: Event) -> StepState:
    attempt = event.data["attempt"]
    started_at = step.started_at or event.at
    return step._replace(
        status=S.RUNNING, attempt=attempt, retry_at=None, reason=None, error=None, started_at=started_at
    )


def _result(data: Mapping[str, Any]) -> StepResult:
    return StepResult(
        data["output_sha256"],
        data["output_size"],
        data["change_set_id"],
        data["change_set_digest"],
        data["workspace_before"],
        data["workspace_after"],
        data["latency_ms"],
    )


def _computed(step: StepState, event: Event) -> StepState:
    data = event.data
    started_at = step.started_at or event.at
    return step._replace(
        status=S.COMPUTED,
        attempt=data["attempt"],
        retry_at=None,
        result=_result(data),
        started_at=started_at,
        error=None,
        reason=None,
    )


def _completed(step: StepState, event: Event) -> StepState:
    data = event.data
    return StepState(
        spec=step.spec,
        status=S.COMPLETED,
        blocked=step.blocked,
        granted=step.granted,
        attempt=data["attempt"],
        result=_result(data),
        approvals=step.approvals,
        usage=step.usage,
        open_calls=step.open_calls,
        started_at=step.started_at or event.at,
        completed_at=event.at,
    )


def _failed(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(
        status=S.FAILED,
        attempt=data["attempt"],
        retry_at=None,
        error=data["error"],
        reason=data["error"]["code"],
        approvals=_void(step.approvals),
        started_at=step.started_at or event.at,
        completed_at=event.at,
    )


def _retried(step: StepState, event: Event) -> StepState:
    data = event.data
    if step.status is S.NEEDS_REVIEW and step.result is not None:
        return step._replace(status=S.COMPUTED, reason=None, error=None)
    approvals = step.approvals
    if step.status is S.NEEDS_REVIEW and step.spec.effect is Effect.ONCE:
        approvals = _supersede(approvals)  # it may have served its one start
    approved = bool(approvals) and approvals[-1].status is ApprovalStatus.APPROVED
    return step._replace(
        status=S.APPROVED if approved else S.PENDING,
        approvals=approvals,
        attempt=data["attempt"],
        retry_at=data["retry_at"],
        reason=data["reason"],
        error=data["error"],
    )


def _closing(status: S) -> Callable[[StepState, Event], StepState]:
    def close(step: StepState, event: Event) -> StepState:
        return step._replace(
            status=status,
            retry_at=None,
            reason=event.data["reason"],
            approvals=_void(step.approvals),
            completed_at=event.at,
        )

    return close


def _review(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(status=S.NEEDS_REVIEW, retry_at=None, reason=data["reason"], error=data["error"])


def _void(approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """A question still open when its step goes elsewhere is closed with it."""
    if not approvals or approvals[-1].status is not ApprovalStatus.OPEN:
        return approvals
    return (*approvals[:-1], approvals[-1]._replace(status=ApprovalStatus.VOID))


def _supersede(approvals: tuple[Approval, ...]) -> tuple[Approval, ...]:
    """An earlier question or answer stops counting where a new one must be asked."""
    if not approvals or approvals[-1].status not in (ApprovalStatus.OPEN, ApprovalStatus.APPROVED):
        return approvals
    return (*approvals[:-1], approvals[-1]._replace(status=ApprovalStatus.SUPERSEDED))


def _asked(step: StepState, event: Event) -> StepState:
    data = event.data
    approval = Approval(
        request_id=RequestId(data["request_id"]),
        revision=data["revision"],
        action_hash=data["action_hash"],
        risk=data["risk"],
        rendering_sha256=data["rendering_sha256"],
        required=data["required"],
        expires_at=data["expires_at"],
        on_expiry=data["on_expiry"],
        policy_version=data["policy_version"],
        matched_rules=tuple(data["matched_rules"]),
        requested_at=event.at,
    )
    approvals = (*_supersede(step.approvals), approval)
    return step._replace(status=S.AWAITING_APPROVAL, approvals=approvals, retry_at=None, reason=None)


def _decided(status: ApprovalStatus) -> Callable[[StepState, Event], StepState]:
    def decide(step: StepState, event: Event) -> StepState:
        data, latest = event.data, step.approvals[-1]
        if latest.request_id != data["request_id"] or latest.status is not ApprovalStatus.OPEN:
            raise IllegalTransition(f"the question {data['request_id']} is not open")
        decided = latest._replace(
            status=status,
            decided_at=event.at,
            decided_by=event.actor,
            reason=data.get("reason"),
            then=data.get("then"),
            implied=data.get("implied", False),
        )
        after = S.APPROVED if status is ApprovalStatus.APPROVED else step.status
        return step._replace(status=after, approvals=(*step.approvals[:-1], decided))

    return decide


def _called(step: StepState, event: Event) -> StepState:
    call_id = event.data["call_id"]
    return step._replace(usage=account(step.usage, event), open_calls=(*step.open_calls, call_id))


def _settled(step: StepState, event: Event) -> StepState:
    call_id = event.data["call_id"]
    if call_id not in step.open_calls:
        raise IllegalTransition(f"the model call {call_id} is not open")
    still_open = tuple(call for call in step.open_calls if call != call_id)
    return step._replace(usage=account(step.usage, event), open_calls=still_open)


def account(usage: Usage, event: Event) -> Usage:
    """A call counts as unknown from the moment it is made until its cost is known."""
    if event.type is E.MODEL_CALLED:
        return usage._replace(calls=usage.calls + 1)
    data = event.data
    if data["cost_usd"] is not None:
        usage = usage._replace(priced=usage.priced + 1, cost_usd=usage.cost_usd + Decimal(data["cost_usd"]))
    tokens: Mapping[str, int | None] = data["tokens"]
    source = data["cost_source"]
    return usage._replace(
        input=_sum(usage.input, tokens["input"]),
        output=_sum(usage.output, tokens["output"]),
        cached=_sum(usage.cached, tokens["cached"]),
        reasoning=_sum(usage.reasoning, tokens["reasoning"]),
        source=source if usage.source in (None, source) else "mixed",
        model=data["model"] or usage.model,
    )


def _sum(total: int | None, more: int | None) -> int | None:
    return total if more is None else more if total is None else total + more


STEP_CHANGES: Mapping[E, Callable[[StepState, Event], StepState]] = {
    E.STEP_PREPARING: _preparing,
    E.STEP_PREPARED: lambda step, event: step,
    E.STEP_STARTED: _begun,
    E.STEP_COMPUTED: _computed,
    E.STEP_COMPLETED: _completed,
    E.STEP_FAILED: _failed,
    E.STEP_RETRIED: _retried,
    E.STEP_SKIPPED: _closing(S.SKIPPED),
    E.STEP_REJECTED: _closing(S.REJECTED),
    E.STEP_CANCELLED: _closing(S.CANCELLED),
    E.STEP_DISCARDED: lambda step, event: step,
    E.STEP_NEEDS_REVIEW: _review,
    E.APPROVAL_REQUESTED: _asked,
    E.APPROVAL_APPROVED: _decided(ApprovalStatus.APPROVED),
    E.APPROVAL_REJECTED: _decided(ApprovalStatus.REJECTED),
    E.APPROVAL_EXPIRED: _decided(ApprovalStatus.EXPIRED),
    E.MODEL_CALLED: _called,
    E.MODEL_SETTLED: _settled,
}
