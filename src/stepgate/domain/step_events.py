"""What each event makes of the step it is about; what follows for the run is in `filing` and `evolve`."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import itemgetter
from typing import Any

from stepgate.domain.errors import IllegalTransition
from stepgate.domain.events import Event
from stepgate.domain.forking import usage_from
from stepgate.domain.ids import StepId
from stepgate.domain.question_events import asked, counted, decided, edited, reminded, supersede, void
from stepgate.domain.state import ApprovalStatus, Effect, Gate, StepResult, StepSpec, StepState, Usage
from stepgate.domain.states import EventType as E
from stepgate.domain.states import StepStatus as S

# A look-up costs a tenth of an enum's constructor.
_EFFECTS = {effect.value: effect for effect in Effect}
_GATES = {gate.value: gate for gate in Gate}
_RESULT = itemgetter(*StepResult._fields)
COMPLETED = S.COMPLETED


def spec_from(data: Mapping[str, Any], at: int, added_by: str | None, planner: StepId | None) -> StepSpec:
    """A step's definition out of the data of an event by this caller, or at the end of this step."""
    return StepSpec(  # by position: every claim folds every step's definition
        StepId(data["id"]),
        data["key"],
        data["number"],
        data["type"],
        _EFFECTS[data["effect"]],
        _GATES[data["gate"]],
        tuple(data["needs"]),
        data["max_attempts"],
        data["backoff_ms"],
        data["timeout_ms"],
        data["on_error"],
        data["input_sha256"],
        data["input_size"],
        at,
        data["why"],
        data.get("insists", False),
        added_by,
        planner,
        tuple(data.get("asked_by", ())),
    )


def _inherited(step: StepState, event: Event) -> StepState:
    data = event.data
    sha256 = data["output_sha256"]
    return step._replace(
        status=S(data["status"]),
        attempt=data["attempt"],
        reason="inherited",
        error=data["error"],
        result=None if sha256 is None else StepResult(sha256, data["output_size"]),
        started_at=data["started_at"],
        completed_at=data["completed_at"],
        inherited=usage_from(data["usage"]),
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
    return StepResult._make(_RESULT(data))


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
    return StepState(  # by position: every step comes along here
        step.spec,
        COMPLETED,
        step.blocked,
        step.granted,
        data["attempt"],
        None,
        None,
        None,
        _result(data),
        step.approvals,
        step.usage,
        step.open_calls,
        step.started_at or event.at,
        event.at,
    )


def _failed(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(
        status=S.FAILED,
        attempt=data["attempt"],
        retry_at=None,
        error=data["error"],
        reason=data["error"]["code"],
        approvals=void(step.approvals),
        started_at=step.started_at or event.at,
        completed_at=event.at,
    )


def _retried(step: StepState, event: Event) -> StepState:
    data = event.data
    if step.status is S.NEEDS_REVIEW and step.result is not None:
        return step._replace(status=S.COMPUTED, reason=None, error=None)
    approvals = step.approvals
    if step.status is S.NEEDS_REVIEW and step.spec.effect is Effect.ONCE:
        approvals = supersede(approvals)  # it may have served its one start
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
            approvals=void(step.approvals),
            completed_at=event.at,
        )

    return close


def _review(step: StepState, event: Event) -> StepState:
    data = event.data
    return step._replace(status=S.NEEDS_REVIEW, retry_at=None, reason=data["reason"], error=data["error"])


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
    E.STEP_INHERITED: _inherited,
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
    E.APPROVAL_REQUESTED: asked,
    E.APPROVAL_COUNTED: counted,
    E.APPROVAL_APPROVED: decided(ApprovalStatus.APPROVED),
    E.APPROVAL_REJECTED: decided(ApprovalStatus.REJECTED),
    E.APPROVAL_REMINDED: reminded,
    E.APPROVAL_EDITED: edited,
    E.APPROVAL_EXPIRED: decided(ApprovalStatus.EXPIRED),
    E.MODEL_CALLED: _called,
    E.MODEL_SETTLED: _settled,
}
