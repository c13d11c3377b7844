"""What can happen to a run: one constructor for each event, so that none can be built with a field missing.

`data` is JSON: ids and digests as text, times in microseconds, money as decimal text.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from stepgate.domain import money
from stepgate.domain.ids import StepId
from stepgate.domain.state import Actor, Approval, RunInfo, StepResult, StepSpec
from stepgate.domain.states import EventType


class Event(NamedTuple):
    """One fact about one run and at most one of its steps."""

    type: EventType
    step_id: StepId | None
    actor: Actor
    at: int
    data: Mapping[str, Any]


_NOTHING: Mapping[str, Any] = {}


def fact(
    type_: EventType, actor: Actor, at: int, data: Mapping[str, Any] = _NOTHING, step: StepId | None = None
) -> Event:
    """An event of any type whose data the caller has in hand."""
    return Event(type_, step, actor, at, data)


def run_created(info: RunInfo, at: int) -> Event:
    """A goal was accepted, for one workspace, by one requester."""
    data = info._asdict()
    del data["created_at"]
    data["requester"] = info.requester._asdict()
    data["labels"], data["metadata"], data["limits"] = (
        dict(info.labels),
        dict(info.metadata),
        dict(info.limits),
    )
    return Event(EventType.RUN_CREATED, None, info.requester, at, data)


def run_planned(actor: Actor, at: int, revision: int, steps: tuple[StepSpec, ...]) -> Event:
    """The run has a plan; the first plan's steps come inside it, so that creating a run is one fact."""
    return Event(
        EventType.RUN_PLANNED,
        None,
        actor,
        at,
        {"revision": revision, "steps": [spec_data(spec) for spec in steps]},
    )


def step_added(actor: Actor, at: int, spec: StepSpec) -> Event:
    """One more step, after the plan."""
    return Event(EventType.STEP_ADDED, spec.id, actor, at, spec_data(spec))


def spec_data(spec: StepSpec) -> dict[str, Any]:
    """A step's definition as event data; its input stands there by digest and size only."""
    data = spec._asdict()
    del data["created_at"]
    data["needs"] = list(spec.needs)
    return data


def run_queued(actor: Actor, at: int, allowance: str, step: StepId | None) -> Event:
    """Somebody said `start` (no step) or `execute` (the step that may now run)."""
    return Event(EventType.RUN_QUEUED, step, actor, at, {"allowance": allowance})


def step_started(actor: Actor, at: int, step: StepId, attempt: int, action_hash: str | None, *, again: bool) -> Event:
    """A worker begins an attempt; `again` when an earlier worker's attempt was lost with its lease."""
    return Event(
        EventType.STEP_STARTED,
        step,
        actor,
        at,
        {"attempt": attempt, "action_hash": action_hash, "again": again},
    )


def step_result(type_: EventType, actor: Actor, at: int, step: StepId, attempt: int, result: StepResult) -> Event:
    """`step.computed`: the change set is durable; `step.completed`: the step is done and its effect applied."""
    return Event(
        type_,
        step,
        actor,
        at,
        {
            "attempt": attempt,
            "output_sha256": result.output_sha256,
            "output_size": result.output_size,
            "change_set_id": result.change_set_id,
            "change_set_digest": result.change_set_digest,
            "workspace_before": result.workspace_before,
            "workspace_after": result.workspace_after,
            "latency_ms": result.latency_ms,
        },
    )


def approval_requested(actor: Actor, at: int, step: StepId, approval: Approval) -> Event:
    """The engine asks: this exact action, under this hash, shown as this rendering."""
    return Event(
        EventType.APPROVAL_REQUESTED,
        step,
        actor,
        at,
        {
            "request_id": approval.request_id,
            "revision": approval.revision,
            "action_hash": approval.action_hash,
            "risk": approval.risk,
            "rendering_sha256": approval.rendering_sha256,
            "required": approval.required,
            "expires_at": approval.expires_at,
            "on_expiry": approval.on_expiry,
            "policy_version": approval.policy_version,
            "matched_rules": list(approval.matched_rules),
        },
    )


def model_settled(
    actor: Actor,
    at: int,
    step: StepId,
    *,
    call_id: str,
    status: str,
    model: str | None,
    cost_usd: Decimal | None,
    cost_source: str,
    tokens: Mapping[str, int | None],
    latency_ms: int | None,
) -> Event:
    """A model call ended; a cost or a count the router did not say is null."""
    return Event(
        EventType.MODEL_SETTLED,
        step,
        actor,
        at,
        {
            "call_id": call_id,
            "status": status,
            "model": model,
            "cost_usd": money.text(cost_usd),
            "cost_source": cost_source,
            "tokens": dict(tokens),
            "latency_ms": latency_ms,
        },
    )
