"""The rows a state stands for: what `runs`, `steps` and the approval tables must hold, to the column.

Storage writes these rows in the transaction of the events; `verify` folds the journal and compares.
Columns that no event decides are listed in `UNJOURNALED` and nowhere else.
"""

from typing import Any, NamedTuple

import orjson

from stepgate.domain.state import Approval, ApprovalStatus, RunState, StepState
from stepgate.domain.wake import next_wake

UNJOURNALED = {
    "runs": ("worker_id", "lease_epoch", "lost_leases", "held_until", "held_for", "plan"),
    "steps": ("tenant_id", "input", "output"),
    "approval_requests": ("tenant_id", "rendering"),
    "approval_decisions": ("tenant_id",),
}
"""Bodies (their digests are journaled), lease bookkeeping, and the run's tenant, said again for the lists."""


class RunRow(NamedTuple):
    """The columns of `runs` that change; what `run.created` said is written once."""

    id: str
    status: str
    phase: str
    reason: str | None
    allowance: str | None
    plan_revision: int
    steps_total: int
    steps_done: int
    model_calls: int
    unknown_cost_calls: int
    known_cost_usd: Any
    tokens_input: int | None
    tokens_output: int | None
    tokens_cached: int | None
    tokens_reasoning: int | None
    budget: str | None
    workspace_rev: str | None
    wake_at: int | None
    updated_at: int
    started_at: int | None
    completed_at: int | None
    undone_at: int | None


class RunFacts(NamedTuple):
    """The columns of `runs` written once, when it is created; JSON columns as canonical text."""

    id: str
    goal: str
    name: str | None
    workspace_id: str
    workspace_path: str
    workspace_mode: str
    pool: str
    labels: str
    metadata: str
    limits: str
    requester: str
    requester_kind: str
    requester_channel: str
    created_at: int
    tenant_id: str
    origin: str | None


class StepFacts(NamedTuple):
    """The columns of `steps` written once, when it is added."""

    id: str
    run_id: str
    key: str
    number: int
    type: str
    effect: str
    gate: str
    max_attempts: int
    backoff_ms: int
    timeout_ms: int | None
    on_error: str
    why: str | None
    created_at: int


class StepRow(NamedTuple):
    """The columns of `steps` that change."""

    id: str
    run_id: str
    status: str
    reason: str | None
    granted: bool
    input_sha256: str
    input_size: int
    attempt: int
    retry_at: int | None
    error: str | None
    output_sha256: str | None
    output_size: int | None
    change_set_id: str | None
    change_set_digest: str | None
    workspace_before: str | None
    workspace_after: str | None
    latency_ms: int | None
    model_calls: int
    unknown_cost_calls: int
    known_cost_usd: Any
    cost_source: str | None
    model: str | None
    tokens_input: int | None
    tokens_output: int | None
    tokens_cached: int | None
    tokens_reasoning: int | None
    started_at: int | None
    completed_at: int | None


class RequestRow(NamedTuple):
    """One row of `approval_requests`."""

    id: str
    run_id: str
    step_id: str
    revision: int
    action_hash: str
    risk: str
    rendering_sha256: str
    required: int
    roles: str
    exclude_requester: bool
    expires_at: int | None
    on_expiry: str
    policy_version: str
    matched_rules: str
    requested_at: int
    status: str
    reminded: int


class DecisionRow(NamedTuple):
    """One row of `approval_decisions`: one answer to a request; the one that `settles` it stands."""

    request_id: str
    run_id: str
    number: int
    settles: bool
    actor: str
    actor_kind: str
    channel: str
    on_behalf_of: str | None
    roles: str
    verdict: str
    reason: str | None
    then: str | None
    action_hash: str
    implied: bool
    at: int


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def run_facts(state: RunState) -> RunFacts:
    info = state.info
    return RunFacts(
        info.id,
        info.goal,
        info.name,
        info.workspace_id,
        info.workspace_path,
        info.workspace_mode,
        info.pool,
        _text(info.labels),
        _text(info.metadata),
        _text(info.limits),
        info.requester.id,
        info.requester.kind,
        info.requester.channel,
        info.created_at,
        info.tenant,
        None if info.origin is None else _text(info.origin),
    )


def run_row(state: RunState) -> RunRow:
    usage, budget = state.usage, state.budget.data()
    return RunRow(
        state.info.id,
        state.status,
        state.phase,
        state.reason,
        state.allowance,
        state.revision,
        state.total,
        state.done,
        usage.calls,
        usage.unknown,
        usage.cost_usd,
        usage.input,
        usage.output,
        usage.cached,
        usage.reasoning,
        None if budget is None else _text(budget),
        state.workspace_rev,
        next_wake(state),
        state.last_at,
        state.started_at,
        state.completed_at,
        state.undone_at,
    )


def step_facts(run_id: str, step: StepState) -> StepFacts:
    spec = step.spec
    return StepFacts(
        spec.id,
        run_id,
        spec.key,
        spec.number,
        spec.type,
        spec.effect.value,
        spec.gate.value,
        spec.max_attempts,
        spec.backoff_ms,
        spec.timeout_ms,
        spec.on_error,
        spec.why,
        spec.created_at,
    )


_NO_RESULT = (None,) * 7


def step_row(run_id: str, step: StepState) -> StepRow:
    result, usage = step.result, step.usage
    return StepRow._make(
        (
            step.spec.id,
            run_id,
            step.status,
            step.reason,
            step.granted,
            step.spec.input_sha256,
            step.spec.input_size,
            step.attempt,
            step.retry_at,
            None if step.error is None else _text(step.error),
            *(_NO_RESULT if result is None else result),
            usage.calls,
            usage.unknown,
            usage.cost_usd,
            usage.source,
            usage.model,
            usage.input,
            usage.output,
            usage.cached,
            usage.reasoning,
            step.started_at,
            step.completed_at,
        )
    )


def request_row(run_id: str, step: StepState, approval: Approval) -> RequestRow:
    return RequestRow(
        approval.request_id,
        run_id,
        step.spec.id,
        approval.revision,
        approval.action_hash,
        approval.risk,
        approval.rendering_sha256,
        approval.required.persons,
        _text(approval.required.roles),
        approval.required.exclude_requester,
        approval.expires_at,
        approval.on_expiry,
        approval.policy_version,
        _text(approval.matched_rules),
        approval.requested_at,
        approval.status.value,
        approval.reminded,
    )


def decision_rows(run_id: str, approval: Approval) -> tuple[DecisionRow, ...]:
    """Every answer in order (expiry is none). A question that nobody settled has none that `settles`."""
    decided = approval.decided_by is not None and approval.status is not ApprovalStatus.EXPIRED
    return tuple(
        DecisionRow(
            approval.request_id,
            run_id,
            number,
            decided and number == len(approval.voices),
            voice.actor.id,
            voice.actor.kind,
            voice.actor.channel,
            voice.on_behalf_of,
            _text(voice.roles),
            voice.verdict.value,
            voice.reason,
            approval.then if voice.verdict is ApprovalStatus.REJECTED else None,
            approval.action_hash,
            voice.implied,
            voice.at,
        )
        for number, voice in enumerate(approval.voices, start=1)
    )
