"""What can happen to a run: one constructor for each event, so that none can be built with a field missing.

`data` is JSON: ids and digests as text, times in microseconds, money as decimal text.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from stepgate.domain import forking, money
from stepgate.domain.budget import Alert, Budget, Charge
from stepgate.domain.identity import DEFAULT_TENANT
from stepgate.domain.ids import StepId
from stepgate.domain.state import Actor, Approval, Inherited, RunInfo, StepResult, StepSpec
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
    if info.origin is None:  # journals from before forks do not have it
        del data["origin"]
    data["requester"] = info.requester._asdict()
    data["labels"], data["metadata"], data["limits"] = (
        dict(info.labels),
        dict(info.metadata),
        dict(info.limits),
    )
    if info.tenant == DEFAULT_TENANT:  # journals from before there were others do not have it
        del data["tenant"]
    return Event(EventType.RUN_CREATED, None, info.requester, at, data)


def run_planned(
    actor: Actor, at: int, revision: int, steps: tuple[StepSpec, ...], planner: StepId | None = None
) -> Event:
    """The run has a plan; the first plan's steps come inside it, so that creating a run is one fact.

    `planner` is the step that wrote it, where one did: who asked for that one asked for these.
    """
    data: dict[str, Any] = {"revision": revision, "steps": [spec_data(spec) for spec in steps]}
    if planner is not None:
        data["planner"] = planner
    return Event(EventType.RUN_PLANNED, None, actor, at, data)


def step_added(actor: Actor, at: int, spec: StepSpec) -> Event:
    """One more step, after the plan."""
    return Event(EventType.STEP_ADDED, spec.id, actor, at, spec_data(spec))


def spec_data(spec: StepSpec) -> dict[str, Any]:
    """A step's definition as event data; its input stands there by digest and size only."""
    data = spec._asdict()
    del data["created_at"], data["added_by"], data["planner"]
    data["needs"] = list(spec.needs)
    data["asked_by"] = list(spec.asked_by)
    if not spec.asked_by:
        del data["asked_by"]
    if not spec.insists:  # journals from before it was known do not have it
        del data["insists"]
    return data


def run_queued(actor: Actor, at: int, allowance: str, step: StepId | None) -> Event:
    """Somebody said `start` (no step) or `execute` (the step that may now run)."""
    return Event(EventType.RUN_QUEUED, step, actor, at, {"allowance": allowance})


def step_inherited(actor: Actor, at: int, inherited: Inherited) -> Event:
    """A step of a fork ended before, in the run that was forked."""
    data = inherited._asdict()
    del data["step_id"]
    data["usage"] = forking.usage_data(inherited.usage)
    return Event(EventType.STEP_INHERITED, inherited.step_id, actor, at, data)


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
    required = approval.required
    data: dict[str, Any] = {
        "request_id": approval.request_id,
        "revision": approval.revision,
        "action_hash": approval.action_hash,
        "risk": approval.risk,
        "rendering_sha256": approval.rendering_sha256,
        "required": required.persons,
        "expires_at": approval.expires_at,
        "on_expiry": approval.on_expiry,
        "policy_version": approval.policy_version,
        "matched_rules": list(approval.matched_rules),
    }
    # Left out where nothing is said, as in journals from before they were known.
    if required.roles:
        data["roles"] = [list(group) for group in required.roles]
    if required.exclude_requester:
        data["exclude_requester"] = True
    return Event(EventType.APPROVAL_REQUESTED, step, actor, at, data)


def model_called(
    actor: Actor,
    at: int,
    step: StepId,
    *,
    call_id: str,
    request_hash: str,
    router: str,
    model: str | None,
    worst: Charge | None,
) -> Event:
    """A call is about to leave; `worst` is what it may cost at most, where a budget is watched."""
    data = {"call_id": call_id, "request_hash": request_hash, "router": router, "model": model}
    if worst is not None:  # journals from before it was known do not have it
        return Event(EventType.MODEL_CALLED, step, actor, at, {**data, "worst": worst.data()})
    return Event(EventType.MODEL_CALLED, step, actor, at, data)


def budget_alerted(actor: Actor, at: int, alert: Alert) -> Event:
    """So much of a budget is spent."""
    return Event(EventType.BUDGET_ALERTED, None, actor, at, alert.data())


def budget_extended(actor: Actor, at: int, budget: Budget, add_usd: Decimal | None, add_tokens: int | None) -> Event:
    """Somebody added so much to the run's limits; they come along as they are from now on."""
    added = {"cost_usd": money.text(add_usd), "tokens": add_tokens}
    cost = None if budget.cost_usd is None else budget.cost_usd + (add_usd or 0)
    tokens = None if budget.tokens is None else budget.tokens + (add_tokens or 0)
    limit = {"cost_usd": money.text(cost), "tokens": tokens}
    return Event(EventType.BUDGET_EXTENDED, None, actor, at, {"added": added, "limit": limit})


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
    answer_sha256: str | None = None,
) -> Event:
    """A model call ended; a cost or a count the router did not say is null. The answer is kept by digest, if it is."""
    data = {
        "call_id": call_id,
        "status": status,
        "model": model,
        "cost_usd": money.text(cost_usd),
        "cost_source": cost_source,
        "tokens": dict(tokens),
        "latency_ms": latency_ms,
    }
    if answer_sha256 is not None:  # journals from before answers were kept do not have it
        data["answer_sha256"] = answer_sha256
    return Event(EventType.MODEL_SETTLED, step, actor, at, data)
